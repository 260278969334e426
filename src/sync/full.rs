//! A full sync, and its plan.

use std::{collections::HashSet, sync::atomic::AtomicBool, time::Instant};

use tracing::info;

use super::{
    Carryover, DeleteMode, Outcome, Printer, Report, SyncContext, Syncer,
    context::DryRun,
    page_context::{PageContext, Target},
    run::Opening,
    same_instance,
};
use crate::{
    clerk::{self, Objection},
    failure::{Cause, Failure},
    mirror::{Run, SyncKind},
    reconcile::{
        partition::Partition,
        recent::{Entry, LAG_MS, Recent, Step},
    },
};

/// So many users are looked at for the newest change: the first ones may have no readable time.
const TOP: u32 = 10;

impl Syncer {
    /// A full sync.
    ///
    /// # Errors
    /// The sync could not be completed; what it committed stays, and the next one continues from there.
    pub async fn full_sync(&self, carryover: &mut Carryover) -> Result<Report, Failure> {
        let opening = Opening::new(self, SyncKind::Full);
        let before = carryover.instance.take();
        let instance = match self.open(opening).await {
            Ok(instance) => instance,
            Err(failure) => {
                // Other kinds of sync go on as they did before; but not where it is another instance.
                carryover.instance = before.filter(|_| failure.cause != Cause::NeedsPerson);
                return Err(failure);
            }
        };
        carryover.asked_instance = Some(Instant::now());
        let lease = self.acquire_lease().await?;
        carryover.instance = Some(instance.clone());
        let work = async |running: &mut SyncContext<'_>, run: &Run| {
            if self.mirror.instance().id().await?.is_none() {
                self.identify_again(&instance).await?;
                self.mirror
                    .instance()
                    .pin(run.lease(), &instance.id, &instance.environment_type)
                    .await?;
            }
            // Again, now that nobody else can pin: two with different keys may have started at once.
            same_instance(self.mirror.instance().id().await?.as_deref(), &instance.id)?;
            running.whole(run).await
        };
        let result = self.under_lease(&lease, opening, carryover, work).await;
        if result
            .as_ref()
            .is_err_and(|failure| failure.cause == Cause::NeedsPerson)
        {
            carryover.instance = None;
        }
        result
    }

    /// What a full sync begins with, alone: whether the key is good, and of the instance that is mirrored here, and whether the schema can be used.
    /// Pending migrations are applied.
    ///
    /// # Errors
    /// A full sync could not begin.
    pub async fn enter(&self) -> Result<(), Failure> {
        self.open(Opening::new(self, SyncKind::Full)).await.map(drop)
    }

    async fn open(&self, opening: Opening) -> Result<clerk::Instance, Failure> {
        // With a key of another instance, not even migrations may run; if the schema is not this version's, the pin is read after them.
        let pinned = match self.mirror.schema().exists().await {
            Ok(true) => self.mirror.instance().id().await?,
            _ => None,
        };
        let identified = self.identify(pinned.as_deref()).await;
        let instance = match identified {
            Ok(instance) => instance,
            Err(failure) => {
                self.record(&failure, opening).await;
                return Err(failure);
            }
        };
        let applied = self.mirror.schema().prepare(self.options.migrate).await?;
        if !applied.is_empty() {
            info!(migrations = applied.len(), "the schema is up to date now");
        }
        self.check_pin(&instance, opening).await?;
        self.clerk.set_digest_key(self.mirror.instance().digest_key().await?);
        Ok(instance)
    }

    /// The plan of a full sync, told line by line. Writes nothing.
    pub async fn plan(&self, print: Printer<'_>) -> Result<Report, Failure> {
        let opening = Opening::new(self, SyncKind::Full);
        let exists = self.mirror.schema().exists().await?;
        let pinned = match exists {
            true => self.mirror.instance().id().await?,
            false => None,
        };
        let instance = self.identify(pinned.as_deref()).await?;
        if exists {
            self.clerk.set_digest_key(self.mirror.instance().digest_key().await?);
        }
        let mut carryover = Carryover::default();
        let (rejects, holds) = (AtomicBool::new(false), AtomicBool::new(false));
        let desk = PageContext {
            syncer: self,
            target: Target::DryRun,
            mirror: exists.then_some(&self.mirror),
            rejects: &rejects,
            holds: &holds,
            is_by_id: false,
            tries_rejected: false,
        };
        let mut running = SyncContext::new(desk, Report::new(&instance.id), &mut carryover);
        running.dry_run = Some(DryRun {
            print,
            missing: Vec::new(),
            updated: HashSet::new(),
            planned: HashSet::new(),
        });
        let result = running.walk_list(None).await;
        self.progress.finish();
        result?;
        running.plan_deletions().await?;
        let mut report = running.report;
        report.is_plan = true;
        report.outcome = if report.notes.is_empty() {
            Outcome::Planned
        } else {
            Outcome::Incomplete
        };
        report.requests = self.clerk.requests() - opening.requests;
        report.duration_ms = u64::try_from(opening.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(report)
    }

    async fn check_pin(&self, instance: &clerk::Instance, opening: Opening) -> Result<(), Failure> {
        let pinned = self.mirror.instance().id().await?;
        let checked = same_instance(pinned.as_deref(), &instance.id);
        if let Err(failure) = &checked {
            self.record(failure, opening).await;
        }
        checked
    }

    /// Lists a sync that failed before it could begin, if there is a schema to list it in.
    pub(super) async fn record(&self, failure: &Failure, opening: Opening) {
        if failure.cause == Cause::Stopped || !matches!(self.mirror.schema().exists().await, Ok(true)) {
            return;
        }
        let requests = self.clerk.requests() - opening.requests;
        if let Err(error) = self
            .mirror
            .runs()
            .record_failure(opening.kind, &self.options.holder, requests, &failure.message)
            .await
        {
            tracing::warn!(%error, "the failed sync could not be recorded");
        }
    }
}

impl SyncContext<'_> {
    async fn whole(&mut self, run: &Run) -> Result<(), Failure> {
        let resumed = self.resumed.take();
        if let Some(checkpoint) = &resumed {
            info!(
                run = checkpoint.walk,
                users = checkpoint.parts.iter().map(Partition::seen).sum::<u64>(),
                "going on with the walk that was cut off"
            );
        }
        let began = resumed.as_ref().map(|checkpoint| checkpoint.started_at);
        self.walk_started_at = began.or_else(|| self.desk.now());
        let begins = Instant::now();
        let is_resumed = resumed.is_some();
        self.watermark = match &resumed {
            Some(checkpoint) => checkpoint.watermark,
            None => self.newest_change().await?,
        };
        let seen = Instant::now();
        // Users that changed at that moment are in the list by now.
        let is_past = self
            .watermark
            .zip(self.syncer.clerk.now())
            .is_some_and(|(newest, now)| now.saturating_sub(newest) >= LAG_MS);
        self.walk_list(resumed.map(|checkpoint| checkpoint.parts)).await?;
        // A walk that may have missed somebody does not stand for the changes since the last sync: they are followed from where they were.
        let is_doubtful = !self.report.notes.is_empty() && self.syncer.mirror.runs().state().await?.watermark.is_some();
        let watermark = self.watermark.filter(|_| !is_doubtful);
        if let Some(newest) = watermark.filter(|_| !is_resumed) {
            self.carryover.floor.learn(begins, seen, newest);
            if is_past {
                self.carryover.floor.settle(newest);
            }
        }
        let removes_marked = self.syncer.options.delete_mode == DeleteMode::Delete;
        self.syncer
            .mirror
            .missing()
            .close_walk(run, watermark, removes_marked)
            .await?;
        self.settle_deletions(run).await?;
        self.settle_older().await?;
        self.retry_refused(run).await
    }

    /// The newest `updated_at` at Clerk: whoever changes from now on has a later one. In Unix milliseconds; zero where there is nobody, and none
    /// where the server cannot say.
    async fn newest_change(&mut self) -> Result<Option<i64>, Failure> {
        let page = match self.syncer.recent(0, TOP).await? {
            Ok(page) => page,
            Err(error @ (clerk::Error::Refused(_) | clerk::Error::NotFound(_))) => {
                if error.objection() == Objection::None {
                    return Err(error.into());
                }
                self.carryover.has_no_order = true;
                return Ok(None);
            }
            // The list may begin with somebody who cannot be read; the walk will say.
            Err(error) if self.syncer.is_of_this_request(&error).await? => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        self.carryover.set_clock(page.date);
        let mut recent = Recent::new(0, TOP);
        let entries = page.users().iter().map(|raw| Entry {
            id: raw.id.as_deref().unwrap_or_default(),
            updated_at: raw.updated_at,
        });
        let step = recent.receive(&entries.collect::<Vec<_>>());
        let newest = recent.newest(page.date);
        self.carryover.has_no_order = step == Step::Unordered || (newest.is_none() && !page.users().is_empty());
        Ok(if page.users().is_empty() { Some(0) } else { newest })
    }
}
