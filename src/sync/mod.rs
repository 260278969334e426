//! Syncs from beginning to end. Only this module moves users from Clerk to the mirror.
//!
//! A page at a time: fetch it from Clerk, decode it, compare it with the mirror (pure), and apply
//! the difference to Postgres in one transaction that also publishes the events. At the end, a sync
//! asks Clerk by id for the users it missed, and the guard decides whether the confirmed deletions
//! are carried out or held.
//!
//! A full sync (`full`) reads all users. An incremental sync (`incremental`) reads recent changes,
//! and searches (`search`) if Clerk's count differs from the mirror's. A sync on demand
//! (`on_demand`) asks for some users by id. A dry run prints what a full sync would do (`dry_run`).

mod absence;
mod ask;
mod by_id;
mod carryover;
mod confirm;
mod context;
mod count_mismatch;
mod deletions;
mod dry_run;
mod full;
mod identity;
mod incremental;
mod list_changes;
mod lists;
mod log;
mod missing;
mod mode;
mod older_states;
mod on_demand;
mod page_batch;
mod page_worker;
mod pages_ahead;
mod partitions;
mod planned_rows;
mod recent_changes;
mod recheck;
mod report;
mod retry;
mod run;
mod search;
mod table_departures;
mod table_plan;
mod table_requests;
mod tables;
mod urgent_work;
mod walk_driver;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

pub use crate::mirror::Outcome;
use crate::{
    clerk, mirror::Mirror, progress::Progress, reconcile::guard::DeleteLimits, resource::Resource, schedule::due::Due,
    watch::Watch,
};
use ask::AskError;
pub use carryover::Carryover;
use context::SyncContext;
pub use dry_run::{PlanLine, Printer};
pub use identity::Repinned;
pub(crate) use identity::same_instance;
pub use incremental::SyncOutcome;
pub use recheck::Rechecks;
pub use report::{Report, TableReport, TableReports};

/// What happens to the row of a user that is gone from Clerk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeleteMode {
    /// The row is deleted.
    Delete,
    /// `deleted_at` is set.
    Mark,
    /// The row stays as it is.
    Keep,
}

/// How syncs behave.
#[derive(Debug, Clone)]
pub struct Options {
    /// Pages that a full sync works on at a time, while as many more are on their way. Also the
    /// number of requests that other steps send side by side.
    pub concurrency: usize,
    /// What happens to the rows of deleted users.
    pub delete_mode: DeleteMode,
    /// Whether organizations are mirrored, and not only what belongs to them.
    pub mirrors_organizations: bool,
    /// When deletions are held.
    pub limits: DeleteLimits,
    /// Whether pending migrations are applied first.
    pub migrate: bool,
    /// The name of this process in the lease and in `clerk.sync_runs`.
    pub holder: String,
    /// How long a lease lasts without renewal.
    pub lease_ttl: Duration,
    /// How long to wait for another process's lease; `None` waits forever.
    pub patience: Option<Duration>,
    /// Whether the first import makes events.
    pub initial_events: bool,
    /// How long events are kept.
    pub keep_events: Duration,
}

/// Runs syncs: the clients, the options, and what is due. It lives as long as the process.
#[derive(Debug, Clone)]
pub struct Syncer {
    /// The Clerk side.
    pub clerk: clerk::Client,
    /// The Postgres side.
    pub mirror: Mirror,
    /// The kind of object that is mirrored.
    pub resource: &'static Resource,
    /// The syncers of all other kinds, in the order in which they are synced.
    pub others: Vec<Syncer>,
    /// How syncs behave.
    pub options: Options,
    /// Cancelled to stop the sync. The next sync does what is not committed by then.
    pub stop: CancellationToken,
    /// Shows the progress of a full sync.
    pub progress: Progress,
    /// What is due. A full sync does some of it between two of its pages.
    pub due: Due,
    /// Feeds probes, metrics and the status page.
    pub watch: Watch,
    /// Answers of Clerk that count only when they are repeated later.
    pub rechecks: Rechecks,
}

impl Syncer {
    /// Walks under way at a time: two for each page that is worked on, because a walk mostly waits
    /// for Clerk. The limit is what the request budget allows in half a second: further walks would
    /// only wait for the budget.
    fn max_walks(&self) -> usize {
        let for_budget = (self.clerk.requests_per_second() / 2.0).ceil() as usize;
        for_budget.clamp(1, 2 * self.options.concurrency)
    }

    /// Whether this is `--once`, which leaves as little as possible to the next sync.
    fn is_single_run(&self) -> bool {
        self.options.patience.is_some()
    }

    /// Pages worked on at a time. Each takes a connection, and one connection is left to renew the
    /// lease.
    fn page_slots(&self) -> usize {
        self.options.concurrency.min(self.mirror.max_connections() - 1).max(1)
    }
}
