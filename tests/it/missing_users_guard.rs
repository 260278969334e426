//! Mass deletions between full syncs, at once or one by one: they are held, and cause no search at
//! every sync.

use std::collections::BTreeSet;

use crate::support::{polling::PollingDaemon, summary::Exit, wait::eventually};

const MIN_COUNT: &str = "CLERK2PG_DELETES__MIN_COUNT";

impl PollingDaemon {
    /// Waits until this many deletions are held, and returns the checksum that `status` shows.
    async fn held(&self, users: usize) -> String {
        let held = "SELECT count(*) FROM clerk.missing_users WHERE held_at IS NOT NULL AND approved_at IS NULL";
        eventually(&format!("{users} are held"), async || {
            self.fixture.db.number(held).await == users as i64
        })
        .await;
        let ended = "SELECT (outcome = 'held')::int FROM clerk.sync_runs ORDER BY id DESC LIMIT 1";
        eventually("the sync has ended", async || self.fixture.db.number(ended).await == 1).await;
        let status = self.fixture.run(&["status", "--format", "json"]).await.json();
        assert_eq!(status["held"], users, "{status}");
        status["plan"]
            .as_str()
            .unwrap_or_else(|| panic!("no plan: {status}"))
            .to_owned()
    }

    async fn approve(&self, sum: &str) {
        let ran = self.fixture.run(&["approve", sum]).await;
        ran.assert_exit(Exit::Ok);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_deletions_at_once_cause_a_full_sync_and_are_held() {
    let polling = PollingDaemon::new(3_000, &[]).await;
    let sim = &polling.fixture.sim;
    let gone: BTreeSet<String> = sim.user_ids().into_iter().step_by(4).collect();
    assert!(gone.iter().all(|id| sim.delete(id)));
    polling.daemon.wait_for_log("a full sync is due").await;
    let sum = polling.held(gone.len()).await;
    polling.assert_idle("many are held").await;
    assert_eq!(polling.fixture.runs("kind = 'full'").await, 2);
    // Everything else continues.
    let new = sim.create_random();
    polling.wait_until_mirrored_user(&new).await;
    assert_eq!(polling.fixture.users().await, 3_001);

    polling.approve(&sum).await;
    eventually("all of them go", async || polling.fixture.users().await == 2_251).await;
    polling.stop_in_sync(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deletions_within_the_limits_cause_a_full_sync_and_are_carried_out() {
    let polling = PollingDaemon::new(3_000, &[]).await;
    let ids = polling.fixture.sim.user_ids();
    polling.delete(ids.iter().step_by(10)).await;
    assert_eq!(
        polling.daemon.count_in_log("a full sync is due"),
        1,
        "{}",
        polling.daemon.log()
    );
    polling.stop_in_sync(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn single_deletions_are_held_from_the_eleventh_on() {
    let polling = PollingDaemon::new(40, &[]).await;
    let sim = &polling.fixture.sim;
    let ids = sim.user_ids();
    for id in &ids[5..15] {
        polling.delete([id]).await;
    }
    assert!(sim.delete(&ids[20]));
    let first = polling.held(1).await;
    polling.assert_idle("the eleventh is held").await;
    assert!(polling.is_mirrored(&ids[20]).await);

    // One more deletion changes the plan.
    assert!(sim.delete(&ids[21]));
    let both = polling.held(2).await;
    assert_ne!(first, both);
    polling.assert_idle("two are held").await;
    assert_eq!(polling.not_mirrored().await.len(), 0);
    assert_eq!(polling.fixture.users().await, 30);
    // New and changed users are mirrored.
    let new = sim.create_random();
    polling.wait_until_mirrored_user(&new).await;
    polling.assert_counted().await;

    let refused = polling.fixture.run(&["approve", &first]).await;
    refused.assert_exit(Exit::Failed);
    polling.approve(&both).await;
    polling.wait_until_gone(&ids[20]).await;
    polling.wait_until_gone(&ids[21]).await;
    polling.stop_in_sync(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn single_deletions_within_the_limits_are_carried_out() {
    let polling = PollingDaemon::new(40, &[(MIN_COUNT, "15")]).await;
    let ids = polling.fixture.sim.user_ids();
    for id in &ids[5..20] {
        polling.delete([id]).await;
    }
    assert_eq!(polling.fixture.runs("held > 0").await, 0);
    assert!(polling.fixture.sim.delete(&ids[30]));
    polling.held(1).await;
    polling.assert_idle("the sixteenth is held").await;
    assert_eq!(polling.fixture.runs("kind = 'full'").await, 1);
    polling.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deletions_of_all_syncs_within_the_hour_count() {
    let polling = PollingDaemon::new(40, &[]).await;
    let (sim, db) = (&polling.fixture.sim, &polling.fixture.db);
    let ids = sim.user_ids();
    let went = |hours: u32| {
        format!(
            "INSERT INTO clerk.recent_deletions (resource, deleted_at, objects) VALUES ('users', now() - interval '{hours} hours 1 minute', 30)"
        )
    };
    db.execute(&went(2)).await;
    polling.delete(&ids[10..18]).await;
    db.execute(&went(0)).await;
    assert!(sim.delete(&ids[30]));
    polling.held(1).await;
    // Nor does another kind of sync carry it out.
    polling.fixture.db.execute("NOTIFY clerk2pg, 'full'").await;
    eventually("a full sync", async || {
        polling
            .fixture
            .runs("kind = 'full' AND holder <> 'x' AND outcome = 'held'")
            .await
            == 1
    })
    .await;
    assert!(polling.is_mirrored(&ids[30]).await);
    polling.stop().await;
}
