//! How the daemon receives `NOTIFY clerk2pg`: over a cut connection, behind a pooler, and beside
//! another daemon.

use rustix::process::Signal;

use crate::support::{
    fixture::World,
    on_demand::{DEBUG, LISTENING, assert_clean_stop, start_on_demand},
    process::NEVER,
    proxy::{Proxy, upstream},
    wait::eventually,
};

#[tokio::test(flavor = "multi_thread")]
async fn dropped_notifications_are_reported_and_the_schedule_goes_on() {
    let world = World::new(20).await;
    let pooler = Proxy::without_notifications(upstream(&world.db.url));
    let daemon = world.start_daemon(&[
        NEVER,
        ("CLERK2PG_SCHEDULE__INCREMENTAL", "* * * * * *"),
        ("DATABASE_URL", &pooler.url(&world.db.url)),
    ]);
    world.syncs(1).await;
    world.sim.create_random();
    world.wait_for_next_sync().await;
    let warning = "NOTIFY clerk2pg does not arrive";
    assert_eq!(daemon.count_in_log(warning), 0, "{}", daemon.log());
    daemon.wait_for_log(warning).await;
    let old = world.sim.user_ids();
    world.age_rows().await;
    for gone in &old[..2] {
        world.sim.create_random();
        assert!(world.sim.delete(gone));
        world.wait_for_next_sync().await;
    }
    let ran = daemon.stop(Signal::TERM).await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    assert_eq!(ran.stderr.matches(warning).count(), 1, "{ran:#?}");
    assert_eq!(ran.stderr.matches("WARN").count(), 1, "{ran:#?}");
    assert_eq!(world.runs("kind = 'on_demand'").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_listening_connection_is_replaced() {
    let (world, daemon) = start_on_demand(20).await;
    for times in 2..4 {
        let listening = "datname = current_database() AND query LIKE 'LISTEN%'";
        let cut = format!("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {listening}");
        assert_eq!(world.db.number(&cut).await, 1);
        let id = world.sim.create_random();
        world.notify(&id).await;
        eventually("the user's row", async || world.has_user(&id).await).await;
        eventually("it listens again", async || daemon.count_in_log(LISTENING) == times).await;
        world.sync_new_user().await;
    }
    world.assert_in_sync().await;
    assert_clean_stop(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn notifications_sent_during_an_outage_are_handled_afterwards() {
    let world = World::new(20).await;
    let mut postgres = Proxy::open(upstream(&world.db.url));
    let daemon = world.start_daemon(&[NEVER, DEBUG, ("DATABASE_URL", &postgres.url(&world.db.url))]);
    daemon.wait_for_log(LISTENING).await;
    world.syncs(1).await;
    postgres.refuse().await;
    let id = world.sim.create_random();
    world.notify(&id).await;
    world.notify("sync").await;
    daemon.wait_for_log("cannot listen yet").await;
    assert!(!world.has_user(&id).await);
    postgres.open_again();
    eventually("the user's row", async || world.has_user(&id).await).await;
    world.assert_in_sync().await;
    assert_eq!(daemon.stop(Signal::TERM).await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_leader_handles_a_notification() {
    let world = World::new(20).await;
    // A starting daemon replaces an expired leader. This one has not expired by then.
    let lease = ("CLERK2PG_LEASE__TTL", "20s");
    let leader = world.start_on_demand_with(&[lease]).await;
    let standby = world.start_daemon(&[NEVER, DEBUG, lease]);
    standby.wait_for_log(LISTENING).await;
    standby.wait_for_log("standing by").await;
    for nth in 1..=5 {
        world.sync_new_user().await;
        assert_eq!(world.last_event().await, nth);
    }
    let last = world.sync_new_user().await;
    let asked = world
        .sim
        .log()
        .iter()
        .filter(|request| request.path.ends_with(&last))
        .count();
    assert_eq!(asked, 1, "both daemons read the user");
    assert_clean_stop(leader).await;
    standby.wait_for_log("this daemon leads now").await;
    eventually("its first full sync is over", async || {
        standby.count_in_log("full sync outcome") > 0
    })
    .await;
    world.sync_new_user().await;
    world.assert_in_sync().await;
    assert_clean_stop(standby).await;
    assert_eq!(world.runs("kind = 'on_demand'").await, 7);
    assert_eq!(world.runs("outcome NOT IN ('changed', 'in_sync')").await, 0);
    world.assert_one_at_a_time().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_leaves_one_listening_connection() {
    let (world, daemon) = start_on_demand(20).await;
    daemon.signal(Signal::HUP);
    eventually("it listens again", async || daemon.count_in_log(LISTENING) == 2).await;
    eventually("the full sync of a start", async || {
        daemon.count_in_log("full sync outcome") == 2
    })
    .await;
    let listening = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'";
    eventually("the old listening connection is closed", async || {
        world.db.number(listening).await == 1
    })
    .await;
    world.sync_new_user().await;
    assert_clean_stop(daemon).await;
}
