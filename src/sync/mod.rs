//! Syncs from beginning to end: the one place that sees both Clerk and the mirror.
//!
//! `fetch (Clerk) → decode → compare (pure) → apply (Postgres, one transaction) → publish (events, in that transaction)`, a page at a time; then
//! Clerk is asked by id for whom the sync did not meet, and the guard decides whether the confirmed deletions are carried out or held.
//!
//! A full sync (`full`) meets everybody; an incremental one (`incremental`) meets who changed, and searches (`search`) where Clerk counts
//! fewer; a sync on demand (`on_demand`) asks for some by id.

mod carryover;
mod confirm;
mod context;
pub mod due;
mod full;
mod identity;
mod incremental;
mod on_demand;
mod page;
mod page_context;
mod partitions;
mod recheck;
mod report;
mod retry;
mod run;
mod search;
mod walk_driver;

use std::{future::Future, time::Duration};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

pub use crate::mirror::Outcome;
use crate::{
    clerk::{self, Objection, Page},
    failure::{Cause, Failure},
    mirror::Mirror,
    progress::Progress,
    reconcile::guard::Limits,
    sync::due::Due,
    watch::Watch,
};
pub use carryover::Carryover;
use context::SyncContext;
pub use identity::Repinned;
pub(crate) use identity::same_instance;
pub use incremental::SyncOutcome;
pub use recheck::Rechecks;
pub use report::Report;

/// The pause before a refusal that may be about the order of a list is believed.
const BELIEVED_AFTER: Duration = Duration::from_secs(1);

/// What happens to the row of a user that is gone from Clerk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeleteMode {
    /// The row goes.
    Delete,
    /// `deleted_at` is set.
    Mark,
    /// Nothing.
    Keep,
}

/// How syncs behave.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many pages a full sync works on at a time, while as many more are on their way; and how many requests are sent side by side
    /// elsewhere.
    pub concurrency: usize,
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
    /// Whether the first import makes events.
    pub initial_events: bool,
    /// How long events are kept.
    pub keep_events: Duration,
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

/// What a sync works with.
#[derive(Debug, Clone)]
pub struct Syncer {
    /// The Clerk side.
    pub clerk: clerk::Client,
    /// The Postgres side.
    pub mirror: Mirror,
    /// How to behave.
    pub options: Options,
    /// Cancelled when the sync shall stop; what is not committed by then is done by the next sync.
    pub stop: CancellationToken,
    /// Who is shown how far it has come.
    pub progress: Progress,
    /// What becomes due while a full sync is under way, and is done between two of its pages.
    pub due: Due,
    /// Who is told how it goes, for those who watch.
    pub watch: Watch,
    /// Answers that count only when they are given again later.
    pub rechecks: Rechecks,
}

impl Syncer {
    /// How many walks may be under way: two for each page that may be worked on, as each waits for Clerk most of the time. But not more than the
    /// budget lets out in half a second: they would only wait for it.
    fn walks(&self) -> usize {
        let for_budget = (self.clerk.requests_per_second() / 2.0).ceil() as usize;
        for_budget.clamp(1, 2 * self.options.concurrency)
    }

    /// Whether this is `--once`, which leaves to a next sync only what it must.
    fn is_single_run(&self) -> bool {
        self.options.patience.is_some()
    }

    /// How many pages may be worked on at a time: each takes a connection, and one is left to renew the lease.
    fn places(&self) -> usize {
        self.options.concurrency.min(self.mirror.max_connections() - 1).max(1)
    }

    /// Waits for Clerk, but not when the sync shall stop.
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

    /// A page in the order of the last change. A refusal that may be about the order is believed only if it repeats: a server or proxy that
    /// restarts may answer 404 to everything for a moment.
    async fn recent(&self, offset: u64, limit: u32) -> Result<Result<Page, clerk::Error>, Failure> {
        let answer = self.or_stop_raw(self.clerk.recent(offset, limit)).await?;
        match answer {
            Err(error) if error.objection() == Objection::Possible => {
                self.or_stop_raw(tokio::time::sleep(BELIEVED_AFTER)).await?;
                self.or_stop_raw(self.clerk.recent(offset, limit)).await
            }
            answer => Ok(answer),
        }
    }
}

fn stopped() -> Failure {
    Failure::new(
        Cause::Stopped,
        "stopped before the sync was done; the next one goes on from here",
    )
}
