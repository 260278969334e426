//! Long lists are walked in partitions, concurrently: no user is lost, doubled or wrongly deleted,
//! whatever changes meanwhile and wherever the walk is interrupted.

use std::{collections::BTreeSet, time::Duration};

use clerk_sim::{Effect, Endpoint, Faults, Options, Quirks, Request, Rule};
use rustix::process::Signal;

use crate::support::{
    fixture::{Fixture, mirrored_ids},
    program::{ProgramOutput, wait_for_exit},
    summary::{Exit, changed, in_sync, planned},
    wait::{PATIENCE, eventually, within},
};

/// Enough for three partitions.
const USERS: usize = 12_000;

/// Small pages, so that the walk of each partition takes a while.
fn small_pages() -> Quirks {
    Quirks {
        max_page: Some(100),
        ..Quirks::default()
    }
}

async fn large_fixture(faults: impl Into<Faults>) -> Fixture {
    let fixture = Fixture::with(Options {
        users: USERS,
        latency: Duration::from_millis(20),
        ..Options::default()
    })
    .await;
    fixture.sim.set_faults(faults);
    fixture
}

fn pages(log: &[Request]) -> Vec<&Request> {
    let is_page =
        |request: &&Request| request.path.contains("order_by=created_at") && !request.path.contains("limit=1&");
    log.iter().filter(is_page).collect()
}

/// Returns how many page requests were in flight at once, at most.
fn side_by_side(log: &[Request]) -> usize {
    let pages = pages(log);
    let under_way = |moment: i64| {
        let holds = |page: &&&Request| {
            let end = page.at + i64::try_from(page.took_us / 1_000).unwrap();
            (page.at..end).contains(&moment)
        };
        pages.iter().filter(holds).count()
    };
    pages.iter().map(|page| under_way(page.at)).max().unwrap_or(0)
}

fn met(ran: &ProgramOutput) -> i64 {
    let json = ran.json();
    let fields = ["created", "updated", "unchanged"].map(|name| json[name].as_i64().unwrap());
    fields.iter().sum()
}

impl Fixture {
    async fn partitions(&self) -> i64 {
        let partitions = "SELECT coalesce(jsonb_array_length(checkpoint -> 'parts'), 0) FROM clerk.resource_state WHERE resource = 'users'";
        self.db.number(partitions).await
    }

    /// Counts the partitions that are walked in part.
    async fn partitions_under_way(&self) -> i64 {
        self.db
            .number(
                "SELECT count(*) FROM clerk.resource_state, jsonb_array_elements(checkpoint -> 'parts') AS part
                 WHERE part ->> 'done' IS NULL AND (part #>> '{position,seen}')::bigint >= 300",
            )
            .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_user_is_read_once() {
    let fixture = large_fixture(small_pages()).await;
    fixture.once().await.assert(Exit::Ok, changed().created(12000));
    fixture.assert_in_sync().await;
    assert!(
        side_by_side(&fixture.sim.log()) >= 3,
        "{}",
        side_by_side(&fixture.sim.log())
    );

    // The mirror now knows how users are distributed.
    let before = fixture.sim.log().len();
    fixture.once().await.assert(Exit::Ok, in_sync().unchanged(12000));
    let log = &fixture.sim.log()[before..];
    assert!(side_by_side(log) >= 3, "{}", side_by_side(log));
    let counts = log.iter().filter(|request| request.path.starts_with("/v1/users/count"));
    assert_eq!(counts.count(), 2, "before and after the walk");
    // One more page for each partition, and two that show the end of the last one.
    assert!((120..=126).contains(&pages(log).len()), "{}", pages(log).len());

    fixture
        .run(&["--dry-run", "--format", "json"])
        .await
        .assert(Exit::Ok, planned().unchanged(12000));
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_during_the_walk_are_mirrored() {
    let fixture = large_fixture(Quirks::default()).await;
    fixture.once().await.assert(Exit::Ok, changed().created(12000));
    for seed in 0..3 {
        let known = mirrored_ids(&fixture).await;
        fixture.sim.set_faults(small_pages());
        let run = fixture.command(&["--once", "--format", "json"]).spawn().unwrap();
        let mut dice = fastrand::Rng::with_seed(seed);
        let before = fixture.sim.log().len();
        let walking = async || !pages(&fixture.sim.log()[before..]).is_empty();
        eventually("the walk has begun", walking).await;
        // Users are created, deleted and changed, and move between partitions.
        for _ in 0..200 {
            match dice.u32(0..4) {
                0 => drop(fixture.sim.create_random()),
                1 => drop(fixture.sim.delete_random()),
                2 => drop(fixture.sim.update_random()),
                _ => {
                    let ids = fixture.sim.user_ids();
                    let (moved, to) = (dice.choice(&ids).unwrap(), dice.choice(&ids).unwrap());
                    let at = fixture.sim.document(to).unwrap()["created_at"].clone();
                    assert!(fixture.sim.update(moved, |user| user["created_at"] = at));
                }
            }
        }
        let ran = wait_for_exit(run).await;
        let (mirror, clerk) = (
            mirrored_ids(&fixture).await,
            BTreeSet::from_iter(fixture.sim.user_ids()),
        );
        let lost: Vec<_> = clerk.intersection(&known).filter(|id| !mirror.contains(*id)).collect();
        assert!(lost.is_empty(), "seed {seed}: {lost:?} were deleted wrongly: {ran:#?}");
        // The next sync mirrors the users that the walks had passed.
        let late = clerk.difference(&mirror).count();
        fixture.sim.clear_faults();
        let ran = fixture.once().await;
        assert_eq!(
            (ran.code, &ran.json()["created"]),
            (Some(0), &late.into()),
            "seed {seed}: {ran:#?}"
        );
        fixture.assert_in_sync().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_interrupted_in_all_partitions_is_resumed() {
    let fixture = large_fixture(small_pages()).await;
    let run = fixture.start_full_sync(&[]);
    eventually("there is a schema", async || fixture.runs("true").await > 0).await;
    eventually("three partitions are walked", async || {
        fixture.partitions_under_way().await == 3
    })
    .await;
    run.kill().await;
    let walked = fixture.users().await;
    assert!((900..12_000).contains(&walked), "{walked}");

    // A resumed walk keeps its partitions, even if fewer are allowed now.
    let ran = fixture.once_with(&[("CLERK2PG_CLERK__CONCURRENCY", "1")]).await;
    ran.assert_exit(Exit::Ok);
    fixture.assert_in_sync().await;
    // At most the page at each partition's checkpoint is read twice.
    let rest = 12_000 - walked;
    assert!(
        (rest..=rest + 3 * 100).contains(&met(&ran)),
        "{walked} walked: {ran:#?}"
    );
    assert_eq!(
        fixture
            .db
            .number("SELECT sum(created)::bigint FROM clerk.sync_runs")
            .await,
        12_000
    );
    fixture.once().await.assert(Exit::Ok, in_sync().unchanged(12000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_ignores_dates_is_walked_in_one_partition() {
    let quirks = Quirks {
        ignore_created_at: true,
        ..Quirks::default()
    };
    // At first the counts show it, later the pages.
    let fixture = large_fixture(quirks).await;
    fixture.once().await.assert(Exit::Ok, changed().created(12000));
    fixture.assert_in_sync().await;
    fixture.sim.delete_random().unwrap();
    let ran = fixture.once().await;
    ran.assert(Exit::Ok, changed().deleted(1).unchanged(11999));
    let warning = "this server does not list by created_at as asked";
    assert_eq!(ran.stderr.matches(warning).count(), 1, "{ran:#?}");
    fixture.assert_in_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_created_in_one_moment_are_mirrored() {
    let fixture = large_fixture(Quirks::default()).await;
    for id in fixture.sim.user_ids() {
        assert!(
            fixture
                .sim
                .update(&id, |user| user["created_at"] = 1_700_000_000_000_i64.into())
        );
    }
    for summary in [changed().created(12000), in_sync().unchanged(12000)] {
        fixture.once().await.assert(Exit::Ok, summary);
        fixture.assert_in_sync().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_partition_ends_the_sync_and_loses_nothing() {
    let fixture = large_fixture(Faults {
        quirks: small_pages(),
        rules: vec![
            Rule::new(Effect::DropBefore)
                .on([Endpoint::List, Endpoint::Count])
                .skip(40),
        ],
    })
    .await;
    let ran = fixture.once_with(&[("CLERK2PG_CLERK__TIMEOUT", "1s")]).await;
    assert_eq!(
        (ran.code, &ran.json()["outcome"]),
        (Some(1), &"failed".into()),
        "{ran:#?}"
    );
    let stored = fixture.users().await;
    assert!(stored > 0, "nothing was stored");
    assert_eq!(
        fixture
            .db
            .number("SELECT objects FROM clerk.resource_state WHERE resource = 'users'")
            .await,
        stored
    );
    assert_eq!(fixture.partitions().await, 3);
    fixture.sim.clear_faults();
    let ran = fixture.once().await;
    ran.assert_exit(Exit::Ok);
    assert!(met(&ran) <= 12_000 - stored + 3 * 100, "{stored} were stored: {ran:#?}");
    fixture.assert_in_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn urgent_work_runs_between_pages() {
    let fixture = large_fixture(Quirks::default()).await;
    let daemon = fixture.start_incremental(&[]).await;
    let mut slow = Faults::from(small_pages());
    slow.rules.push(Rule::new(Effect::LatencyMs(200)).on([Endpoint::List]));
    fixture.sim.set_faults(slow);
    let walking = "kind = 'full' AND outcome = 'running'";
    let before = fixture.sim.log().len();
    fixture.notify("full").await;
    eventually("the walk continues in its partitions", async || {
        fixture.partitions().await == 3 && pages(&fixture.sim.log()[before..]).len() > 6
    })
    .await;

    let changed = fixture.sim.update_random().unwrap();
    let asked = fixture.sim.create_random();
    fixture.notify(&asked).await;
    let updated_at = fixture.sim.document(&changed).unwrap()["updated_at"].clone();
    let is_followed = format!(
        "SELECT count(*) FROM clerk.users WHERE id = '{asked}' OR (id = '{changed}' AND updated_at >= to_timestamp({updated_at} / 1000.0))"
    );
    eventually("both are in the mirror", async || {
        fixture.db.number(&is_followed).await == 2
    })
    .await;
    assert_eq!(
        fixture.runs(walking).await,
        1,
        "the walk was over before: {}",
        daemon.log()
    );

    eventually("the walk is over", async || fixture.runs(walking).await == 0).await;
    let ran = daemon.stop(Signal::TERM).await;
    ran.assert_exit(Exit::Ok);
    fixture.assert_in_sync().await;
    // One event for each of the two, and no others.
    assert_eq!(fixture.db.number("SELECT count(*) FROM clerk.user_events").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_incremental_syncs_do_not_stop_the_walk() {
    let fixture = large_fixture(Quirks::default()).await;
    let daemon = fixture.start_incremental(&[]).await;
    fixture
        .sim
        .set_faults(Rule::new(Effect::LatencyMs(1_200)).on([Endpoint::List]));
    let walked = "kind = 'full' AND outcome = 'in_sync'";
    let before = fixture.runs(walked).await;
    fixture.notify("full").await;
    // Each of its pages waits longer than a second.
    let patience = 3 * PATIENCE;
    within(patience, "the walk is over", async || {
        fixture.runs(walked).await > before
    })
    .await;
    let ran = daemon.stop(Signal::TERM).await;
    ran.assert_exit(Exit::Ok);
}
