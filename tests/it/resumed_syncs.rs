//! A full sync that is killed, stopped or interrupted anywhere is resumed by the next one, and no
//! user is lost, doubled or wrongly deleted.

use std::time::Duration;

use clerk_sim::{Effect, Endpoint, ErrorAnswer, ErrorBody, Faults, Options, Quirks, Rule};
use rustix::process::Signal;

use crate::support::{
    fixture::Fixture,
    process::Process,
    program::ProgramOutput,
    summary::{Exit, changed, in_sync},
    wait::eventually,
};
impl Fixture {
    /// Kills a full sync once it has stored `users` users.
    async fn kill_at(&self, users: i64) {
        let run = self.start_full_sync(&[]);
        self.has_users(users).await;
        run.kill().await;
    }

    async fn has_users(&self, users: i64) {
        eventually("there is a schema", async || self.runs("true").await > 0).await;
        eventually(&format!("{users} users"), async || self.users().await >= users).await;
    }

    async fn total(&self, column: &str) -> i64 {
        self.db
            .number(&format!("SELECT sum({column}) FROM clerk.sync_runs"))
            .await
    }

    /// Whether the last sync resumed another one's walk.
    async fn resumed(&self) -> bool {
        let last = "SELECT (resumed IS NOT NULL)::int FROM clerk.sync_runs ORDER BY id DESC LIMIT 1";
        self.db.number(last).await == 1
    }
}

/// Small pages, so that there is a walk to interrupt.
fn small_pages(page: usize) -> Quirks {
    Quirks {
        max_page: Some(page),
        ..Quirks::default()
    }
}

async fn slow_fixture(users: usize, page: usize, latency: Duration) -> Fixture {
    let fixture = Fixture::with(Options {
        users,
        latency,
        ..Options::default()
    })
    .await;
    fixture.sim.set_faults(small_pages(page));
    fixture
}

fn met(ran: &ProgramOutput) -> i64 {
    let json = ran.json();
    ["created", "updated", "unchanged"]
        .map(|name| json[name].as_i64().unwrap())
        .iter()
        .sum()
}

async fn killed_at_random_moments(seed: u64) {
    const USERS: usize = 2000;
    let fixture = slow_fixture(USERS, 80, Duration::from_millis(20)).await;
    let mut random = fastrand::Rng::with_seed(seed);
    // At least five kills. A busy machine needs more until a first page is committed between two of
    // them.
    for kills in 1.. {
        let run = fixture.start_full_sync(&[]);
        // At first, a lease of a second may be in the way. After that, any moment is possible.
        let begun = fixture.runs("true").await;
        let begins = async || fixture.runs("true").await > begun;
        eventually("the run begins", begins).await;
        tokio::time::sleep(Duration::from_millis(random.u64(0..250))).await;
        run.kill().await;
        if kills >= 5 && fixture.checkpoint().await > 0 {
            break;
        }
        assert!(kills < 50, "seed {seed}: nothing is ever stored");
    }
    let runs = fixture.runs("true").await;
    let walked = fixture.checkpoint().await;
    let ran = fixture.once().await;
    assert_eq!(ran.code, Some(0), "seed {seed}: {ran:#?}");
    fixture.assert_in_sync().await;

    assert!(fixture.resumed().await, "seed {seed}: the walk began anew");
    let (met, rest) = (met(&ran), USERS as i64 - walked);
    // At most the page at the checkpoint is read twice.
    assert!(
        (rest..=rest + 80).contains(&met),
        "seed {seed}: {walked} walked, then met {met}: {ran:#?}"
    );
    assert_eq!(fixture.total("created").await, USERS as i64, "seed {seed}");
    let killed = "outcome = 'failed' AND error = 'the process ended before the sync did' AND ended_at IS NOT NULL";
    assert_eq!(fixture.runs(killed).await, runs, "seed {seed}");
    fixture.assert_one_at_a_time().await;
    fixture.once().await.assert(Exit::Ok, in_sync().unchanged(2000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_killed_repeatedly_is_resumed_1() {
    killed_at_random_moments(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_killed_repeatedly_is_resumed_2() {
    killed_at_random_moments(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_sync_is_resumed() {
    for signal in [Signal::TERM, Signal::INT] {
        let fixture = slow_fixture(300, 20, Duration::from_millis(50)).await;
        let run = fixture.start_full_sync(&[]);
        fixture.has_users(100).await;
        let ran = run.stop(signal).await;
        assert_eq!(
            (ran.code, ran.json()["outcome"].as_str()),
            (Some(1), Some("failed")),
            "{ran:#?}"
        );
        assert!(
            ran.stderr.contains("error: stopped before the sync was done"),
            "{ran:#?}"
        );
        assert_eq!(fixture.lease_holder().await, None);
        assert_eq!(fixture.runs("outcome = 'failed' AND error LIKE 'stopped%'").await, 1);

        let walked = fixture.checkpoint().await;
        assert!(walked >= 80, "{walked}");
        let ran = fixture.once().await;
        ran.assert_exit(Exit::Ok);
        assert!(
            fixture.resumed().await && met(&ran) <= 300 - walked + 20,
            "{walked} {ran:#?}"
        );
        fixture.assert_in_sync().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_interrupted_by_an_outage_is_resumed() {
    let fixture = slow_fixture(300, 20, Duration::ZERO).await;
    let outage = |skip| Faults {
        quirks: small_pages(20),
        rules: vec![
            Rule::new(Effect::Error(ErrorAnswer {
                status: 503,
                retry_after: None,
                body: ErrorBody::Html,
            }))
            .skip(skip),
        ],
    };
    // The instance, twice before it is pinned, the newest change and the count precede the first
    // page.
    fixture.sim.set_faults(outage(4 + 6));
    let ran = fixture.once_with(&[("CLERK2PG_CLERK__TIMEOUT", "1s")]).await;
    ran.assert_exit(Exit::Failed);
    assert_eq!(fixture.users().await, 120, "what was read is there");
    fixture.sim.set_faults(small_pages(20));
    let ran = fixture.once().await;
    ran.assert_exit(Exit::Ok);
    assert!(fixture.resumed().await && met(&ran) < 300 - 100 + 20, "{ran:#?}");
    fixture.assert_in_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_is_valid_for_an_hour() {
    for (minutes, resumes) in [(59, true), (61, false)] {
        let fixture = slow_fixture(200, 20, Duration::from_millis(20)).await;
        fixture.kill_at(100).await;
        let aged = format!(
            "UPDATE clerk.resource_state SET checkpoint =
             jsonb_set(checkpoint, '{{written_at}}', to_jsonb(now() - interval '{minutes} minutes'))"
        );
        fixture.db.execute(&aged).await;
        let ran = fixture.once().await;
        ran.assert_exit(Exit::Ok);
        assert_eq!(
            (fixture.resumed().await, met(&ran) == 200),
            (resumes, !resumes),
            "{ran:#?}"
        );
        fixture.assert_in_sync().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_of_another_version_is_ignored() {
    let fixture = slow_fixture(200, 20, Duration::from_millis(20)).await;
    fixture.kill_at(100).await;
    fixture
        .db
        .execute("UPDATE clerk.resource_state SET checkpoint = '{\"pages\": [1, 2]}'")
        .await;
    let ran = fixture.once().await;
    assert_eq!((ran.code, met(&ran)), (Some(0), 200), "{ran:#?}");
    fixture.assert_in_sync().await;
}

/// No limits in these tests.
const UNGUARDED: [(&str, &str); 1] = [("CLERK2PG_DELETES__MAX_PERCENT", "100")];

async fn begin_and(fixture: &Fixture, end: impl AsyncFnOnce(Process)) {
    let run = fixture.start_full_sync(&UNGUARDED);
    // Deletions are confirmed in batches of a hundred.
    eventually("the first deletions", async || fixture.users().await < 300).await;
    assert!(fixture.users().await > 150, "all are deleted already");
    end(run).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_killed_while_deleting_is_resumed() {
    let fixture = Fixture::new(300).await;
    fixture.once().await.assert(Exit::Ok, changed().created(300));
    (0..150).for_each(|_| drop(fixture.sim.delete_random()));
    let slow = Rule::new(Effect::LatencyMs(10)).on([Endpoint::Get]);
    fixture.sim.set_faults(slow);
    begin_and(&fixture, async |run| run.kill().await).await;
    fixture.sim.clear_faults();
    let ran = fixture.once_with(&UNGUARDED).await;
    ran.assert_exit(Exit::Ok);
    fixture.assert_in_sync().await;
    assert_eq!((fixture.users().await, fixture.total("deleted").await), (150, 150));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_stopped_while_deleting_is_resumed() {
    let fixture = Fixture::new(300).await;
    fixture.once().await.assert(Exit::Ok, changed().created(300));
    (0..150).for_each(|_| drop(fixture.sim.delete_random()));
    fixture
        .sim
        .set_faults(Rule::new(Effect::LatencyMs(10)).on([Endpoint::Get]));
    begin_and(&fixture, async |run| {
        let ran = run.stop(Signal::TERM).await;
        ran.assert_exit(Exit::Failed);
    })
    .await;
    fixture.sim.clear_faults();
    let ran = fixture.once_with(&UNGUARDED).await;
    ran.assert_exit(Exit::Ok);
    fixture.assert_in_sync().await;
    assert_eq!((fixture.users().await, fixture.total("deleted").await), (150, 150));
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_between_the_kill_and_the_next_run_are_mirrored() {
    let fixture = slow_fixture(300, 20, Duration::from_millis(20)).await;
    fixture.once().await.assert(Exit::Ok, changed().created(300));
    let ids = fixture.sim.user_ids();
    // Changes everywhere, so that the second walk moves its checkpoint.
    for id in ids.iter().step_by(7) {
        fixture.sim.update(id, |user| user["first_name"] = "Second".into());
    }
    let run = fixture.start_full_sync(&[]);
    eventually("the second walk is half way", async || {
        fixture.checkpoint().await >= 140
    })
    .await;
    run.kill().await;
    let walked = fixture.checkpoint().await as usize;
    assert!(walked < 280, "{walked}");

    // In the walked part, in the other part, and around the checkpoint.
    for at in [3, 50, walked - 2, walked - 1, walked, walked + 1, 290] {
        assert!(fixture.sim.delete(&ids[at]));
    }
    for at in [10, walked - 5, walked + 5, 280] {
        fixture.sim.update(&ids[at], |user| user["last_name"] = "Third".into());
    }
    // A user of the walked part moves after it: `created_at` can be set.
    fixture
        .sim
        .update(&ids[20], |user| user["created_at"] = clerk_time_of_now());
    (0..3).for_each(|_| drop(fixture.sim.create_random()));

    let resumed = fixture.once().await;
    assert!(matches!(resumed.code, Some(0 | 1)), "{resumed:#?}");
    assert!(fixture.resumed().await);
    // Every user of Clerk is mirrored: none was deleted wrongly.
    let mirror = fixture.db.documents().await;
    let lost: Vec<String> = fixture
        .sim
        .user_ids()
        .into_iter()
        .filter(|id| !mirror.contains_key(id))
        .collect();
    assert_eq!(lost, Vec::<String>::new(), "{resumed:#?}");

    let next = fixture.once().await;
    next.assert_exit(Exit::Ok);
    assert!(!fixture.resumed().await);
    fixture.assert_in_sync().await;
}

fn clerk_time_of_now() -> serde_json::Value {
    chrono::DateTime::<chrono::Utc>::from(std::time::SystemTime::now())
        .timestamp_millis()
        .into()
}

#[tokio::test(flavor = "multi_thread")]
async fn users_walked_before_the_interruption_may_be_deleted_since() {
    let fixture = slow_fixture(300, 20, Duration::from_millis(50)).await;
    fixture.kill_at(100).await;
    assert!(fixture.checkpoint().await >= 20);
    let ids = fixture.sim.user_ids();
    assert!(ids[..5].iter().all(|id| fixture.sim.delete(id)));
    let ran = fixture.once().await;
    ran.assert_exit(Exit::Ok);
    assert!(fixture.resumed().await);
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().deleted(5).unchanged(295));
}
