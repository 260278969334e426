//! Clerk or Postgres is unreachable, at the start or later: the daemon waits, reports it once, and
//! recovers. A single run gives up in time.

use std::time::{Duration, Instant};

use clerk_sim::{Effect, ErrorAnswer, ErrorBody, Rule};
use rustix::process::Signal;

use crate::support::{
    database::connect,
    fixture::World,
    http_server::{Server, answer},
    polling::PollingDaemon,
    process::{NEVER, Process},
    proxy::{Proxy, upstream},
    summary::{Exit, changed},
    wait::eventually,
};

const AWAY: &str = "waiting until it can be reached";
const BACK: &str = "back to normal";

/// How long each request of an outage takes, so that there are several attempts in a few seconds.
const IMPATIENT: (&str, &str) = ("CLERK2PG_CLERK__TIMEOUT", "500ms");

fn error(status: u16, body: ErrorBody) -> Rule {
    Rule::new(Effect::Error(ErrorAnswer {
        status,
        retry_after: None,
        body,
    }))
}

/// Waits until the daemon is in sync again. It must have reported the outage once and its end once.
async fn recovers(world: &World, daemon: Process) {
    world.sim.create_random();
    world.wait_for_next_sync().await;
    daemon.wait_for_log(BACK).await;
    let ran = daemon.stop(Signal::TERM).await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    for text in [AWAY, BACK] {
        assert_eq!(ran.stderr.matches(text).count(), 1, "{text}: {ran:#?}");
    }
    assert!(!ran.stderr.contains("ERROR"), "{ran:#?}");
    assert_eq!(world.lease_holder().await, None);
    world.assert_one_at_a_time().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clerk_refuses_connections_at_the_start() {
    let world = World::new(20).await;
    let mut clerk = Proxy::refusing(upstream(&world.sim.url()));
    // Without a schedule, only the backoff starts the next attempt.
    let daemon = world.start_daemon(&[("CLERK_API_URL", &clerk.url(&world.sim.url())), IMPATIENT, NEVER]);
    daemon.wait_for_log(AWAY).await;
    assert_eq!(daemon.count_in_log("cannot connect"), 1, "{}", daemon.log());
    // Time for two more attempts.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(daemon.count_in_log(AWAY), 1, "{}", daemon.log());
    clerk.open_again();
    world.syncs(1).await;
    world.assert_in_sync().await;
    daemon.wait_for_log(BACK).await;
    assert_eq!(daemon.stop(Signal::TERM).await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn clerk_becomes_unreachable_later() {
    let world = World::new(20).await;
    let mut clerk = Proxy::open(upstream(&world.sim.url()));
    let daemon = world.start_daemon(&[("CLERK_API_URL", &clerk.url(&world.sim.url())), IMPATIENT]);
    world.syncs(1).await;
    clerk.refuse().await;
    eventually("three failed attempts", async || {
        world.runs("outcome = 'failed'").await >= 3
    })
    .await;
    clerk.open_again();
    recovers(&world, daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_does_not_wait_for_the_next_attempt() {
    let polling = PollingDaemon::new(20, &[]).await;
    polling.world.sim.set_faults(error(401, ErrorBody::Json));
    // The pauses between so many attempts would add up to minutes.
    polling.sync_incrementally(10).await;
    polling.world.sim.clear_faults();
    polling.sync_incrementally(1).await;
    polling.stop_in_sync(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clerk_answers_with_errors_or_foreign_pages() {
    let outage = async |fault: Rule| {
        let world = World::new(20).await;
        let daemon = world.start_daemon(&[IMPATIENT]);
        world.syncs(1).await;
        world.sim.set_faults(fault);
        eventually("three failed attempts", async || {
            world.runs("outcome = 'failed'").await >= 3
        })
        .await;
        world.sim.clear_faults();
        recovers(&world, daemon).await;
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
    let world = World::new(20).await;
    let mut postgres = Proxy::refusing(upstream(&world.db.url));
    let daemon = world.start_daemon(&[("DATABASE_URL", &postgres.url(&world.db.url)), NEVER]);
    daemon.wait_for_log(AWAY).await;
    assert_eq!(daemon.count_in_log("Postgres cannot be reached"), 1, "{}", daemon.log());
    let attempts = world.sim.requests();
    eventually("two more attempts", async || world.sim.requests() >= attempts + 2).await;
    assert_eq!(daemon.count_in_log(AWAY), 1, "{}", daemon.log());
    postgres.open_again();
    world.syncs(1).await;
    world.assert_in_sync().await;
    daemon.wait_for_log(BACK).await;
    assert_eq!(daemon.stop(Signal::TERM).await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_becomes_unreachable_later() {
    let world = World::new(20).await;
    let mut postgres = Proxy::open(upstream(&world.db.url));
    let daemon = world.start_daemon(&[("DATABASE_URL", &postgres.url(&world.db.url))]);
    world.syncs(1).await;
    postgres.refuse().await;
    daemon.wait_for_log(AWAY).await;
    let attempts = world.sim.requests();
    eventually("two more attempts", async || world.sim.requests() >= attempts + 2).await;
    postgres.open_again();
    recovers(&world, daemon).await;
}

/// Cuts the connections to Postgres in the middle of a batch, as `cut` does. New connections
/// succeed.
async fn cut_in_the_middle(cut: impl Fn(&Proxy)) {
    let world = World::new(100).await;
    let postgres = Proxy::open(upstream(&world.db.url));
    let daemon = world.start_daemon(&[("DATABASE_URL", &postgres.url(&world.db.url)), NEVER]);
    world.syncs(1).await;
    assert_eq!(daemon.stop(Signal::TERM).await.code, Some(0));

    world.sim.user_ids().iter().take(80).for_each(|id| {
        world.sim.update(id, |user| user["first_name"] = "Cut".into());
    });
    (0..20).for_each(|_| drop(world.sim.create_random()));
    cut(&postgres);
    let daemon = world.start_daemon(&[("DATABASE_URL", &postgres.url(&world.db.url))]);
    eventually("the cut", async || !postgres.has_cut_pending()).await;
    recovers(&world, daemon).await;
    let created = world.db.number("SELECT sum(created) FROM clerk.sync_runs").await;
    assert_eq!(created, world.users().await, "users were counted twice, or not at all");
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
    let world = World::new(30).await;
    let daemon = world.start_daemon(&[]);
    world.syncs(1).await;
    let other = connect(&world.db.url).await;
    other
        .batch_execute("BEGIN; LOCK TABLE clerk.users IN EXCLUSIVE MODE")
        .await
        .unwrap();
    world.sim.update_random();
    let ours = "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'clerk2pg'";
    let blocked = format!("SELECT count(*) {ours} AND wait_event_type = 'Lock'");
    eventually("it is in a transaction", async || world.db.number(&blocked).await > 0).await;
    let ended = format!("SELECT count(pg_terminate_backend(pid)) {ours}");
    assert!(world.db.number(&ended).await > 0);
    daemon.wait_for_log(AWAY).await;
    other.batch_execute("COMMIT").await.unwrap();
    recovers(&world, daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_that_end_are_no_outage() {
    let world = World::new(30).await;
    let daemon = world.start_daemon(&[("CLERK2PG_SCHEDULE__FULL", "*/4 * * * * *")]);
    world.syncs(1).await;
    // Between two syncs.
    eventually("no sync", async || world.lease_holder().await.is_none()).await;
    let ended = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'clerk2pg'";
    assert!(world.db.number(ended).await > 0);
    world.sim.create_random();
    world.wait_for_next_sync().await;
    let ran = daemon.stop(Signal::TERM).await;
    assert_eq!((ran.code, ran.stderr.matches(AWAY).count()), (Some(0), 0), "{ran:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_run_gives_up_on_clerk() {
    let world = World::new(10).await;
    let clerk = Proxy::refusing(upstream(&world.sim.url()));
    let url = clerk.url(&world.sim.url());
    let started = Instant::now();
    let ran = world
        .once_with(&[("CLERK_API_URL", &url), ("CLERK2PG_CLERK__TIMEOUT", "2s")])
        .await;
    let took = started.elapsed();
    assert!((2..5).contains(&took.as_secs()), "{took:?}: {ran:#?}");
    assert_eq!(
        (ran.code, ran.json()["outcome"].as_str()),
        (Some(1), Some("failed")),
        "{ran:#?}"
    );
    assert!(
        ran.stderr.contains("error: Clerk cannot be reached: cannot connect"),
        "{ran:#?}"
    );
    assert!(
        ran.stderr.contains("hint: is clerk.api_url (CLERK_API_URL) right"),
        "{ran:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_run_gives_up_on_postgres() {
    let world = World::new(10).await;
    let refusing = Proxy::refusing(upstream(&world.db.url));
    let mut silent = Proxy::refusing(upstream(&world.db.url));
    silent.go_silent();
    let patient = async |postgres: &Proxy| {
        let started = Instant::now();
        let url = postgres.url(&world.db.url);
        let ran = world.once_with(&[("DATABASE_URL", &url)]).await;
        let took = started.elapsed();
        // Half a minute, and the last attempt.
        assert!((30..45).contains(&took.as_secs()), "{took:?}: {ran:#?}");
        assert_eq!(
            (ran.code, ran.json()["outcome"].as_str()),
            (Some(1), Some("failed")),
            "{ran:#?}"
        );
        assert!(ran.stderr.contains("error: Postgres cannot be reached"), "{ran:#?}");
        assert!(
            ran.stderr.contains("hint: check that the server is running"),
            "{ran:#?}"
        );
    };
    tokio::join!(patient(&refusing), patient(&silent));
    assert_eq!(world.sim.requests(), 0, "Clerk was asked for nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_run_waits_for_a_starting_postgres() {
    let world = World::new(10).await;
    let mut postgres = Proxy::refusing(upstream(&world.db.url));
    let url = postgres.url(&world.db.url);
    let run = world.start_full_sync(&[("DATABASE_URL", &url)]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    postgres.open_again();
    run.wait_for_exit().await.assert(Exit::Ok, changed().created(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_address_is_an_error_and_is_not_pinned() {
    let world = World::new(10).await;
    for (status, body) in [
        ("404 Not Found", "<html><title>Not Found</title></html>"),
        ("404 Not Found", ""),
        ("301 Moved Permanently", ""),
        ("200 OK", "<html><title>Welcome to nginx!</title></html>"),
        ("200 OK", "{}"),
    ] {
        let server = Server::start(move |_| answer(status, "", body.as_bytes())).await;
        let ran = world.once_with(&[("CLERK_API_URL", &server.url), IMPATIENT]).await;
        assert_eq!(
            (ran.code, ran.json()["outcome"].as_str()),
            (Some(1), Some("failed")),
            "{ran:#?}"
        );
        assert!(ran.stderr.contains("clerk.api_url (CLERK_API_URL)"), "{ran:#?}");
    }
    world.once().await.assert(Exit::Ok, changed().created(10));
}
