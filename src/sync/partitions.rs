//! The first part of a full sync: the walk over Clerk's list, in parts side by side.

use std::collections::HashSet;

use chrono::Utc;
use futures_util::{StreamExt, stream, stream::FuturesUnordered};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use super::{
    SyncContext,
    context::Met,
    page,
    page_context::Target,
    walk_driver::{Setting, WalkDriver, WalkState},
};
use crate::{
    clerk::{self, Page},
    failure::Failure,
    mirror::{Batch, Checkpoint},
    reconcile::{
        partition::{self, Histogram, Partition},
        walk::{Crowd, Range, Visits, Walk},
    },
};

/// How far Clerk's clock may be ahead of ours if no answer has its time.
const CLOCK_SLACK_MS: i64 = 60_000;

const UNFIT: &str = "this server does not list by created_at as asked; the walk goes over all users in one row";

/// Most moments that are read again if the walk met fewer users than Clerk counts.
const CROWDS: usize = 64;

/// What is known of the walk besides what it brought.
#[derive(Default)]
struct Walked {
    /// Users met, by part.
    seen: Vec<u64>,
    /// Of them, users who were created since the walk began, and about when it did.
    newcomers: u64,
    on_the_verge: u64,
    /// Users that were counted twice.
    again: u64,
    crowds: Vec<Crowd>,
    lost_cursor: bool,
    is_unordered: bool,
    left_out: bool,
}

impl SyncContext<'_> {
    /// Walks the list, in the parts of a walk that was cut off or from its beginning, and brings the mirror in sync with every page.
    pub(super) async fn walk_list(&mut self, resumed: Option<Vec<Partition>>) -> Result<(), Failure> {
        let began = self.beginning();
        let existing = Range {
            from: None,
            before: Some(began),
        };
        let before = self.count(existing).await?;
        self.syncer.progress.start(before);
        let is_resumed = resumed.is_some();
        let parts = match resumed {
            Some(parts) => parts,
            None => self.split(before, began).await?,
        };
        let mut told = Met::default();
        let walked = match self.walk_parts(parts, before, began, &mut told).await? {
            Some(walked) => walked,
            None => {
                self.carryover.tell_once(UNFIT);
                self.carryover.walks_in_one = true;
                let again = self.take_back(&told);
                let mut told = Met::default();
                let whole = self.walk_parts(partition::at(&[]), before, began, &mut told).await?;
                let mut whole = whole.unwrap_or_default();
                whole.again += again;
                whole
            }
        };
        self.report.unchanged = self.report.unchanged.saturating_sub(walked.again);
        if walked.lost_cursor {
            warn!("this server does not page by cursor; the walk went by dates or offsets");
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
        if met < before.min(after) && !walked.crowds.is_empty() {
            met += self.revisit(walked.crowds).await?;
        }
        debug!(before, after, met, verge = walked.on_the_verge, "counted");
        // Before it was cut off, a walk taken up again may have met users who were gone by the first count of this run.
        let most = if is_resumed { u64::MAX } else { before.max(after) };
        if met < before.min(after) || met.saturating_sub(walked.on_the_verge) > most {
            self.note(format!("the walk met {met} users, but Clerk counts {after}"));
        }
        Ok(())
    }

    /// How many users Clerk has in a stretch; `None` if the server does not count, or fails to although it lists users.
    async fn count(&mut self, stretch: Range) -> Result<Option<u64>, Failure> {
        match self.syncer.or_stop_raw(self.syncer.clerk.count(stretch)).await? {
            Ok(users) => Ok(users),
            Err(error @ (clerk::Error::KeyRefused(_) | clerk::Error::RateLimited { .. })) => Err(error.into()),
            Err(error) if self.syncer.lists_users().await? => {
                self.note(format!("users could not be counted: {error}"));
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The moment when the walk begins and where it ends, by Clerk's clock in Unix milliseconds: users that come later have a later `updated_at`
    /// than the watermark, so the incremental sync stores them.
    fn beginning(&self) -> i64 {
        let newest = self.watermark.filter(|newest| *newest > 0);
        match (self.syncer.clerk.now(), newest) {
            (Some(now), newest) => newest.map_or(now, |newest| now.max(newest)),
            // No answer has the time, but it is later than the newest change.
            (None, Some(newest)) => newest + 1,
            (None, None) => Utc::now().timestamp_millis() + CLOCK_SLACK_MS,
        }
    }

    /// Reads moments again whose users did not fit on a page: where ties are broken differently at each request, some slip between two pages.
    /// Returns how many the walk had not met.
    async fn revisit(&mut self, mut crowds: Vec<Crowd>) -> Result<u64, Failure> {
        crowds.sort_by_key(|crowd| std::cmp::Reverse(crowd.met()));
        let mut found = 0;
        for mut crowd in crowds.into_iter().take(CROWDS) {
            let moment = Range {
                from: Some(crowd.at),
                before: Some(crowd.at + 1),
            };
            let Some(users) = self.count(moment).await? else {
                break;
            };
            let mut visits = Visits::new(&crowd, users);
            while let Some(offset) = visits.next_offset() {
                let page = match self
                    .syncer
                    .or_stop_raw(self.syncer.clerk.stretch(moment, offset))
                    .await?
                {
                    Ok(page) => page,
                    // One of them cannot be read; the others were met by the walk.
                    Err(error) if self.syncer.is_of_this_request(&error).await? => break,
                    Err(error) => return Err(error.into()),
                };
                let new = self.take_unmet(&page, &mut crowd).await?;
                visits.found(new);
                found += new;
            }
        }
        Ok(found)
    }

    /// Takes the users of a page that are of a crowd and were not met before. Returns how many there were.
    async fn take_unmet(&mut self, page: &Page, crowd: &mut Crowd) -> Result<u64, Failure> {
        let there = page.users().iter().filter(|raw| raw.created_at == Some(crowd.at));
        let there: Vec<_> = there.filter(|raw| raw.id.is_some()).collect();
        let unmet: Vec<_> = there.into_iter().filter(|raw| crowd.meet(&page::name(raw))).collect();
        let found: Vec<String> = unmet.iter().filter_map(|raw| raw.id.clone()).collect();
        if let Some(dry_run) = &mut self.dry_run {
            dry_run.missing.retain(|id| !found.contains(id));
        }
        let count = unmet.len() as u64;
        let more = Batch {
            found,
            ..Batch::default()
        };
        self.take(page, unmet, None, HashSet::new(), more).await?;
        Ok(count)
    }

    /// The parts to walk.
    async fn split(&mut self, users: Option<u64>, began: i64) -> Result<Vec<Partition>, Failure> {
        let whole = partition::at(&[]);
        let parts = users.map_or(1, |users| partition::parts(users, self.syncer.walks()));
        if parts == 1 || self.carryover.walks_in_one {
            return Ok(whole);
        }
        let users = users.unwrap_or_default();
        let held = match self.desk.mirror {
            Some(mirror) => Some((mirror, mirror.counts().users().await?)),
            None => None,
        };
        let bounds = match held {
            // Where the mirror knows the users lie, Clerk need not be asked.
            Some((mirror, held)) if held > users / 2 => mirror.counts().bounds(held, parts).await?,
            _ => match self.count_bounds(users, parts, began).await? {
                Some(bounds) => bounds,
                None => return Ok(whole),
            },
        };
        debug!(parts = bounds.len() + 1, "walking side by side");
        Ok(partition::at(&bounds))
    }

    /// The moments between parts of about equal size, by counts at Clerk. None where the server does not count as asked.
    async fn count_bounds(&self, users: u64, parts: usize, began: i64) -> Result<Option<Vec<i64>>, Failure> {
        let clerk = &self.syncer.clerk;
        let before = |at| Range {
            from: None,
            before: Some(at),
        };
        let Ok(page) = self.syncer.or_stop_raw(clerk.list(&Walk::new().query(), 1)).await? else {
            return Ok(None);
        };
        let Some(first) = page.users().first().and_then(|raw| raw.created_at) else {
            return Ok(None);
        };
        match self.syncer.or_stop_raw(clerk.count(before(first))).await? {
            Ok(Some(none)) if none <= users / 2 => {}
            _ => return Ok(None),
        }
        let mut histogram = Histogram::new(first, began, users, parts);
        loop {
            let open = histogram.open();
            if open.is_empty() {
                break;
            }
            let mut counts = stream::iter(open)
                .map(async |at| (at, self.syncer.or_stop_raw(clerk.count(before(at))).await))
                .buffered(self.syncer.options.concurrency);
            let mut counted = Vec::new();
            while let Some((at, count)) = counts.next().await {
                match count? {
                    Ok(Some(count)) => counted.push((at, count)),
                    _ => return Ok(None),
                }
            }
            if !histogram.learn(&counted) {
                return Ok(None);
            }
        }
        Ok(Some(histogram.bounds()))
    }

    /// Walks over the parts side by side. None where this server can only be walked as a whole.
    async fn walk_parts(
        &mut self,
        parts: Vec<Partition>,
        users: Option<u64>,
        began: i64,
        told: &mut Met,
    ) -> Result<Option<Walked>, Failure> {
        self.begin_walk(&parts).await?;
        let mut walked = Walked {
            seen: parts.iter().map(Partition::seen).collect(),
            ..Walked::default()
        };
        let places = Semaphore::new(self.syncer.places());
        let setting = Setting {
            desk: self.desk,
            places: &places,
            began,
        };
        let open = parts.into_iter().enumerate().filter(|(_, part)| part.done.is_none());
        // The last one is the next.
        let mut ready: Vec<WalkDriver> = open
            .rev()
            .map(|(number, part)| WalkDriver::new(number, part, began, users))
            .collect();
        let mut under_way = FuturesUnordered::new();
        // Looks that take as long as their schedule must not keep the walks from going on.
        let mut has_attended = false;
        loop {
            let has_to_attend = !has_attended && self.has_to_attend();
            while !has_to_attend && under_way.len() < self.syncer.walks() {
                let Some(mut walker) = ready.pop() else { break };
                under_way.push(async move {
                    let stride = walker.stride(setting).await;
                    (walker, stride)
                });
            }
            let Some((mut walker, stride)) = under_way.next().await else {
                if ready.is_empty() {
                    return Ok(Some(walked));
                }
                self.attend().await?;
                has_attended = true;
                continue;
            };
            has_attended = false;
            let stride = stride?;
            self.syncer.expect_instance(self.carryover).await?;
            if stride.is_anew {
                walked.again += self.take_back(told);
                *told = Met::default();
                (walked.newcomers, walked.on_the_verge) = (0, 0);
            }
            told.add(&stride.brought);
            walked.newcomers += stride.newcomers;
            walked.on_the_verge += stride.on_the_verge;
            walked.seen[walker.number()] = walker.seen();
            self.remember_all(stride.witnesses);
            self.witnesses.retain(|id| !stride.gone.contains(id));
            self.tell(stride.brought);
            self.syncer.progress.seen(walked.seen.iter().sum());
            match walker.went {
                WalkState::On => ready.push(walker),
                WalkState::ToTheEnd => {
                    walked.lost_cursor |= walker.lost_cursor();
                    walked.is_unordered |= !walker.is_ordered();
                    walked.left_out |= walker.has_left_out();
                    walked.crowds.append(&mut walker.take_crowds());
                }
                WalkState::Astray => return Ok(None),
            }
        }
    }

    /// Notes where a walk begins or goes on, for the case that it is cut off.
    async fn begin_walk(&self, parts: &[Partition]) -> Result<(), Failure> {
        let Target::Mirror { run, .. } = self.desk.target else {
            return Ok(());
        };
        let (Some(written_at), Some(started_at)) = (self.desk.now(), self.walk_started_at) else {
            return Ok(());
        };
        let checkpoint = Checkpoint {
            walk: run.walk,
            started_at,
            written_at,
            judged: self.syncer.options.delete_mode != super::DeleteMode::Keep,
            watermark: self.watermark,
            parts: parts.to_vec(),
        };
        Ok(self.syncer.mirror.runs().begin_walk(run.lease(), &checkpoint).await?)
    }
}
