//! A daemon that runs one full sync at its start and then an incremental sync every second.

use std::collections::BTreeSet;

use rustix::process::Signal;

use crate::support::{
    fixture::{Fixture, mirrored_ids},
    process::{EVERY_SECOND, NEVER, Process},
    program::ProgramOutput,
    summary::Exit,
    wait::eventually,
};

/// A daemon whose first full sync is over.
pub struct PollingDaemon {
    pub fixture: Fixture,
    pub daemon: Process,
    /// Requests until the first full sync was over.
    started_at_request: usize,
}

/// An incremental sync sends two requests: for the recent changes, and for the number of users.
fn is_recent(path: &str) -> bool {
    path.contains("order_by=-updated_at")
}

fn is_total(path: &str) -> bool {
    path == "/v1/users/count"
}

impl PollingDaemon {
    pub async fn new(users: usize, environment: &[(&str, &str)]) -> Self {
        Self::with_fixture(Fixture::migrated_with(users).await, environment).await
    }

    pub async fn with_fixture(fixture: Fixture, environment: &[(&str, &str)]) -> Self {
        let full_syncs = fixture.runs("kind = 'full' AND ended_at IS NOT NULL").await;
        let daemon = fixture.start_daemon(&[&[NEVER, EVERY_SECOND], environment].concat());
        eventually("a full sync", async || {
            fixture.runs("kind = 'full' AND ended_at IS NOT NULL").await > full_syncs
        })
        .await;
        fixture.age_rows().await;
        let mut polling = Self {
            fixture,
            daemon,
            started_at_request: 0,
        };
        polling.started_at_request = polling.paths(0).len();
        polling
    }

    fn paths(&self, from: usize) -> Vec<String> {
        let log = self.fixture.sim.log();
        assert!(log.len() < 10_000, "the log has forgotten the first requests");
        log[from..].iter().map(|request| request.path.clone()).collect()
    }

    /// Returns the requests since the first full sync, without the two of each incremental sync.
    pub fn requests(&self) -> Vec<String> {
        let mut paths = self.paths(self.started_at_request);
        paths.retain(|path| !is_recent(path) && !is_total(path));
        paths
    }

    fn started(&self, from: usize) -> usize {
        self.paths(from).iter().filter(|path| is_recent(path)).count()
    }

    /// Waits until `count` more scheduled incremental syncs are over.
    pub async fn wait_for_scheduled_syncs(&self, count: usize) {
        let from = self.paths(0).len();
        // A sync begins when the one before is over.
        eventually(&format!("{count} incremental syncs"), async || {
            self.started(from) > count
        })
        .await;
    }

    /// Requests `count` incremental syncs, one after another, and waits until they are over.
    pub async fn sync_incrementally(&self, count: usize) {
        for nth in 0..=count {
            let from = self.paths(0).len();
            self.daemon.signal(Signal::USR1);
            eventually(&format!("incremental sync {nth}"), async || self.started(from) > 0).await;
        }
    }

    /// Asserts that incremental syncs send their two requests only, and write nothing.
    pub async fn assert_idle(&self, why: &str) {
        // A sync that is running may end first.
        self.sync_incrementally(1).await;
        let state = "SELECT concat_ws(' ', s.xmin, r.xmin, (SELECT count(*) FROM clerk.sync_runs))
                     FROM clerk.sync_state s, clerk.resource_state r WHERE r.resource = 'users'";
        let before = (self.fixture.db.versions().await, self.fixture.db.text(state).await);
        let started_at_request = self.paths(0).len();
        self.sync_incrementally(3).await;
        let paths = self.paths(started_at_request);
        let recent = paths.iter().filter(|path| is_recent(path)).count();
        let totals = paths.iter().filter(|path| is_total(path)).count();
        assert_eq!(recent + totals, paths.len(), "{why}: {paths:#?}");
        // The first and the last sync may be seen in part only.
        assert!(recent.abs_diff(totals) <= 1, "{why}: {paths:#?}");
        let after = (self.fixture.db.versions().await, self.fixture.db.text(state).await);
        assert!(before == after, "{why}: something was written: {}", self.daemon.log());
    }

    pub async fn is_mirrored(&self, id: &str) -> bool {
        let live = format!("SELECT count(*) FROM clerk.users WHERE id = '{id}' AND deleted_at IS NULL");
        self.fixture.db.number(&live).await == 1
    }

    pub async fn wait_until_gone(&self, id: &str) {
        eventually(&format!("{id} is removed"), async || !self.is_mirrored(id).await).await;
    }

    pub async fn wait_until_mirrored_user(&self, id: &str) {
        eventually(&format!("{id} is mirrored"), async || self.is_mirrored(id).await).await;
    }

    /// Deletes users at Clerk, and waits until they have left the mirror.
    pub async fn delete(&self, ids: impl IntoIterator<Item = &String>) {
        let ids: Vec<&String> = ids.into_iter().collect();
        for id in &ids {
            assert!(self.is_mirrored(id).await, "{id} is not in the mirror");
        }
        assert!(ids.iter().all(|id| self.fixture.sim.delete(id)));
        for id in ids {
            self.wait_until_gone(id).await;
        }
    }

    /// Returns the users that are at Clerk but not in the mirror.
    pub async fn not_mirrored(&self) -> BTreeSet<String> {
        let mirror = mirrored_ids(&self.fixture).await;
        let ids = self.fixture.sim.user_ids();
        ids.into_iter().filter(|id| !mirror.contains(id)).collect()
    }

    /// Returns the stored number of users minus the number of rows.
    pub async fn count_error(&self) -> i64 {
        let difference = "SELECT objects - (SELECT count(*) FROM clerk.users WHERE deleted_at IS NULL) FROM clerk.resource_state WHERE resource = 'users'";
        self.fixture.db.number(difference).await
    }

    pub async fn assert_counted(&self) {
        assert_eq!(self.count_error().await, 0, "{}", self.daemon.log());
    }

    pub async fn stop(self) -> (Fixture, ProgramOutput) {
        let ran = self.daemon.stop(Signal::TERM).await;
        ran.assert_exit(Exit::Ok);
        self.fixture.assert_one_at_a_time().await;
        (self.fixture, ran)
    }

    /// Stops the daemon. Asserts that the mirror is in sync, that the stored number is right, and
    /// how many full syncs there were.
    pub async fn stop_in_sync(self, full_syncs: i64) {
        assert_eq!(
            self.fixture.runs("kind = 'full'").await,
            full_syncs,
            "{}",
            self.daemon.log()
        );
        self.stop_in_sync_after_any_full_sync().await;
    }

    pub async fn stop_in_sync_after_any_full_sync(self) {
        self.sync_incrementally(1).await;
        self.fixture.assert_in_sync().await;
        self.assert_counted().await;
        self.stop().await;
    }
}
