//! The first part of a full sync: the walk over Clerk's list, in parts side by side.

use chrono::Utc;
use futures_util::{StreamExt, stream, stream::FuturesUnordered};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use super::{
    Running,
    desk::Target,
    walker::{Setting, Walker, Went},
};
use crate::{
    failure::Failure,
    mirror::Checkpoint,
    split::{self, Histogram, Part},
    walk::{Interval, Walk},
};

/// How far Clerk's clock may be behind ours when it is asked who was created meanwhile.
const CLOCK_SLACK_MS: i64 = 60_000;

/// So many rounds of counts tell well enough where users lie.
const ROUNDS: usize = 12;

const UNFIT: &str = "this server does not list by created_at as asked; the walk goes over all users in one row";

/// What is known of the walk besides what it brought.
#[derive(Default)]
struct Walked {
    /// Users met, by part.
    seen: Vec<u64>,
    created_meanwhile: u64,
    lost_cursor: bool,
    is_unordered: bool,
    left_out: bool,
}

impl Running<'_> {
    /// Walks the list, in the parts of a walk that was cut off or from its beginning, and brings the mirror in step with every page.
    pub(super) async fn walk_list(&mut self, resumed: Option<Vec<Part>>) -> Result<(), Failure> {
        let since = Utc::now().timestamp_millis() - CLOCK_SLACK_MS;
        let before = self.pass.or_stop(self.pass.clerk.count(Interval::ALL)).await?;
        self.pass.progress.start(before);
        let is_resumed = resumed.is_some();
        let parts = match resumed {
            Some(parts) => parts,
            None => self.split(before).await?,
        };
        let unchanged = self.report.unchanged;
        let walked = match self.walk_parts(parts, before, since).await? {
            Some(walked) => walked,
            None => {
                self.memory.tell_once(UNFIT);
                self.memory.walks_in_one = true;
                self.report.unchanged = unchanged;
                let whole = self.walk_parts(split::at(&[]), before, since).await?;
                whole.unwrap_or_default()
            }
        };
        if walked.lost_cursor {
            warn!("this server does not page by cursor; the walk went by dates or offsets");
        }
        if walked.is_unordered {
            self.note("the list is not in the order asked for, so that deletions were not looked for");
        }
        if walked.left_out {
            self.note("some users could not be read and were left out");
        }
        // Before it was cut off, a walk taken up again may have met users who were gone by the first count of this run.
        let created_meanwhile = (!is_resumed).then_some(walked.created_meanwhile);
        self.count_again(before, walked.seen.iter().sum(), created_meanwhile)
            .await
    }

    /// The parts to walk.
    async fn split(&mut self, users: Option<u64>) -> Result<Vec<Part>, Failure> {
        let whole = split::at(&[]);
        let parts = users.map_or(1, |users| split::parts(users, self.pass.walks()));
        if parts == 1 || self.memory.walks_in_one {
            return Ok(whole);
        }
        let users = users.unwrap_or_default();
        let held = match self.desk.mirror {
            Some(mirror) => Some((mirror, mirror.count().await?)),
            None => None,
        };
        let bounds = match held {
            // Where the mirror knows the users lie, Clerk need not be asked.
            Some((mirror, held)) if held > users / 2 => mirror.bounds(held, parts).await?,
            _ => match self.count_bounds(users, parts).await? {
                Some(bounds) => bounds,
                None => return Ok(whole),
            },
        };
        debug!(parts = bounds.len() + 1, "walking side by side");
        Ok(split::at(&bounds))
    }

    /// The moments between parts of about equal size, by counts at Clerk. None where the server does not count as asked.
    async fn count_bounds(&self, users: u64, parts: usize) -> Result<Option<Vec<i64>>, Failure> {
        let clerk = &self.pass.clerk;
        let before = |at| Interval {
            from: None,
            before: Some(at),
        };
        let Ok(page) = self.pass.or_stop_raw(clerk.list(&Walk::new().query(), 1)).await? else {
            return Ok(None);
        };
        let Some(first) = page.users().first().and_then(|raw| raw.created_at) else {
            return Ok(None);
        };
        match self.pass.or_stop_raw(clerk.count(before(first))).await? {
            Ok(Some(none)) if none <= users / 2 => {}
            _ => return Ok(None),
        }
        let mut histogram = Histogram::new(first, Utc::now().timestamp_millis() + CLOCK_SLACK_MS, users, parts);
        for _ in 0..ROUNDS {
            let open = histogram.open();
            if open.is_empty() {
                break;
            }
            let mut counts = stream::iter(open)
                .map(async |at| (at, self.pass.or_stop_raw(clerk.count(before(at))).await))
                .buffered(self.pass.options.concurrency);
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
        parts: Vec<Part>,
        users: Option<u64>,
        since: i64,
    ) -> Result<Option<Walked>, Failure> {
        self.begin_walk(&parts).await?;
        let mut walked = Walked {
            seen: parts.iter().map(Part::seen).collect(),
            ..Walked::default()
        };
        let places = Semaphore::new(self.pass.places());
        let setting = Setting {
            desk: self.desk,
            places: &places,
            users,
            since,
        };
        let open = parts.into_iter().enumerate().filter(|(_, part)| part.done.is_none());
        // The last one is the next.
        let mut ready: Vec<Walker> = open.rev().map(|(number, part)| Walker::new(number, part)).collect();
        let mut under_way = FuturesUnordered::new();
        // Looks that take as long as their schedule must not keep the walks from going on.
        let mut has_attended = false;
        loop {
            let has_to_attend = !has_attended && self.has_to_attend();
            while !has_to_attend && under_way.len() < self.pass.walks() {
                let Some(mut walker) = ready.pop() else { break };
                under_way.push(async move {
                    let stride = walker.stride(setting).await;
                    (walker, stride)
                });
            }
            let Some((walker, stride)) = under_way.next().await else {
                if ready.is_empty() {
                    return Ok(Some(walked));
                }
                self.attend().await?;
                has_attended = true;
                continue;
            };
            has_attended = false;
            let stride = stride?;
            self.pass.expect_instance(self.memory).await?;
            walked.created_meanwhile += stride.created_meanwhile;
            walked.seen[walker.number()] = walker.seen();
            self.remember_all(stride.witnesses);
            self.tell(stride.brought);
            self.pass.progress.seen(walked.seen.iter().sum());
            match walker.went {
                Went::On => ready.push(walker),
                Went::ToTheEnd => {
                    walked.lost_cursor |= walker.lost_cursor();
                    walked.is_unordered |= !walker.is_ordered();
                    walked.left_out |= walker.has_left_out();
                }
                Went::Astray => return Ok(None),
            }
        }
    }

    /// Notes where a walk begins or goes on, for the case that it is cut off.
    async fn begin_walk(&self, parts: &[Part]) -> Result<(), Failure> {
        let Target::Mirror { lease, run, .. } = self.desk.target else {
            return Ok(());
        };
        let (Some(written_at), Some(started_at)) = (self.desk.now(), self.walk_started_at) else {
            return Ok(());
        };
        let checkpoint = Checkpoint {
            walk: run.walk,
            started_at,
            written_at,
            judged: self.pass.options.delete_mode != super::DeleteMode::Keep,
            watermark: self.watermark,
            parts: parts.to_vec(),
        };
        Ok(self.pass.mirror.begin_walk(lease, &checkpoint).await?)
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
}
