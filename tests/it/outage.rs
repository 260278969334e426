//! Clerk or Postgres is unreachable, at the start or later: the daemon waits, reports it once, and
//! recovers. A single run gives up in time.

use std::time::{Duration, Instant};

use clerk_sim::{Effect, ErrorAnswer, ErrorBody, Faults, Rule};
use rustix::process::Signal;

use crate::support::{
    database::connect,
    fixture::{Fixture, mirrored},
    http_server::{Server, answer},
    monitored::{ANY, MonitoredDaemon},
    polling::PollingDaemon,
    process::{NEVER, Process},
    proxy::{Proxy, upstream},
    summary::{Exit, changed, in_sync},
    wait::{PATIENCE, eventually},
};

const AWAY: &str = "waiting until it can be reached";
const BACK: &str = "back to normal";

/// How long each request of an outage takes, so that there are several attempts in a few seconds.
const IMPATIENT: (&str, &str) = ("CLERK2PG_CLERK__TIMEOUT", "1s");

fn error(status: u16, body: ErrorBody) -> Rule {
    Rule::new(Effect::Error(ErrorAnswer {
        status,
        retry_after: None,
        body,
    }))
}

/// Waits until the daemon is in sync again. It must have reported the outage once and its end once.
async fn recovers(fixture: &Fixture, daemon: Process) {
    fixture.sim.create_random();
    fixture.wait_for_next_sync().await;
    daemon.wait_for_log(BACK).await;
    let ran = daemon.stop(Signal::TERM).await;
    ran.assert_exit(Exit::Ok);
    for text in [AWAY, BACK] {
        assert_eq!(ran.stderr.matches(text).count(), 1, "{text}: {ran:#?}");
    }
    assert!(!ran.stderr.contains("ERROR"), "{ran:#?}");
    assert_eq!(fixture.lease_holder().await, None);
    fixture.assert_one_at_a_time().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clerk_refuses_connections_at_the_start() {
    let fixture = Fixture::new(20).await;
    let mut clerk = Proxy::refusing(upstream(&fixture.sim.url()));
    // Without a schedule, only the backoff starts the next attempt.
    let daemon = fixture.start_daemon(&[("CLERK_API_URL", &clerk.url(&fixture.sim.url())), IMPATIENT, NEVER, ANY]);
    let watched = MonitoredDaemon::new(daemon).await;
    eventually("three failed attempts", async || {
        let syncs = watched.metrics().await.all("clerk2pg_syncs_total");
        syncs.get(r#"kind="full",outcome="failed""#) >= Some(&3.0)
    })
    .await;
    let daemon = watched.daemon;
    assert_eq!(daemon.count_in_log("cannot connect"), 1, "{}", daemon.log());
    assert_eq!(daemon.count_in_log(AWAY), 1, "{}", daemon.log());
    clerk.open_again();
    fixture.syncs(1).await;
    fixture.assert_in_sync().await;
    daemon.wait_for_log(BACK).await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn clerk_becomes_unreachable_later() {
    let fixture = Fixture::new(20).await;
    let mut clerk = Proxy::open(upstream(&fixture.sim.url()));
    let daemon = fixture.start_daemon(&[("CLERK_API_URL", &clerk.url(&fixture.sim.url())), IMPATIENT]);
    fixture.syncs(1).await;
    clerk.refuse().await;
    eventually("three failed attempts", async || {
        fixture.runs("outcome = 'failed'").await >= 3
    })
    .await;
    clerk.open_again();
    recovers(&fixture, daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_does_not_wait_for_the_next_attempt() {
    let polling = PollingDaemon::new(20, &[]).await;
    polling.fixture.sim.set_faults(error(401, ErrorBody::Json));
    // The pauses between so many attempts would add up to minutes.
    polling.sync_incrementally(10).await;
    polling.fixture.sim.clear_faults();
    polling.sync_incrementally(1).await;
    polling.stop_in_sync(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_during_a_sync_that_fails_does_not_wait_either() {
    let fixture = mirrored(20).await;
    let watched = MonitoredDaemon::new(fixture.start_daemon(&[NEVER, ANY])).await;
    watched.wait_until_ready("in sync").await;
    let slow = Rule::new(Effect::LatencyMs(300));
    fixture.sim.set_faults(Faults {
        rules: vec![slow, error(401, ErrorBody::Json)],
        ..Faults::default()
    });
    let begun = async || watched.metrics().await.all("clerk2pg_last_attempt_timestamp_seconds");
    let started = Instant::now();
    for nth in 0..12 {
        let before = begun().await;
        watched.daemon.signal(Signal::USR1);
        // The next signal comes while this sync runs.
        eventually(&format!("sync {nth}"), async || begun().await != before).await;
    }
    // The pauses between so many attempts would add up to more.
    assert!(started.elapsed() < PATIENCE, "{}", watched.daemon.log());
    fixture.sim.clear_faults();
    watched.daemon.signal(Signal::USR1);
    watched.daemon.wait_for_log(BACK).await;
    watched.daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn clerk_answers_with_errors_or_foreign_pages() {
    let outage = async |fault: Rule| {
        let fixture = Fixture::new(20).await;
        let daemon = fixture.start_daemon(&[IMPATIENT]);
        fixture.syncs(1).await;
        fixture.sim.set_faults(fault);
        eventually("three failed attempts", async || {
            fixture.runs("outcome = 'failed'").await >= 3
        })
        .await;
        fixture.sim.clear_faults();
        recovers(&fixture, daemon).await;
    };
    tokio::join!(
        outage(error(503, ErrorBody::Json)),
        outage(error(521, ErrorBody::Html)),
        outage(Rule::new(Effect::Html)),
        outage(Rule::new(Effect::Truncate)),
        outage(Rule::new(Effect::DropBefore)),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_refuses_connections_at_the_start() {
    let fixture = Fixture::new(20).await;
    let mut postgres = Proxy::refusing(upstream(&fixture.db.url));
    let daemon = fixture.start_daemon(&[("DATABASE_URL", &postgres.url(&fixture.db.url)), NEVER]);
    daemon.wait_for_log(AWAY).await;
    assert_eq!(daemon.count_in_log("Postgres cannot be reached"), 1, "{}", daemon.log());
    let attempts = fixture.sim.requests();
    eventually("two more attempts", async || fixture.sim.requests() >= attempts + 2).await;
    assert_eq!(daemon.count_in_log(AWAY), 1, "{}", daemon.log());
    postgres.open_again();
    fixture.syncs(1).await;
    fixture.assert_in_sync().await;
    daemon.wait_for_log(BACK).await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_becomes_unreachable_later() {
    let fixture = Fixture::new(20).await;
    let mut postgres = Proxy::open(upstream(&fixture.db.url));
    let daemon = fixture.start_daemon(&[("DATABASE_URL", &postgres.url(&fixture.db.url))]);
    fixture.syncs(1).await;
    postgres.refuse().await;
    daemon.wait_for_log(AWAY).await;
    let attempts = fixture.sim.requests();
    eventually("two more attempts", async || fixture.sim.requests() >= attempts + 2).await;
    postgres.open_again();
    recovers(&fixture, daemon).await;
}

/// Cuts the connections to Postgres in the middle of a batch, as `cut` does. New connections
/// succeed.
async fn cut_in_the_middle(cut: impl Fn(&Proxy)) {
    let fixture = Fixture::new(100).await;
    let postgres = Proxy::open(upstream(&fixture.db.url));
    let daemon = fixture.start_daemon(&[("DATABASE_URL", &postgres.url(&fixture.db.url)), NEVER]);
    fixture.syncs(1).await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);

    fixture.sim.user_ids().iter().take(80).for_each(|id| {
        fixture.sim.update(id, |user| user["first_name"] = "Cut".into());
    });
    (0..20).for_each(|_| drop(fixture.sim.create_random()));
    cut(&postgres);
    let daemon = fixture.start_daemon(&[("DATABASE_URL", &postgres.url(&fixture.db.url))]);
    eventually("the cut", async || !postgres.has_cut_pending()).await;
    recovers(&fixture, daemon).await;
    let created = fixture.db.number("SELECT sum(created) FROM clerk.sync_runs").await;
    assert_eq!(
        created,
        fixture.users().await,
        "users were counted twice, or not at all"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_cut_in_the_middle_of_a_batch() {
    // The batch alone has some hundred kilobytes.
    cut_in_the_middle(|postgres| postgres.cut_at(60_000, "")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_cut_during_a_commit() {
    cut_in_the_middle(|postgres| postgres.cut_at(60_000, "COMMIT")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_ends_the_connections() {
    let fixture = Fixture::new(30).await;
    let daemon = fixture.start_daemon(&[]);
    fixture.syncs(1).await;
    let other = connect(&fixture.db.url).await;
    other
        .batch_execute("BEGIN; LOCK TABLE clerk.users IN EXCLUSIVE MODE")
        .await
        .unwrap();
    fixture.sim.update_random();
    let ours = "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'clerk2pg'";
    let blocked = format!("SELECT count(*) {ours} AND wait_event_type = 'Lock'");
    eventually("it is in a transaction", async || fixture.db.number(&blocked).await > 0).await;
    let ended = format!("SELECT count(pg_terminate_backend(pid)) {ours}");
    assert!(fixture.db.number(&ended).await > 0);
    daemon.wait_for_log(AWAY).await;
    other.batch_execute("COMMIT").await.unwrap();
    recovers(&fixture, daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_that_end_are_no_outage() {
    let fixture = Fixture::new(30).await;
    let daemon = fixture.start_daemon(&[("CLERK2PG_SCHEDULE__FULL", "*/4 * * * * *")]);
    fixture.syncs(1).await;
    // Between two syncs.
    let ours = "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'clerk2pg'";
    let busy =
        format!("SELECT count(*) {ours} AND (state <> 'idle' OR state_change > clock_timestamp() - interval '500 ms')");
    eventually("no connection is in use", async || fixture.db.number(&busy).await == 0).await;
    let ended = format!("SELECT count(pg_terminate_backend(pid)) {ours}");
    assert!(fixture.db.number(&ended).await > 0);
    fixture.sim.create_random();
    fixture.wait_for_next_sync().await;
    let ran = daemon.stop(Signal::TERM).await;
    assert_eq!((ran.code, ran.stderr.matches(AWAY).count()), (Some(0), 0), "{ran:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_run_gives_up_on_clerk() {
    // Long enough for several attempts.
    const TIMEOUT: Duration = Duration::from_secs(3);
    let fixture = mirrored(10).await;
    let clerk = Proxy::refusing(upstream(&fixture.sim.url()));
    let url = clerk.url(&fixture.sim.url());
    // What a run takes here and now without waiting.
    let started = Instant::now();
    fixture.once().await.assert(Exit::Ok, in_sync().unchanged(10));
    let busy = started.elapsed();
    let started = Instant::now();
    let ran = fixture
        .once_with(&[("CLERK_API_URL", &url), ("CLERK2PG_CLERK__TIMEOUT", "3s")])
        .await;
    let took = started.elapsed();
    // On a machine with nothing else to do, a second is enough for the rest.
    let allowed = TIMEOUT..2 * TIMEOUT + busy.max(Duration::from_secs(1));
    assert!(allowed.contains(&took), "{took:?}, not {allowed:?}: {ran:#?}");
    assert_eq!(
        (ran.code, ran.json()["outcome"].as_str()),
        (Some(1), Some("failed")),
        "{ran:#?}"
    );
    assert!(
        ran.stderr.contains("error: Clerk cannot be reached: cannot connect"),
        "{ran:#?}"
    );
    assert_eq!(ran.stderr.matches("asking Clerk again").count(), 1, "{ran:#?}");
    assert!(
        ran.stderr.contains("hint: check clerk.api_url (CLERK_API_URL)"),
        "{ran:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_run_gives_up_on_postgres() {
    let fixture = Fixture::new(10).await;
    let refusing = Proxy::refusing(upstream(&fixture.db.url));
    let mut silent = Proxy::refusing(upstream(&fixture.db.url));
    silent.go_silent();
    let patient = async |postgres: &Proxy| {
        let started = Instant::now();
        let url = postgres.url(&fixture.db.url);
        let ran = fixture.once_with(&[("DATABASE_URL", &url)]).await;
        let took = started.elapsed();
        // Half a minute, and the last attempt.
        assert!((30..45).contains(&took.as_secs()), "{took:?}: {ran:#?}");
        assert_eq!(
            (ran.code, ran.json()["outcome"].as_str()),
            (Some(1), Some("failed")),
            "{ran:#?}"
        );
        assert_eq!(ran.stderr.matches("waiting for Postgres").count(), 1, "{ran:#?}");
        assert!(ran.stderr.contains("error: Postgres cannot be reached"), "{ran:#?}");
        assert!(
            ran.stderr.contains("hint: check that the server is running"),
            "{ran:#?}"
        );
    };
    tokio::join!(patient(&refusing), patient(&silent));
    assert_eq!(fixture.sim.requests(), 0, "Clerk was asked for nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_run_waits_for_a_starting_postgres() {
    let fixture = Fixture::new(10).await;
    let mut postgres = Proxy::refusing(upstream(&fixture.db.url));
    let url = postgres.url(&fixture.db.url);
    let run = fixture.start_full_sync(&[("DATABASE_URL", &url)]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    postgres.open_again();
    run.wait_for_exit().await.assert(Exit::Ok, changed().created(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_address_is_an_error_and_is_not_pinned() {
    let fixture = Fixture::new(10).await;
    for (status, body) in [
        ("404 Not Found", "<html><title>Not Found</title></html>"),
        ("404 Not Found", ""),
        ("301 Moved Permanently", ""),
        ("200 OK", "<html><title>Welcome to nginx!</title></html>"),
        ("200 OK", "{}"),
    ] {
        let server = Server::start(move |_| answer(status, "", body.as_bytes())).await;
        let ran = fixture.once_with(&[("CLERK_API_URL", &server.url), IMPATIENT]).await;
        assert_eq!(
            (ran.code, ran.json()["outcome"].as_str()),
            (Some(1), Some("failed")),
            "{ran:#?}"
        );
        assert!(ran.stderr.contains("clerk.api_url (CLERK_API_URL)"), "{ran:#?}");
    }
    fixture.once().await.assert(Exit::Ok, changed().created(10));
}
