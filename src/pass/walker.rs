//! The walk over one part of Clerk's list: fetches its pages one after the other and works on each.

use std::{borrow::Cow, time::Instant};

use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use super::{
    Pass,
    desk::{Brought, Desk, Quiet},
    page,
    running::ends,
};
use crate::{
    clerk::{self, Page, Raw},
    failure::{Cause, Failure},
    mirror::{Batch, Mark},
    split::Part,
    walk::{Entry, PAGE, Step, Walk},
};

/// So many users in a row that cannot be read are a broken server, not broken users.
const STEPS: u32 = 3;

/// So many answers in a row that do not continue the walk are a server that cannot be walked.
const IDLE: u32 = 500;

/// What a walk is told before it begins.
#[derive(Clone, Copy)]
pub(super) struct Setting<'a> {
    pub(super) desk: Desk<'a>,
    /// How many pages may be worked on at a time: each takes memory.
    pub(super) places: &'a Semaphore,
    /// How many users Clerk counts, where it does.
    pub(super) users: Option<u64>,
    /// Whoever is created from here on came meanwhile. In Unix milliseconds.
    pub(super) since: i64,
}

/// The walk over one part.
pub(super) struct Walker {
    number: usize,
    part: Part,
    walk: Walk,
    reader: Reader,
    quiet: Quiet,
    pub(super) went: Went,
}

/// How far a walk has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Went {
    /// There is more.
    On,
    /// To the end of its part.
    ToTheEnd,
    /// Nowhere: this server can only be walked as a whole.
    Astray,
}

/// How the pages are asked for, narrower where one cannot be read.
struct Reader {
    limit: u32,
    /// Pages read since the limit was last changed.
    good: u32,
    /// Users stepped over in a row, and whether there was any.
    stepped: u32,
    left_out: bool,
}

/// What came of a page.
#[derive(Default)]
pub(super) struct Stride {
    pub(super) brought: Brought,
    /// Users on it who are known to exist.
    pub(super) witnesses: Vec<String>,
    /// Users on it who were created since the walk began.
    pub(super) created_meanwhile: u64,
}

impl Walker {
    pub(super) fn new(number: usize, part: Part) -> Self {
        Self {
            number,
            walk: part.walk(),
            part,
            reader: Reader {
                limit: PAGE,
                good: 0,
                stepped: 0,
                left_out: false,
            },
            quiet: Quiet::default(),
            went: Went::On,
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
        self.reader.left_out
    }

    /// Fetches the next page that continues the walk, and brings the mirror in step with it.
    pub(super) async fn stride(&mut self, setting: Setting<'_>) -> Result<Stride, Failure> {
        let Setting { desk, users, .. } = setting;
        let mut stride = Stride::default();
        for _ in 0..=IDLE {
            let page = self.read(desk.pass).await?;
            let names: Vec<Cow<'_, str>> = page.users().iter().map(page::name).collect();
            let entries = page.users().iter().zip(&names).map(|(raw, id)| Entry {
                id,
                created_at: raw.created_at,
            });
            let step = self.walk.receive(&entries.collect::<Vec<_>>());
            stride.witnesses.extend(ends(&page));
            let accepted = match step {
                Step::Again => continue,
                Step::Unfit => {
                    self.went = Went::Astray;
                    return Ok(stride);
                }
                Step::Page(_) if !self.is_ordered() && users.is_some_and(|users| self.seen() > 2 * users + 10_000) => {
                    let message = "Clerk's list is in another order with every request and has no end";
                    return Err(Failure::new(Cause::Other, message));
                }
                Step::Page(accepted) => accepted,
                Step::End(accepted) => {
                    self.went = Went::ToTheEnd;
                    accepted
                }
            };
            let fresh: Vec<&Raw> = accepted.fresh.iter().map(|&at| &page.users()[at]).collect();
            let is_new = |raw: &&&Raw| raw.created_at.is_some_and(|at| at >= setting.since);
            stride.created_meanwhile = fresh.iter().filter(is_new).count() as u64;
            let more = Batch {
                checkpoint: self.mark(&desk),
                ..Batch::default()
            };
            let _place = setting.places.acquire().await;
            let taken = desk.take(&mut self.quiet, &page, fresh, accepted.judged, accepted.carried, more);
            stride.brought = taken.await?;
            return Ok(stride);
        }
        let message = format!("Clerk's list does not advance beyond {} users", self.seen());
        Err(Failure::new(Cause::Other, message).hint("is clerk.api_url (CLERK_API_URL) Clerk's Backend API?"))
    }

    /// Where the walk stands, for the transaction of its page.
    fn mark(&self, desk: &Desk<'_>) -> Option<Mark> {
        let is_end = self.went == Went::ToTheEnd;
        let position = self.walk.position().cloned();
        if position.is_none() && !is_end {
            return None;
        }
        let stretch = self.part.stretch;
        // Behind the last user there may be others by the time that the walk is taken up again.
        let is_done = is_end && stretch.before.is_some();
        Some(Mark {
            number: self.number,
            part: Part {
                stretch,
                position,
                done: is_done.then(|| self.seen()),
            },
            is_end,
            written_at: desk.now()?,
        })
    }

    /// The next page. One that cannot be read is asked for in smaller parts, down to the user to blame, who is stepped over.
    async fn read(&mut self, pass: &Pass) -> Result<Page, Failure> {
        loop {
            let (query, limit) = (self.walk.query(), self.reader.limit);
            let asked = Instant::now();
            let clerk = pass.clerk.clone();
            // A task of its own: pages are unpacked, split and hashed on all cores.
            let answer = AbortOnDropHandle::new(tokio::spawn(async move { clerk.list(&query, limit).await }));
            let error = match pass.or_stop_raw(answer).await? {
                Ok(Ok(page)) => {
                    let elapsed_ms = u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX);
                    debug!(part = self.number, users = page.users().len(), elapsed_ms, "page");
                    self.reader.succeed();
                    return Ok(page);
                }
                Ok(Err(error)) => error,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => return Err(super::stopped()),
                },
            };
            let may_be_one_users = match &error {
                clerk::Error::NotFound(_) | clerk::Error::Refused(_) => {
                    if self.walk.refused() {
                        continue;
                    }
                    false
                }
                error => pass.is_of_this_request(error).await?,
            };
            if !may_be_one_users || self.reader.stepped >= STEPS {
                return Err(error.into());
            }
            if self.reader.narrow() {
                debug!(%error, limit = self.reader.limit, "a page cannot be read; asking for a smaller one");
            } else {
                warn!(%error, "a user cannot be read; going on behind it");
                self.walk.step_over();
                self.reader.step_over();
            }
        }
    }
}

impl Reader {
    fn succeed(&mut self) {
        self.good += 1;
        self.stepped = 0;
        if self.good > 10 {
            self.limit = (self.limit * 10).min(PAGE);
            self.good = 0;
        }
    }

    /// Asks for fewer; false where it is one user already.
    fn narrow(&mut self) -> bool {
        self.good = 0;
        let can_narrow = self.limit > 1;
        self.limit = (self.limit / 10).max(1);
        can_narrow
    }

    fn step_over(&mut self) {
        self.stepped += 1;
        self.left_out = true;
        // Behind the user to blame, pages are whole again.
        self.limit = PAGE;
    }
}
