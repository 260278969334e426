//! Settles the deletions of a sync or a dry run: the same procedure for both, so that a dry run
//! says what a sync would do.
//!
//! 1. Missing users are asked for by id ([`absence`](super::absence)).
//! 2. The guard judges how many are absent, and may hold their deletions for a person.
//! 3. Clerk confirms each remaining deletion by its id ([`confirm`](super::confirm)).
//! 4. Confirmed deletions are carried out; a dry run prints them.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::{
    DeleteMode, SyncContext,
    absence::TooEarly,
    by_id::BATCH,
    missing::{Deletions, MissingUsers},
    mode::SyncMode,
    page_worker::warn_of_rejected,
    recheck::{Observation, make_due_later},
};
use crate::{
    failure::Failure,
    humanize::count,
    mirror::{Run, SyncKind},
    resource::MAX_IDS,
    watch::Changes,
};

/// Approved deletions that are tried again at a time.
const MAX_APPROVED: usize = 500;

/// The pause before a daemon tries approved deletions again that could not be confirmed.
const APPROVED_RETRY: Duration = Duration::from_secs(60);

impl SyncContext<'_> {
    /// Deletes or holds the rows whose users the sync did not find.
    pub(super) async fn settle_deletions(&mut self) -> Result<(), Failure> {
        if self.syncer.options.delete_mode == DeleteMode::Keep {
            // The walk may continue one that began in another mode and noted missing ids.
            return Ok(());
        }
        let Some(mut missing) = self.missing_users().await? else {
            return Ok(());
        };
        let mut early = Vec::new();
        let mut any_missing = false;
        let mut after = String::new();
        loop {
            let ids = missing.missing(&after, BATCH).await?;
            let Some(last) = ids.last() else { break };
            after.clone_from(last);
            any_missing = true;
            early.extend(self.note_absent(&mut missing, &ids).await?);
            if self.has_no_answers {
                // It has none for the next ones either, and each takes time.
                break;
            }
        }
        if !any_missing && self.start.kind != SyncKind::Full {
            return Ok(());
        }
        self.judge_and_delete(&mut missing).await?;
        if let Some(pause) = early.iter().map(|(_, pause)| *pause).max() {
            self.settle_early(&mut missing, early, pause).await?;
        }
        match missing {
            MissingUsers::Stored { run, .. } => self.close_deletions(run).await,
            MissingUsers::Planned(planned) => {
                self.print_deletions(&planned);
                Ok(())
            }
        }
    }

    /// Holds the absent users if there are too many of them, and deletes the rows of those that are
    /// not held.
    async fn judge_and_delete(&mut self, missing: &mut MissingUsers<'_>) -> Result<(), Failure> {
        let absent = missing.count_judged().await?;
        let holds = absent > 0 && self.must_hold(absent).await?;
        missing.judge(holds).await?;
        let mut after = String::new();
        let mut has_time_for_kept = true;
        loop {
            let ids = missing.deletable(&after, MAX_IDS).await?;
            let Some(last) = ids.last() else { return Ok(()) };
            if !after.is_empty() && self.gives_way() {
                // The guard judges the rest together with what was deleted.
                self.note("deletions give way to users that are due; the next sync continues them");
                self.syncer.due.incremental();
                return Ok(());
            }
            after.clone_from(last);
            let (syncer, mode) = (self.syncer, self.mode);
            let instance = async {
                match mode {
                    SyncMode::Apply { .. } => Some(syncer.ask_instance_once().await),
                    // A dry run has asked at its beginning, and deletes nothing.
                    SyncMode::DryRun { .. } => None,
                }
            };
            let (instance, confirmed) = tokio::join!(instance, self.confirm(&ids));
            let confirmed = confirmed?;
            if let Some(instance) = instance.filter(|_| !confirmed.gone.is_empty())
                && !self.is_mirrored_instance(instance?).await?
            {
                return Ok(());
            }
            let deletions = missing.deletions(confirmed.gone).await?;
            match missing {
                MissingUsers::Stored { run, .. } => {
                    let Deletions { confirmed, kept } = deletions;
                    if !confirmed.is_empty() && !self.delete(run, &confirmed).await? {
                        return Ok(());
                    }
                    // Rows that cannot be deleted quickly must not keep the others here.
                    has_time_for_kept = has_time_for_kept && self.delete_kept(run, kept).await?;
                }
                MissingUsers::Planned(planned) => planned.plan(&deletions),
            }
            if confirmed.is_unclear {
                // If a server cannot answer for some ids, it cannot answer for the next ones
                // either.
                return Ok(());
            }
        }
    }

    /// Whether new deletions must wait for a person if this many users are absent. They are judged
    /// together with the rows that were deleted within the last hour: frequent syncs must not split
    /// one large deletion into many small ones.
    pub(super) async fn must_hold(&self, absent: u64) -> Result<bool, Failure> {
        // No user at all is more likely a wrong key or an outage than a real deletion, and leaves
        // no witness.
        if self.witnesses.is_empty() {
            return Ok(true);
        }
        let mirror = &self.syncer.mirror;
        let lately = mirror.missing().deleted_lately().await?;
        let users = mirror.counts().objects().await? + lately;
        Ok(self.syncer.options.limits.hold(absent + lately, users))
    }

    /// Deletes rows that the application kept in an earlier sync. The guard did not judge them with
    /// the others, and all of them may be free to go now: at most as many are deleted as the guard
    /// allows. If some were deleted, the rest is held. Returns whether there was time for all.
    async fn delete_kept(&mut self, run: &Run, mut kept: Vec<String>) -> Result<bool, Failure> {
        let before = self.report.deleted;
        while !kept.is_empty() {
            let room = self.room().await?;
            if room == 0 {
                if self.report.deleted > before {
                    self.syncer.mirror.holds().hold(run.lease(), &kept).await?;
                }
                break;
            }
            let rest = kept.split_off(kept.len().min(room));
            if !self.delete(run, &kept).await? {
                return Ok(false);
            }
            kept = rest;
        }
        Ok(true)
    }

    /// How many rows may still be deleted without a person's approval.
    async fn room(&self) -> Result<usize, Failure> {
        if self.witnesses.is_empty() {
            return Ok(0);
        }
        let mirror = &self.syncer.mirror;
        let lately = mirror.missing().deleted_lately().await?;
        let room = self
            .syncer
            .options
            .limits
            .room(lately, mirror.counts().objects().await? + lately);
        Ok(usize::try_from(room).unwrap_or(usize::MAX))
    }

    /// Deletes rows whose deletion Clerk confirmed. Returns whether there was time for all of them.
    async fn delete(&mut self, run: &Run, ids: &[String]) -> Result<bool, Failure> {
        let mark = self.syncer.options.delete_mode == DeleteMode::Mark;
        let deleted = self.syncer.mirror.rows().delete(run, ids, mark).await?;
        for id in ids {
            if !deleted.kept.iter().any(|row| row.object_id == *id) && !deleted.left.contains(id) {
                self.syncer.rechecks.forget(Observation::Deleted, id);
                self.syncer.rechecks.note(Observation::Deleted, id, Instant::now());
            }
        }
        // A list that lags behind must not bring them back.
        for id in &deleted.dependents {
            self.syncer.rechecks.note(Observation::Deleted, id, Instant::now());
        }
        self.report.deleted += deleted.rows;
        self.record_tables(&deleted.tables);
        self.syncer.watch.record_changes(Changes {
            deleted: deleted.rows,
            ..Changes::default()
        });
        warn_of_rejected(&deleted.kept);
        if !deleted.left.is_empty() {
            self.note("deleting rows takes Postgres so long that some are left to the next sync");
        }
        Ok(deleted.left.is_empty())
    }

    /// Asks again for ids whose absence did not count yet: at the end of a single run, or with the
    /// daemon's next syncs.
    async fn settle_early(
        &mut self,
        missing: &mut MissingUsers<'_>,
        early: Vec<TooEarly>,
        pause: Duration,
    ) -> Result<(), Failure> {
        let ids: Vec<String> = early.into_iter().map(|(id, _)| id).collect();
        info!(
            users = ids.len(),
            pause_ms = pause.as_millis() as u64,
            "missing users are asked for once more, as Clerk may answer from a replica that lags"
        );
        if !self.syncer.is_single_run() {
            make_due_later(&self.syncer.due, ids, pause);
            return Ok(());
        }
        self.syncer.pause(pause).await?;
        let mut still_early = 0;
        for ids in ids.chunks(BATCH) {
            still_early += self.note_absent(missing, ids).await?.len();
        }
        self.judge_and_delete(missing).await?;
        if still_early > 0 {
            self.note(format!(
                "{} could not be asked for twice; the next sync asks again",
                count(still_early as u64, "missing user")
            ));
        }
        Ok(())
    }

    /// Forgets what stayed unclear, and reports the deletions that are held. A daemon tries
    /// approved ones again later.
    async fn close_deletions(&mut self, run: &Run) -> Result<(), Failure> {
        let mirror = &self.syncer.mirror;
        mirror.missing().forget_open(run).await?;
        self.report.held = mirror.holds().count().await?;
        if self.report.held > 0 {
            self.report.plan = mirror.holds().checksum().await?;
            warn!(
                held = self.report.held,
                plan = self.report.plan,
                "deletions are held; see them with `clerk2pg --dry-run`, approve them with `clerk2pg approve`"
            );
        }
        if self.syncer.is_single_run() {
            return Ok(());
        }
        let approved = mirror.holds().approved(MAX_APPROVED).await?;
        if !approved.is_empty() {
            make_due_later(&self.syncer.due, approved, APPROVED_RETRY);
        }
        Ok(())
    }
}
