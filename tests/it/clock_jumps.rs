//! The database's clock jumps. One server serves many tests, so the stored times move instead: an
//! expiry half an hour ahead equals a clock that went back by half an hour.

use clerk_sim::{Effect, Endpoint, Rule};
use rustix::process::Signal;

use crate::support::{
    faults::slow_pages,
    fixture::{World, mirrored},
    monitored::{ANY, MonitoredDaemon},
    process::{EVERY_SECOND, NEVER, Process},
    summary::{Exit, changed, held},
    wait::eventually,
};

/// The lease's duration in these tests.
const LEASE: (&str, &str) = ("CLERK2PG_LEASE__TTL", "3s");

impl World {
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
async fn two(world: &World) -> (Process, MonitoredDaemon) {
    let leader = world.start_incremental(&[LEASE]).await;
    let standby = MonitoredDaemon::new(world.start_daemon(&[NEVER, EVERY_SECOND, LEASE, ANY])).await;
    world.stand_by(1).await;
    standby.wait_until_ready("standing by").await;
    (leader, standby)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_takes_over_when_the_leader_died_before_the_clock_went_back() {
    let world = World::new(20).await;
    let (leader, standby) = two(&world).await;
    leader.kill().await;
    world.clock_jumps("-30 minutes").await;
    eventually("the other one leads", async || {
        world.leader().await == Some(standby.daemon.pid())
    })
    .await;
    world.sim.create_random();
    world.wait_until_mirrored().await;
    standby.wait_until_ready("in sync").await;
    assert_eq!(standby.daemon.stop(Signal::TERM).await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_started_after_the_clock_went_back_leads_at_once() {
    let world = World::new(20).await;
    world.start_incremental(&[LEASE]).await.kill().await;
    world.clock_jumps("-30 minutes").await;
    // The leader alone never renewed the lease, so only its first expiry is stored.
    let daemon = world.start_incremental(&[LEASE]).await;
    world.sim.create_random();
    world.wait_until_mirrored().await;
    assert_eq!(world.leader().await, Some(daemon.pid()));
    assert_eq!(daemon.stop(Signal::TERM).await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_taken_before_the_clock_went_back_expires() {
    let world = World::new(20).await;
    world
        .sim
        .set_faults(Rule::new(Effect::Stall).on([Endpoint::List]).next(1));
    let first = world.start_full_sync(&[LEASE, ("CLERK2PG_CLERK__TIMEOUT", "60s")]);
    eventually("the first is at work", async || {
        world.runs("outcome = 'running'").await == 1
    })
    .await;
    first.kill().await;
    world.clock_jumps("-30 minutes").await;
    let ran = world.run(&["status", "--format", "json"]).await;
    assert!(ran.json()["lease_holder"].is_null(), "{ran:#?}");
    world.once().await.assert(Exit::Ok, changed().created(20));
}

#[tokio::test(flavor = "multi_thread")]
async fn clock_jumps_lose_nothing_and_allow_one_writer_at_a_time() {
    let world = World::new(20).await;
    let (leader, standby) = two(&world).await;
    for by in ["30 minutes", "-30 minutes", "1 day", "-1 day"] {
        world.clock_jumps(by).await;
        world.sim.create_random();
        world.sim.update_random();
        world.sim.delete_random();
        world.wait_until_mirrored().await;
        let pids = [leader.pid(), standby.daemon.pid()];
        eventually("one of the two leads", async || {
            world.leader().await.is_some_and(|pid| pids.contains(&pid))
        })
        .await;
        world.stand_by(1).await;
    }
    for process in [leader, standby.daemon] {
        assert_eq!(process.stop(Signal::TERM).await.code, Some(0));
    }
    world.assert_one_at_a_time().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_without_a_duration_expires_after_the_readers_own() {
    let world = World::new(20).await;
    world.start_incremental(&[LEASE]).await.kill().await;
    world
        .db
        .execute(
            "UPDATE clerk.leader SET holder = 'old:1:a', expires_at = now() + interval '20 minutes', ttl = NULL;
             UPDATE clerk.sync_state SET lease_holder = 'old:1:a', lease_expires_at = now() + interval '20 minutes',
                 lease_ttl = NULL",
        )
        .await;
    let daemon = world.start_incremental(&[LEASE]).await;
    assert_eq!(world.leader().await, Some(daemon.pid()));
    assert_eq!(daemon.stop(Signal::TERM).await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_from_the_future_is_not_resumed() {
    let world = World::new(100).await;
    world.sim.set_faults(slow_pages(10, 100));
    for (age, resumes) in [("1 minute", true), ("-30 minutes", false)] {
        let run = world.start_full_sync(&[]);
        let cut = "SELECT coalesce(sum((part #>> '{position,seen}')::bigint), 0)::bigint
            FROM clerk.sync_state, jsonb_array_elements(checkpoint -> 'parts') AS part";
        eventually("a part of the walk is done", async || {
            world.runs("outcome = 'running'").await == 1 && world.db.number(cut).await >= 20
        })
        .await;
        run.kill().await;
        let aged = format!(
            "UPDATE clerk.sync_state SET checkpoint = jsonb_set(jsonb_set(checkpoint,
                 '{{written_at}}', to_jsonb(now() - interval '{age}')), '{{started_at}}', to_jsonb(now() - interval '{age}'))"
        );
        world.db.execute(&aged).await;
        assert_eq!(world.once().await.code, Some(0));
        let resumed = "SELECT (resumed IS NOT NULL)::text FROM clerk.sync_runs ORDER BY id DESC LIMIT 1";
        assert_eq!(world.db.text(resumed).await, Some(resumes.to_string()), "{age}");
        world
            .db
            .execute("DELETE FROM clerk.users; UPDATE clerk.sync_state SET users = 0")
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_held_or_updated_before_the_clock_went_back_count_as_old() {
    let world = mirrored(50).await;
    let ids = world.sim.user_ids();
    let document = world.sim.document(&ids[3]).unwrap();
    ids[..12].iter().for_each(|id| assert!(world.sim.delete(id)));
    world.once().await.assert(Exit::Held, held(12).unchanged(38));
    let ahead = "UPDATE clerk.missing_users SET held_at = held_at + interval '30 minutes'";
    world.db.execute(ahead).await;
    world.sim.insert(document);
    world.once().await.assert(Exit::Held, held(11).unchanged(39));

    // An older state is stored if Clerk still shows it when asked again.
    let id = &ids[20];
    let old = world.sim.document(id).unwrap();
    world.sim.update(id, |user| user["first_name"] = "Newer".into());
    world.once().await.assert(Exit::Held, held(11).updated(1).unchanged(38));
    let ahead = "UPDATE clerk.users SET changed_at = changed_at + interval '30 minutes'";
    world.db.execute(ahead).await;
    world.sim.insert(old);
    world.once().await.assert(Exit::Held, held(11).updated(1).unchanged(39));
}
