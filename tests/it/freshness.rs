//! How old changes were when they were committed. Each change counts, whichever sync committed it.

use crate::support::{
    changes::{now, rename},
    fixture::{Fixture, mirrored},
    monitored::MonitoredDaemon,
    summary::{self, Exit, changed},
    wait::eventually,
};

/// When users changed at Clerk, with the times before and after the sync that committed each
/// change.
struct Changes {
    fixture: Fixture,
    times: Vec<(i64, i64, i64)>,
}

impl Changes {
    async fn new(users: usize) -> Self {
        let fixture = mirrored(users).await;
        Self {
            fixture,
            times: Vec::new(),
        }
    }

    /// Changes users this many seconds ago, and commits all changes in one sync.
    async fn happen(&mut self, seconds_ago: impl Iterator<Item = i64>) {
        let before = now();
        let moments: Vec<i64> = seconds_ago.map(|seconds| before - 1000 * seconds).collect();
        for (id, at) in self.fixture.sim.user_ids().iter().zip(&moments) {
            rename(&self.fixture, id, &format!("Changed at {before}"), *at);
        }
        let changed = moments.len();
        let unchanged = self.fixture.sim.count() - changed;
        self.fixture
            .once()
            .await
            .assert(Exit::Ok, summary::changed().updated(changed).unchanged(unchanged));
        let after = now();
        self.times.extend(moments.into_iter().map(|at| (at, before, after)));
    }

    /// The range in which a percentile must be, as syncs take some time.
    fn percentile(&self, percent: usize) -> std::ops::RangeInclusive<i64> {
        let rank = (self.times.len() * percent).div_ceil(100) - 1;
        let at = |age: fn(&(i64, i64, i64)) -> i64| {
            let mut ages: Vec<i64> = self.times.iter().map(age).collect();
            ages.sort_unstable();
            ages[rank]
        };
        at(|(at, before, _)| before - at)..=at(|(at, _, after)| after - at)
    }

    async fn reported(&self) -> (i64, i64, i64) {
        let status = self.fixture.run(&["--format", "json", "status"]).await.json();
        let field = |name: &str| status["freshness"][name].as_i64().unwrap();
        (field("p50_ms"), field("p99_ms"), field("changes"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_of_the_last_hour_counts() {
    let mut changes = Changes::new(120).await;
    changes.happen((1..=90).map(|n| 8 * n)).await;
    for _ in 0..3 {
        changes.happen(0..1).await;
    }
    let (p50, p99, count) = changes.reported().await;
    assert_eq!(count, 93);
    for (reported, percent) in [(p50, 50), (p99, 99)] {
        let expected = changes.percentile(percent);
        assert!(expected.contains(&reported), "{percent}: {reported}, not {expected:?}");
    }
    // Nearly six minutes. The newest change of each sync is at most some seconds old.
    assert!(p50 > 340_000 && p99 > 710_000, "{p50} {p99}");
    let ran = changes.fixture.run(&["status"]).await;
    let line =
        "Changes of the last hour were 6 min old at the median and 12 min at the 99th percentile, over 93 changes";
    assert!(ran.stdout.lines().any(|printed| printed == line), "{ran:#?}");

    let watched = MonitoredDaemon::start(&changes.fixture, &[]).await;
    watched.wait_until_ready("in sync").await;
    eventually("the page shows the same", async || {
        let page = watched.get("/").await.body;
        page.contains("<dd>6 min<small>median; 99 of 100 within 12 min</small>")
            && page.contains("median 6 min, at worst 12 min")
    })
    .await;
    let runs = changes.fixture.run(&["--format", "json", "status"]).await.json()["runs"].clone();
    let of_first = runs
        .as_array()
        .unwrap()
        .iter()
        .find(|run| run["updated"] == 90)
        .unwrap();
    assert!(of_first["freshness_ms"].as_i64() >= Some(360_000), "{of_first:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_change_has_no_age() {
    let fixture = mirrored(20).await;
    fixture
        .db
        .execute("ALTER TABLE clerk.users ADD CONSTRAINT polite CHECK (first_name <> 'refused') NOT VALID")
        .await;
    let ids = fixture.sim.user_ids();
    rename(&fixture, &ids[0], "refused", now() - 3_000_000);
    rename(&fixture, &ids[1], "stored", now());
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().updated(1).unchanged(18).rejected(1));
    let freshness = fixture.run(&["--format", "json", "status"]).await.json()["freshness"].clone();
    assert_eq!(freshness["changes"], 1, "{freshness}");
    assert!(freshness["p99_ms"].as_i64() < Some(1_000_000), "{freshness}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_of_a_sync_counts_once() {
    let mut changes = Changes::new(700).await;
    changes.happen((1..=600).map(|n| n + 100)).await;
    for _ in 0..5 {
        changes.happen(0..1).await;
    }
    let (p50, p99, count) = changes.reported().await;
    assert_eq!(count, 605);
    for (reported, percent) in [(p50, 50), (p99, 99)] {
        // Of many changes, a hundred evenly spaced ones are kept.
        let (expected, spacing) = (changes.percentile(percent), 6100);
        let expected = expected.start() - spacing..=expected.end() + spacing;
        assert!(expected.contains(&reported), "{percent}: {reported}, not {expected:?}");
    }
    let kept = "SELECT max(cardinality(ages_ms)) FROM clerk.sync_runs";
    assert_eq!(changes.fixture.db.number(kept).await, 100);
}
