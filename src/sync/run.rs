//! A sync under its lease: opened, kept alive beside its work, and closed with its row in
//! `clerk.sync_runs`.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use tracing::{info, warn};

use super::{
    Carryover, DeleteMode, Options, Outcome, Report, SyncContext, Syncer,
    context::Start,
    mode::SyncMode,
    page_worker::{Listed, warn_left_out},
};
use crate::{
    failure::{Cause, Failure},
    humanize::{count, duration},
    mirror::{
        self, AgeSummary, Begin, Erased, ExclusionChange, Finish, Lease, LeaseAttempt, MirrorError, Run, SyncKind,
    },
    resource::Exclusions,
    watch::Changes,
};

/// A walk starts anew if it was cut off longer ago than this, or began longer ago than twice this:
/// the first pages that it read are too old to call the mirror in sync.
const CHECKPOINT_AGE: TimeDelta = TimeDelta::hours(1);

/// The pause before a held lease is asked for again.
const LEASE_POLL: Duration = Duration::from_millis(500);

/// Batches of old events that one sync removes. The rest waits for the next sync.
const PRUNES: u32 = 100;

impl Syncer {
    /// Waits for the lease.
    ///
    /// # Errors
    /// Another process holds it for longer than the patience, the sync is stopped, or Postgres is
    /// away.
    pub(super) async fn acquire_lease(&self) -> Result<Lease, Failure> {
        let started = Instant::now();
        let mut is_logged = false;
        loop {
            let Options {
                holder,
                lease_ttl,
                patience,
                ..
            } = &self.options;
            let has_patience = patience.is_none_or(|patience| started.elapsed() < patience);
            match self.mirror.leases().acquire(holder, *lease_ttl, None).await {
                Ok(LeaseAttempt::Acquired(lease)) => return Ok(lease),
                Ok(LeaseAttempt::Held { holder }) => {
                    self.watch.set_standing_by(&holder);
                    if !has_patience {
                        let message = format!("{holder} is syncing this database at this moment");
                        return Err(Failure::new(Cause::Busy, message).hint(format!(
                            "waited {} for it; try again later, or stop the other one",
                            duration(started.elapsed())
                        )));
                    }
                    if !is_logged {
                        info!(holder, "waiting for another clerk2pg to finish");
                        is_logged = true;
                    }
                }
                // A process that was stopped within a transaction lets go after a while. A daemon
                // tries again by itself.
                Err(error @ mirror::MirrorError::Locked(_)) if patience.is_some() && has_patience => {
                    if !is_logged {
                        info!(%error, "waiting for the lease");
                        is_logged = true;
                    }
                }
                Err(error) => return Err(error.into()),
            }
            self.pause(LEASE_POLL).await?;
        }
    }

    /// Takes the lease if no process has held it since `epoch`; `None` if another process was
    /// faster.
    pub(super) async fn lease_since(&self, epoch: i64) -> Result<Option<Lease>, Failure> {
        let Options { holder, lease_ttl, .. } = &self.options;
        match self.mirror.leases().acquire(holder, *lease_ttl, Some(epoch)).await? {
            LeaseAttempt::Acquired(lease) => Ok(Some(lease)),
            LeaseAttempt::Held { .. } => {
                self.watch.set_standing_by("another clerk2pg");
                Ok(None)
            }
        }
    }

    /// Does the work of a sync while the lease is renewed beside it, and gives the lease back.
    pub(super) async fn under_lease(
        &self,
        lease: &Lease,
        start: Start,
        carryover: &mut Carryover,
        work: impl AsyncFnOnce(&mut SyncContext<'_>) -> Result<(), Failure>,
    ) -> Result<Report, Failure> {
        let _lease_guard = self.watch.lease_taken();
        let run = self.run(lease, start, carryover, work);
        let renewal = async {
            loop {
                tokio::time::sleep(lease.renewal()).await;
                // A short absence of Postgres does no harm yet. If it lasts, the sync's own
                // statements fail.
                if let Err(error @ mirror::MirrorError::LeaseLost) = self.mirror.leases().renew(lease).await {
                    return Failure::from(error);
                }
            }
        };
        let result = tokio::select! {
            biased;
            result = run => result,
            lost = renewal => Err(lost),
        };
        if let Err(error) = self.mirror.leases().release(lease).await {
            // It expires by itself.
            warn!(%error, "the lease could not be given back");
        }
        result
    }

    /// Opens the run, does the work, and records how it ended.
    async fn run(
        &self,
        lease: &Lease,
        start: Start,
        carryover: &mut Carryover,
        work: impl AsyncFnOnce(&mut SyncContext<'_>) -> Result<(), Failure>,
    ) -> Result<Report, Failure> {
        let mirror = &self.mirror;
        let change = match start.kind {
            SyncKind::Full => mirror.erasure().begin(lease, self.clerk.excluded()).await?,
            SyncKind::Incremental | SyncKind::OnDemand => ExclusionChange::default(),
        };
        let begin = Begin {
            kind: start.kind,
            max_age: CHECKPOINT_AGE,
            judges: self.options.delete_mode != DeleteMode::Keep,
            initial_events: self.options.initial_events,
        };
        let (run, now, checkpoint) = mirror.runs().begin(lease, begin).await?;
        let began = Instant::now();
        let instance = carryover
            .instance
            .as_ref()
            .map_or(String::new(), |instance| instance.id.clone());
        let listed = Listed {
            rejects: mirror.rejected().any().await?.into(),
            holds: mirror.holds().any().await?,
        };
        let mode = SyncMode::Apply {
            run: &run,
            began: (now, began),
        };
        let mut sync = SyncContext::new(self, mode, &listed, start, carryover, &instance);
        sync.resumed = checkpoint;
        let result = match sync.erase(&run, &change).await {
            Ok(()) => work(&mut sync).await,
            Err(error) => Err(error.into()),
        };
        self.progress.finish();
        if sync.has_read_changes {
            // Reading changes between pages does not compare the counts.
            self.due.incremental();
        }
        let (report, ages, has_given_way) = (sync.report, sync.ages.summary(), sync.has_given_way);
        let mut report = self.complete(report, &run, start, result.as_ref().err()).await;
        report.freshness_ms = ages.median_ms;
        carryover.has_changed |= report.has_changes();
        let is_walked = start.kind == SyncKind::Full && result.is_ok() && !has_given_way;
        if result.is_ok() {
            self.prune(lease, is_walked, carryover).await;
        }
        let finish = closing(&report, result.as_ref().err(), ages, is_walked, now + began.elapsed());
        let recorded = mirror.runs().finish(&run, &finish).await;
        result?;
        recorded?;
        Ok(report)
    }

    /// Completes the report at the end of the work: counts, times and the outcome.
    async fn complete(&self, mut report: Report, run: &Run, start: Start, failure: Option<&Failure>) -> Report {
        let rejected = self.mirror.rejected();
        report.requests = start.requests(self);
        report.duration_ms = start.elapsed_ms();
        // Users rejected only for a moment do not count. If Postgres is away, the end of the sync
        // cannot be written either.
        report.rejected = rejected.count(run).await.unwrap_or(report.rejected);
        self.watch.record_changes(Changes {
            rejected: report.rejected,
            ..Changes::default()
        });
        if report.rejected > 0 {
            for (id, reason) in rejected.left_blocked(run).await.unwrap_or_default() {
                warn_left_out(&id, &reason);
            }
        }
        let is_stored = report.created + report.updated + report.unchanged > 0;
        if start.kind == SyncKind::Full && failure.is_none() && report.rejected > 0 && !is_stored {
            report.notes.push("not a single user could be stored".to_owned());
        }
        report.outcome = match failure {
            Some(_) => Outcome::Failed,
            None if !report.notes.is_empty() => Outcome::Incomplete,
            None if report.has_held() => Outcome::Held,
            None if report.has_changes() => Outcome::Changed,
            None => Outcome::InSync,
        };
        report
    }

    /// Removes old events and syncs from time to time. An error here does not make the sync fail.
    async fn prune(&self, lease: &Lease, always: bool, carryover: &mut Carryover) {
        if !carryover.is_prune_due(always) {
            return;
        }
        if let Err(error) = self.mirror.runs().prune(lease).await {
            warn!(%error, "old syncs could not be removed");
        }
        match self
            .mirror
            .outbox()
            .prune(lease, self.options.keep_events, PRUNES)
            .await
        {
            Ok(0) => {}
            Ok(events) => info!(events, "old events are removed"),
            Err(error) => warn!(%error, "old events could not be removed"),
        }
    }
}

/// What is recorded of a sync at its end. `is_walked` says that it walked over all users.
fn closing(
    report: &Report,
    failure: Option<&Failure>,
    ages: AgeSummary,
    is_walked: bool,
    expected_now: DateTime<Utc>,
) -> Finish {
    Finish {
        outcome: report.outcome,
        held: report.held,
        rejected: report.rejected,
        requests: report.requests,
        plan: report.plan.clone(),
        error: match failure {
            None => (!report.notes.is_empty()).then(|| report.notes.join("; ")),
            Some(failure) => Some(failure.message.clone()),
        },
        ages,
        is_walked,
        expected_now,
        is_whole: is_walked && report.outcome != Outcome::Incomplete,
    }
}

impl SyncContext<'_> {
    /// Erases fields that are no longer to be stored.
    async fn erase(&mut self, run: &Run, change: &ExclusionChange) -> Result<(), MirrorError> {
        let ExclusionChange { erased, returned } = change;
        if !returned.is_empty() {
            let fields = returned.join(", ");
            warn!(
                fields,
                "mirror.exclude does not name these fields any more: they are stored again"
            );
        }
        if erased.is_empty() {
            return Ok(());
        }
        let fields = erased.join(", ");
        let Erased { rows, events, left } = self
            .syncer
            .mirror
            .erasure()
            .erase(run, &Exclusions::new(erased))
            .await?;
        if rows + events > 0 {
            info!(
                fields,
                rows, events, "mirror.exclude names these fields: what was stored of them is erased"
            );
        }
        if left > 0 {
            self.note(format!(
                "{fields} of mirror.exclude are still stored in {}, rows or events that Postgres refuses to change",
                count(left, "place")
            ));
        }
        Ok(())
    }
}
