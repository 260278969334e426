//! What a daemon remembers from one sync to the next. If it is lost, that costs requests, never
//! users.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use tracing::warn;

use super::{AskError, count_mismatch::CountMismatch, table_requests::TableRequests};
use crate::{
    clerk,
    failure::Cause,
    reconcile::{recent::Floor, walk::Walk},
};

/// Users on the smallest first page of an incremental sync.
const FIRST_PAGE: u32 = 20;

/// How often incremental and on-demand syncs remove old events.
const PRUNE_EVERY: Duration = Duration::from_secs(600);

/// The least time between two full syncs for the same reason.
const FULL_SYNC_GAP: Duration = Duration::from_secs(10);

/// Syncs of a list in a row without fruit after which they pause.
const FRUITLESS: u32 = 3;

/// The pause after the first failure of a resource's sync.
const FIRST_PAUSE: Duration = Duration::from_secs(5);

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
    /// What is remembered of the resources other than users, by their names.
    pub(super) others: BTreeMap<&'static str, Carryover>,
    /// When Clerk last said that the resource is switched off; `None` if it is not.
    pub(super) switched_off: Option<Instant>,
    /// How often the sync of the resource has failed in a row, and when it is tried again.
    failures: u32,
    retry_at: Option<Instant>,
    /// Whether something was written since the other resources were synced. Tables of the application
    /// may look it up.
    pub(super) has_changed: bool,
    /// Whether rejected rows of the resource's tables are tried again, because what they look up may be
    /// there by now.
    pub(super) retries_rows: bool,
    /// Whether the walk over the list was cut off, and goes on with the next sync.
    pub(super) goes_on: bool,
    /// When the sync of the list began, whose turn ends if users are due.
    pub(super) turn_began: Option<Instant>,
    /// Whether this process began the walk over the list that it continues, and whether that walk has left
    /// objects out.
    pub(super) walked_from_beginning: bool,
    pub(super) has_left_out: bool,
    /// Whether the resource's whole list is to be read.
    pub(super) is_full_due: bool,
    /// Syncs of the list in a row that found a reason and then nothing to change, and until when missing
    /// rows and other counts are no reason.
    fruitless: u32,
    quiet_until: Option<Instant>,
    /// The walk over a long list that never ends, a page at each sync.
    pub(super) rolling: Option<Walk>,
    /// Whether the list lacked more objects than may be deleted at once.
    pub(super) lacks_too_many: bool,
    /// The numbers of objects that the mirror expects and that Clerk has, if a search could not
    /// explain why they differ.
    pub(super) unexplained: Option<(i64, u64)>,
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

    /// Makes a full sync due, unless one was due for the same reason a moment ago. Returns whether it was
    /// not.
    pub(super) fn request_full_sync(&mut self, why: &'static str) -> bool {
        let is_new = self
            .full_sync_requests
            .get(why)
            .is_none_or(|at| at.elapsed() >= FULL_SYNC_GAP);
        if is_new {
            self.full_sync_requests.insert(why, Instant::now());
            self.full_sync_reason = Some(why);
        }
        is_new
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
        (self.failures, self.retry_at) = (0, None);
    }

    /// Notes that the sync of a resource failed: the next one waits, longer each time, as others wait
    /// for it.
    pub(super) fn failed_again(&mut self) {
        self.retry_at = Some(Instant::now() + FIRST_PAUSE * 2u32.pow(self.failures.min(6)));
        self.failures += 1;
    }

    /// Notes whether a sync of the list changed something. After some that did not, missing rows and
    /// other counts are no reason for a while: for example, a rejected object may be gone.
    pub(super) fn note_fruit(&mut self, has_changes: bool) {
        self.fruitless = if has_changes { 0 } else { self.fruitless + 1 };
        let pauses = self.fruitless.checked_sub(FRUITLESS);
        self.quiet_until = pauses.map(|pauses| Instant::now() + FIRST_PAUSE * 2u32.pow(pauses.min(6)));
    }

    /// Whether missing rows and other counts are no reason for a sync of the list now.
    pub(super) fn is_quiet(&self) -> bool {
        self.quiet_until.is_some_and(|until| until > Instant::now())
    }

    /// Whether the resource is left alone because its last sync failed.
    pub(super) fn waits(&self) -> bool {
        self.retry_at.is_some_and(|at| at > Instant::now())
    }

    /// Whether the last sync of the resource failed.
    pub(super) fn has_failed_lately(&self) -> bool {
        self.failures > 0
    }

    /// Whether the last sync failed for this cause.
    pub(super) fn has_failed(&self, cause: Cause) -> bool {
        self.failed == Some(cause)
    }

    /// Takes over what is known of the instance from the carryover of users.
    pub(super) fn inherit(&mut self, users: &Self) {
        self.instance.clone_from(&users.instance);
        self.asked_instance = users.asked_instance;
    }

    /// Takes note when the sync of another resource asked for the instance.
    pub(super) fn learn_instance(&mut self, other: &Self) {
        self.asked_instance = self.asked_instance.max(other.asked_instance);
        if other.instance.is_none() {
            self.instance = None;
        }
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
