//! Pages of a walk that are fetched while those before them are stored.

use std::collections::VecDeque;

use tokio_util::task::AbortOnDropHandle;

use super::{AskError, Syncer};
use crate::{
    clerk::{self, Page},
    reconcile::walk::{ListQuery, Walk},
};

/// Pages that `--once` fetches ahead.
const AHEAD: usize = 8;

/// Pages that a daemon fetches ahead: most of the budget is left to users.
const DAEMON_AHEAD: usize = 2;

/// Pages of a list by offset, in order. Other lists are walked in partitions side by side, so that no walk
/// has to wait.
#[derive(Default)]
pub(super) struct PagesAhead(VecDeque<PageAhead>);

struct PageAhead {
    query: ListQuery,
    limit: u32,
    page: PageTask,
}

impl PagesAhead {
    /// Asks for the pages that come next in a walk, as far as they are known.
    pub(super) fn fetch(&mut self, syncer: &Syncer, walk: &Walk) {
        if syncer.resource.has_ranges() {
            return;
        }
        let most = match syncer.is_single_run() {
            true => AHEAD,
            false => DAEMON_AHEAD,
        };
        let (queries, limit) = (walk.queries(most.min(syncer.options.concurrency)), walk.limit());
        let mut pairs = self.0.iter().zip(&queries);
        if !pairs.all(|(ahead, query)| ahead.answers(query, limit)) {
            self.0.clear();
        }
        for query in queries.into_iter().skip(self.0.len()) {
            let page = PageTask::spawn(syncer, query.clone(), limit);
            self.0.push_back(PageAhead { query, limit, page });
        }
    }

    /// Whether the next page is there.
    pub(super) fn has_next_arrived(&self) -> bool {
        self.0.front().is_some_and(|ahead| ahead.page.0.is_finished())
    }

    /// Takes the next page if it answers this query. If not, the walk has taken another way, and the
    /// others are no use either.
    pub(super) fn take(&mut self, query: &ListQuery, limit: u32) -> Option<PageTask> {
        let next = self.0.pop_front().filter(|ahead| ahead.answers(query, limit));
        if next.is_none() {
            self.0.clear();
        }
        next.map(|ahead| ahead.page)
    }
}

impl PageAhead {
    fn answers(&self, query: &ListQuery, limit: u32) -> bool {
        self.query == *query && self.limit == limit
    }
}

/// A request for a page, in a task of its own, so that pages are unpacked, split and hashed on all cores.
/// Dropping it ends the task.
pub(super) struct PageTask(AbortOnDropHandle<Result<Page, clerk::Error>>);

impl PageTask {
    /// Sends the request.
    pub(super) fn spawn(syncer: &Syncer, query: ListQuery, limit: u32) -> Self {
        let (clerk, resource) = (syncer.clerk.clone(), syncer.resource);
        let task = tokio::spawn(async move { clerk.list(resource, &query, limit).await });
        Self(AbortOnDropHandle::new(task))
    }

    /// Waits for the page.
    pub(super) async fn answer(self) -> Result<Page, AskError> {
        match self.0.await {
            Ok(answer) => answer.map_err(AskError::Clerk),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The program is shutting down.
                Err(_) => Err(AskError::Stopped),
            },
        }
    }
}
