//! The database's clock jumps. One server serves many tests, so the stored times move instead: an
//! expiry half an hour ahead equals a clock that went back by half an hour.

use clerk_sim::{Effect, Endpoint, Rule};
use rustix::process::Signal;

use crate::support::{
    faults::slow_pages,
    fixture::{Fixture, mirrored},
    monitored::{ANY, MonitoredDaemon},
    process::{EVERY_SECOND, NEVER, Process},
    summary::{Exit, changed, held},
    wait::eventually,
};

/// The lease's duration in these tests.
const LEASE: (&str, &str) = ("CLERK2PG_LEASE__TTL", "3s");

impl Fixture {
    /// Moves the database's clock, as far as expiries show it.
    async fn clock_jumps(&self, by: &str) {
        let sql = format!(
            "UPDATE clerk.leader SET expires_at = expires_at - interval '{by}';
             UPDATE clerk.standbys SET expires_at = expires_at - interval '{by}', since = since - interval '{by}';
             UPDATE clerk.sync_state SET lease_expires_at = lease_expires_at - interval '{by}'"
        );
        self.db.execute(&sql).await;
    }

    async fn stand_by(&self, count: i64) {
        let standbys = "SELECT count(*) FROM clerk.standbys
            WHERE expires_at BETWEEN clock_timestamp() AND clock_timestamp() + interval '10 s'";
        eventually("others stand by", async || self.db.number(standbys).await == count).await;
    }

    /// Returns the process id of the leader.
    async fn leader(&self) -> Option<u32> {
        let holder = self.db.text("SELECT holder FROM clerk.leader WHERE holder IS NOT NULL");
        holder.await?.split(':').nth_back(1)?.parse().ok()
    }
}

/// Starts a leader and a standby.
async fn two(fixture: &Fixture) -> (Process, MonitoredDaemon) {
    let leader = fixture.start_incremental(&[LEASE]).await;
    let standby = MonitoredDaemon::new(fixture.start_daemon(&[NEVER, EVERY_SECOND, LEASE, ANY])).await;
    fixture.stand_by(1).await;
    standby.wait_until_ready("standing by").await;
    (leader, standby)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_takes_over_when_the_leader_died_before_the_clock_went_back() {
    let fixture = Fixture::new(20).await;
    let (leader, standby) = two(&fixture).await;
    leader.kill().await;
    fixture.clock_jumps("-30 minutes").await;
    eventually("the other one leads", async || {
        fixture.leader().await == Some(standby.daemon.pid())
    })
    .await;
    fixture.sim.create_random();
    fixture.wait_until_mirrored().await;
    standby.wait_until_ready("in sync").await;
    standby.daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_started_after_the_clock_went_back_leads_at_once() {
    let fixture = Fixture::new(20).await;
    fixture.start_incremental(&[LEASE]).await.kill().await;
    fixture.clock_jumps("-30 minutes").await;
    // The leader alone never renewed the lease, so only its first expiry is stored.
    let daemon = fixture.start_incremental(&[LEASE]).await;
    fixture.sim.create_random();
    fixture.wait_until_mirrored().await;
    assert_eq!(fixture.leader().await, Some(daemon.pid()));
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_taken_before_the_clock_went_back_expires() {
    let fixture = Fixture::new(20).await;
    fixture
        .sim
        .set_faults(Rule::new(Effect::Stall).on([Endpoint::List]).next(1));
    let first = fixture.start_full_sync(&[LEASE, ("CLERK2PG_CLERK__TIMEOUT", "60s")]);
    eventually("the first is at work", async || {
        fixture.runs("outcome = 'running'").await == 1
    })
    .await;
    first.kill().await;
    fixture.clock_jumps("-30 minutes").await;
    let ran = fixture.run(&["status", "--format", "json"]).await;
    assert!(ran.json()["lease_holder"].is_null(), "{ran:#?}");
    fixture.once().await.assert(Exit::Ok, changed().created(20));
}

#[tokio::test(flavor = "multi_thread")]
async fn clock_jumps_lose_nothing_and_allow_one_writer_at_a_time() {
    let fixture = Fixture::new(20).await;
    let (leader, standby) = two(&fixture).await;
    for by in ["30 minutes", "-30 minutes", "1 day", "-1 day"] {
        fixture.clock_jumps(by).await;
        fixture.sim.create_random();
        fixture.sim.update_random();
        fixture.sim.delete_random();
        fixture.wait_until_mirrored().await;
        let pids = [leader.pid(), standby.daemon.pid()];
        eventually("one of the two leads", async || {
            fixture.leader().await.is_some_and(|pid| pids.contains(&pid))
        })
        .await;
        fixture.stand_by(1).await;
    }
    for process in [leader, standby.daemon] {
        process.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    }
    fixture.assert_one_at_a_time().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_without_a_duration_expires_after_the_readers_own() {
    let fixture = Fixture::new(20).await;
    fixture.start_incremental(&[LEASE]).await.kill().await;
    fixture
        .db
        .execute(
            "UPDATE clerk.leader SET holder = 'old:1:a', expires_at = now() + interval '20 minutes', ttl = NULL;
             UPDATE clerk.sync_state SET lease_holder = 'old:1:a', lease_expires_at = now() + interval '20 minutes',
                 lease_ttl = NULL",
        )
        .await;
    let daemon = fixture.start_incremental(&[LEASE]).await;
    assert_eq!(fixture.leader().await, Some(daemon.pid()));
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_from_the_future_is_not_resumed() {
    let fixture = Fixture::new(100).await;
    fixture.sim.set_faults(slow_pages(10, 100));
    for (age, resumes) in [("1 minute", true), ("-30 minutes", false)] {
        let run = fixture.start_full_sync(&[]);
        let cut = "SELECT coalesce(sum((part #>> '{position,seen}')::bigint), 0)::bigint
            FROM clerk.resource_state, jsonb_array_elements(checkpoint -> 'parts') AS part";
        eventually("a part of the walk is done", async || {
            fixture.runs("outcome = 'running'").await == 1 && fixture.db.number(cut).await >= 20
        })
        .await;
        run.kill().await;
        let aged = format!(
            "UPDATE clerk.resource_state SET checkpoint = jsonb_set(jsonb_set(checkpoint,
                 '{{written_at}}', to_jsonb(now() - interval '{age}')), '{{started_at}}', to_jsonb(now() - interval '{age}'))"
        );
        fixture.db.execute(&aged).await;
        fixture.once().await.assert_exit(Exit::Ok);
        let resumed = "SELECT (resumed IS NOT NULL)::text FROM clerk.sync_runs ORDER BY id DESC LIMIT 1";
        assert_eq!(fixture.db.text(resumed).await, Some(resumes.to_string()), "{age}");
        fixture
            .db
            .execute("DELETE FROM clerk.users; UPDATE clerk.resource_state SET objects = 0")
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_held_or_updated_before_the_clock_went_back_count_as_old() {
    let fixture = mirrored(50).await;
    let ids = fixture.sim.user_ids();
    let document = fixture.sim.document(&ids[3]).unwrap();
    ids[..12].iter().for_each(|id| assert!(fixture.sim.delete(id)));
    fixture.once().await.assert(Exit::Held, held(12).unchanged(38));
    let ahead = "UPDATE clerk.missing SET held_at = held_at + interval '30 minutes'";
    fixture.db.execute(ahead).await;
    fixture.sim.insert(document);
    fixture.once().await.assert(Exit::Held, held(11).unchanged(39));

    // An older state is stored if Clerk still shows it when asked again.
    let id = &ids[20];
    let old = fixture.sim.document(id).unwrap();
    fixture.sim.update(id, |user| user["first_name"] = "Newer".into());
    fixture
        .once()
        .await
        .assert(Exit::Held, held(11).updated(1).unchanged(38));
    let ahead = "UPDATE clerk.users SET changed_at = changed_at + interval '30 minutes'";
    fixture.db.execute(ahead).await;
    fixture.sim.insert(old);
    fixture
        .once()
        .await
        .assert(Exit::Held, held(11).updated(1).unchanged(39));
}
