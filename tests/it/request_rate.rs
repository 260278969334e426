//! How many requests Clerk receives, and how fresh the mirror is for them.

use clerk_sim::{Effect, Endpoint, ErrorAnswer, ErrorBody, Options, RateLimit, Rule};
use rustix::process::Signal;

use crate::support::{
    changes::{now, rename},
    fixture::Fixture,
    summary::Exit,
    wait::eventually,
};

#[tokio::test(flavor = "multi_thread")]
async fn incremental_syncs_every_second_stay_within_a_development_instances_budget() {
    let fixture = Fixture::exactly(Options {
        users: 60,
        secret_key: "sk_test_of_a_developer".to_owned(),
        rate_limit: RateLimit::Development,
        ..Options::default()
    })
    .await;
    let daemon = fixture
        .start_incremental(&[("CLERK2PG_CLERK__REQUEST_BUDGET", "0.25")])
        .await;
    // One change for each sync, some of them deletions, which cost more than two requests.
    let mut syncs = fixture.incremental_syncs().len();
    for round in 0..20 {
        match round % 5 {
            0 => drop(fixture.sim.delete_random()),
            1 => drop(fixture.sim.create_random()),
            n => rename(&fixture, &fixture.sim.user_ids()[n], "Changed", now()),
        }
        eventually("another sync", async || fixture.incremental_syncs().len() > syncs).await;
        syncs = fixture.incremental_syncs().len();
    }
    // Recent rows are deleted ten seconds later.
    fixture.wait_until_mirrored().await;
    let busiest = fixture.sim.busiest_window();
    assert!((20..=25).contains(&busiest), "{busiest} requests in ten seconds");
    assert!(fixture.sim.log().iter().all(|request| request.status != 429));
    let ran = daemon.stop(Signal::TERM).await;
    assert!(!ran.stderr.contains("WARN"), "{ran:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_used_up_limit_slows_incremental_syncs_until_it_recovers() {
    const RARER: &str = "syncing less often until it recovers";
    const EASED: &str = "Clerk's rate limit has recovered";
    let limited = Rule::new(Effect::Error(ErrorAnswer {
        status: 429,
        retry_after: Some(1),
        body: ErrorBody::Json,
    }));
    let limited = limited.on([Endpoint::List]).next(1);
    let fixture = Fixture::new(60).await;
    let daemon = fixture.start_incremental(&[]).await;
    fixture.wait_for_incremental_sync().await;
    assert_eq!(daemon.count_in_log(RARER), 0, "{}", daemon.log());

    fixture.sim.set_faults(limited.clone());
    daemon.wait_for_log(RARER).await;
    let first = fixture.incremental_syncs().len() - 1;
    fixture.sim.set_faults(limited);
    daemon.wait_for_log(EASED).await;
    eventually("a sync at the old rate", async || {
        fixture.incremental_syncs().len() > first + 4
    })
    .await;
    let syncs = fixture.incremental_syncs();
    let pauses: Vec<i64> = syncs[first..first + 5]
        .windows(2)
        .map(|pair| pair[1].at - pair[0].at)
        .collect();
    // Refused twice in a row, then no more: the pause doubles, then halves.
    let [five, ten, half, none] = pauses[..] else {
        panic!("{pauses:?}")
    };
    assert!(
        five >= 5_000 && ten >= 10_000 && half >= 5_000 && none < 5_000,
        "{pauses:?}"
    );

    let ran = daemon.stop(Signal::TERM).await;
    for text in [RARER, EASED] {
        assert_eq!(ran.stderr.matches(text).count(), 1, "{text}: {ran:#?}");
    }
    assert_eq!(fixture.runs("outcome = 'failed'").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn incremental_syncs_slower_than_the_schedule_neither_overlap_nor_pile_up() {
    let fixture = Fixture::new(60).await;
    let daemon = fixture.start_incremental(&[("CLERK2PG_CLERK__TIMEOUT", "30s")]).await;
    fixture
        .sim
        .set_faults(Rule::new(Effect::LatencyMs(2500)).on([Endpoint::List]));
    let quick = fixture.incremental_syncs().len();
    eventually("slow syncs", async || fixture.incremental_syncs().len() >= quick + 4).await;
    fixture.sim.clear_faults();
    let slow = fixture.incremental_syncs().len();
    eventually("quick syncs", async || fixture.incremental_syncs().len() >= slow + 6).await;
    let ran = daemon.stop(Signal::TERM).await;
    ran.assert_exit(Exit::Ok);

    let syncs = fixture.incremental_syncs();
    for pair in syncs.windows(2) {
        let done = pair[0].at + i64::try_from(pair[0].took_us / 1000).unwrap();
        assert!(pair[1].at >= done, "syncs overlap: {pair:#?}");
    }
    // The first may still be slow, and one tick may be pending. After it, each sync has its own
    // tick.
    let five = syncs[slow + 5].at - syncs[slow + 1].at;
    assert!(five > 2_000, "five syncs within {five} ms: ticks had piled up");
}

#[tokio::test(flavor = "multi_thread")]
async fn status_and_log_report_freshness() {
    const LOGGED: &str = "age of changes when they were committed";
    let fixture = Fixture::new(60).await;
    let daemon = fixture.start_incremental(&[]).await;
    let status = fixture.run(&["--format", "json", "status"]).await.json();
    assert!(status["freshness"].is_null(), "{status:#}");
    let ran = fixture.run(&["status"]).await;
    assert!(!ran.stdout.contains("at the median"), "{ran:#?}");
    assert_eq!(daemon.count_in_log(LOGGED), 0, "{}", daemon.log());

    for round in 0..3 {
        rename(&fixture, &fixture.sim.user_ids()[round], "Changed", now());
        fixture.wait_for_incremental_sync().await;
    }
    let rows =
        "SELECT string_agg(concat(kind, ' ', freshness_ms BETWEEN 0 AND 4999), ', ' ORDER BY id) FROM clerk.sync_runs";
    assert_eq!(
        fixture.db.text(rows).await.unwrap(),
        "full , incremental t, incremental t, incremental t"
    );
    let middle =
        "SELECT freshness_ms FROM clerk.sync_runs WHERE kind = 'incremental' ORDER BY freshness_ms OFFSET 1 LIMIT 1";
    let p50 = fixture.db.number(middle).await;
    let p99 = fixture.db.number("SELECT max(freshness_ms) FROM clerk.sync_runs").await;
    let status = fixture.run(&["--format", "json", "status"]).await.json();
    let expected = serde_json::json!({"p50_ms": p50, "p99_ms": p99, "changes": 3});
    assert_eq!(status["freshness"], expected, "{status:#}");
    assert_eq!(
        status["runs"][0]["freshness_ms"]
            .as_i64()
            .map(|ms| (0..5000).contains(&ms)),
        Some(true),
        "{status:#}"
    );
    let ran = fixture.run(&["status"]).await;
    let shown = |ms: i64| match ms {
        0 => "0 s".to_owned(),
        1..100 => format!("{ms} ms"),
        ms => format!("{} s", format!("{:.1}", ms as f64 / 1000.0).trim_end_matches(".0")),
    };
    let line = format!(
        "Changes of the last hour were {} old at the median and {} at the 99th percentile, over 3 changes",
        shown(p50),
        shown(p99)
    );
    assert!(ran.stdout.lines().any(|printed| printed == line), "{line}: {ran:#?}");

    fixture.db.execute("NOTIFY clerk2pg, 'full'").await;
    daemon.wait_for_log(LOGGED).await;
    let log = daemon.log();
    let logged = log.lines().find(|line| line.contains(LOGGED)).unwrap();
    for field in [format!("p50_ms={p50}"), format!("p99_ms={p99}"), "changes=3".to_owned()] {
        assert!(logged.contains(&field), "{field}: {logged}");
    }
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}
