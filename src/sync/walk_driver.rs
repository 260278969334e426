//! Drives the walk over one partition of Clerk's list: fetches its pages, and stores them.

use std::time::Instant;

use futures_util::future::try_join_all;
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use super::{
    AskError, Syncer,
    context::ends,
    page_batch::{page_entries, page_ids},
    page_worker::{Deferred, PageOutcome, PageWorker},
    pages_ahead::{PageTask, PagesAhead},
};
use crate::{
    clerk::{self, Page},
    failure::{Cause, Failure},
    humanize::users,
    mirror::{Batch, Mark},
    reconcile::{
        Unreadable,
        partition::Partition,
        walk::{AcceptedPage, TiedMoment, Walk, WalkStep},
    },
    resource::Resource,
};

/// How far a user's `created_at` may differ from the time that Clerk counts by: emulators cut times
/// to seconds.
const CREATED_AT_TOLERANCE_MS: i64 = 2_000;

/// Pages of a list by offset that are stored side by side.
const SIDE_BY_SIDE: usize = 4;

/// Drives the walk over one partition.
pub(super) struct WalkDriver {
    number: usize,
    partition: Partition,
    walk: Walk,
    /// When the walk began, by Clerk's clock in Unix milliseconds: users created from then on are
    /// newcomers.
    began: i64,
    /// Users that Clerk did not know as cursors since the last page.
    unknown_cursors: Vec<String>,
    ahead: PagesAhead,
    deferred: Deferred,
    /// The walk has started over: users on the pages that are stored already do not count.
    has_restarted: bool,
    /// Why the page after those that are stored already cannot be fetched.
    failure: Option<Failure>,
    pub(super) state: WalkState,
}

/// How far a walk has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WalkState {
    /// There are more pages.
    Open,
    /// It has reached the end of its partition.
    Ended,
    /// It cannot go on: this server can only be walked as a whole.
    CannotPartition,
}

/// What a walk learned from a page.
#[derive(Default)]
pub(super) struct PageResult {
    pub(super) outcome: PageOutcome,
    /// Users on the page: they are known to exist.
    pub(super) witnesses: Vec<String>,
    /// Users on the page that were created since the walk began.
    pub(super) newcomers: u64,
    /// Users on the page that were created at about the time when the walk began.
    pub(super) near_beginning: u64,
    /// Users that Clerk does not know as cursors any more.
    pub(super) gone: Vec<String>,
    /// The walk started over with this page: users met before it do not count.
    pub(super) restarted: bool,
}

/// What a page means for a walk.
enum Received {
    Accepted(AcceptedPage),
    /// It proves nothing. The next request differs.
    Again,
    /// The list is read again from its beginning.
    Restarted,
    CannotPartition,
}

impl WalkDriver {
    /// A walk over the partition with this number. `began` is the time by Clerk's clock, in Unix
    /// milliseconds; `users` is how many users Clerk counts in all.
    pub(super) fn new(
        resource: &'static Resource,
        number: usize,
        partition: Partition,
        began: i64,
        users: Option<u64>,
    ) -> Self {
        let walk = match resource.list.cursor {
            Some(_) => partition.walk(),
            None => partition.walk().by_offset(),
        };
        Self {
            number,
            walk: walk.began(began, users),
            partition,
            began,
            unknown_cursors: Vec::new(),
            ahead: PagesAhead::default(),
            deferred: Deferred::default(),
            has_restarted: false,
            failure: None,
            state: WalkState::Open,
        }
    }

    /// The number of its partition.
    pub(super) fn number(&self) -> usize {
        self.number
    }

    /// Users met so far.
    pub(super) fn seen(&self) -> u64 {
        self.walk.seen()
    }

    /// Whether the server does not page by cursor.
    pub(super) fn lost_cursor(&self) -> bool {
        self.walk.lost_cursor()
    }

    /// Whether the list is in the order asked for.
    pub(super) fn is_ordered(&self) -> bool {
        self.walk.is_ordered()
    }

    /// Whether users could not be read and were left out.
    pub(super) fn has_left_out(&self) -> bool {
        self.walk.has_left_out()
    }

    /// Takes the moments at which users may have slipped between two pages.
    pub(super) fn take_tied_moments(&mut self) -> Vec<TiedMoment> {
        self.walk.take_tied_moments()
    }

    /// Fetches the next page that continues the walk, and stores it; together with those after it that
    /// have arrived. `slots` limits the pages that are worked on at a time, because each takes memory.
    pub(super) async fn next_pages(
        &mut self,
        worker: PageWorker<'_>,
        slots: &Semaphore,
    ) -> Result<PageResult, Failure> {
        let mut result = PageResult {
            restarted: std::mem::take(&mut self.has_restarted),
            ..PageResult::default()
        };
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let place = self.mark(&worker);
        let most = self.side_by_side(worker.syncer);
        let mut pages = Vec::new();
        loop {
            let page = match self.fetch(worker.syncer).await {
                Ok(page) => page,
                Err(error) if pages.is_empty() => return Err(error),
                // Those before it are stored first.
                Err(error) => {
                    self.failure = Some(error);
                    break;
                }
            };
            match self.receive(worker.syncer, &page, &mut result)? {
                Received::Accepted(accepted) => pages.push((page, accepted)),
                Received::Again => {}
                Received::Restarted if pages.is_empty() => result.restarted = true,
                Received::Restarted => self.has_restarted = true,
                Received::CannotPartition => return Ok(result),
            }
            if self.state == WalkState::Open {
                self.ahead.fetch(worker.syncer, &self.walk);
            }
            let goes_on = self.state == WalkState::Open && pages.len() < most && self.ahead.has_next_arrived();
            if !pages.is_empty() && (self.has_restarted || !goes_on) {
                break;
            }
        }
        let missing = worker.still_in_mirror(&result.gone).await?;
        let is_single = pages.len() == 1;
        // Of pages that are stored side by side, one may be committed and the one before it not. So the
        // place before them is committed with them.
        let checkpoint = if is_single { self.mark(&worker) } else { place };
        let mut more = Some(Batch {
            checkpoint,
            missing,
            ..Batch::default()
        });
        let (pages, accepted): (Vec<Page>, Vec<AcceptedPage>) = pages.into_iter().unzip();
        let mut deferred: Vec<Deferred> = pages.iter().map(|_| Deferred::default()).collect();
        deferred[0] = std::mem::take(&mut self.deferred);
        let stored = pages
            .iter()
            .zip(accepted)
            .zip(&mut deferred)
            .map(|((page, accepted), deferred)| {
                let fresh = accepted.fresh.iter().map(|&at| &page.objects()[at]).collect();
                let more = more.take().unwrap_or_default();
                async move {
                    let _slot = slots.acquire().await;
                    let (judged, carried) = (accepted.judged, accepted.carried);
                    worker.store(deferred, page, fresh, judged, carried, more).await
                }
            });
        for outcome in try_join_all(stored).await? {
            result.outcome.add(outcome);
        }
        let mut deferred = deferred.into_iter();
        self.deferred = deferred.next().unwrap_or_default();
        deferred.for_each(|other| self.deferred.add(other));
        if self.state == WalkState::Ended && !is_single {
            result.outcome.add(self.commit_place(worker).await?);
        }
        Ok(result)
    }

    /// Takes a page, and notes what it shows beside the continuation of the walk.
    fn receive(&mut self, syncer: &Syncer, page: &Page, result: &mut PageResult) -> Result<Received, Failure> {
        self.walk
            .note_total(page.total.filter(|_| !syncer.resource.has_ranges()));
        let step = self.walk.receive(&page_entries(page, &page_ids(page)));
        result.witnesses.extend(ends(page));
        result.gone.append(&mut self.unknown_cursors);
        let accepted = match step {
            WalkStep::Again => return Ok(Received::Again),
            WalkStep::Restart => return Ok(Received::Restarted),
            WalkStep::CannotPartition => {
                self.state = WalkState::CannotPartition;
                return Ok(Received::CannotPartition);
            }
            WalkStep::Endless => {
                let message = format!("Clerk's list does not advance beyond {}", users(self.seen()));
                return Err(Failure::new(Cause::Other, message)
                    .hint("set clerk.api_url (CLERK_API_URL) to Clerk's Backend API"));
            }
            WalkStep::Page(accepted) => accepted,
            WalkStep::End(accepted) => {
                self.state = WalkState::Ended;
                accepted
            }
        };
        for raw in accepted.fresh.iter().map(|&at| &page.objects()[at]) {
            // Whether Clerk counts a user without a readable time is not known.
            let age = raw.created_at.map(|at| at - self.began);
            result.newcomers += u64::from(age.is_some_and(|age| age > CREATED_AT_TOLERANCE_MS));
            result.near_beginning += u64::from(age.is_none_or(|age| age.abs() <= CREATED_AT_TOLERANCE_MS));
        }
        Ok(Received::Accepted(accepted))
    }

    /// How many pages are worked on at a time.
    fn side_by_side(&self, syncer: &Syncer) -> usize {
        match syncer.resource.has_ranges() {
            true => 1,
            false => SIDE_BY_SIDE.min(syncer.page_slots()),
        }
    }

    /// Whether a walk that is cut off here continues behind the place where this one began.
    pub(super) fn has_moved(&self) -> bool {
        self.walk.position() != self.partition.position.as_ref()
    }

    /// Commits the walk's place in the list, so that the next sync continues there.
    pub(super) async fn commit_place(&mut self, worker: PageWorker<'_>) -> Result<PageOutcome, Failure> {
        let batch = Batch {
            checkpoint: self.mark(&worker),
            ..Batch::default()
        };
        self.deferred.make_due();
        worker.apply(&mut self.deferred, batch).await
    }

    /// The walk's place in the list, to be committed with its page.
    fn mark(&self, worker: &PageWorker<'_>) -> Option<Mark> {
        let is_end = self.state == WalkState::Ended;
        let position = self.walk.position().cloned();
        if position.is_none() && !is_end {
            return None;
        }
        let range = self.partition.range;
        // If the walk is continued later, new users may have come after the last one.
        let is_done = is_end && range.before.is_some();
        Some(Mark {
            number: self.number,
            part: Partition {
                range,
                position,
                done: is_done.then(|| self.seen()),
            },
            is_end,
            written_at: worker.mode.now()?,
        })
    }

    /// Fetches the next page. If it cannot be read, smaller pages are asked for, down to the one
    /// user that is the cause, which is stepped over.
    async fn fetch(&mut self, syncer: &Syncer) -> Result<Page, Failure> {
        loop {
            let (query, limit) = (self.walk.query(), self.walk.limit());
            let cursor = query.after.clone();
            let asked = Instant::now();
            let page = self.ahead.take(&query, limit);
            let page = page.unwrap_or_else(|| PageTask::spawn(syncer, query, limit));
            let error = match syncer.ask(page.answer()).await {
                Ok(page) => {
                    let elapsed_ms = u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX);
                    debug!(part = self.number, users = page.objects().len(), elapsed_ms, "page");
                    return Ok(page);
                }
                Err(AskError::Clerk(error)) => error,
                Err(error @ AskError::Stopped) => return Err(error.into()),
            };
            match &error {
                clerk::Error::NotFound(_) | clerk::Error::Refused(_) => {
                    let is_about_cursor = match &error {
                        clerk::Error::Refused(answer) => syncer
                            .resource
                            .list
                            .cursor
                            .is_some_and(|cursor| answer.is_about(cursor)),
                        _ => true,
                    };
                    self.unknown_cursors.extend(cursor.filter(|_| is_about_cursor));
                    if self.walk.refused() {
                        continue;
                    }
                    return Err(error.into());
                }
                error if syncer.is_about_request(error).await? => {}
                _ => return Err(error.into()),
            }
            match self.walk.unreadable() {
                Unreadable::Smaller => {
                    debug!(%error, limit = self.walk.limit(), "a page cannot be read; asking for a smaller one");
                }
                Unreadable::SteppedOver => warn!(%error, "a user cannot be read; continuing after it"),
                Unreadable::Broken => return Err(error.into()),
            }
        }
    }
}
