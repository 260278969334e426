//! A held deletion is released in two ways only: a person approves it, or Clerk shows the user
//! again.

use std::collections::BTreeSet;

use clerk_sim::Quirks;

use crate::support::{
    fixture::{Fixture, mirrored, mirrored_ids},
    on_demand::start_on_demand,
    summary::{Exit, changed, held},
    wait::eventually,
};

/// Deletes Clerk's oldest users.
fn delete(fixture: &Fixture, users: usize) -> BTreeSet<String> {
    let ids: BTreeSet<String> = fixture.sim.user_ids().into_iter().take(users).collect();
    assert!(ids.iter().all(|id| fixture.sim.delete(id)));
    ids
}

async fn assert_kept(fixture: &Fixture, held: &BTreeSet<String>, when: &str) {
    let mirror = mirrored_ids(fixture).await;
    let lost: Vec<_> = held.difference(&mirror).collect();
    assert!(lost.is_empty(), "{when}: {lost:?} went without approval");
}

async fn approve(fixture: &Fixture) {
    let status = fixture.run(&["status", "--format", "json"]).await.json();
    let ran = fixture.run(&["approve", status["plan"].as_str().unwrap()]).await;
    ran.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_growing_table_releases_nothing() {
    let fixture = mirrored(50).await;
    let held_ids = delete(&fixture, 11);
    fixture.once().await.assert(Exit::Held, held(11).unchanged(39));
    for _ in 0..20 {
        fixture.sim.create_random();
    }
    fixture
        .once()
        .await
        .assert(Exit::Held, held(11).created(20).unchanged(39));
    fixture.once().await.assert(Exit::Held, held(11).unchanged(59));
    assert_kept(&fixture, &held_ids, "the table has grown").await;
    approve(&fixture).await;
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().deleted(11).unchanged(59));
    fixture.assert_in_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn passing_time_releases_nothing() {
    let fixture = mirrored(1_000).await;
    delete(&fixture, 190);
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().deleted(190).unchanged(810));
    let held_ids = delete(&fixture, 100);
    fixture.once().await.assert(Exit::Held, held(100).unchanged(710));
    // Two hours later.
    for sql in [
        "UPDATE clerk.recent_deletions SET deleted_at = deleted_at - interval '2 hours'",
        "UPDATE clerk.missing SET held_at = held_at - interval '2 hours', found_at = found_at - interval '2 hours'",
        "UPDATE clerk.sync_runs SET started_at = started_at - interval '2 hours', ended_at = ended_at - interval '2 hours'",
    ] {
        fixture.db.execute(sql).await;
    }
    fixture.once().await.assert(Exit::Held, held(100).unchanged(710));
    assert_kept(&fixture, &held_ids, "two hours have passed").await;
    // Few other users are deleted meanwhile: the limits allow these.
    approve(&fixture).await;
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().deleted(100).unchanged(710));
    fixture.assert_in_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_without_missing_users_releases_nothing() {
    let fixture = mirrored(50).await;
    let held_ids = delete(&fixture, 12);
    fixture.once().await.assert(Exit::Held, held(12).unchanged(38));
    let blind = Quirks {
        ignore_order_by: true,
        ..Quirks::default()
    };
    fixture.sim.set_faults(blind);
    let ran = fixture.once().await;
    assert_eq!(ran.json()["held"], 12, "{ran:#?}");
    fixture.sim.clear_faults();
    let generous = [("CLERK2PG_DELETES__MIN_COUNT", "100")];
    fixture
        .once_with(&generous)
        .await
        .assert(Exit::Held, held(12).unchanged(38));
    assert_kept(&fixture, &held_ids, "other limits").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_user_that_clerk_shows_again_is_released() {
    let fixture = mirrored(50).await;
    let back = fixture.sim.user_ids()[3].clone();
    let document = fixture.sim.document(&back).unwrap();
    let held_ids = delete(&fixture, 12);
    fixture.once().await.assert(Exit::Held, held(12).unchanged(38));
    fixture.sim.insert(document);
    // A lagging replica shows deleted users for some seconds.
    fixture.once().await.assert(Exit::Held, held(12).unchanged(39));
    fixture.age_rows().await;
    fixture.once().await.assert(Exit::Held, held(11).unchanged(39));
    assert_kept(&fixture, &held_ids, "one is back").await;
    let plan = fixture.run(&["--dry-run"]).await;
    assert!(!plan.stdout.contains(&back), "{plan:#?}");
    assert_eq!(plan.stdout.matches("(held)").count(), 11, "{plan:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_deletes_what_is_approved_and_nothing_held() {
    let (fixture, daemon) = start_on_demand(50).await;
    let held = delete(&fixture, 11);
    fixture.notify("sync").await;
    eventually("deletions are held", async || fixture.runs("held = 11").await > 0).await;
    for _ in 0..30 {
        fixture.sim.create_random();
    }
    for ask in ["sync", "full"] {
        let last = fixture.db.number("SELECT max(id) FROM clerk.sync_runs").await;
        fixture.notify(ask).await;
        let done = format!("id > {last} AND ended_at IS NOT NULL AND outcome <> 'failed'");
        eventually("a sync", async || fixture.runs(&done).await > 0).await;
        assert_kept(&fixture, &held, ask).await;
    }
    for id in &held {
        fixture.notify(id).await;
    }
    let new = fixture.sim.create_random();
    fixture.notify(&new).await;
    eventually("the new user", async || fixture.has_user(&new).await).await;
    assert_kept(&fixture, &held, "asked for one by one").await;
    approve(&fixture).await;
    eventually("all go", async || mirrored_ids(&fixture).await.is_disjoint(&held)).await;
    fixture.assert_in_sync().await;
    daemon.stop(rustix::process::Signal::TERM).await.assert_exit(Exit::Ok);
}
