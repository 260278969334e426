//! One writer at a time: processes on one database wait for each other, and a process that lost its
//! lease cannot write.

use clerk_sim::{Effect, Endpoint, Quirks, Rule};
use rustix::process::Signal;

use crate::support::{
    database::connect,
    fixture::World,
    monitored::{ANY, MonitoredDaemon},
    process::{EVERY_SECOND, Process},
    summary::{Exit, changed, in_sync},
    wait::eventually,
};

/// A lease that no busy machine loses for want of renewal.
const LASTING: (&str, &str) = ("CLERK2PG_LEASE__TTL", "30s");

#[tokio::test(flavor = "multi_thread")]
async fn three_syncs_started_at_once_take_turns() {
    let world = World::new(200).await;
    let runs: Vec<Process> = (0..3).map(|_| world.start_full_sync(&[])).collect();
    let mut created = 0;
    for run in runs {
        let ran = run.wait_for_exit().await;
        assert_eq!(ran.code, Some(0), "{ran:#?}");
        let json = ran.json();
        assert_eq!(
            json["created"].as_i64().unwrap() + json["unchanged"].as_i64().unwrap(),
            200,
            "{ran:#?}"
        );
        created += json["created"].as_i64().unwrap();
    }
    assert_eq!(created, 200, "only the first one creates users");
    world.assert_in_sync().await;
    world.assert_one_at_a_time().await;
    assert_eq!(world.runs("outcome IN ('changed', 'in_sync')").await, 3);
    assert_eq!(world.lease_holder().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_and_single_runs_take_turns() {
    let world = World::new(30).await;
    world.sim.set_faults(Rule::new(Effect::LatencyMs(100)));
    let daemon = world.start_daemon(&[LASTING]);
    world.syncs(1).await;
    for _ in 0..2 {
        world.sim.create_random();
        let ran = world.once_with(&[LASTING]).await;
        assert_eq!(ran.code, Some(0), "{ran:#?}");
        world.assert_in_sync().await;
    }
    world.sim.create_random();
    world.wait_for_next_sync().await;
    let ran = daemon.stop(Signal::TERM).await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    world.assert_one_at_a_time().await;
    assert_eq!(world.runs("outcome = 'failed'").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_run_waits_for_a_running_sync_and_for_the_lease_of_a_killed_one() {
    let world = World::new(30).await;
    world
        .sim
        .set_faults(Rule::new(Effect::Stall).on([Endpoint::List]).next(1));
    // The lease is renewed while its holder lives, however slow Clerk is.
    let first = world.start_full_sync(&[("CLERK2PG_CLERK__TIMEOUT", "60s")]);
    eventually("the first is at work", async || {
        world.runs("outcome = 'running'").await == 1
    })
    .await;
    let second = world.start_full_sync(&[]);
    second.wait_for_log("waiting for another clerk2pg to finish").await;
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    assert_eq!(world.runs("true").await, 1, "the lease was lost while its holder lived");
    first.kill().await;
    second.wait_for_exit().await.assert(Exit::Ok, changed().created(30));
    assert_eq!(world.runs("outcome = 'failed'").await, 1);
    world.assert_one_at_a_time().await;
}

/// A foreign lock on the lease's row is not reported as another clerk2pg's sync.
#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_lock_on_the_lease_is_reported() {
    let world = World::new(20).await;
    world.once().await.assert(Exit::Ok, changed().created(20));
    let other = connect(&world.db.url).await;
    let lock = "BEGIN; SELECT FROM clerk.sync_state FOR UPDATE";
    other.batch_execute(lock).await.unwrap();
    let watched = MonitoredDaemon::new(world.start_daemon(&[ANY, EVERY_SECOND])).await;
    watched.wait_until_not_ready("the database is locked").await;
    assert_eq!(
        watched.daemon.count_in_log("another clerk2pg"),
        0,
        "{}",
        watched.daemon.log()
    );
    let single = world.start_full_sync(&[]);
    single.wait_for_log("waiting for the lease").await;
    assert_eq!(single.count_in_log("another clerk2pg"), 0, "{}", single.log());
    other.batch_execute("ROLLBACK").await.unwrap();
    single.wait_for_exit().await.assert(Exit::Ok, in_sync().unchanged(20));
    watched.wait_until_ready("in sync").await;
    assert_eq!(watched.daemon.stop(Signal::TERM).await.code, Some(0));
}

/// A sync is suspended with a page in flight, and another sync mirrors newer documents meanwhile.
async fn suspend_until_lease_is_lost(newer: impl Fn(&World)) -> (World, Process) {
    let world = World::new(60).await;
    world.sim.set_faults(Quirks {
        max_page: Some(20),
        ..Quirks::default()
    });
    world.once().await.assert(Exit::Ok, changed().created(60));
    for id in world.sim.user_ids() {
        world.sim.update(&id, |user| user["first_name"] = "Old".into());
    }
    world
        .sim
        .set_faults(Rule::new(Effect::LatencyMs(1000)).on([Endpoint::List]).skip(1).next(1));
    let suspended = world.start_full_sync(&[]);
    eventually("the request for a page", async || {
        world
            .sim
            .faults()
            .rules
            .first()
            .is_some_and(|rule| rule.next == Some(0))
    })
    .await;
    suspended.signal(Signal::STOP);
    // The page that waits for it.
    let sent = world.sim.requests();
    eventually("the page is sent", async || world.sim.log().len() as u64 >= sent).await;

    newer(&world);
    let ran = world.once().await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    world.assert_in_sync().await;
    (world, suspended)
}

async fn assert_resumes_without_writing(world: &World, suspended: Process) {
    let versions = world.db.versions().await;
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
    assert_eq!(world.db.versions().await, versions, "a stale page was written");
    world.assert_in_sync().await;
    world.assert_one_at_a_time().await;
    assert_eq!(world.runs("outcome = 'failed'").await, 1);
    assert_eq!(world.runs("outcome = 'running'").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_page_is_not_written() {
    let (world, suspended) = suspend_until_lease_is_lost(|world| {
        for id in world.sim.user_ids() {
            world.sim.update(&id, |user| user["first_name"] = "New".into());
        }
    })
    .await;
    assert_resumes_without_writing(&world, suspended).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_page_does_not_bring_deleted_users_back() {
    let (world, suspended) =
        suspend_until_lease_is_lost(|world| (0..5).for_each(|_| drop(world.sim.delete_random()))).await;
    assert_resumes_without_writing(&world, suspended).await;
    assert_eq!(world.users().await, 55);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_lost_its_lease_does_not_disturb_the_running_one() {
    let (world, suspended) = suspend_until_lease_is_lost(|_| ()).await;
    world
        .sim
        .set_faults(Rule::new(Effect::LatencyMs(1500)).on([Endpoint::Count]).next(1));
    world.sim.create_random();
    let at_work = world.start_full_sync(&[]);
    eventually("another is at work", async || {
        world.runs("outcome = 'running'").await == 1
    })
    .await;
    suspended.signal(Signal::CONT);
    let ran = suspended.wait_for_exit().await;
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    assert!(
        world.lease_holder().await.is_some(),
        "it released a lease of another process"
    );
    at_work
        .wait_for_exit()
        .await
        .assert(Exit::Ok, changed().created(1).unchanged(60));
    world.assert_in_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_daemon_continues_when_resumed() {
    let world = World::new(30).await;
    let daemon = world.start_daemon(&[]);
    world.syncs(1).await;
    daemon.signal(Signal::STOP);
    for _ in 0..2 {
        world.sim.update_random();
        assert_eq!(world.once().await.code, Some(0));
    }
    daemon.signal(Signal::CONT);
    world.sim.create_random();
    world.wait_for_next_sync().await;
    let ran = daemon.stop(Signal::TERM).await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    world.assert_one_at_a_time().await;
}
