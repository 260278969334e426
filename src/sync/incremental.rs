//! An incremental sync: stores the users that changed at Clerk, then compares Clerk's count with
//! the mirror's.
//!
//! It reads both first and writes nothing. Only if there is something to write does it take the
//! lease.

use std::{ops::ControlFlow, time::Instant};

use super::{
    AskError, Carryover, DeleteMode, Report, SyncContext, Syncer, context::Start, count_mismatch::Response,
    same_instance,
};
use crate::{
    clerk,
    failure::{Cause, Failure},
    mirror::{SyncKind, SyncState},
    reconcile::range::Range,
    resource::MAX_PAGE,
};

/// What an incremental or on-demand sync did.
#[derive(Debug)]
pub enum SyncOutcome {
    /// There was nothing to do.
    Nothing,
    /// It changed something.
    Synced(Box<Report>),
    /// It cannot see recent changes. Only a full sync can.
    NeedsFull,
    /// Another clerk2pg is syncing.
    Standby,
}

impl Syncer {
    /// Runs an incremental sync.
    ///
    /// # Errors
    /// The sync could not be completed. What it committed stays, and the next one does the rest.
    pub async fn incremental(&self, carryover: &mut Carryover) -> Result<SyncOutcome, Failure> {
        let start = Start::now(self, SyncKind::Incremental);
        let result = self.sync_recent_changes(start, carryover).await;
        match &result {
            Err(failure) if carryover.is_new_failure(failure.cause) => self.record_failure(failure, start).await,
            Err(_) => {}
            Ok(_) => carryover.succeeded(),
        }
        // What is wrong with the list of users is not wrong with the others.
        let may_go_on = match &result {
            Ok(SyncOutcome::Standby) => false,
            Ok(_) => carryover.knows_instance(),
            Err(failure) => failure.cause == Cause::Other && carryover.knows_instance(),
        };
        if may_go_on {
            self.sync_others(SyncKind::Incremental, carryover).await?;
        }
        result
    }

    async fn sync_recent_changes(&self, start: Start, carryover: &mut Carryover) -> Result<SyncOutcome, Failure> {
        let state = match self.read_state(carryover).await? {
            ControlFlow::Continue(state) => state,
            ControlFlow::Break(outcome) => return Ok(outcome),
        };
        let watermark = match state.watermark.filter(|_| state.is_imported) {
            Some(watermark) => watermark.timestamp_millis(),
            None if carryover.has_no_order => return Ok(cannot_read_changes(carryover, &state)),
            None => {
                carryover.request_full_sync("how far recent changes were read is not known");
                return Ok(SyncOutcome::NeedsFull);
            }
        };
        if let Some(why) = self.full_sync_for_tables(&state, &mut carryover.tables).await? {
            carryover.require_full_sync(why);
            return Ok(SyncOutcome::NeedsFull);
        }
        carryover.floor.note_watermark(watermark);
        let reading = self.read_changes(carryover, watermark, state.expected);
        let (changes, total) = tokio::join!(reading, self.total());
        let (changes, total) = (changes?, carryover.counted(total)?);
        carryover.set_clock(changes.date());
        if changes.is_unordered() {
            return Ok(cannot_read_changes(carryover, &state));
        }
        let counts_differ = !changes.has_news() && self.counts_differ(&state, total, carryover);
        if !changes.has_news() && !counts_differ && !self.has_put_off(&state) {
            changes.raise_floor(carryover);
            return Ok(SyncOutcome::Nothing);
        }
        self.check_instance_if_old(carryover).await?;
        let Some(lease) = self.lease_since(state.lease_epoch).await? else {
            return Ok(SyncOutcome::Standby);
        };
        let work = async |sync: &mut SyncContext<'_>| {
            sync.watermark = Some(watermark);
            sync.store_changes(changes).await?;
            let has_deletions = sync.resume_deletions().await?;
            let has_settled = sync.search_if_counts_differ(total).await?;
            if has_deletions && !has_settled {
                sync.settle_deletions().await?;
            }
            sync.retry_refused().await?;
            sync.settle_tables().await
        };
        let result = self.under_lease(&lease, start, carryover, work).await;
        if let Err(failure) = &result {
            carryover.failed(failure.cause);
        }
        result.map(|report| SyncOutcome::Synced(Box::new(report)))
    }

    /// Reads what an incremental or on-demand sync needs to know of the mirror; breaks with the
    /// outcome if it cannot begin.
    ///
    /// # Errors
    /// The database is tied to another instance by now, or Postgres is away.
    pub(super) async fn read_state(
        &self,
        carryover: &mut Carryover,
    ) -> Result<ControlFlow<SyncOutcome, SyncState>, Failure> {
        let Some(instance) = &carryover.instance else {
            carryover.request_full_sync("no full sync was done yet");
            return Ok(ControlFlow::Break(SyncOutcome::NeedsFull));
        };
        let state = self.mirror.runs().state().await?;
        if let Err(failure) = same_instance(state.instance_id.as_deref(), &instance.id) {
            // A person has tied the database to another instance. A full sync asks again which one
            // the key belongs to.
            carryover.instance = None;
            return Err(failure);
        }
        if state.excluded != self.clerk.excluded().names() {
            carryover.require_full_sync("mirror.exclude names other fields than before");
            return Ok(ControlFlow::Break(SyncOutcome::NeedsFull));
        }
        if state.rereads {
            carryover.request_full_sync("the fields that are not stored have changed");
        }
        if let Some(holder) = &state.lease_holder {
            self.watch.set_standing_by(holder);
            return Ok(ControlFlow::Break(SyncOutcome::Standby));
        }
        Ok(ControlFlow::Continue(state))
    }

    /// How many users Clerk has; `None` if the number is not needed or the server does not count. A
    /// failed request is not repeated: the next incremental sync asks again.
    async fn total(&self) -> Result<Option<u64>, AskError> {
        if self.options.delete_mode == DeleteMode::Keep {
            return Ok(None);
        }
        let clerk = self.clerk.clone().asking_once();
        match self.ask(clerk.count(self.resource, Range::ALL)).await {
            // The client itself waits for as long as Clerk asks for.
            Err(AskError::Clerk(clerk::Error::RateLimited { .. })) => {
                self.ask(self.clerk.count(self.resource, Range::ALL)).await
            }
            counted => counted,
        }
    }

    /// Whether the counts differ so that a search is worth it.
    fn counts_differ(&self, state: &SyncState, total: Option<u64>, carryover: &mut Carryover) -> bool {
        let Some(total) = total else {
            if self.options.delete_mode != DeleteMode::Keep && !carryover.cannot_count {
                carryover.warn_once("this server does not count users; only full syncs see deletions");
            }
            return false;
        };
        let difference = i64::try_from(total).unwrap_or(i64::MAX) - state.expected;
        match carryover.mismatch.judge(difference, Instant::now()) {
            Response::Nothing => false,
            Response::Search => true,
            Response::FullSync => {
                carryover.request_full_sync("the counts agree again, though no user was found that explains it");
                false
            }
        }
    }

    /// Whether the application had locked rows that are to be tried again.
    pub(super) fn has_put_off(&self, state: &SyncState) -> bool {
        state.has_put_off_objects
            || state.has_put_off_rows
            || (state.has_put_off_deletions && self.options.delete_mode != DeleteMode::Keep)
    }
}

/// If the server cannot list users by their last change, only full syncs see changes. Emulators are
/// small, so each incremental sync may become a full one.
fn cannot_read_changes(carryover: &mut Carryover, state: &SyncState) -> SyncOutcome {
    carryover.warn_once("this server does not list users by their last change; only full syncs see changes");
    if state.expected <= i64::from(MAX_PAGE) {
        carryover.request_full_sync("recent changes cannot be read here, and there are few users");
    }
    SyncOutcome::NeedsFull
}

impl SyncContext<'_> {
    /// Compares Clerk's count at the beginning of the sync with what the mirror expects now, and
    /// searches for the users that make the difference. Returns whether deletions were settled.
    async fn search_if_counts_differ(&mut self, total: Option<u64>) -> Result<bool, Failure> {
        let Some((total, run)) = total.zip(self.mode.run()) else {
            return Ok(false);
        };
        if self.report.created > 0 {
            self.carryover.mismatch.saw_newcomers();
        }
        let mirror = &self.syncer.mirror;
        let state = mirror.runs().state().await?;
        if !self.syncer.counts_differ(&state, Some(total), self.carryover) {
            return Ok(false);
        }
        let created = self.report.created;
        let total = i64::try_from(total).unwrap_or(i64::MAX);
        let Some(remote) = self.search(state.expected, total).await? else {
            if self.report.created == 0 {
                self.carryover.mismatch.vanished();
            }
            return Ok(false);
        };
        self.settle_deletions().await?;
        // Three kinds of users explain nothing: those found by id, those whose answer proves
        // nothing, and those created during the search.
        let between = i64::try_from(self.created_between).unwrap_or(i64::MAX);
        let expected = mirror.runs().state().await?.expected - between;
        if expected == state.expected
            && self.report.created == created + self.created_between
            && self.report.deleted == 0
        {
            // The mirror's own number may be wrong: another program may have written to the table.
            let difference = remote + between - mirror.counts().recount(run.lease()).await?;
            self.carryover.mismatch.not_explained(difference, Instant::now());
        } else if expected != remote {
            // More users may be hidden by what happened meanwhile. They need not wait for the
            // schedule.
            self.syncer.due.incremental();
        }
        Ok(true)
    }
}
