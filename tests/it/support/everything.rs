//! Runs everything that a daemon and its commands do, with one database URL.

use rustix::process::Signal;

use crate::support::{
    fixture::Fixture,
    process::{EVERY_SECOND, NEVER, Process},
    summary::{Exit, changed, held, planned},
    wait::eventually,
};

/// Runs each command and a daemon with this database URL.
pub async fn do_everything(fixture: &Fixture, url: &str, environment: &[(&str, &str)]) {
    let all = [environment, &[("DATABASE_URL", url)]].concat();
    let once = async || fixture.run_with(&["--once", "--format", "json"], &all).await;
    let db = &fixture.db;

    once().await.assert(Exit::Ok, changed().created(60));
    // A user that the application refuses, and old events.
    db.execute("ALTER TABLE clerk.users ADD CHECK (first_name <> 'Unwanted')")
        .await;
    db.execute(
        "INSERT INTO clerk.events (resource, type, object_id, occurred_at, payload, recorded_at)
         VALUES ('users', 'user.created', 'user_old', now(), '{}', now() - interval '31 days')",
    )
    .await;
    let ids = fixture.sim.user_ids();
    fixture
        .sim
        .update(&ids[3], |user| user["first_name"] = "Unwanted".into());
    fixture
        .sim
        .update(&ids[4], |user| user["first_name"] = "Changed".into());
    fixture.sim.delete(&ids[5]);
    fixture.sim.create_random();
    once().await.assert(
        Exit::Ok,
        changed().created(1).updated(1).deleted(1).unchanged(57).rejected(1),
    );
    let events = "SELECT string_agg(type, ' ' ORDER BY type) FROM clerk.user_events";
    let expected = "user.created user.deleted user.updated";
    assert_eq!(
        db.text(events).await.as_deref(),
        Some(expected),
        "the old one is pruned"
    );
    fixture.sim.update(&ids[3], |user| user["first_name"] = "Wanted".into());
    once().await.assert(Exit::Ok, changed().updated(1).unchanged(59));

    for id in &ids[10..25] {
        fixture.sim.delete(id);
    }
    let plan = fixture.run_with(&["--dry-run", "--format", "json"], &all).await;
    plan.assert(Exit::Ok, planned().unchanged(45).held(15));
    let ran = once().await;
    ran.assert(Exit::Held, held(15).unchanged(45));
    let sum = ran.json()["plan"].as_str().unwrap().to_owned();
    let status = fixture.run_with(&["status"], &all).await;
    assert!(
        status.stdout.contains(&format!("clerk2pg approve {sum}")),
        "{status:#?}"
    );
    let approved = fixture.run_with(&["approve", &sum], &all).await;
    approved.assert_exit(Exit::Ok);
    once().await.assert(Exit::Ok, changed().deleted(15).unchanged(45));

    let daemon = Process::new(fixture.daemon(&[&all[..], &[NEVER, EVERY_SECOND]].concat()));
    fixture.wait_until_mirrored().await;
    fixture.sim.create_random();
    fixture.sim.update_random();
    fixture.sim.delete_random();
    fixture.wait_until_mirrored().await;
    let id = fixture.sim.create_random();
    fixture.notify(&id).await;
    eventually("the user's row", async || fixture.has_user(&id).await).await;
    let ran = daemon.stop(Signal::TERM).await;
    ran.assert_exit(Exit::Ok);
    assert!(
        !ran.stderr.contains("WARN") && !ran.stderr.contains("ERROR"),
        "{ran:#?}"
    );
    assert_eq!(fixture.lease_holder().await, None);
    fixture.assert_in_sync().await;

    let marking = [&all[..], &[("CLERK2PG_DELETES__MODE", "mark")]].concat();
    fixture.sim.delete_random();
    let marked = fixture.run_with(&["--once", "--format", "json"], &marking).await;
    marked.assert(Exit::Ok, changed().deleted(1).unchanged(45));
}
