//! A sync under its lease: opened, kept alive beside its work, and closed with its row in `clerk.sync_runs`.

use std::{
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use chrono::TimeDelta;
use tracing::{info, warn};

use super::{
    Carryover, DeleteMode, Options, Outcome, Report, SyncContext, Syncer,
    page_context::{PageContext, Target, warn_left_out},
    stopped,
};
use crate::{
    failure::{Cause, Failure},
    mirror::{self, Begin, Finish, Lease, LeaseAttempt, Run, SyncKind},
    watch::Changes,
};

/// A walk that was cut off longer ago than this, or began longer ago than twice this, starts anew: what it met in its first part is too
/// old to call the mirror in sync.
const CHECKPOINT_AGE: TimeDelta = TimeDelta::hours(1);

/// How often a held lease is asked for again.
const LEASE_POLL: Duration = Duration::from_millis(500);

/// So many batches of old events are removed by one sync; what is left waits for the next.
const PRUNES: u32 = 100;

/// When and how a sync began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opening {
    pub(super) kind: SyncKind,
    pub(super) started: Instant,
    /// Requests sent before it.
    pub(super) requests: u64,
}

impl Opening {
    pub(super) fn new(syncer: &Syncer, kind: SyncKind) -> Self {
        Self {
            kind,
            started: Instant::now(),
            requests: syncer.clerk.requests(),
        }
    }
}

impl Syncer {
    /// Waits for the lease.
    pub(super) async fn acquire_lease(&self) -> Result<Lease, Failure> {
        let started = Instant::now();
        let mut told = false;
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
                            "waited {} s for it; try again later, or stop the other one",
                            started.elapsed().as_secs()
                        )));
                    }
                    if !told {
                        info!(holder, "waiting for another clerk2pg to finish");
                        told = true;
                    }
                }
                // Whoever was stopped within a transaction lets go after a while. A daemon comes again by itself.
                Err(error @ mirror::Error::Locked(_)) if patience.is_some() && has_patience => {
                    if !told {
                        info!(%error, "waiting for the lease");
                        told = true;
                    }
                }
                Err(error) => return Err(error.into()),
            }
            tokio::select! {
                () = self.stop.cancelled() => return Err(stopped()),
                () = tokio::time::sleep(LEASE_POLL) => {}
            }
        }
    }

    /// Takes the lease if nobody has had it since `epoch`; none where somebody was quicker.
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

    /// Does a sync's work while the lease is kept alive beside it, and gives the lease back.
    pub(super) async fn under_lease(
        &self,
        lease: &Lease,
        opening: Opening,
        carryover: &mut Carryover,
        work: impl AsyncFnOnce(&mut SyncContext<'_>, &Run) -> Result<(), Failure>,
    ) -> Result<Report, Failure> {
        let _lease_guard = self.watch.lease_taken();
        let syncer = self.run(lease, opening, carryover, work);
        let keep = async {
            loop {
                tokio::time::sleep(lease.renewal()).await;
                // Postgres being away for a moment costs nothing yet; the sync's own statements will say.
                if let Err(error @ mirror::Error::LeaseLost) = self.mirror.leases().renew(lease).await {
                    return Failure::from(error);
                }
            }
        };
        let result = tokio::select! {
            biased;
            result = syncer => result,
            lost = keep => Err(lost),
        };
        if let Err(error) = self.mirror.leases().release(lease).await {
            // It runs out by itself.
            warn!(%error, "the lease could not be given back");
        }
        result
    }

    async fn run(
        &self,
        lease: &Lease,
        opening: Opening,
        carryover: &mut Carryover,
        work: impl AsyncFnOnce(&mut SyncContext<'_>, &Run) -> Result<(), Failure>,
    ) -> Result<Report, Failure> {
        let mirror = &self.mirror;
        let begin = Begin {
            kind: opening.kind,
            max_age: CHECKPOINT_AGE,
            judges: self.options.delete_mode != DeleteMode::Keep,
            initial_events: self.options.initial_events,
        };
        let (run, now, checkpoint) = mirror.runs().begin(lease, begin).await?;
        let opened = Instant::now();
        let instance = carryover.instance.as_ref().map_or("", |instance| &instance.id);
        let report = Report::new(instance);
        let target = Target::Mirror {
            run: &run,
            began: (now, opened),
        };
        let rejects = AtomicBool::new(mirror.rejected().any().await?);
        let holds = AtomicBool::new(mirror.missing().any_held().await?);
        let desk = PageContext {
            syncer: self,
            target,
            mirror: Some(mirror),
            rejects: &rejects,
            holds: &holds,
            is_by_id: false,
            tries_rejected: false,
        };
        let mut running = SyncContext::new(desk, report, carryover);
        running.resumed = checkpoint;
        let result = work(&mut running, &run).await;
        self.progress.finish();
        if running.has_looked {
            // A look in between sees who changed, but not whether the counts agree.
            self.due.incremental();
        }
        let ages = running.ages.summary();
        let mut report = running.report;
        report.requests = self.clerk.requests() - opening.requests;
        report.duration_ms = u64::try_from(opening.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        report.freshness_ms = ages.median_ms;
        // What was rejected for a moment only does not count. Where Postgres is away the end of the sync cannot be written either.
        report.rejected = mirror.rejected().count(&run).await.unwrap_or(report.rejected);
        self.watch.record_changes(Changes {
            rejected: report.rejected,
            ..Changes::default()
        });
        if report.rejected > 0 {
            for (id, reason) in mirror.rejected().left_blocked(&run).await.unwrap_or_default() {
                warn_left_out(&id, &reason);
            }
        }
        let is_full = opening.kind == SyncKind::Full;
        if is_full && result.is_ok() && report.rejected > 0 && report.created + report.updated + report.unchanged == 0 {
            report.notes.push("not a single user could be stored".to_owned());
        }
        let error = match &result {
            Ok(()) => (!report.notes.is_empty()).then(|| report.notes.join("; ")),
            Err(failure) => Some(failure.message.clone()),
        };
        if result.is_ok() {
            report.outcome = if error.is_some() {
                Outcome::Incomplete
            } else if report.held > 0 {
                Outcome::Held
            } else if report.has_changes() {
                Outcome::Changed
            } else {
                Outcome::InSync
            };
            self.prune(lease, is_full, carryover).await;
        }
        let finish = Finish {
            outcome: if result.is_ok() {
                report.outcome
            } else {
                Outcome::Failed
            },
            held: report.held,
            rejected: report.rejected,
            requests: report.requests,
            plan: report.plan.clone(),
            error,
            ages,
            is_walked: is_full && result.is_ok(),
            expected_now: now + opened.elapsed(),
            is_whole: is_full && result.is_ok() && report.outcome != Outcome::Incomplete,
        };
        let recorded = mirror.runs().finish(&run, &finish).await;
        result?;
        recorded?;
        Ok(report)
    }

    /// Removes old events and syncs, now and then. What cannot be removed is no reason to call the sync failed.
    async fn prune(&self, lease: &Lease, always: bool, carryover: &mut Carryover) {
        if !carryover.prunes(always) {
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
