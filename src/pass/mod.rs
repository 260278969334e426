//! A full sync from beginning to end: the one place that sees both Clerk and the mirror.
//!
//! `fetch (Clerk) → decode → compare (pure) → apply (Postgres, one transaction)`, a page at a time; then Clerk is asked by name for whom
//! the walk did not meet, and the guard decides whether the confirmed deletions are carried out or held.

mod deletions;
mod list;
mod page;
mod report;
mod running;

use std::{
    collections::{HashSet, VecDeque},
    future::Future,
    time::{Duration, Instant},
};

use chrono::TimeDelta;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    clerk,
    failure::{Cause, Failure},
    guard::Limits,
    mirror::{Finish, Lease, Mirror},
    progress::Progress,
    walk::Walk,
};
pub use report::{Outcome, Report};
use running::{Running, Sink};

/// A walk that was cut off longer ago than this, or began longer ago than twice this, starts anew: what it met in its first part is too
/// old to call the mirror in step.
const CHECKPOINT_AGE: TimeDelta = TimeDelta::hours(1);

/// How often a held lease is asked for again.
const LEASE_POLL: Duration = Duration::from_millis(500);

/// What becomes of the row of a user that is gone from Clerk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteMode {
    /// The row goes.
    Delete,
    /// `deleted_at` is set.
    Mark,
    /// Nothing.
    Keep,
}

/// How passes behave.
#[derive(Debug, Clone)]
pub struct Options {
    /// What becomes of deleted users.
    pub delete_mode: DeleteMode,
    /// When deletions are held.
    pub limits: Limits,
    /// Whether migrations are applied first.
    pub migrate: bool,
    /// This process, in the lease and in `clerk.sync_runs`.
    pub holder: String,
    /// How long a lease lasts without renewal.
    pub lease_ttl: Duration,
    /// How long to wait for another's lease; none waits for ever.
    pub patience: Option<Duration>,
}

/// One line of a dry run.
#[derive(Debug, Clone, Copy)]
pub enum Line<'a> {
    /// A user would be created.
    Create(&'a str),
    /// A user would be updated in these fields.
    Update(&'a str, &'a [String]),
    /// A user would be deleted.
    Delete(&'a str),
    /// A user would be deleted if a person approved.
    Hold(&'a str),
    /// A user cannot be stored, for this reason.
    Reject(&'a str, &'a str),
}

/// Who is told the lines of a dry run.
pub type Printer<'a> = &'a mut (dyn FnMut(Line<'_>) + Send);

/// What a pass works with.
#[derive(Debug, Clone)]
pub struct Pass {
    /// The Clerk side.
    pub clerk: clerk::Client,
    /// The Postgres side.
    pub mirror: Mirror,
    /// How to behave.
    pub options: Options,
    /// Cancelled when the pass shall stop; what is not committed by then is done by the next pass.
    pub stop: CancellationToken,
    /// Who is shown how far it has come.
    pub progress: Progress,
}

impl Pass {
    /// A full sync.
    ///
    /// # Errors
    /// The pass could not be carried through; what it committed stays, and the next one goes on from there.
    pub async fn full_sync(&self) -> Result<Report, Failure> {
        let started = Instant::now();
        let requests = self.clerk.requests();
        let identified = self.identify().await;
        let instance = match identified {
            Ok(instance) => instance,
            Err(failure) => {
                self.record(&failure, requests).await;
                return Err(failure);
            }
        };
        // A strange key must not even migrate; where the schema is not this version's, the pin is looked at behind the migrations.
        if matches!(self.mirror.exists().await, Ok(true)) {
            self.check_pin(&instance, requests).await?;
        }
        let applied = self.mirror.prepare(self.options.migrate).await?;
        if !applied.is_empty() {
            info!(migrations = applied.len(), "the schema is up to date now");
        }
        self.check_pin(&instance, requests).await?;

        let lease = self.acquire_lease().await?;
        let result = self.with_lease(&lease, &instance, started, requests).await;
        if let Err(error) = self.mirror.release_lease(&lease).await {
            // It runs out by itself.
            warn!(%error, "the lease could not be given back");
        }
        result
    }

    /// The plan of a full sync, told line by line. Writes nothing.
    pub async fn plan(&self, print: Printer<'_>) -> Result<Report, Failure> {
        let started = Instant::now();
        let requests = self.clerk.requests();
        let instance = self.identify().await?;
        let exists = self.mirror.exists().await?;
        if exists {
            same_instance(self.mirror.instance().await?.as_deref(), &instance.id)?;
        }
        let mut running = Running {
            pass: self,
            sink: Sink::Paper {
                print,
                missing: Vec::new(),
                updated: HashSet::new(),
            },
            mirror: exists.then_some(&self.mirror),
            report: Report::new(&instance.id),
            started,
            rejected: HashSet::new(),
            witnesses: VecDeque::new(),
            unchanged_uncommitted: 0,
            checkpointed: started,
        };
        let result = running.walk_list(None).await;
        self.progress.finish();
        result?;
        running.plan_deletions().await?;
        let mut report = running.report;
        report.is_plan = true;
        if !report.notes.is_empty() {
            report.outcome = Outcome::Incomplete;
        } else {
            report.outcome = Outcome::Planned;
        }
        self.close(&mut report, started, requests);
        Ok(report)
    }

    fn close(&self, report: &mut Report, started: Instant, requests: u64) {
        report.requests = self.clerk.requests() - requests;
        report.duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    }

    /// Which instance the key belongs to. Where the server has no such endpoint, its address stands for the identity.
    async fn identify(&self) -> Result<clerk::Instance, Failure> {
        if let Some(instance) = self.or_stop(self.clerk.instance()).await? {
            return Ok(instance);
        }
        // A wrong address answers 404 to everything, and must not be taken for an emulator.
        self.or_stop(self.clerk.list(&Walk::new().query(), 1)).await?;
        warn!("this server does not say which instance it is; its address is taken for it");
        Ok(clerk::Instance {
            id: format!("url:{}", self.clerk.api_url()),
            environment_type: "emulator".to_owned(),
        })
    }

    async fn check_pin(&self, instance: &clerk::Instance, requests: u64) -> Result<(), Failure> {
        let pinned = self.mirror.instance().await?;
        let checked = same_instance(pinned.as_deref(), &instance.id);
        if let Err(failure) = &checked {
            self.record(failure, requests).await;
        }
        checked
    }

    /// Lists a pass that failed before it could begin, if there is a schema to list it in.
    async fn record(&self, failure: &Failure, requests: u64) {
        if failure.cause == Cause::Stopped || !matches!(self.mirror.exists().await, Ok(true)) {
            return;
        }
        let requests = self.clerk.requests() - requests;
        if let Err(error) = self
            .mirror
            .record_failure("full", &self.options.holder, requests, &failure.message)
            .await
        {
            warn!(%error, "the failed pass could not be recorded");
        }
    }

    async fn acquire_lease(&self) -> Result<Lease, Failure> {
        let started = Instant::now();
        let mut told = false;
        loop {
            let held = match self
                .mirror
                .acquire_lease(&self.options.holder, self.options.lease_ttl)
                .await?
            {
                Ok(lease) => return Ok(lease),
                Err(held) => held,
            };
            if self
                .options
                .patience
                .is_some_and(|patience| started.elapsed() >= patience)
            {
                let message = format!("{} is syncing this database at this moment", held.holder);
                return Err(Failure::new(Cause::Busy, message).hint(format!(
                    "waited {} s for it; try again later, or stop the other one",
                    started.elapsed().as_secs()
                )));
            }
            if !told {
                info!(holder = held.holder, "waiting for another clerk2pg to finish");
                told = true;
            }
            tokio::select! {
                () = self.stop.cancelled() => return Err(stopped()),
                () = tokio::time::sleep(LEASE_POLL) => {}
            }
        }
    }

    /// Runs the pass while the lease is kept alive beside it.
    async fn with_lease(
        &self,
        lease: &Lease,
        instance: &clerk::Instance,
        started: Instant,
        requests: u64,
    ) -> Result<Report, Failure> {
        let pass = self.run(lease, instance, started, requests);
        let keep = async {
            loop {
                tokio::time::sleep(lease.renewal()).await;
                // Postgres being away for a moment costs nothing yet; the pass's own statements will say.
                if let Err(error @ crate::mirror::Error::LeaseLost) = self.mirror.renew_lease(lease).await {
                    return Failure::from(error);
                }
            }
        };
        tokio::select! {
            biased;
            result = pass => result,
            lost = keep => Err(lost),
        }
    }

    async fn run(
        &self,
        lease: &Lease,
        instance: &clerk::Instance,
        started: Instant,
        requests: u64,
    ) -> Result<Report, Failure> {
        let mirror = &self.mirror;
        // Again, now that nobody else can pin: two with different keys may have started at once.
        mirror.pin(lease, &instance.id, &instance.environment_type).await?;
        same_instance(mirror.instance().await?.as_deref(), &instance.id)?;
        let (run, now, checkpoint) = mirror
            .begin_run(
                lease,
                "full",
                CHECKPOINT_AGE,
                self.options.delete_mode != DeleteMode::Keep,
            )
            .await?;
        if let Some(checkpoint) = &checkpoint {
            info!(
                run = checkpoint.walk,
                users = checkpoint.position.seen,
                "going on with the walk that was cut off"
            );
        }
        let mut running = Running {
            pass: self,
            sink: Sink::Mirror {
                lease,
                run: &run,
                walk_started_at: checkpoint.as_ref().map_or(now, |checkpoint| checkpoint.started_at),
                now,
            },
            mirror: Some(mirror),
            report: Report::new(&instance.id),
            started,
            rejected: mirror.rejected().await?,
            witnesses: VecDeque::new(),
            unchanged_uncommitted: 0,
            checkpointed: started,
        };
        let result = running
            .whole(lease, &run, checkpoint.map(|checkpoint| checkpoint.position))
            .await;
        self.progress.finish();
        let mut report = running.report;
        self.close(&mut report, started, requests);
        if result.is_ok() && report.rejected > 0 && report.created + report.updated + report.unchanged == 0 {
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
                Outcome::InStep
            };
        }
        let finish = Finish {
            outcome: if result.is_ok() {
                report.outcome.name()
            } else {
                "failed"
            },
            held: report.held,
            requests: report.requests,
            plan: report.plan.clone(),
            error,
            is_walked: result.is_ok(),
            is_whole: result.is_ok() && report.outcome != Outcome::Incomplete,
        };
        let recorded = mirror.finish_run(lease, &run, &finish).await;
        result?;
        recorded?;
        Ok(report)
    }

    /// Waits for Clerk, but not when the pass shall stop.
    async fn or_stop<T>(&self, answer: impl Future<Output = Result<T, clerk::Error>>) -> Result<T, Failure> {
        self.or_stop_raw(answer).await?.map_err(Failure::from)
    }

    /// The same for those who want to look at Clerk's error.
    async fn or_stop_raw<T>(&self, answer: impl Future<Output = T>) -> Result<T, Failure> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(stopped()),
            answer = answer => Ok(answer),
        }
    }
}

fn stopped() -> Failure {
    Failure::new(
        Cause::Stopped,
        "stopped before the pass was done; the next one goes on from here",
    )
}

fn same_instance(pinned: Option<&str>, instance: &str) -> Result<(), Failure> {
    match pinned {
        Some(pinned) if pinned != instance => Err(Failure::new(
            Cause::NeedsPerson,
            format!("this database mirrors the Clerk instance {pinned}, but the key is of {instance}"),
        )
        .hint("use that instance's key, or another database for this one; no user was read or written")),
        _ => Ok(()),
    }
}
