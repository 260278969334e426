//! How the daemon receives `NOTIFY clerk2pg`: over a cut connection, behind a pooler, and beside
//! another daemon.

use rustix::process::Signal;

use crate::support::{
    fixture::Fixture,
    on_demand::{DEBUG, LISTENING, assert_clean_stop, start_on_demand},
    process::NEVER,
    proxy::{Proxy, upstream},
    summary::Exit,
    wait::eventually,
};

#[tokio::test(flavor = "multi_thread")]
async fn dropped_notifications_are_reported_and_the_schedule_goes_on() {
    let fixture = Fixture::new(20).await;
    let pooler = Proxy::without_notifications(upstream(&fixture.db.url));
    let daemon = fixture.start_daemon(&[
        NEVER,
        ("CLERK2PG_SCHEDULE__INCREMENTAL", "* * * * * *"),
        ("DATABASE_URL", &pooler.url(&fixture.db.url)),
    ]);
    fixture.syncs(1).await;
    fixture.sim.create_random();
    fixture.wait_for_next_sync().await;
    let warning = "NOTIFY clerk2pg does not arrive";
    assert_eq!(daemon.count_in_log(warning), 0, "{}", daemon.log());
    daemon.wait_for_log(warning).await;
    let old = fixture.sim.user_ids();
    fixture.age_rows().await;
    for gone in &old[..2] {
        fixture.sim.create_random();
        assert!(fixture.sim.delete(gone));
        fixture.wait_for_next_sync().await;
    }
    let ran = daemon.stop(Signal::TERM).await;
    ran.assert_exit(Exit::Ok);
    assert_eq!(ran.stderr.matches(warning).count(), 1, "{ran:#?}");
    assert_eq!(ran.stderr.matches("WARN").count(), 1, "{ran:#?}");
    assert_eq!(fixture.runs("kind = 'on_demand'").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_listening_connection_is_replaced() {
    let (fixture, daemon) = start_on_demand(20).await;
    for times in 2..4 {
        let listening = "datname = current_database() AND query LIKE 'LISTEN%'";
        let cut = format!("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {listening}");
        assert_eq!(fixture.db.number(&cut).await, 1);
        let id = fixture.sim.create_random();
        fixture.notify(&id).await;
        eventually("the user's row", async || fixture.has_user(&id).await).await;
        eventually("it listens again", async || daemon.count_in_log(LISTENING) == times).await;
        fixture.sync_new_user().await;
    }
    fixture.assert_in_sync().await;
    assert_clean_stop(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn notifications_sent_during_an_outage_are_handled_afterwards() {
    let fixture = Fixture::new(20).await;
    let mut postgres = Proxy::open(upstream(&fixture.db.url));
    let daemon = fixture.start_daemon(&[NEVER, DEBUG, ("DATABASE_URL", &postgres.url(&fixture.db.url))]);
    daemon.wait_for_log(LISTENING).await;
    fixture.syncs(1).await;
    postgres.refuse().await;
    let id = fixture.sim.create_random();
    fixture.notify(&id).await;
    fixture.notify("sync").await;
    daemon.wait_for_log("cannot listen yet").await;
    assert!(!fixture.has_user(&id).await);
    postgres.open_again();
    eventually("the user's row", async || fixture.has_user(&id).await).await;
    fixture.assert_in_sync().await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_leader_handles_a_notification() {
    let fixture = Fixture::new(20).await;
    // A starting daemon replaces an expired leader. This one has not expired by then.
    let lease = ("CLERK2PG_LEASE__TTL", "20s");
    let leader = fixture.start_on_demand_with(&[lease]).await;
    let standby = fixture.start_daemon(&[NEVER, DEBUG, lease]);
    standby.wait_for_log(LISTENING).await;
    standby.wait_for_log("standing by").await;
    for nth in 1..=5 {
        fixture.sync_new_user().await;
        assert_eq!(fixture.last_event().await, nth);
    }
    let last = fixture.sync_new_user().await;
    let asked = fixture
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
    fixture.sync_new_user().await;
    fixture.assert_in_sync().await;
    assert_clean_stop(standby).await;
    assert_eq!(fixture.runs("kind = 'on_demand'").await, 7);
    assert_eq!(fixture.runs("outcome NOT IN ('changed', 'in_sync')").await, 0);
    fixture.assert_one_at_a_time().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_leaves_one_listening_connection() {
    let (fixture, daemon) = start_on_demand(20).await;
    daemon.signal(Signal::HUP);
    eventually("it listens again", async || daemon.count_in_log(LISTENING) == 2).await;
    eventually("the full sync of a start", async || {
        daemon.count_in_log("full sync outcome") == 2
    })
    .await;
    let listening = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'";
    eventually("the old listening connection is closed", async || {
        fixture.db.number(listening).await == 1
    })
    .await;
    fixture.sync_new_user().await;
    assert_clean_stop(daemon).await;
}
