//! SIGTERM and SIGINT end the daemon in time, whatever it does, and leave nothing that others wait
//! for.

use clerk_sim::{Effect, Endpoint, ErrorAnswer, ErrorBody, Rule};
use rustix::process::Signal;

use crate::support::{
    database::connect,
    fixture::Fixture,
    process::{NEVER, Process},
    proxy::{Proxy, upstream},
    summary::{Exit, changed},
    wait::eventually,
};

/// Waits until a connection of the program waits for a lock.
async fn is_blocked(fixture: &Fixture) {
    let waiting = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'clerk2pg' AND wait_event_type = 'Lock'";
    eventually("it waits for a lock", async || fixture.db.number(waiting).await > 0).await;
}

async fn stops(daemon: Process, signal: Signal) {
    let ran = daemon.stop(signal).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), ""), "{ran:#?}");
    assert!(ran.stderr.contains("stopping"), "{ran:#?}");
    assert!(!ran.stderr.contains("error:"), "{ran:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_daemon_stops() {
    let fixture = Fixture::new(10).await;
    for signal in [Signal::TERM, Signal::INT] {
        let before = fixture.runs("ended_at IS NOT NULL").await;
        let daemon = fixture.start_daemon(&[NEVER]);
        fixture.syncs(before + 1).await;
        stops(daemon, signal).await;
        assert_eq!(fixture.lease_holder().await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_stops_during_an_endless_page() {
    for signal in [Signal::TERM, Signal::INT] {
        let fixture = Fixture::new(10).await;
        fixture.sim.set_faults(Rule::new(Effect::Stall).on([Endpoint::List]));
        let daemon = fixture.start_daemon(&[("CLERK2PG_CLERK__TIMEOUT", "60s")]);
        let asked = async || fixture.sim.requests_by_path().contains_key("GET /v1/users");
        eventually("the page is asked for", asked).await;
        stops(daemon, signal).await;
        assert_eq!(fixture.lease_holder().await, None);
        assert_eq!(fixture.runs("outcome = 'failed' AND error LIKE 'stopped%'").await, 1);
        fixture.sim.clear_faults();
        fixture.once().await.assert(Exit::Ok, changed().created(10));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_stops_between_two_attempts() {
    let fixture = Fixture::new(10).await;
    fixture.sim.set_faults(Rule::new(Effect::Error(ErrorAnswer {
        status: 429,
        retry_after: Some(30),
        body: ErrorBody::Json,
    })));
    let daemon = fixture.start_daemon(&[]);
    eventually("it is asked to wait", async || fixture.sim.requests() > 0).await;
    stops(daemon, Signal::TERM).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_stops_while_it_waits_for_clerk() {
    let fixture = Fixture::new(10).await;
    let nobody = Proxy::refusing(upstream(&fixture.sim.url()));
    let url = format!("http://{}", nobody.address);
    for signal in [Signal::TERM, Signal::INT] {
        let daemon = fixture.start_daemon(&[("CLERK_API_URL", &url), ("CLERK2PG_CLERK__TIMEOUT", "100ms"), NEVER]);
        daemon.wait_for_log("waiting until it can be reached").await;
        stops(daemon, signal).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_stops_while_postgres_is_silent() {
    let fixture = Fixture::new(10).await;
    let mut silent = Proxy::refusing(upstream(&fixture.db.url));
    silent.go_silent();
    let daemon = fixture.start_daemon(&[("DATABASE_URL", &silent.url(&fixture.db.url))]);
    eventually("it connects", async || silent.connections() > 0).await;
    stops(daemon, Signal::TERM).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_stops_while_the_table_is_locked() {
    for (mode, signal) in [("EXCLUSIVE", Signal::TERM), ("ACCESS EXCLUSIVE", Signal::INT)] {
        let fixture = Fixture::new(30).await;
        let daemon = fixture.start_daemon(&[]);
        fixture.syncs(1).await;
        let other = connect(&fixture.db.url).await;
        other
            .batch_execute(&format!("BEGIN; LOCK TABLE clerk.users IN {mode} MODE"))
            .await
            .unwrap();
        (0..5).for_each(|_| drop(fixture.sim.create_random()));
        is_blocked(&fixture).await;
        stops(daemon, signal).await;

        other.batch_execute("COMMIT").await.unwrap();
        assert_eq!(fixture.users().await, 30, "half a batch was written");
        // Users of the interrupted walk are not read again.
        let rest = 30 - fixture.checkpoint().await;
        fixture
            .once()
            .await
            .assert(Exit::Ok, changed().created(5).unchanged(rest as usize));
        fixture.assert_in_sync().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_stops_while_another_one_syncs() {
    let fixture = Fixture::new(10).await;
    fixture.sim.set_faults(Rule::new(Effect::Stall).on([Endpoint::List]));
    let at_work = fixture.start_full_sync(&[("CLERK2PG_CLERK__TIMEOUT", "60s")]);
    eventually("the first is at work", async || {
        fixture.runs("outcome = 'running'").await == 1
    })
    .await;
    let waiting = fixture.start_daemon(&[]);
    waiting.wait_for_log("waiting for another clerk2pg to finish").await;
    stops(waiting, Signal::TERM).await;
    assert_eq!(fixture.runs("true").await, 1, "the one that waited was no sync");
    assert!(fixture.lease_holder().await.is_some(), "it let go of the other's lease");
    at_work.kill().await;
}
