//! Mass deletions between full syncs, at once and one after the other: held as ever, and no reason to search with every look.

use std::collections::BTreeSet;

use crate::support::{following::Following, wait::eventually};

const MIN_COUNT: &str = "CLERK2PG_DELETES__MIN_COUNT";

impl Following {
    /// The checksum that `status` tells, once so many are held.
    async fn held(&self, users: usize) -> String {
        let held = "SELECT count(*) FROM clerk.missing_users WHERE held_at IS NOT NULL AND approved_at IS NULL";
        eventually(&format!("{users} are held"), async || {
            self.world.db.number(held).await == users as i64
        })
        .await;
        let ended = "SELECT (outcome = 'held')::int FROM clerk.sync_runs ORDER BY id DESC LIMIT 1";
        eventually("the sync has ended", async || self.world.db.number(ended).await == 1).await;
        let status = self.world.run(&["status", "--format", "json"]).await.json();
        assert_eq!(status["held"], users, "{status}");
        status["plan"]
            .as_str()
            .unwrap_or_else(|| panic!("no plan: {status}"))
            .to_owned()
    }

    async fn approve(&self, sum: &str) {
        let ran = self.world.run(&["approve", sum]).await;
        assert_eq!(ran.code, Some(0), "{ran:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_are_walked_for_and_held() {
    let following = Following::new(3_000, &[]).await;
    let sim = &following.world.sim;
    let gone: BTreeSet<String> = sim.user_ids().into_iter().step_by(4).collect();
    assert!(gone.iter().all(|id| sim.delete(id)));
    following.daemon.says("a full sync is due").await;
    let sum = following.held(gone.len()).await;
    following.is_idle("many are held").await;
    assert_eq!(following.world.runs("kind = 'full'").await, 2);
    // All else goes on beside them.
    let new = sim.create_random();
    following.comes(&new).await;
    assert_eq!(following.world.users().await, 3_001);

    following.approve(&sum).await;
    eventually("all of them go", async || following.world.users().await == 2_251).await;
    following.ends_in_step(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_as_the_limits_allow_are_walked_for_and_go() {
    let following = Following::new(3_000, &[]).await;
    let ids = following.world.sim.user_ids();
    following.delete(ids.iter().step_by(10)).await;
    assert_eq!(
        following.daemon.said("a full sync is due"),
        1,
        "{}",
        following.daemon.log()
    );
    following.ends_in_step(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_after_the_other_is_held_from_the_eleventh_on() {
    let following = Following::new(40, &[]).await;
    let sim = &following.world.sim;
    let ids = sim.user_ids();
    for id in &ids[5..15] {
        following.delete([id]).await;
    }
    assert!(sim.delete(&ids[20]));
    let first = following.held(1).await;
    following.is_idle("the eleventh is held").await;
    assert!(following.is_mirrored(&ids[20]).await);

    // The next one makes another plan.
    assert!(sim.delete(&ids[21]));
    let both = following.held(2).await;
    assert_ne!(first, both);
    following.is_idle("two are held").await;
    assert_eq!(following.lost().await.len(), 0);
    assert_eq!(following.world.users().await, 30);
    // One who comes is mirrored, and one who changes.
    let new = sim.create_random();
    following.comes(&new).await;
    following.is_counted().await;

    let refused = following.world.run(&["approve", &first]).await;
    assert_eq!(refused.code, Some(1), "{refused:#?}");
    following.approve(&both).await;
    following.goes(&ids[20]).await;
    following.goes(&ids[21]).await;
    following.ends_in_step(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_after_the_other_goes_where_the_limits_allow_it() {
    let following = Following::new(40, &[(MIN_COUNT, "15")]).await;
    let ids = following.world.sim.user_ids();
    for id in &ids[5..20] {
        following.delete([id]).await;
    }
    assert_eq!(following.world.runs("held > 0").await, 0);
    assert!(following.world.sim.delete(&ids[30]));
    following.held(1).await;
    following.is_idle("the sixteenth is held").await;
    assert_eq!(following.world.runs("kind = 'full'").await, 1);
    following.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_any_sync_deleted_within_the_hour_counts() {
    let following = Following::new(40, &[]).await;
    let (sim, db) = (&following.world.sim, &following.world.db);
    let ids = sim.user_ids();
    let went = |hours: u32| {
        format!(
            "INSERT INTO clerk.recent_deletions (deleted_at, users) VALUES (now() - interval '{hours} hours 1 minute', 30)"
        )
    };
    db.execute(&went(2)).await;
    following.delete(&ids[10..18]).await;
    db.execute(&went(0)).await;
    assert!(sim.delete(&ids[30]));
    following.held(1).await;
    // Nor does another kind of sync let it through.
    following.world.db.execute("NOTIFY clerk2pg, 'full'").await;
    eventually("a full sync", async || {
        following
            .world
            .runs("kind = 'full' AND holder <> 'x' AND outcome = 'held'")
            .await
            == 1
    })
    .await;
    assert!(following.is_mirrored(&ids[30]).await);
    following.ends().await;
}
