//! What a daemon remembers from one sync to the next. If it is lost, that costs requests, never
//! users.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use tracing::warn;

use super::{AskError, count_mismatch::CountMismatch, table_requests::TableRequests};
use crate::{clerk, failure::Cause, reconcile::recent::Floor};

/// Users on the smallest first page of an incremental sync.
const FIRST_PAGE: u32 = 20;

/// How often incremental and on-demand syncs remove old events.
const PRUNE_EVERY: Duration = Duration::from_secs(600);

/// The least time between two full syncs for the same reason.
const FULL_SYNC_GAP: Duration = Duration::from_secs(10);

/// Clocks that differ by less are treated as equal: Clerk gives its time in whole seconds.
const SAME_CLOCK_MS: i64 = 2_000;

/// State kept between syncs. Empty by default.
#[derive(Debug, Default)]
pub struct Carryover {
    /// The Clerk instance, as the last full sync learned it.
    pub(super) instance: Option<clerk::Instance>,
    /// When Clerk was last asked for its instance.
    pub(super) asked_instance: Option<Instant>,
    /// How far down the list incremental syncs must read.
    pub(super) floor: Floor,
    /// Users at or above the floor on the pages of the last incremental sync.
    pub(super) above: u64,
    /// How Clerk's count differs from the mirror's.
    pub(super) mismatch: CountMismatch,
    /// The last full sync found that the server does not list users by their last change.
    pub(super) has_no_order: bool,
    /// The last request to count users failed.
    pub(super) cannot_count: bool,
    /// The server can only be walked as a whole.
    pub(super) walks_as_whole: bool,
    /// Why a full sync is due.
    full_sync_reason: Option<&'static str>,
    /// When a full sync was last requested, by reason.
    full_sync_requests: BTreeMap<&'static str, Instant>,
    /// Warnings that were logged.
    warned: BTreeSet<&'static str>,
    /// When the application's tables were looked at, and full syncs were requested for them.
    pub(super) tables: TableRequests,
    /// The checksum of what is held of each table, as it was last reported.
    reported_holds: BTreeMap<String, String>,
    /// When old events and syncs were last removed.
    pruned: Option<Instant>,
    /// Why the last sync failed; `None` if it succeeded.
    failed: Option<Cause>,
    /// Clerk's clock less this process's, in milliseconds.
    clock_offset_ms: i64,
}

impl Carryover {
    /// Makes a full sync due. The caller limits how often.
    pub(super) fn require_full_sync(&mut self, why: &'static str) {
        self.full_sync_reason = Some(why);
    }

    /// Whether a full sync has learned the Clerk instance. Other kinds of sync need it.
    pub fn knows_instance(&self) -> bool {
        self.instance.is_some()
    }

    /// Takes the reason why a full sync is due before its time; `None` if none is due.
    pub fn take_full_sync_reason(&mut self) -> Option<&'static str> {
        self.full_sync_reason.take()
    }

    /// Makes a full sync due, unless one was due for the same reason a moment ago.
    pub(super) fn request_full_sync(&mut self, why: &'static str) {
        let is_new = self
            .full_sync_requests
            .get(why)
            .is_none_or(|at| at.elapsed() >= FULL_SYNC_GAP);
        if is_new {
            self.full_sync_requests.insert(why, Instant::now());
            self.full_sync_reason = Some(why);
        }
    }

    /// Logs a warning, once.
    pub(super) fn warn_once(&mut self, message: &'static str) {
        if self.warned.insert(message) {
            warn!("{message}");
        }
    }

    /// Notes what is held of a table, by its checksum. Returns whether that was not reported yet.
    pub(super) fn is_new_hold(&mut self, table: &str, checksum: &str) -> bool {
        let before = self.reported_holds.insert(table.to_owned(), checksum.to_owned());
        before.as_deref() != Some(checksum)
    }

    /// Notes that nothing of a table is held.
    pub(super) fn forget_hold(&mut self, table: &str) {
        self.reported_holds.remove(table);
    }

    /// How many users Clerk has; `None` if it does not count them or the request failed. An
    /// incremental sync goes on without the number.
    ///
    /// # Errors
    /// The sync is stopped, or Clerk refuses the key.
    pub(super) fn counted(&mut self, total: Result<Option<u64>, AskError>) -> Result<Option<u64>, AskError> {
        let error = match total {
            Ok(total) => {
                self.cannot_count = false;
                return Ok(total);
            }
            Err(AskError::Stopped) => return Err(AskError::Stopped),
            Err(AskError::Clerk(error)) => error,
        };
        let could_count = !std::mem::replace(&mut self.cannot_count, true);
        if matches!(error, clerk::Error::KeyRefused(_)) {
            return Err(error.into());
        }
        if could_count {
            warn!(%error, "users cannot be counted; until they can, only full syncs see deletions");
        }
        Ok(None)
    }

    /// Users to ask for on the first page: as many as the last incremental sync read above the
    /// floor and some more, so that steady change takes one request.
    pub(super) fn first_page(&self) -> u32 {
        u32::try_from(self.above + 10).unwrap_or(u32::MAX).max(FIRST_PAGE)
    }

    /// Whether a failure has another cause than the one before. An outage is listed once, not at
    /// every attempt.
    pub(super) fn is_new_failure(&mut self, cause: Cause) -> bool {
        self.failed.replace(cause) != Some(cause)
    }

    /// Notes a failure that is listed already.
    pub(super) fn failed(&mut self, cause: Cause) {
        self.failed = Some(cause);
    }

    /// Notes that a sync succeeded.
    pub(super) fn succeeded(&mut self) {
        self.failed = None;
    }

    /// Whether old events are to be removed now.
    pub(super) fn is_prune_due(&mut self, always: bool) -> bool {
        let is_due = always || self.pruned.is_none_or(|at| at.elapsed() >= PRUNE_EVERY);
        if is_due {
            self.pruned = Some(Instant::now());
        }
        is_due
    }

    /// Notes the time by Clerk's clock, in Unix milliseconds.
    pub(super) fn set_clock(&mut self, clerk_time: Option<i64>) {
        let difference = clerk_time.map_or(0, |clerk_time| clerk_time - chrono::Utc::now().timestamp_millis());
        self.clock_offset_ms = if difference.abs() < SAME_CLOCK_MS {
            0
        } else {
            difference
        };
    }

    /// The time by Clerk's clock, in Unix milliseconds.
    pub(super) fn now(&self) -> i64 {
        chrono::Utc::now().timestamp_millis() + self.clock_offset_ms
    }
}
