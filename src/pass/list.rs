//! The first part of a pass: the walk over Clerk's list.

use std::time::Instant;

use chrono::Utc;
use tracing::{debug, warn};

use super::{page, running::Running};
use crate::{
    clerk::{self, Page},
    failure::{Cause, Failure},
    mirror::Batch,
    walk::{Entry, Interval, PAGE, Position, Step, Walk},
};

/// So many users in a row that cannot be read are a broken server, not broken users.
const STEPS: u32 = 3;

/// So many users met on the last pages are remembered as known to exist.
const WITNESSES: usize = 5;

/// How far Clerk's clock may be behind ours when it is asked who was created meanwhile.
const CLOCK_SLACK_MS: i64 = 60_000;

/// So many answers in a row that do not continue the walk are a server that cannot be walked.
const IDLE: u32 = 500;

/// How the pages are asked for, narrower where one cannot be read.
struct Reader {
    limit: u32,
    /// Pages read since the limit was last changed.
    good: u32,
    /// Users stepped over in a row, and whether there was any.
    stepped: u32,
    left_out: bool,
}

impl Running<'_> {
    /// Walks the list from `position`, or from its beginning, and brings the mirror in step with every page.
    pub(super) async fn walk_list(&mut self, position: Option<Position>) -> Result<(), Failure> {
        let clerk = &self.pass.clerk;
        let started_ms = Utc::now().timestamp_millis();
        let before = self.pass.or_stop(clerk.count(Interval::ALL)).await?;
        self.pass.progress.start(before);
        let is_resumed = position.is_some();
        let mut walk = position.map_or_else(Walk::new, Walk::resume);
        let mut reader = Reader {
            limit: PAGE,
            good: 0,
            stepped: 0,
            left_out: false,
        };
        let mut created_meanwhile = 0;
        let mut idle = 0;
        loop {
            let page = self.read(&mut walk, &mut reader).await?;
            let names: Vec<String> = page.users().iter().map(page::name).collect();
            let entries: Vec<Entry<'_>> = page
                .users()
                .iter()
                .zip(&names)
                .map(|(raw, id)| Entry {
                    id,
                    created_at: raw.created_at,
                })
                .collect();
            self.remember(&page);
            let step = walk.receive(&entries);
            let (accepted, is_end) = match step {
                Step::Again if idle < IDLE => {
                    idle += 1;
                    continue;
                }
                Step::Page(_) if !walk.is_ordered() && before.is_some_and(|users| walk.seen() > 2 * users + 10_000) => {
                    let message = "Clerk's list is in another order with every request and has no end";
                    return Err(Failure::new(Cause::Other, message));
                }
                Step::Again => {
                    let message = format!("Clerk's list does not advance beyond {} users", walk.seen());
                    return Err(Failure::new(Cause::Other, message)
                        .hint("is clerk.api_url (CLERK_API_URL) Clerk's Backend API?"));
                }
                Step::Page(accepted) => (accepted, false),
                Step::End(accepted) => (accepted, true),
            };
            idle = 0;
            let fresh: Vec<&clerk::Raw> = accepted.fresh.iter().map(|&at| &page.users()[at]).collect();
            created_meanwhile += fresh
                .iter()
                .filter(|raw| raw.created_at.is_some_and(|at| at >= started_ms - CLOCK_SLACK_MS))
                .count() as u64;
            let more = Batch {
                checkpoint: self.checkpoint(walk.position()),
                ..Batch::default()
            };
            self.take(&page, fresh, accepted.judged, accepted.carried, more).await?;
            self.pass.progress.seen(walk.seen());
            if is_end {
                break;
            }
            self.attend().await?;
        }
        self.flush().await?;
        if walk.lost_cursor() {
            warn!("this server does not page by cursor; the walk went by dates or offsets");
        }
        if !walk.is_ordered() {
            self.note("the list is not in the order asked for, so that deletions were not looked for");
        }
        if reader.left_out {
            self.note("some users could not be read and were left out");
        }
        // Before it was cut off, a walk taken up again may have met users who were gone by the first count of this run.
        let created_meanwhile = (!is_resumed).then_some(created_meanwhile);
        self.count_again(before, walk.seen(), created_meanwhile).await
    }

    pub(super) fn note(&mut self, note: impl Into<String>) {
        self.report.notes.push(note.into());
    }

    /// The walk's total must lie between what Clerk counts before and after, given who was created meanwhile; whoever was deleted meanwhile
    /// lies in that range too. Where it is not known who was created, it may be any number more.
    async fn count_again(
        &mut self,
        before: Option<u64>,
        seen: u64,
        created_meanwhile: Option<u64>,
    ) -> Result<(), Failure> {
        let after = self.pass.or_stop(self.pass.clerk.count(Interval::ALL)).await?;
        let (Some(before), Some(after)) = (before, after) else {
            warn!("this server does not count users; whether the walk met all of them is not checked");
            return Ok(());
        };
        debug!(before, after, seen, created_meanwhile, "counted");
        let most = created_meanwhile.map_or(u64::MAX, |created| before.max(after) + created);
        let expected = before.min(after)..=most;
        if !expected.contains(&seen) {
            self.note(format!("the walk met {seen} users, but Clerk counts {after}"));
        }
        Ok(())
    }

    /// Users met before count too: a walk taken up again behind the last user meets nobody else.
    pub(super) fn remember(&mut self, page: &Page) {
        let mut ids = page.users().iter().filter_map(|raw| raw.id.clone());
        let first = ids.next();
        let last = ids.next_back();
        self.witnesses.extend(first.into_iter().chain(last));
        let surplus = self.witnesses.len().saturating_sub(WITNESSES);
        self.witnesses.drain(..surplus);
    }

    /// The next page. One that cannot be read is asked for in smaller parts, down to the user to blame, who is stepped over.
    async fn read(&mut self, walk: &mut Walk, reader: &mut Reader) -> Result<Page, Failure> {
        loop {
            let query = walk.query();
            let asked = Instant::now();
            let error = match self
                .pass
                .or_stop_raw(self.pass.clerk.list(&query, reader.limit))
                .await?
            {
                Ok(page) => {
                    let elapsed_ms = u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX);
                    debug!(users = page.users().len(), elapsed_ms, "page");
                    reader.succeed();
                    return Ok(page);
                }
                Err(error) => error,
            };
            let may_be_one_users = match &error {
                clerk::Error::NotFound(_) | clerk::Error::Refused(_) => {
                    if walk.refused() {
                        continue;
                    }
                    false
                }
                error => self.is_of_this_request(error).await?,
            };
            if !may_be_one_users || reader.stepped >= STEPS {
                return Err(error.into());
            }
            if reader.limit > 1 {
                reader.limit = (reader.limit / 10).max(1);
                debug!(%error, limit = reader.limit, "a page cannot be read; asking for a smaller one");
            } else {
                warn!(%error, "a user cannot be read; going on behind it");
                walk.step_over();
                reader.stepped += 1;
                reader.left_out = true;
                // Behind the user to blame, pages are whole again.
                reader.limit = PAGE;
            }
            reader.good = 0;
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
}
