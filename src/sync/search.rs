//! Searches for the users that make Clerk's count differ from the mirror's. It carries out what
//! [`crate::reconcile::search`] plans, for several buckets side by side.

use futures_util::{StreamExt, future::try_join_all, stream::FuturesUnordered};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::{AskError, SyncContext, Syncer, page_worker::PageSource};
use crate::{
    clerk::Page,
    failure::{Cause, Failure},
    mirror::Batch,
    reconcile::{
        range::Range,
        search::{Bucket, PageProof, Probe, first_parts, is_given_up, is_large, judge, walks_cheaper},
    },
};

/// The warning about a server that cannot be searched.
const UNUSABLE: &str = "this server does not count or list by created_at as asked";

/// A moment that halves the mirror's users of a range, and how many users are expected before it.
type Half = (i64, i64);

/// A bucket to ask about, with its half if that was looked up beforehand.
struct OpenBucket {
    bucket: Bucket,
    half: Option<Half>,
}

impl From<Bucket> for OpenBucket {
    fn from(bucket: Bucket) -> Self {
        Self { bucket, half: None }
    }
}

/// What was learned about a bucket.
enum BucketAnswer {
    /// Clerk's count up to a moment.
    Count {
        at: i64,
        local: i64,
        remote: Option<u64>,
        /// The halves of both parts.
        halves: [Option<Half>; 2],
    },
    /// A page of the bucket, after its first `offset` users.
    Page { offset: u64, page: Page },
    /// The mirror has so few users in it that Clerk is asked for each by id.
    ByIds,
    /// The answer cannot be read. A full sync reads it in smaller pages.
    Unreadable,
}

impl SyncContext<'_> {
    /// Notes missing users, and stores users that were not seen before. If a full walk is cheaper,
    /// requests a full sync instead. Returns Clerk's count; `None` if the counts agree by now, or
    /// differ in the other direction.
    pub(super) async fn search(&mut self, expected: i64, total: i64) -> Result<Option<i64>, Failure> {
        let counts_fewer = total < expected;
        // Users created during the search for missing ones must not hide those.
        let newest = match counts_fewer {
            true => self.syncer.mirror.rows().newest().await?,
            false => None,
        };
        let range = Range {
            from: None,
            before: newest.map(|at| at + 1),
        };
        let difference = expected - total;
        let parts = first_parts(expected.unsigned_abs(), difference.unsigned_abs());
        // Counts are asked for anew: users may have been created since the list was read.
        let Some(open) = self.syncer.count_parts(range, expected, parts).await? else {
            return Ok(None);
        };
        if parts > 1 && !open.iter().all(|open| open.bucket.is_part(difference)) {
            self.give_up();
            return Ok(Some(total));
        }
        let remote: i64 = open.iter().map(|open| open.bucket.remote).sum();
        if remote == expected || counts_fewer != (remote < expected) {
            return Ok(None);
        }
        let whole = Bucket {
            range,
            local: expected,
            remote,
        };
        self.search_in(whole, open).await?;
        Ok(Some(remote))
    }

    /// Searches in buckets until none is left whose counts differ.
    async fn search_in(&mut self, whole: Bucket, mut open: Vec<OpenBucket>) -> Result<(), Failure> {
        let Bucket { local, remote, .. } = whole;
        // If Clerk counts hardly any users, all users of the mirror would be asked for by id.
        let users = local.max(remote).unsigned_abs();
        let difference = (local - remote).unsigned_abs();
        debug!(local, remote, "Clerk counts other users than the mirror expects");
        if walks_cheaper(users, difference) {
            self.carryover
                .request_full_sync("so many users differ that a walk is cheaper than a search");
            return Ok(());
        }
        let counts_fewer = remote < local;
        let begun = self.syncer.clerk.requests();
        let syncer = self.syncer;
        let mut under_way = FuturesUnordered::new();
        let mut did_urgent_work = false;
        loop {
            open.retain(|open| open.bucket.matters(counts_fewer));
            let sent = syncer.clerk.requests() - begun;
            if is_given_up(sent, (open.len() + under_way.len()) as u64, users) {
                self.carryover.request_full_sync("a search has cost as much as a walk");
                return Ok(());
            }
            // A bucket goes on as soon as its answer arrives. Pages are in memory only while they
            // are worked on.
            let has_urgent_work = !did_urgent_work && self.has_urgent_work();
            while !has_urgent_work && under_way.len() < syncer.options.concurrency {
                let Some(next) = open.pop() else { break };
                under_way.push(async move {
                    let answer = syncer.ask_about(&next).await;
                    (next.bucket, answer)
                });
            }
            let Some((bucket, answer)) = under_way.next().await else {
                if open.is_empty() {
                    return Ok(());
                }
                self.do_urgent_work().await?;
                did_urgent_work = true;
                continue;
            };
            did_urgent_work = false;
            match self.take_answer(&bucket, answer?).await? {
                Some(parts) => open.extend(parts),
                None => {
                    self.give_up();
                    return Ok(());
                }
            }
        }
    }

    /// Warns of a server that cannot be searched, and requests a full sync.
    fn give_up(&mut self) {
        self.carryover.warn_once(UNUSABLE);
        self.carryover.request_full_sync(UNUSABLE);
    }

    /// Takes an answer, and returns what is left of the bucket; `None` if the server cannot be
    /// searched.
    async fn take_answer(&mut self, bucket: &Bucket, answer: BucketAnswer) -> Result<Option<Vec<OpenBucket>>, Failure> {
        match answer {
            BucketAnswer::Unreadable => Ok(Some(Vec::new())),
            BucketAnswer::ByIds => {
                self.note_all_missing(bucket.range).await?;
                Ok(Some(Vec::new()))
            }
            BucketAnswer::Count {
                at,
                local,
                remote,
                halves,
            } => {
                let remote = remote.and_then(|remote| i64::try_from(remote).ok());
                let Some(parts) = remote.and_then(|remote| bucket.split(at, local, remote)) else {
                    return Ok(None);
                };
                let parts = parts.into_iter().zip(halves);
                Ok(Some(parts.map(|(bucket, half)| OpenBucket { bucket, half }).collect()))
            }
            BucketAnswer::Page { offset, page } => {
                let times: Vec<i64> = page.objects().iter().filter_map(|raw| raw.created_at).collect();
                match judge(bucket, offset, &times) {
                    PageProof::Unusable => Ok(None),
                    PageProof::Unclear => Ok(Some(Vec::new())),
                    PageProof::OneMoment(at) => self.split_around(bucket, at).await,
                    PageProof::Judged { judged, left } => {
                        self.remember(&page);
                        let ids: Vec<&str> = page.objects().iter().filter_map(|raw| raw.id.as_deref()).collect();
                        let found = self.syncer.mirror.holds().among(&ids).await?;
                        if !found.is_empty() {
                            // Other users whose deletion is held may be back, too.
                            self.carryover
                                .request_full_sync("users whose deletion was held are there again");
                        }
                        let more = Batch {
                            found,
                            ..Batch::default()
                        };
                        self.store(
                            PageSource::List,
                            &page,
                            page.objects().iter().collect(),
                            Some(judged),
                            more,
                        )
                        .await?;
                        let mut parts = Vec::new();
                        for (range, remote) in left {
                            let local = self.syncer.mirror.counts().expected(range).await?;
                            parts.push(OpenBucket::from(Bucket { range, local, remote }));
                        }
                        Ok(Some(parts))
                    }
                }
            }
        }
    }

    /// Splits a bucket into what lies before, at and after a moment that many users share.
    async fn split_around(&mut self, bucket: &Bucket, at: i64) -> Result<Option<Vec<OpenBucket>>, Failure> {
        let mut parts = Vec::new();
        let mut rest = *bucket;
        for at in [at, at + 1] {
            let [part, _] = rest.range.split(at);
            let local = self.syncer.mirror.counts().expected(part).await?;
            let remote = self
                .syncer
                .ask(self.syncer.clerk.count(self.syncer.resource, part))
                .await?;
            let remote = remote.and_then(|remote| i64::try_from(remote).ok());
            let Some([before, after]) = remote.and_then(|remote| rest.split(at, local, remote)) else {
                return Ok(None);
            };
            parts.push(before.into());
            rest = after;
        }
        parts.push(rest.into());
        Ok(Some(parts))
    }

    /// Notes all users of a range as missing, so that Clerk is asked for each by id.
    async fn note_all_missing(&mut self, range: Range) -> Result<(), Failure> {
        let mut last: Option<crate::reconcile::diff::Known> = None;
        loop {
            let rows = self.syncer.mirror.rows().range(range, last.as_ref()).await?;
            let live = rows.iter().filter(|row| !row.deleted);
            self.apply(Batch {
                missing: live.map(|row| row.id.clone()).collect(),
                ..Batch::default()
            })
            .await?;
            match rows.into_iter().next_back() {
                Some(row) => last = Some(row),
                None => return Ok(()),
            }
        }
    }
}

impl Syncer {
    /// Counts a range in this many parts of about equal size; `None` if the server does not count.
    async fn count_parts(&self, whole: Range, users: i64, parts: usize) -> Result<Option<Vec<OpenBucket>>, Failure> {
        let mut ranges = vec![(whole, users)];
        while ranges.len() < parts {
            let halves = ranges.iter().map(async |&(range, users)| {
                let half = self.mirror.counts().halve(range, users).await?;
                Ok::<_, Failure>(match half {
                    Some((at, before)) => {
                        let [first, second] = range.split(at);
                        vec![(first, before), (second, users - before)]
                    }
                    None => vec![(range, users)],
                })
            });
            let halves = try_join_all(halves).await?.concat();
            if halves.len() == ranges.len() {
                break;
            }
            ranges = halves;
        }
        let clerk = &self.clerk.patient();
        let counted = ranges.into_iter().map(async |(range, local)| {
            let (remote, half) = tokio::join!(
                self.ask(clerk.count(self.resource, range)),
                self.prefetch_half(range, local)
            );
            let (Some(remote), half) = (remote?, half?) else {
                return Ok::<_, Failure>(None);
            };
            let bucket = Bucket {
                range,
                local,
                remote: i64::try_from(remote).unwrap_or(i64::MAX),
            };
            Ok(Some(OpenBucket { bucket, half }))
        });
        Ok(try_join_all(counted).await?.into_iter().collect())
    }

    /// The half of a range that may have to be counted next. It is looked up while Clerk counts,
    /// because the mirror takes about as long.
    async fn prefetch_half(&self, range: Range, users: i64) -> Result<Option<Half>, Failure> {
        match is_large(users) {
            true => self.half(range, users).await,
            false => Ok(None),
        }
    }

    /// The half of a range. It is looked up in a task of its own: while the search takes another
    /// answer, this future is not polled, and would keep its connection from the pool.
    async fn half(&self, range: Range, users: i64) -> Result<Option<Half>, Failure> {
        let mirror = self.mirror.clone();
        let lookup = tokio::spawn(async move { mirror.counts().halve(range, users).await });
        let half = AbortOnDropHandle::new(lookup).await;
        Ok(half.map_err(|error| Failure::new(Cause::Other, error.to_string()))??)
    }

    /// Sends the request that narrows a bucket most whose counts differ.
    async fn ask_about(&self, open: &OpenBucket) -> Result<BucketAnswer, Failure> {
        let bucket = &open.bucket;
        let clerk = self.clerk.patient();
        let offset = match bucket.probe() {
            Probe::ByIds => return Ok(BucketAnswer::ByIds),
            Probe::Page { offset } => offset,
            Probe::Count => {
                let half = match open.half {
                    Some(half) => Some(half),
                    None => self.half(bucket.range, bucket.local).await?,
                };
                match half {
                    Some(half) => return self.count_half(bucket, half).await,
                    None => 0,
                }
            }
        };
        let limit = self.resource.list.max_page;
        match self.ask(clerk.range(self.resource, bucket.range, offset, limit)).await {
            Ok(page) => Ok(BucketAnswer::Page { offset, page }),
            Err(AskError::Clerk(error)) if self.is_about_request(&error).await? => {
                debug!(%error, "a page of the search cannot be read");
                Ok(BucketAnswer::Unreadable)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Counts the users of a bucket up to its half.
    async fn count_half(&self, bucket: &Bucket, (at, local): Half) -> Result<BucketAnswer, Failure> {
        let [before, after] = bucket.range.split(at);
        let clerk = self.clerk.patient();
        let (remote, first, second) = tokio::join!(
            self.ask(clerk.count(self.resource, before)),
            self.prefetch_half(before, local),
            self.prefetch_half(after, bucket.local - local),
        );
        Ok(BucketAnswer::Count {
            at,
            local,
            remote: remote?,
            halves: [first?, second?],
        })
    }
}
