//! The walk over one part of Clerk's list: fetches its pages one after the other and works on each.

use std::{borrow::Cow, time::Instant};

use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use super::{
    Syncer,
    context::ends,
    page,
    page_context::{Deferred, PageContext, PageOutcome},
};
use crate::{
    clerk::{self, Page, Raw},
    failure::{Cause, Failure},
    mirror::{Batch, Mark},
    reconcile::{
        partition::Partition,
        walk::{Crowd, Entry, Step, Unreadable, Walk},
    },
};

/// How far a user's `created_at` may be off from what Clerk counts by: emulators cut times to seconds.
const VERGE_MS: i64 = 2_000;

/// What a walk is told before it begins.
#[derive(Clone, Copy)]
pub(super) struct Setting<'a> {
    pub(super) desk: PageContext<'a>,
    /// How many pages may be worked on at a time: each takes memory.
    pub(super) places: &'a Semaphore,
    /// When the walk began, by Clerk's clock in Unix milliseconds: users created from then on are newcomers.
    pub(super) began: i64,
}

/// The walk over one part.
pub(super) struct WalkDriver {
    number: usize,
    part: Partition,
    walk: Walk,
    /// Users whom Clerk did not know as a cursor since the last page.
    lost: Vec<String>,
    quiet: Deferred,
    pub(super) went: WalkState,
}

/// How far a walk has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WalkState {
    /// There is more.
    On,
    /// To the end of its part.
    ToTheEnd,
    /// Nowhere: this server can only be walked as a whole.
    Astray,
}

/// What came of a page.
#[derive(Default)]
pub(super) struct PageResult {
    pub(super) brought: PageOutcome,
    /// Users on it who are known to exist.
    pub(super) witnesses: Vec<String>,
    /// Users on it who were created since the walk began, and about when it did.
    pub(super) newcomers: u64,
    pub(super) on_the_verge: u64,
    /// Users whom Clerk does not know as a cursor any more.
    pub(super) gone: Vec<String>,
    /// The walk started over with this page: users met before it do not count.
    pub(super) is_anew: bool,
}

impl WalkDriver {
    pub(super) fn new(number: usize, part: Partition, began: i64, users: Option<u64>) -> Self {
        Self {
            number,
            walk: part.walk().began(began, users),
            part,
            lost: Vec::new(),
            quiet: Deferred::default(),
            went: WalkState::On,
        }
    }

    /// The number of its part.
    pub(super) fn number(&self) -> usize {
        self.number
    }

    /// Users met so far.
    pub(super) fn seen(&self) -> u64 {
        self.walk.seen()
    }

    pub(super) fn lost_cursor(&self) -> bool {
        self.walk.lost_cursor()
    }

    pub(super) fn is_ordered(&self) -> bool {
        self.walk.is_ordered()
    }

    pub(super) fn has_left_out(&self) -> bool {
        self.walk.has_left_out()
    }

    /// Moments at which users may have slipped between two pages.
    pub(super) fn take_crowds(&mut self) -> Vec<Crowd> {
        self.walk.take_crowds()
    }

    /// Fetches the next page that continues the walk, and brings the mirror in sync with it.
    pub(super) async fn stride(&mut self, setting: Setting<'_>) -> Result<PageResult, Failure> {
        let desk = setting.desk;
        let mut stride = PageResult::default();
        loop {
            let page = self.read(desk.syncer).await?;
            let names: Vec<Cow<'_, str>> = page.users().iter().map(page::name).collect();
            let entries = page.users().iter().zip(&names).map(|(raw, id)| Entry {
                id,
                created_at: raw.created_at,
                updated_at: raw.updated_at,
            });
            let step = self.walk.receive(&entries.collect::<Vec<_>>());
            stride.witnesses.extend(ends(&page));
            stride.gone.append(&mut self.lost);
            let accepted = match step {
                Step::Again => continue,
                Step::Anew => {
                    stride.is_anew = true;
                    continue;
                }
                Step::Unfit => {
                    self.went = WalkState::Astray;
                    return Ok(stride);
                }
                Step::Endless => {
                    let message = format!("Clerk's list does not advance beyond {} users", self.seen());
                    return Err(Failure::new(Cause::Other, message)
                        .hint("is clerk.api_url (CLERK_API_URL) Clerk's Backend API?"));
                }
                Step::Page(accepted) => accepted,
                Step::End(accepted) => {
                    self.went = WalkState::ToTheEnd;
                    accepted
                }
            };
            let fresh: Vec<&Raw> = accepted.fresh.iter().map(|&at| &page.users()[at]).collect();
            for raw in &fresh {
                // Whether Clerk counts a user without a readable time is not known.
                let age = raw.created_at.map(|at| at - setting.began);
                stride.newcomers += u64::from(age.is_some_and(|age| age > VERGE_MS));
                stride.on_the_verge += u64::from(age.is_none_or(|age| age.abs() <= VERGE_MS));
            }
            let more = Batch {
                checkpoint: self.mark(&desk),
                missing: desk.still_held(&stride.gone).await?,
                ..Batch::default()
            };
            let _place = setting.places.acquire().await;
            let taken = desk.take(&mut self.quiet, &page, fresh, accepted.judged, accepted.carried, more);
            stride.brought = taken.await?;
            return Ok(stride);
        }
    }

    /// Where the walk stands, for the transaction of its page.
    fn mark(&self, desk: &PageContext<'_>) -> Option<Mark> {
        let is_end = self.went == WalkState::ToTheEnd;
        let position = self.walk.position().cloned();
        if position.is_none() && !is_end {
            return None;
        }
        let stretch = self.part.stretch;
        // Behind the last user there may be others by the time that the walk is taken up again.
        let is_done = is_end && stretch.before.is_some();
        Some(Mark {
            number: self.number,
            part: Partition {
                stretch,
                position,
                done: is_done.then(|| self.seen()),
            },
            is_end,
            written_at: desk.now()?,
        })
    }

    /// The next page. One that cannot be read is asked for in smaller parts, down to the user to blame, who is stepped over.
    async fn read(&mut self, syncer: &Syncer) -> Result<Page, Failure> {
        loop {
            let (query, limit) = (self.walk.query(), self.walk.limit());
            let cursor = query.after.clone();
            let asked = Instant::now();
            let clerk = syncer.clerk.clone();
            // A task of its own: pages are unpacked, split and hashed on all cores.
            let answer = AbortOnDropHandle::new(tokio::spawn(async move { clerk.list(&query, limit).await }));
            let error = match syncer.or_stop_raw(answer).await? {
                Ok(Ok(page)) => {
                    let elapsed_ms = u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX);
                    debug!(part = self.number, users = page.users().len(), elapsed_ms, "page");
                    return Ok(page);
                }
                Ok(Err(error)) => error,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => return Err(super::stopped()),
                },
            };
            match &error {
                clerk::Error::NotFound(_) | clerk::Error::Refused(_) => {
                    let is_cursors = match &error {
                        clerk::Error::Refused(answer) => answer.is_about_cursor(),
                        _ => true,
                    };
                    self.lost.extend(cursor.filter(|_| is_cursors));
                    if self.walk.refused() {
                        continue;
                    }
                    return Err(error.into());
                }
                error if syncer.is_of_this_request(error).await? => {}
                _ => return Err(error.into()),
            }
            match self.walk.unreadable() {
                Unreadable::Smaller => {
                    debug!(%error, limit = self.walk.limit(), "a page cannot be read; asking for a smaller one");
                }
                Unreadable::SteppedOver => warn!(%error, "a user cannot be read; going on behind it"),
                Unreadable::Broken => return Err(error.into()),
            }
        }
    }
}
