//! The walk over Clerk's list of users, with which a full sync begins: over several partitions side
//! by side.

use chrono::Utc;
use futures_util::{StreamExt, stream, stream::FuturesUnordered};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use super::{
    AskError, DeleteMode, SyncContext, Syncer,
    context::WalkCounts,
    page_batch::id_or_digest,
    page_worker::PageSource,
    walk_driver::{PageResult, WalkDriver, WalkState},
};
use crate::{
    clerk::{self, Page},
    failure::Failure,
    humanize::{number, objects},
    mirror::{Batch, Checkpoint},
    reconcile::{
        partition::{self, Histogram, Partition},
        range::Range,
        walk::{TieRereads, TiedMoment, Walk},
    },
};

/// How far Clerk's clock may be ahead of this process's if no answer shows Clerk's.
const CLOCK_SLACK_MS: i64 = 60_000;

/// The warning about a server that can only be walked as a whole.
const CANNOT_PARTITION: &str =
    "this server does not list by created_at as asked; the walk reads all users one after the other";

/// Moments that are read again if the walk met fewer users than Clerk counts.
const MAX_TIED_MOMENTS: usize = 64;

/// What a walk over all partitions has learned.
#[derive(Default)]
struct WalkSummary {
    /// Users met, by partition.
    seen: Vec<u64>,
    /// Users among them that were created since the walk began.
    newcomers: u64,
    /// Users among them that were created at about the time when the walk began.
    near_beginning: u64,
    /// Users by what happened to them, since the walk last started over.
    counts: WalkCounts,
    /// Users that were counted twice as unchanged.
    counted_twice: u64,
    /// Moments that more users share than a page holds.
    tied_moments: Vec<TiedMoment>,
    /// The server does not page by cursor.
    lost_cursor: bool,
    /// The list is not in the order asked for.
    is_unordered: bool,
    /// Users could not be read.
    left_out: bool,
    /// The server can only be walked as a whole: the walk is to be done again.
    cannot_partition: bool,
}

impl WalkSummary {
    /// Adds what the walk over a partition has learned by its end.
    fn add_ended(&mut self, walk: &mut WalkDriver) {
        self.lost_cursor |= walk.lost_cursor();
        self.is_unordered |= !walk.is_ordered();
        self.left_out |= walk.has_left_out();
        self.tied_moments.append(&mut walk.take_tied_moments());
    }
}

impl SyncContext<'_> {
    /// Walks over all users and stores every page. `resumed` are the partitions of a walk that was
    /// cut off.
    pub(super) async fn walk_list(&mut self, resumed: Option<Vec<Partition>>) -> Result<(), Failure> {
        let began = self.beginning();
        let existing = match self.syncer.resource.has_ranges() {
            true => Range {
                from: None,
                before: Some(began),
            },
            false => Range::ALL,
        };
        let before = self.count(existing).await?;
        self.syncer.progress.start(&self.syncer.resource.title(), before);
        let is_resumed = resumed.is_some();
        let partitions = match resumed {
            Some(partitions) => partitions,
            None => self.split(before, began).await?,
        };
        let mut walked = self.walk_partitions(partitions, before, began).await?;
        if walked.cannot_partition {
            self.carryover.warn_once(CANNOT_PARTITION);
            self.carryover.walks_as_whole = true;
            let counted_twice = self.subtract(&walked.counts);
            walked = self.walk_partitions(partition::split_at(&[]), before, began).await?;
            walked.counted_twice += counted_twice;
        }
        self.report.unchanged = self.report.unchanged.saturating_sub(walked.counted_twice);
        if walked.left_out {
            self.carryover.has_left_out = true;
        }
        if self.has_given_way {
            self.note("the walk gives way to users that are due; the next sync continues it");
            return Ok(());
        }
        if walked.lost_cursor {
            warn!("this server does not page by cursor; the walk used dates or offsets");
        }
        if walked.is_unordered {
            self.note("the list is not in the order asked for, so that deletions were not looked for");
        }
        if walked.left_out {
            self.note("some users could not be read and were left out");
        }
        let after = match before {
            Some(_) => self.count(existing).await?,
            None => None,
        };
        let (Some(before), Some(after)) = (before, after) else {
            warn!("users were not counted; whether the walk met all of them is not checked");
            return Ok(());
        };
        let mut met = walked.seen.iter().sum::<u64>().saturating_sub(walked.newcomers);
        if met < before.min(after) && !walked.tied_moments.is_empty() {
            met += self.revisit(walked.tied_moments).await?;
        }
        debug!(before, after, met, near_beginning = walked.near_beginning, "counted");
        // A walk that is continued may have met users that were gone by the first count of this
        // run.
        let most = if is_resumed { u64::MAX } else { before.max(after) };
        if met < before.min(after) || met.saturating_sub(walked.near_beginning) > most {
            let met = objects(met, self.syncer.resource);
            self.note(format!("the walk met {met}, but Clerk counts {}", number(after)));
        }
        Ok(())
    }

    /// How many users Clerk has in a range; `None` if the server does not count, or fails to count
    /// although it lists users.
    async fn count(&mut self, range: Range) -> Result<Option<u64>, Failure> {
        match self
            .syncer
            .ask(self.syncer.clerk.count(self.syncer.resource, range))
            .await
        {
            Ok(users) => Ok(users),
            Err(error @ AskError::Clerk(clerk::Error::KeyRefused(_) | clerk::Error::RateLimited { .. })) => {
                Err(error.into())
            }
            Err(AskError::Clerk(error)) if self.syncer.lists_users().await? => {
                self.note(format!("users could not be counted: {error}"));
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The moment when the walk begins, by Clerk's clock in Unix milliseconds. The walk ends there:
    /// users that are created later have a later `updated_at` than the watermark, so the next
    /// incremental sync stores them.
    fn beginning(&self) -> i64 {
        let newest = self.watermark.filter(|newest| *newest > 0);
        match (self.syncer.clerk.now(), newest) {
            (Some(now), newest) => newest.map_or(now, |newest| now.max(newest)),
            // No answer shows Clerk's time, but it is later than the newest change.
            (None, Some(newest)) => newest + 1,
            (None, None) => Utc::now().timestamp_millis() + CLOCK_SLACK_MS,
        }
    }

    /// Reads moments again whose users did not fit on a page: if the server orders them differently
    /// at each request, some slip between two pages. Returns how many users the walk had not met.
    async fn revisit(&mut self, mut moments: Vec<TiedMoment>) -> Result<u64, Failure> {
        moments.sort_by_key(|moment| std::cmp::Reverse(moment.met()));
        let mut found = 0;
        for mut moment in moments.into_iter().take(MAX_TIED_MOMENTS) {
            let range = Range {
                from: Some(moment.at),
                before: Some(moment.at + 1),
            };
            let Some(users) = self.count(range).await? else {
                break;
            };
            let mut rereads = TieRereads::new(&moment, users);
            let Syncer { clerk, resource, .. } = self.syncer;
            while let Some(offset) = rereads.next_offset() {
                let page = match self
                    .syncer
                    .ask(clerk.range(resource, range, offset, resource.list.max_page))
                    .await
                {
                    Ok(page) => page,
                    // One user cannot be read. The walk met the others.
                    Err(AskError::Clerk(error)) if self.syncer.is_about_request(&error).await? => break,
                    Err(error) => return Err(error.into()),
                };
                let new = self.store_unmet(&page, &mut moment).await?;
                rereads.found(new);
                found += new;
            }
        }
        Ok(found)
    }

    /// Stores the users of a page that belong to a moment and were not met before. Returns their
    /// number.
    async fn store_unmet(&mut self, page: &Page, moment: &mut TiedMoment) -> Result<u64, Failure> {
        let there = page.objects().iter().filter(|raw| raw.created_at == Some(moment.at));
        let there: Vec<_> = there.filter(|raw| raw.id.is_some()).collect();
        let unmet: Vec<_> = there
            .into_iter()
            .filter(|raw| moment.meet(&id_or_digest(raw)))
            .collect();
        let found: Vec<String> = unmet.iter().filter_map(|raw| raw.id.clone()).collect();
        let count = unmet.len() as u64;
        let more = Batch {
            found,
            ..Batch::default()
        };
        self.store(PageSource::List, page, unmet, None, more).await?;
        Ok(count)
    }

    /// The partitions to walk.
    async fn split(&mut self, users: Option<u64>, began: i64) -> Result<Vec<Partition>, Failure> {
        let whole = partition::split_at(&[]);
        let parts = users.map_or(1, |users| partition::parts(users, self.syncer.max_walks()));
        if parts == 1 || self.carryover.walks_as_whole || !self.syncer.resource.has_ranges() {
            return Ok(whole);
        }
        let users = users.unwrap_or_default();
        let counts = self.syncer.mirror.counts();
        let mirrored = match self.mode.has_schema() {
            true => counts.objects().await?,
            false => 0,
        };
        let bounds = match mirrored {
            // The mirror knows how the users are spread, so Clerk need not be asked.
            mirrored if mirrored > users / 2 => counts.bounds(mirrored, parts).await?,
            _ => match self.count_bounds(users, parts, began).await? {
                Some(bounds) => bounds,
                None => return Ok(whole),
            },
        };
        debug!(partitions = bounds.len() + 1, "walking side by side");
        Ok(partition::split_at(&bounds))
    }

    /// The moments between partitions of about equal size, by counts at Clerk; `None` if the server
    /// does not count as asked.
    async fn count_bounds(&self, users: u64, parts: usize, began: i64) -> Result<Option<Vec<i64>>, Failure> {
        let clerk = &self.syncer.clerk;
        let before = |at| Range {
            from: None,
            before: Some(at),
        };
        let page = match self
            .syncer
            .ask(clerk.list(self.syncer.resource, &Walk::new().query(), 1))
            .await
        {
            Ok(page) => page,
            Err(AskError::Clerk(_)) => return Ok(None),
            Err(error @ AskError::Stopped) => return Err(error.into()),
        };
        let Some(first) = page.objects().first().and_then(|raw| raw.created_at) else {
            return Ok(None);
        };
        match self.syncer.ask(clerk.count(self.syncer.resource, before(first))).await {
            Ok(Some(none)) if none <= users / 2 => {}
            Ok(_) | Err(AskError::Clerk(_)) => return Ok(None),
            Err(error @ AskError::Stopped) => return Err(error.into()),
        }
        let mut histogram = Histogram::new(first, began, users, parts);
        loop {
            let open = histogram.open();
            if open.is_empty() {
                break;
            }
            let mut counts = stream::iter(open)
                .map(async |at| {
                    let count = clerk.count(self.syncer.resource, before(at));
                    (at, self.syncer.ask(count).await)
                })
                .buffered(self.syncer.options.concurrency);
            let mut counted = Vec::new();
            while let Some((at, count)) = counts.next().await {
                match count {
                    Ok(Some(count)) => counted.push((at, count)),
                    Ok(None) | Err(AskError::Clerk(_)) => return Ok(None),
                    Err(error @ AskError::Stopped) => return Err(error.into()),
                }
            }
            if !histogram.learn(&counted) {
                return Ok(None);
            }
        }
        Ok(Some(histogram.bounds()))
    }

    /// Walks over partitions side by side. Stops early if this server can only be walked as a
    /// whole.
    async fn walk_partitions(
        &mut self,
        partitions: Vec<Partition>,
        users: Option<u64>,
        began: i64,
    ) -> Result<WalkSummary, Failure> {
        self.write_first_checkpoint(&partitions).await?;
        let mut walked = WalkSummary {
            seen: partitions.iter().map(Partition::seen).collect(),
            ..WalkSummary::default()
        };
        let slots = &Semaphore::new(self.syncer.page_slots());
        let worker = self.worker(PageSource::List);
        let open = partitions
            .into_iter()
            .enumerate()
            .filter(|(_, part)| part.done.is_none());
        // The last one is the next.
        let mut ready: Vec<WalkDriver> = open
            .rev()
            .map(|(number, partition)| WalkDriver::new(self.syncer.resource, number, partition, began, users))
            .collect();
        let mut under_way = FuturesUnordered::new();
        // Incremental syncs that take as long as their schedule must not keep the walks from going
        // on.
        let mut did_urgent_work = false;
        loop {
            let has_urgent_work = !did_urgent_work && self.has_urgent_work();
            while !has_urgent_work && under_way.len() < self.syncer.max_walks() {
                let Some(mut walk) = ready.pop() else { break };
                under_way.push(async move {
                    let result = walk.next_pages(worker, slots).await;
                    (walk, result)
                });
            }
            let Some((mut walk, result)) = under_way.next().await else {
                if ready.is_empty() {
                    return Ok(walked);
                }
                self.do_urgent_work().await?;
                did_urgent_work = true;
                continue;
            };
            did_urgent_work = false;
            let result = result?;
            self.syncer.check_instance_if_old(self.carryover).await?;
            self.add_page(&mut walked, &walk, result);
            match walk.state {
                WalkState::Open if walk.has_moved() && self.gives_way() => {
                    let outcome = walk.commit_place(worker).await?;
                    self.record(outcome);
                    walked.left_out |= walk.has_left_out();
                    self.has_given_way = true;
                    return Ok(walked);
                }
                WalkState::Open => ready.push(walk),
                WalkState::Ended => walked.add_ended(&mut walk),
                WalkState::CannotPartition => {
                    walked.cannot_partition = true;
                    return Ok(walked);
                }
            }
        }
    }

    /// Adds what a walk learned from a page.
    fn add_page(&mut self, walked: &mut WalkSummary, walk: &WalkDriver, page: PageResult) {
        if page.restarted {
            walked.counted_twice += self.subtract(&walked.counts);
            walked.counts = WalkCounts::default();
            (walked.newcomers, walked.near_beginning) = (0, 0);
        }
        walked.counts.add(&page.outcome);
        walked.newcomers += page.newcomers;
        walked.near_beginning += page.near_beginning;
        walked.seen[walk.number()] = walk.seen();
        self.remember_all(page.witnesses);
        self.witnesses.retain(|id| !page.gone.contains(id));
        self.record(page.outcome);
        self.syncer.progress.seen(walked.seen.iter().sum());
    }

    /// Writes where the walk begins or continues, in case it is cut off.
    async fn write_first_checkpoint(&self, partitions: &[Partition]) -> Result<(), Failure> {
        let Some(run) = self.mode.run() else {
            return Ok(());
        };
        let (Some(written_at), Some(started_at)) = (self.mode.now(), self.walk_started_at) else {
            return Ok(());
        };
        let checkpoint = Checkpoint {
            walk: run.walk,
            started_at,
            written_at,
            judged: self.syncer.options.delete_mode != DeleteMode::Keep,
            watermark: self.watermark,
            parts: partitions.to_vec(),
        };
        Ok(self.syncer.mirror.runs().begin_walk(run.lease(), &checkpoint).await?)
    }
}
