//! A held deletion is released in two ways only: a person approves it, or Clerk shows the user
//! again.

use std::collections::BTreeSet;

use clerk_sim::Quirks;

use crate::support::{
    fixture::{World, mirrored, mirrored_ids},
    on_demand::start_on_demand,
    summary::{Exit, changed, held},
    wait::eventually,
};

/// Deletes Clerk's oldest users.
fn delete(world: &World, users: usize) -> BTreeSet<String> {
    let ids: BTreeSet<String> = world.sim.user_ids().into_iter().take(users).collect();
    assert!(ids.iter().all(|id| world.sim.delete(id)));
    ids
}

async fn assert_kept(world: &World, held: &BTreeSet<String>, when: &str) {
    let mirror = mirrored_ids(world).await;
    let lost: Vec<_> = held.difference(&mirror).collect();
    assert!(lost.is_empty(), "{when}: {lost:?} went without approval");
}

async fn approve(world: &World) {
    let status = world.run(&["status", "--format", "json"]).await.json();
    let ran = world.run(&["approve", status["plan"].as_str().unwrap()]).await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_growing_table_releases_nothing() {
    let world = mirrored(50).await;
    let held_ids = delete(&world, 11);
    world.once().await.assert(Exit::Held, held(11).unchanged(39));
    for _ in 0..20 {
        world.sim.create_random();
    }
    world
        .once()
        .await
        .assert(Exit::Held, held(11).created(20).unchanged(39));
    world.once().await.assert(Exit::Held, held(11).unchanged(59));
    assert_kept(&world, &held_ids, "the table has grown").await;
    approve(&world).await;
    world.once().await.assert(Exit::Ok, changed().deleted(11).unchanged(59));
    world.assert_in_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn passing_time_releases_nothing() {
    let world = mirrored(1_000).await;
    delete(&world, 190);
    world
        .once()
        .await
        .assert(Exit::Ok, changed().deleted(190).unchanged(810));
    let held_ids = delete(&world, 100);
    world.once().await.assert(Exit::Held, held(100).unchanged(710));
    // Two hours later.
    for sql in [
        "UPDATE clerk.recent_deletions SET deleted_at = deleted_at - interval '2 hours'",
        "UPDATE clerk.missing_users SET held_at = held_at - interval '2 hours', found_at = found_at - interval '2 hours'",
        "UPDATE clerk.sync_runs SET started_at = started_at - interval '2 hours', ended_at = ended_at - interval '2 hours'",
    ] {
        world.db.execute(sql).await;
    }
    world.once().await.assert(Exit::Held, held(100).unchanged(710));
    assert_kept(&world, &held_ids, "two hours have passed").await;
    // Few other users are deleted meanwhile: the limits allow these.
    approve(&world).await;
    world
        .once()
        .await
        .assert(Exit::Ok, changed().deleted(100).unchanged(710));
    world.assert_in_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_without_missing_users_releases_nothing() {
    let world = mirrored(50).await;
    let held_ids = delete(&world, 12);
    world.once().await.assert(Exit::Held, held(12).unchanged(38));
    let blind = Quirks {
        ignore_order_by: true,
        ..Quirks::default()
    };
    world.sim.set_faults(blind);
    let ran = world.once().await;
    assert_eq!(ran.json()["held"], 12, "{ran:#?}");
    world.sim.clear_faults();
    let generous = [("CLERK2PG_DELETES__MIN_COUNT", "100")];
    world
        .once_with(&generous)
        .await
        .assert(Exit::Held, held(12).unchanged(38));
    assert_kept(&world, &held_ids, "other limits").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_user_that_clerk_shows_again_is_released() {
    let world = mirrored(50).await;
    let back = world.sim.user_ids()[3].clone();
    let document = world.sim.document(&back).unwrap();
    let held_ids = delete(&world, 12);
    world.once().await.assert(Exit::Held, held(12).unchanged(38));
    world.sim.insert(document);
    // A lagging replica shows deleted users for some seconds.
    world.once().await.assert(Exit::Held, held(12).unchanged(39));
    world.age_rows().await;
    world.once().await.assert(Exit::Held, held(11).unchanged(39));
    assert_kept(&world, &held_ids, "one is back").await;
    let plan = world.run(&["--dry-run"]).await;
    assert!(!plan.stdout.contains(&back), "{plan:#?}");
    assert_eq!(plan.stdout.matches("(held)").count(), 11, "{plan:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_deletes_what_is_approved_and_nothing_held() {
    let (world, daemon) = start_on_demand(50).await;
    let held = delete(&world, 11);
    world.notify("sync").await;
    eventually("deletions are held", async || world.runs("held = 11").await > 0).await;
    for _ in 0..30 {
        world.sim.create_random();
    }
    for ask in ["sync", "full"] {
        let last = world.db.number("SELECT max(id) FROM clerk.sync_runs").await;
        world.notify(ask).await;
        let done = format!("id > {last} AND ended_at IS NOT NULL AND outcome <> 'failed'");
        eventually("a sync", async || world.runs(&done).await > 0).await;
        assert_kept(&world, &held, ask).await;
    }
    for id in &held {
        world.notify(id).await;
    }
    let new = world.sim.create_random();
    world.notify(&new).await;
    eventually("the new user", async || world.has_user(&new).await).await;
    assert_kept(&world, &held, "asked for one by one").await;
    approve(&world).await;
    eventually("all go", async || mirrored_ids(&world).await.is_disjoint(&held)).await;
    world.assert_in_sync().await;
    assert_eq!(daemon.stop(rustix::process::Signal::TERM).await.code, Some(0));
}
