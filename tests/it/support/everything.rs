//! Runs everything that a daemon and its commands do, with one database URL.

use std::fs;

use rustix::process::Signal;
use tempfile::NamedTempFile;

use crate::support::{
    fixture::Fixture,
    process::{EVERY_SECOND, NEVER, Process},
    receiver::{Receiver, Reply},
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
    deliver_everything(fixture, &all).await;
}

/// Delivers events: late ones, dead ones, those of a paused endpoint, and again. Then the endpoint
/// is renamed and removed.
async fn deliver_everything(fixture: &Fixture, environment: &[(&str, &str)]) {
    let db = &fixture.db;
    let ids = fixture.sim.user_ids();
    let refused = ids[0].clone();
    let receiver = Receiver::answering(move |event| match event.object() == refused {
        true => Reply::status(500),
        false => Reply::ok(),
    })
    .await;
    let config = NamedTempFile::with_suffix(".toml").unwrap();
    let path = config.path().to_str().unwrap();
    let configure = |endpoints: &str| fs::write(path, endpoints).unwrap();
    let start = || {
        let mut command = fixture.command(&["--config", path]);
        command.envs(environment.iter().copied()).envs([NEVER, EVERY_SECOND]);
        Process::spawn(command)
    };
    let run = async |arguments: &[&str]| {
        let ran = fixture
            .run_with(&[&["--config", path], arguments].concat(), environment)
            .await;
        ran.assert_exit(Exit::Ok);
    };
    let becomes = async |what: &str, sql: &str, count: i64| {
        eventually(what, async || db.number(sql).await == count).await;
    };
    let rename = |id: &str, name: &str| fixture.sim.update(id, |user| user["first_name"] = name.into());

    configure(&format!("{}start = \"everything\"\n", receiver.endpoint("app")));
    let daemon = start();
    let late = "SELECT count(*) FROM clerk.deliveries WHERE dead_at IS NULL";
    becomes("all but one are delivered", late, 1).await;
    rename(&ids[0], "Blocked");
    becomes("an event is blocked", late, 2).await;
    db.execute("UPDATE clerk.deliveries SET attempts = 7, next_attempt_at = now() WHERE next_attempt_at IS NOT NULL")
        .await;
    becomes("an event is dead", "SELECT count(dead_at) FROM clerk.deliveries", 1).await;
    receiver.answer(|_| Reply::status(500));
    for id in &ids[1..8] {
        rename(id, "Refused");
    }
    becomes(
        "the endpoint is paused",
        "SELECT count(paused_at) FROM clerk.endpoints",
        1,
    )
    .await;
    receiver.answer(|_| Reply::ok());
    let is_done = "SELECT count(*) FROM clerk.endpoints WHERE paused_at IS NULL AND removed_at IS NULL
        AND position = (SELECT max(id) FROM clerk.events)
        AND NOT EXISTS (SELECT FROM clerk.deliveries WHERE dead_at IS NULL)";
    becomes("it works again", is_done, 1).await;
    run(&["redeliver", "app"]).await;
    becomes("the dead event is delivered", is_done, 1).await;
    run(&["redeliver", "app", "--since", "1h"]).await;
    run(&["redeliver", "app", "--since", "2026-01-01T00:00:00Z"]).await;
    run(&["redeliver", "app", "--id", "1"]).await;
    run(&["redeliver", "app", "--everything"]).await;
    run(&["endpoints"]).await;
    run(&["status"]).await;
    run(&["send-test", "app"]).await;
    becomes("everything is delivered again", is_done, 1).await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);

    configure(&receiver.endpoint("shop"));
    let daemon = start();
    let renamed = "SELECT count(*) FROM clerk.endpoints WHERE name = 'shop' AND delivered_at IS NOT NULL";
    becomes("it is renamed", renamed, 1).await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    configure("");
    let daemon = start();
    becomes("it is removed", "SELECT count(removed_at) FROM clerk.endpoints", 1).await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}
