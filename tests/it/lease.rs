//! One writer at a time: processes on one database wait for each other, and a process that lost its
//! lease cannot write.

use clerk_sim::{Effect, Endpoint, Quirks, Rule};
use rustix::process::Signal;

use crate::support::{
    database::connect,
    fixture::Fixture,
    monitored::{ANY, MonitoredDaemon},
    process::{EVERY_SECOND, Process},
    summary::{Exit, changed, in_sync},
    wait::eventually,
};

/// A lease that no busy machine loses for want of renewal.
const LASTING: (&str, &str) = ("CLERK2PG_LEASE__TTL", "30s");

#[tokio::test(flavor = "multi_thread")]
async fn three_syncs_started_at_once_take_turns() {
    let fixture = Fixture::new(200).await;
    let runs: Vec<Process> = (0..3).map(|_| fixture.start_full_sync(&[LASTING])).collect();
    let mut created = 0;
    for run in runs {
        let ran = run.wait_for_exit().await;
        ran.assert_exit(Exit::Ok);
        let json = ran.json();
        assert_eq!(
            json["created"].as_i64().unwrap() + json["unchanged"].as_i64().unwrap(),
            200,
            "{ran:#?}"
        );
        created += json["created"].as_i64().unwrap();
    }
    assert_eq!(created, 200, "only the first one creates users");
    fixture.assert_in_sync().await;
    fixture.assert_one_at_a_time().await;
    assert_eq!(fixture.runs("outcome IN ('changed', 'in_sync')").await, 3);
    assert_eq!(fixture.lease_holder().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_and_single_runs_take_turns() {
    let fixture = Fixture::new(30).await;
    fixture.sim.set_faults(Rule::new(Effect::LatencyMs(100)));
    let daemon = fixture.start_daemon(&[LASTING]);
    fixture.syncs(1).await;
    for _ in 0..2 {
        fixture.sim.create_random();
        let ran = fixture.once_with(&[LASTING]).await;
        ran.assert_exit(Exit::Ok);
        fixture.assert_in_sync().await;
    }
    fixture.sim.create_random();
    fixture.wait_for_next_sync().await;
    let ran = daemon.stop(Signal::TERM).await;
    ran.assert_exit(Exit::Ok);
    fixture.assert_one_at_a_time().await;
    assert_eq!(fixture.runs("outcome = 'failed'").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_run_waits_for_a_running_sync_and_for_the_lease_of_a_killed_one() {
    let fixture = Fixture::new(30).await;
    fixture
        .sim
        .set_faults(Rule::new(Effect::Stall).on([Endpoint::List]).next(1));
    // The lease is renewed while its holder lives, however slow Clerk is.
    let first = fixture.start_full_sync(&[("CLERK2PG_CLERK__TIMEOUT", "60s")]);
    eventually("the first is at work", async || {
        fixture.runs("outcome = 'running'").await == 1
    })
    .await;
    let second = fixture.start_full_sync(&[]);
    second.wait_for_log("waiting for another clerk2pg to finish").await;
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    assert_eq!(
        fixture.runs("true").await,
        1,
        "the lease was lost while its holder lived"
    );
    first.kill().await;
    second.wait_for_exit().await.assert(Exit::Ok, changed().created(30));
    assert_eq!(fixture.runs("outcome = 'failed'").await, 1);
    fixture.assert_one_at_a_time().await;
}

/// A foreign lock on the lease's row is not reported as another clerk2pg's sync.
#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_lock_on_the_lease_is_reported() {
    let fixture = Fixture::new(20).await;
    fixture.once().await.assert(Exit::Ok, changed().created(20));
    let other = connect(&fixture.db.url).await;
    let lock = "BEGIN; SELECT FROM clerk.sync_state FOR UPDATE";
    other.batch_execute(lock).await.unwrap();
    let watched = MonitoredDaemon::new(fixture.start_daemon(&[ANY, EVERY_SECOND])).await;
    watched.wait_until_not_ready("the database is locked").await;
    assert_eq!(
        watched.daemon.count_in_log("another clerk2pg"),
        0,
        "{}",
        watched.daemon.log()
    );
    let single = fixture.start_full_sync(&[]);
    single.wait_for_log("waiting for the lease").await;
    assert_eq!(single.count_in_log("another clerk2pg"), 0, "{}", single.log());
    other.batch_execute("ROLLBACK").await.unwrap();
    single.wait_for_exit().await.assert(Exit::Ok, in_sync().unchanged(20));
    watched.wait_until_ready("in sync").await;
    watched.daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

/// A sync is suspended with a page in flight, and another sync mirrors newer documents meanwhile.
async fn suspend_until_lease_is_lost(newer: impl Fn(&Fixture)) -> (Fixture, Process) {
    let fixture = Fixture::new(60).await;
    fixture.sim.set_faults(Quirks {
        max_page: Some(20),
        ..Quirks::default()
    });
    fixture.once().await.assert(Exit::Ok, changed().created(60));
    for id in fixture.sim.user_ids() {
        fixture.sim.update(&id, |user| user["first_name"] = "Old".into());
    }
    fixture
        .sim
        .set_faults(Rule::new(Effect::LatencyMs(1000)).on([Endpoint::List]).skip(1).next(1));
    let suspended = fixture.start_full_sync(&[]);
    eventually("the request for a page", async || {
        fixture
            .sim
            .faults()
            .rules
            .first()
            .is_some_and(|rule| rule.next == Some(0))
    })
    .await;
    suspended.signal(Signal::STOP);
    // The page that waits for it.
    let sent = fixture.sim.requests();
    eventually("the page is sent", async || fixture.sim.log().len() as u64 >= sent).await;

    newer(&fixture);
    let ran = fixture.once().await;
    ran.assert_exit(Exit::Ok);
    fixture.assert_in_sync().await;
    (fixture, suspended)
}

async fn assert_resumes_without_writing(fixture: &Fixture, suspended: Process) {
    let versions = fixture.db.versions().await;
    suspended.signal(Signal::CONT);
    let ran = suspended.wait_for_exit().await;
    assert_eq!(
        (ran.code, ran.json()["outcome"].as_str()),
        (Some(1), Some("failed")),
        "{ran:#?}"
    );
    assert!(
        ran.stderr
            .contains("error: another clerk2pg has taken over; this one stopped writing"),
        "{ran:#?}"
    );
    assert!(
        ran.stderr.contains("hint: two processes sync this database"),
        "{ran:#?}"
    );
    assert_eq!(fixture.db.versions().await, versions, "a stale page was written");
    fixture.assert_in_sync().await;
    fixture.assert_one_at_a_time().await;
    assert_eq!(fixture.runs("outcome = 'failed'").await, 1);
    assert_eq!(fixture.runs("outcome = 'running'").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_page_is_not_written() {
    let (fixture, suspended) = suspend_until_lease_is_lost(|fixture| {
        for id in fixture.sim.user_ids() {
            fixture.sim.update(&id, |user| user["first_name"] = "New".into());
        }
    })
    .await;
    assert_resumes_without_writing(&fixture, suspended).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_page_does_not_bring_deleted_users_back() {
    let (fixture, suspended) =
        suspend_until_lease_is_lost(|fixture| (0..5).for_each(|_| drop(fixture.sim.delete_random()))).await;
    assert_resumes_without_writing(&fixture, suspended).await;
    assert_eq!(fixture.users().await, 55);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_lost_its_lease_does_not_disturb_the_running_one() {
    let (fixture, suspended) = suspend_until_lease_is_lost(|_| ()).await;
    fixture
        .sim
        .set_faults(Rule::new(Effect::LatencyMs(1500)).on([Endpoint::Count]).next(1));
    fixture.sim.create_random();
    let at_work = fixture.start_full_sync(&[]);
    eventually("another is at work", async || {
        fixture.runs("outcome = 'running'").await == 1
    })
    .await;
    suspended.signal(Signal::CONT);
    let ran = suspended.wait_for_exit().await;
    ran.assert_exit(Exit::Failed);
    assert!(
        fixture.lease_holder().await.is_some(),
        "it released a lease of another process"
    );
    at_work
        .wait_for_exit()
        .await
        .assert(Exit::Ok, changed().created(1).unchanged(60));
    fixture.assert_in_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_daemon_continues_when_resumed() {
    let fixture = Fixture::new(30).await;
    let daemon = fixture.start_daemon(&[]);
    fixture.syncs(1).await;
    daemon.signal(Signal::STOP);
    for _ in 0..2 {
        fixture.sim.update_random();
        fixture.once().await.assert_exit(Exit::Ok);
    }
    daemon.signal(Signal::CONT);
    fixture.sim.create_random();
    fixture.wait_for_next_sync().await;
    let ran = daemon.stop(Signal::TERM).await;
    ran.assert_exit(Exit::Ok);
    fixture.assert_one_at_a_time().await;
}
