//! The list of changes changes while it is read: many users in one moment, rows that move between
//! pages, different clocks, and two readers.

use clerk_sim::{Effect, Endpoint, Faults, Rule};
use rustix::process::Signal;

use crate::support::{
    changes::{import, now, rename},
    fixture::Fixture,
    process::Process,
    proxy::{Proxy, upstream},
    summary::Exit,
    summary::IncrementalTotals,
    wait::eventually,
};

/// A lease that no busy machine loses for want of renewal.
const LASTING: (&str, &str) = ("CLERK2PG_LEASE__TTL", "30s");

const SLOW: (&str, &str) = ("CLERK2PG_CLERK__TIMEOUT", "60s");

/// Delays the answer to one list request, after three others.
fn held_back(milliseconds: u64) -> Faults {
    let late = Rule::new(Effect::LatencyMs(milliseconds));
    late.on([Endpoint::List]).skip(3).next(1).into()
}

/// Changes many users in one moment, and lets a sync reach its fourth page.
async fn begin_bulk(fixture: &Fixture, daemon: &Process, name: &str, milliseconds: u64) -> i64 {
    let ids = fixture.sim.user_ids();
    let watermark = fixture.watermark().await;
    let moment = now();
    let changes = || {
        ids[..1300].iter().for_each(|id| rename(fixture, id, name, moment));
        fixture.sim.set_faults(held_back(milliseconds));
    };
    fixture.while_frozen(&[daemon], changes).await;
    eventually("the fourth page is under way", async || {
        fixture.sim.faults().rules[0].next == Some(0)
    })
    .await;
    let mirrored = format!("SELECT count(*) FROM clerk.users WHERE first_name = '{name}'");
    let some = fixture.db.number(&mirrored).await;
    assert!((1..1300).contains(&some), "{some} with three pages");
    assert_eq!(fixture.watermark().await, watermark, "it moved before the last page");
    moment
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_change_in_one_moment_causes_a_full_sync_that_moves_the_watermark() {
    let fixture = Fixture::new(1500).await;
    let daemon = fixture.start_incremental(&[SLOW, LASTING]).await;
    let moment = begin_bulk(&fixture, &daemon, "First", 1500).await;
    fixture.wait_for_incremental_sync().await;
    fixture.assert_in_sync().await;
    // More users than a page shows: their order is not known, and only a full sync is certain to
    // read all.
    eventually("a full sync", async || fixture.runs("kind = 'full'").await == 2).await;
    eventually("syncs are short again", async || {
        fixture.incremental_syncs().last().unwrap().path.contains("limit=20&")
    })
    .await;
    assert_eq!(
        fixture.incremental().await,
        IncrementalTotals {
            updated: 1300,
            ..IncrementalTotals::default()
        }
    );
    // Clerk's time has whole seconds, and the watermark is not later.
    let watermark = fixture.watermark().await;
    assert!(
        (moment - 1000..=moment).contains(&watermark),
        "{watermark} for {moment}"
    );
    assert_eq!(fixture.runs("kind = 'full'").await, 2);

    begin_bulk(&fixture, &daemon, "Second", 60_000).await;
    daemon.kill().await;
    fixture.sim.clear_faults();
    let daemon = fixture.start_incremental(&[]).await;
    fixture.wait_for_incremental_sync().await;
    fixture.assert_in_sync().await;
    assert!(fixture.watermark().await > watermark);
    let events = "SELECT concat(count(*), ' ', min(events), ' ', max(events)) FROM
        (SELECT count(*) AS events FROM clerk.user_events WHERE type = 'user.updated' GROUP BY user_id) AS t";
    assert_eq!(fixture.db.text(events).await.unwrap(), "1300 2 2");
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn users_that_move_between_two_pages_are_not_lost() {
    let fixture = Fixture::new(1500).await;
    // Without deletions, only incremental syncs bring the mirror in sync.
    let daemon = fixture
        .start_incremental(&[("CLERK2PG_DELETES__MODE", "keep"), SLOW, LASTING])
        .await;
    let ids = fixture.sim.user_ids();
    let moment = now();
    let changes = || {
        for (n, id) in (0..).zip(&ids[..1300]) {
            rename(&fixture, id, "Changed", moment - n);
        }
        fixture
            .sim
            .set_faults(Rule::new(Effect::LatencyMs(200)).on([Endpoint::List]));
    };
    fixture.while_frozen(&[&daemon], changes).await;
    let answered = fixture.sim.log().len();
    let (mut newest, mut oldest) = (ids[..1300].iter(), ids[..1300].iter().rev());
    let mut pages = 0;
    let is_done = async || fixture.runs("kind = 'incremental' AND ended_at IS NOT NULL").await > 0;
    while !is_done().await {
        eventually("another page", async || {
            fixture.sim.log().len() > answered + pages || is_done().await
        })
        .await;
        pages = fixture.sim.log().len() - answered;
        // More users leave the top than pages overlap, and others move there, so that all below
        // move up.
        for id in newest.by_ref().take(40) {
            assert!(fixture.sim.delete(id), "the walk does not end");
        }
        for id in oldest.by_ref().take(15) {
            rename(&fixture, id, "Changed again", now());
        }
    }
    fixture.sim.clear_faults();
    let offset = |path: &str| path.rsplit_once("&offset=").unwrap().1.parse::<u64>().unwrap();
    let offsets: Vec<u64> = fixture.sim.log()[answered..]
        .iter()
        .map(|page| offset(&page.path))
        .collect();
    let steps_back = offsets
        .windows(2)
        .filter(|pair| pair[1] > 0 && pair[1] < pair[0])
        .count();
    assert!(steps_back > 0, "nothing shifted: {offsets:?}");
    fixture.wait_for_incremental_sync().await;
    fixture.assert_one_full_sync().await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);

    let list = fixture.sim.user_ids().join("','");
    fixture
        .db
        .execute(&format!("DELETE FROM clerk.users WHERE id NOT IN ('{list}')"))
        .await;
    fixture.assert_in_sync().await;
}

/// Changes users at a Clerk with another clock, long enough for incremental syncs to learn how far
/// they must read.
async fn check_clock(hours: i64, prepare: impl Fn(&Fixture)) {
    let fixture = Fixture::new(60).await;
    prepare(&fixture);
    let clerk = Proxy::open(upstream(&fixture.sim.url()));
    clerk.shift_clock(hours * 3600);
    let clock = || now() + hours * 3_600_000;
    let ids = fixture.sim.user_ids();
    let daemon = fixture
        .start_incremental(&[("CLERK_API_URL", &clerk.url(&fixture.sim.url()))])
        .await;
    for (round, id) in ids.iter().enumerate().take(6) {
        rename(&fixture, id, "Changed", clock());
        import(&fixture, &format!("user_new{round}"), clock(), clock());
        fixture.wait_for_incremental_sync().await;
        fixture.assert_in_sync().await;
        if round == 0 {
            prepare(&fixture);
        }
    }
    fixture.assert_one_full_sync().await;
    assert!((clock() - fixture.watermark().await).abs() < 30_000, "{hours} h");
    // Clerk's times have whole seconds, and the machine may be slow.
    let freshness = "SELECT (min(freshness_ms) >= 0 AND max(freshness_ms) < 8000)::int FROM clerk.sync_runs WHERE kind = 'incremental'";
    assert_eq!(fixture.db.number(freshness).await, 1, "{hours} h");
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn different_clocks_lose_no_change() {
    // Each time is later than the one before, as an older document never replaces a newer one at
    // once.
    let from_the_future = |fixture: &Fixture| rename(fixture, &fixture.sim.user_ids()[50], "Early", 2 * now());
    tokio::join!(
        check_clock(-1, |_| ()),
        check_clock(1, |_| ()),
        check_clock(0, from_the_future),
        check_clock(-1, from_the_future),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_waits_while_a_single_run_syncs() {
    const STANDS_BY: &str = "another clerk2pg is syncing";
    let fixture = Fixture::new(1500).await;
    let daemon = fixture
        .start_incremental(&[LASTING, SLOW, ("RUST_LOG", "clerk2pg=debug")])
        .await;
    fixture.wait_for_incremental_sync().await;
    daemon.signal(Signal::STOP);
    fixture.wait_until_answered().await;
    for id in &fixture.sim.user_ids()[..1300] {
        rename(&fixture, id, "Changed", now());
    }
    // After the newest change and the first page, it waits this long for another page.
    fixture
        .sim
        .set_faults(Rule::new(Effect::LatencyMs(60_000)).on([Endpoint::List]).skip(2));
    let at_work = fixture.start_full_sync(&[LASTING, SLOW]);
    eventually("a page is written", async || fixture.last_event().await > 0).await;
    daemon.signal(Signal::CONT);
    daemon.wait_for_log(STANDS_BY).await;
    let (syncs, before) = (fixture.incremental_syncs().len(), daemon.count_in_log(STANDS_BY));
    eventually("it stands by", async || daemon.count_in_log(STANDS_BY) >= before + 3).await;
    assert_eq!(
        fixture.incremental_syncs().len(),
        syncs,
        "a waiting daemon sent requests to Clerk"
    );

    // The single run is gone, and the daemon continues when its lease expires.
    fixture.sim.clear_faults();
    at_work.kill().await;
    fixture.wait_for_incremental_sync().await;
    fixture.assert_in_sync().await;
    fixture.assert_one_at_a_time().await;
    let twice = "SELECT count(*) FROM (SELECT FROM clerk.user_events GROUP BY user_id HAVING count(*) > 1) AS t";
    assert_eq!(fixture.db.number(twice).await, 0);
    let ran = daemon.stop(Signal::TERM).await;
    assert!(
        !ran.stderr.contains("WARN") && !ran.stderr.contains("ERROR"),
        "{ran:#?}"
    );
}
