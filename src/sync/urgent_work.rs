//! What a long sync does between two of its pages: users that notifications ask for, and
//! incremental syncs that are due.

use std::time::{Duration, Instant};

use tracing::debug;

use super::SyncContext;
use crate::{
    failure::{Cause, Failure},
    mirror::SyncKind,
    resource::USERS,
    schedule::due::Task,
};

/// The sync of a list other than that of users gives way to what is due after this time.
const LIST_TURN: Duration = Duration::from_secs(2);

/// With more users than this above the floor, recent changes are not read between pages.
const MAX_ABOVE: u64 = 5_000;

impl SyncContext<'_> {
    /// Whether the sync of a list other than that of users is cut off here: users are due.
    pub(super) fn gives_way(&self) -> bool {
        let due = &self.syncer.due;
        self.is_turn_over() && (due.has_users() || due.has_incremental())
    }

    /// Whether the sync of a list other than that of users has taken its time. Others may not be due yet.
    pub(super) fn is_turn_over(&self) -> bool {
        let is_over = |began: Instant| began.elapsed() >= LIST_TURN;
        self.syncer.resource.name != USERS.name
            && self.mode.run().is_some()
            && self.carryover.turn_began.is_some_and(is_over)
    }

    /// Whether something is due that a walk over all users does between two of its pages.
    pub(super) fn has_urgent_work(&self) -> bool {
        if self.syncer.resource.name != USERS.name {
            return false;
        }
        let has_users = self.syncer.due.has_users() && self.syncer.clerk.free_for_notifications() > 0;
        has_users || (self.may_read_changes() && self.syncer.due.has_incremental())
    }

    /// Whether recent changes are read between pages. After a change of very many users, that takes
    /// as long as a walk for a while.
    fn may_read_changes(&self) -> bool {
        let knows_watermark = self.watermark.is_some() && self.mode.run().is_some_and(|run| !run.is_import);
        knows_watermark && self.reads_changes_between && self.carryover.above <= MAX_ABOVE
    }

    /// Does what is due and cannot wait. No page may be half done.
    pub(super) async fn do_urgent_work(&mut self) -> Result<(), Failure> {
        let created = self.report.created;
        let result = self.sync_users_and_changes().await;
        self.created_between += self.report.created - created;
        result
    }

    /// Stores the users that are due, and then recent changes if they are due.
    async fn sync_users_and_changes(&mut self) -> Result<(), Failure> {
        let users = self.syncer.due.take_users(self.syncer.clerk.free_for_notifications());
        if !users.is_empty() {
            self.sync_users(users).await?;
        }
        let Some(watermark) = self.watermark.filter(|_| self.may_read_changes()) else {
            return Ok(());
        };
        if !self.syncer.due.take_incremental() {
            return Ok(());
        }
        match self.sync_changes(watermark).await {
            Err(failure) if is_final(failure.cause) => Err(failure),
            Err(failure) => {
                debug!(%failure, "recent changes are not read any more in this sync");
                self.reads_changes_between = false;
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Stores users that notifications ask for. Those that cannot be stored are left for later.
    async fn sync_users(&mut self, users: Vec<String>) -> Result<(), Failure> {
        let stored = async {
            let requested = self.syncer.look_up(&users).await?;
            self.store_requested(requested).await
        };
        match stored.await {
            Ok(()) => self.syncer.due.users_done(&users),
            Err(failure) if failure.stops_all_kinds() => {
                self.syncer.due.put_back(Task::Users(users));
                // If Clerk is away, the sync itself finds out.
                if failure.cause != Cause::ClerkUnavailable {
                    return Err(failure);
                }
            }
            Err(failure) => {
                debug!(%failure, "users that were asked for cannot be stored yet");
                self.syncer.due.users_failed(users);
            }
        }
        Ok(())
    }

    /// Stores recent changes.
    async fn sync_changes(&mut self, watermark: i64) -> Result<(), Failure> {
        self.syncer.watch.started(SyncKind::Incremental);
        let users = self.syncer.mirror.runs().state().await?.expected;
        let reading = self.syncer.read_changes(self.carryover, watermark, users);
        let changes = reading.await?.between_pages();
        if changes.has_news() {
            self.syncer.check_instance_if_old(self.carryover).await?;
        }
        // What costs this much once would cost it between any two pages.
        self.reads_changes_between = !changes.is_unordered() && !changes.has_stepped_over();
        self.has_read_changes = true;
        if changes.is_unordered() {
            return Ok(());
        }
        self.store_changes(changes).await?;
        self.syncer.watch.incremental_succeeded();
        Ok(())
    }
}

/// Whether a failure between two pages ends the sync.
fn is_final(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::Stopped | Cause::Busy | Cause::PostgresUnavailable | Cause::NeedsPerson
    )
}
