//! A full sync, or its plan: reads all users, and settles which rows are deleted.

use std::time::Instant;

use tracing::{info, warn};

use super::{
    AskError, Carryover, DeleteMode, Outcome, Printer, Report, SyncContext, Syncer, context::Start, dry_run::DryRun,
    mode::SyncMode, page_worker::Listed, same_instance, tables::not_in_sync,
};
use crate::{
    clerk::{self, Objection},
    failure::{Cause, Failure},
    mirror::{RunTables, SyncKind},
    reconcile::{
        ListEntry,
        partition::Partition,
        recent::{LAG_MS, RecentStep, RecentWalk},
    },
};

/// Users read to learn the newest change: the first ones may have no readable time.
const NEWEST: u32 = 10;

impl Syncer {
    /// Runs a full sync.
    ///
    /// # Errors
    /// The sync could not be completed. What it committed stays, and the next one continues from
    /// there.
    pub async fn full_sync(&self, carryover: &mut Carryover) -> Result<Report, Failure> {
        let start = Start::now(self, SyncKind::Full);
        let before = carryover.instance.take();
        let instance = match self.identify_and_prepare(start).await {
            Ok(instance) => instance,
            Err(failure) => {
                // Other kinds of sync continue as before, unless the key belongs to another
                // instance.
                carryover.instance = before.filter(|_| failure.cause != Cause::NeedsPerson);
                return Err(failure);
            }
        };
        carryover.asked_instance = Some(Instant::now());
        let lease = self.acquire_lease().await?;
        carryover.instance = Some(instance.clone());
        let work = async |sync: &mut SyncContext<'_>| {
            if self.mirror.instance().id().await?.is_none() {
                self.confirm_instance(&instance).await?;
                let pinned = self.mirror.instance();
                pinned.pin(&lease, &instance.id, &instance.environment_type).await?;
            }
            // Again, now that no other process can pin: two with different keys may have started at
            // once.
            same_instance(self.mirror.instance().id().await?.as_deref(), &instance.id)?;
            sync.sync_all().await
        };
        let result = self.under_lease(&lease, start, carryover, work).await;
        if result
            .as_ref()
            .is_err_and(|failure| failure.cause == Cause::NeedsPerson)
        {
            carryover.instance = None;
        }
        if result.as_ref().is_err_and(|failure| failure.cause == Cause::Other) {
            // What is wrong with the list of users is not wrong with the others.
            self.sync_others(SyncKind::Full, carryover).await?;
        }
        let mut report = result?;
        let others = self.sync_others(SyncKind::Full, carryover).await?;
        report.resources = others
            .into_iter()
            .map(|(resource, report)| (resource.name, report))
            .collect();
        Ok(report)
    }

    /// Checks what a full sync checks first: whether Clerk accepts the key, whether it belongs to
    /// the mirrored instance, and whether the schema can be used. Applies pending migrations.
    ///
    /// # Errors
    /// A full sync could not begin.
    pub async fn preflight(&self) -> Result<(), Failure> {
        self.identify_and_prepare(Start::now(self, SyncKind::Full))
            .await
            .map(drop)
    }

    /// Prints the plan of a full sync, a line at a time. Writes nothing.
    ///
    /// # Errors
    /// Clerk or the mirror could not be read.
    pub async fn plan(&self, print: Printer<'_>) -> Result<Report, Failure> {
        let start = Start::now(self, SyncKind::Full);
        let has_schema = self.mirror.schema().exists().await?;
        let pinned = match has_schema {
            true => self.mirror.instance().id().await?,
            false => None,
        };
        let instance = self.identify(pinned.as_deref()).await?;
        if has_schema {
            self.clerk.set_digest_key(self.mirror.instance().digest_key().await?);
            if self.mirror.runs().state().await?.excluded != self.clerk.excluded().names() {
                info!("mirror.exclude has changed: the sync begins by erasing the fields that it names, everywhere");
            }
        }
        let mut report = self.plan_resource(start, has_schema, &instance.id, &mut *print).await?;
        report.resources = self.plan_others(has_schema, &instance.id, print).await?;
        report.requests = start.requests(self);
        report.duration_ms = start.elapsed_ms();
        Ok(report)
    }

    /// Prints what a full sync would do with the objects of this syncer's resource.
    pub(super) async fn plan_resource(
        &self,
        start: Start,
        has_schema: bool,
        instance: &str,
        print: Printer<'_>,
    ) -> Result<Report, Failure> {
        let mut carryover = Carryover::default();
        carryover.walked_from_beginning = true;
        let RunTables { tables, broken } = self.mirror.app_tables().look_at(has_schema).await?;
        let mode = SyncMode::DryRun {
            has_schema,
            tables: &tables,
        };
        let listed = Listed::default();
        let mut sync = SyncContext::new(self, mode, &listed, start, &mut carryover, instance);
        sync.dry_run = Some(DryRun::new(print));
        let walked = sync.walk_list(None).await;
        self.progress.finish();
        walked?;
        sync.has_walked_all = sync.has_read_whole_list().await?;
        sync.settle_deletions().await?;
        for (table, problem) in &broken {
            sync.note(not_in_sync(table, problem));
        }
        sync.plan_tables(&tables).await?;
        let mut report = sync.report;
        report.is_plan = true;
        report.outcome = match report.notes.is_empty() {
            true => Outcome::Planned,
            false => Outcome::Incomplete,
        };
        Ok(report)
    }

    /// Asks which instance the key belongs to, and prepares the schema for it.
    async fn identify_and_prepare(&self, start: Start) -> Result<clerk::Instance, Failure> {
        // With the key of another instance, not even migrations may run. If the schema is of
        // another version, the pin is read after the migrations.
        let pinned = match self.mirror.schema().exists().await {
            Ok(true) => self.mirror.instance().id().await?,
            _ => None,
        };
        let identified = self.identify(pinned.as_deref()).await;
        let instance = match identified {
            Ok(instance) => instance,
            Err(failure) => {
                self.record_failure(&failure, start).await;
                return Err(failure);
            }
        };
        let applied = self.mirror.schema().prepare(self.options.migrate).await?;
        if !applied.is_empty() {
            info!(migrations = applied.len(), "the schema is up to date now");
        }
        self.check_pin(&instance, start).await?;
        self.clerk.set_digest_key(self.mirror.instance().digest_key().await?);
        Ok(instance)
    }

    /// Checks that the database is not tied to another instance.
    async fn check_pin(&self, instance: &clerk::Instance, start: Start) -> Result<(), Failure> {
        let pinned = self.mirror.instance().id().await?;
        let checked = same_instance(pinned.as_deref(), &instance.id);
        if let Err(failure) = &checked {
            self.record_failure(failure, start).await;
        }
        checked
    }

    /// Lists a sync that failed before it could begin, if there is a schema to list it in.
    pub(super) async fn record_failure(&self, failure: &Failure, start: Start) {
        if failure.cause == Cause::Stopped || !matches!(self.mirror.schema().exists().await, Ok(true)) {
            return;
        }
        let (holder, requests) = (&self.options.holder, start.requests(self));
        let runs = self.mirror.runs();
        let recorded = runs.record_failure(start.kind, holder, requests, &failure.message);
        if let Err(error) = recorded.await {
            warn!(%error, "the failed sync could not be recorded");
        }
    }
}

impl SyncContext<'_> {
    /// Walks over all users, and then settles deletions, older states and rejections.
    pub(super) async fn sync_all(&mut self) -> Result<(), Failure> {
        let resumed = self.resumed.take();
        if let Some(checkpoint) = &resumed {
            info!(
                run = checkpoint.walk,
                users = checkpoint.parts.iter().map(Partition::seen).sum::<u64>(),
                "continuing the walk that was cut off"
            );
        }
        let began = resumed.as_ref().map(|checkpoint| checkpoint.started_at);
        self.walk_started_at = began.or_else(|| self.mode.now());
        let begins = Instant::now();
        let is_resumed = resumed.is_some();
        if !is_resumed {
            (self.carryover.walked_from_beginning, self.carryover.has_left_out) = (true, false);
        }
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
        if self.has_given_way {
            return Ok(());
        }
        self.has_walked_all = self.has_read_whole_list().await?;
        // If the walk may have missed users, incremental syncs still have to read the changes since
        // the watermark.
        let is_doubtful = !self.report.notes.is_empty() && self.syncer.mirror.runs().state().await?.watermark.is_some();
        let watermark = self.watermark.filter(|_| !is_doubtful);
        if let Some(newest) = watermark.filter(|_| !is_resumed) {
            self.carryover.floor.learn(begins, seen, newest);
            if is_past {
                self.carryover.floor.settle(newest);
            }
        }
        let removes_marked = self.syncer.options.delete_mode == DeleteMode::Delete;
        if let Some(run) = self.mode.run() {
            let missing = self.syncer.mirror.missing();
            missing.close_walk(run, watermark, removes_marked).await?;
        }
        self.settle_deletions().await?;
        self.settle_older().await?;
        self.retry_refused().await?;
        self.sync_tables().await
    }

    /// Whether the walk, from its beginning, has met all objects of the list, and the mirror has all of
    /// them: an id that is not in the mirror is not in the list.
    async fn has_read_whole_list(&self) -> Result<bool, Failure> {
        let has_met_all = self.report.notes.is_empty()
            && self.carryover.walked_from_beginning
            && !self.carryover.has_left_out
            && self.mode.has_schema();
        Ok(has_met_all && !self.syncer.mirror.rejected().any().await?)
    }

    /// The newest `updated_at` at Clerk, in Unix milliseconds: users that change from now on have a
    /// later one. Zero if there are no users, and `None` if the server does not list by it.
    async fn newest_change(&mut self) -> Result<Option<i64>, Failure> {
        if self.syncer.resource.list.by_update.is_none() {
            return Ok(None);
        }
        let page = match self.syncer.recent(0, NEWEST).await {
            Ok(page) => page,
            Err(AskError::Clerk(error @ (clerk::Error::Refused(_) | clerk::Error::NotFound(_)))) => {
                if error.objection() == Objection::None {
                    return Err(error.into());
                }
                self.carryover.has_no_order = true;
                return Ok(None);
            }
            // The list may begin with a user that cannot be read. The walk finds out.
            Err(AskError::Clerk(error)) if self.syncer.is_about_request(&error).await? => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        self.carryover.set_clock(page.date);
        let mut recent = RecentWalk::new(0, NEWEST);
        let entries = page.objects().iter().map(|raw| ListEntry {
            id: raw.id.as_deref().unwrap_or_default(),
            created_at: raw.created_at,
            updated_at: raw.updated_at,
        });
        let step = recent.receive(&entries.collect::<Vec<_>>());
        let newest = recent.newest(page.date);
        self.carryover.has_no_order = step == RecentStep::Unordered || (newest.is_none() && !page.objects().is_empty());
        Ok(if page.objects().is_empty() { Some(0) } else { newest })
    }
}
