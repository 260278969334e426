//! The search for whoever makes Clerk's count differ from the mirror's: carries out what [`crate::reconcile::search`] plans, several stretches side by side.

use std::collections::HashSet;

use futures_util::{StreamExt, future::try_join_all, stream::FuturesUnordered};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::{SyncContext, Syncer};
use crate::{
    clerk::Page,
    failure::{Cause, Failure},
    mirror::Batch,
    reconcile::{
        search::{How, Paged, Stretch, first_parts, is_given_up, is_large, judge, walks_cheaper},
        walk::Range,
    },
};

const UNUSABLE: &str = "this server does not count or list by created_at as asked";

/// Where the mirror's users of a stretch are halved: a moment, and how many are expected before it.
type Half = (i64, i64);

/// A stretch that is to be asked about, with its half if that was looked up beforehand.
struct Open {
    stretch: Stretch,
    half: Option<Half>,
}

impl From<Stretch> for Open {
    fn from(stretch: Stretch) -> Self {
        Self { stretch, half: None }
    }
}

/// What came back.
enum Answer {
    Count {
        at: i64,
        local: i64,
        remote: Option<u64>,
        /// The halves of both parts.
        halves: [Option<Half>; 2],
    },
    Page {
        offset: u64,
        page: Page,
    },
    Names,
    /// The answer cannot be read: a full sync reads it in smaller parts.
    Unreadable,
}

impl SyncContext<'_> {
    /// Notes who is missing, and brings in sync who was not seen before. Where a full walk is cheaper, says so instead. Returns Clerk's count; none
    /// where it gives no reason any more, be it to look for who is gone or for who is new.
    pub(super) async fn search(&mut self, expected: i64, total: i64) -> Result<Option<i64>, Failure> {
        let counts_fewer = total < expected;
        // Whoever signs up during the search for who is gone must not hide them.
        let newest = match counts_fewer {
            true => self.syncer.mirror.rows().newest().await?,
            false => None,
        };
        let interval = Range {
            from: None,
            before: newest.map(|at| at + 1),
        };
        let difference = expected - total;
        let parts = first_parts(expected.unsigned_abs(), difference.unsigned_abs());
        // Anew: a user who came after the list was read may have been counted, or one who is in it by now may not.
        let Some(open) = self.syncer.count_parts(interval, expected, parts).await? else {
            return Ok(None);
        };
        if parts > 1 && !open.iter().all(|open| open.stretch.is_part(difference)) {
            self.is_unusable();
            return Ok(Some(total));
        }
        let remote: i64 = open.iter().map(|open| open.stretch.remote).sum();
        if remote == expected || counts_fewer != (remote < expected) {
            return Ok(None);
        }
        let whole = Stretch {
            interval,
            local: expected,
            remote,
        };
        self.search_in(whole, open).await?;
        Ok(Some(remote))
    }

    async fn search_in(&mut self, whole: Stretch, mut open: Vec<Open>) -> Result<(), Failure> {
        let Stretch { local, remote, .. } = whole;
        // Where Clerk counts hardly anybody, all whom the mirror has would be asked for by id.
        let users = local.max(remote).unsigned_abs();
        let difference = (local - remote).unsigned_abs();
        debug!(local, remote, "Clerk counts other users than the mirror expects");
        if walks_cheaper(users, difference) {
            self.carryover
                .walk("so many users differ that a walk is cheaper than a search");
            return Ok(());
        }
        let counts_fewer = remote < local;
        let begun = self.syncer.clerk.requests();
        let syncer = self.syncer;
        let mut under_way = FuturesUnordered::new();
        let mut has_attended = false;
        loop {
            open.retain(|open| open.stretch.matters(counts_fewer));
            let sent = syncer.clerk.requests() - begun;
            if is_given_up(sent, (open.len() + under_way.len()) as u64, users) {
                self.carryover.walk("a search has cost as much as a walk");
                return Ok(());
            }
            // A stretch goes on as soon as its answer is there; pages are held while they are under way only.
            let has_to_attend = !has_attended && self.has_to_attend();
            while !has_to_attend && under_way.len() < syncer.options.concurrency {
                let Some(next) = open.pop() else { break };
                under_way.push(async move {
                    let answer = syncer.ask(&next).await;
                    (next.stretch, answer)
                });
            }
            let Some((stretch, answer)) = under_way.next().await else {
                if open.is_empty() {
                    return Ok(());
                }
                self.attend().await?;
                has_attended = true;
                continue;
            };
            has_attended = false;
            match self.learn(&stretch, answer?).await? {
                Some(parts) => open.extend(parts),
                None => {
                    self.is_unusable();
                    return Ok(());
                }
            }
        }
    }

    fn is_unusable(&mut self) {
        self.carryover.tell_once(UNUSABLE);
        self.carryover.walk(UNUSABLE);
    }

    /// Takes an answer, and returns the parts of the stretch that are left; none where the server cannot be used for this.
    async fn learn(&mut self, stretch: &Stretch, answer: Answer) -> Result<Option<Vec<Open>>, Failure> {
        match answer {
            Answer::Unreadable => Ok(Some(Vec::new())),
            Answer::Names => {
                self.miss_all(stretch.interval).await?;
                Ok(Some(Vec::new()))
            }
            Answer::Count {
                at,
                local,
                remote,
                halves,
            } => {
                let remote = remote.and_then(|remote| i64::try_from(remote).ok());
                let Some(parts) = remote.and_then(|remote| stretch.part(at, local, remote)) else {
                    return Ok(None);
                };
                let parts = parts.into_iter().zip(halves);
                Ok(Some(parts.map(|(stretch, half)| Open { stretch, half }).collect()))
            }
            Answer::Page { offset, page } => {
                let times: Vec<i64> = page.users().iter().filter_map(|raw| raw.created_at).collect();
                match judge(stretch, offset, &times) {
                    Paged::Unusable => Ok(None),
                    Paged::Unclear => Ok(Some(Vec::new())),
                    Paged::OneMoment(at) => self.part_around(stretch, at).await,
                    Paged::Partition { judged, left } => {
                        self.remember(&page);
                        let ids: Vec<&str> = page.users().iter().filter_map(|raw| raw.id.as_deref()).collect();
                        let found = self.syncer.mirror.missing().held_among(&ids).await?;
                        if !found.is_empty() {
                            // The others that were held with them deserve another look, too.
                            self.carryover.walk("users whose deletion was held are there again");
                        }
                        let more = Batch {
                            found,
                            ..Batch::default()
                        };
                        self.take(&page, page.users().iter().collect(), Some(judged), HashSet::new(), more)
                            .await?;
                        let mut parts = Vec::new();
                        for (interval, remote) in left {
                            let local = self.syncer.mirror.counts().expected(interval).await?;
                            parts.push(Open::from(Stretch {
                                interval,
                                local,
                                remote,
                            }));
                        }
                        Ok(Some(parts))
                    }
                }
            }
        }
    }

    /// Parts a stretch into what lies before, at and behind a moment that many users share.
    async fn part_around(&mut self, stretch: &Stretch, at: i64) -> Result<Option<Vec<Open>>, Failure> {
        let mut parts = Vec::new();
        let mut rest = *stretch;
        for at in [at, at + 1] {
            let [part, _] = rest.interval.split(at);
            let local = self.syncer.mirror.counts().expected(part).await?;
            let remote = self.syncer.or_stop(self.syncer.clerk.count(part)).await?;
            let remote = remote.and_then(|remote| i64::try_from(remote).ok());
            let Some([before, behind]) = remote.and_then(|remote| rest.part(at, local, remote)) else {
                return Ok(None);
            };
            parts.push(before.into());
            rest = behind;
        }
        parts.push(rest.into());
        Ok(Some(parts))
    }

    /// Notes everybody of a stretch as missing: a question, as ever.
    async fn miss_all(&mut self, stretch: Range) -> Result<(), Failure> {
        let mut last: Option<crate::reconcile::diff::Known> = None;
        loop {
            let rows = self.syncer.mirror.rows().range(stretch, last.as_ref()).await?;
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
    /// Counts a stretch in so many parts of about equal size; none where the server does not count.
    async fn count_parts(&self, whole: Range, users: i64, parts: usize) -> Result<Option<Vec<Open>>, Failure> {
        let mut stretches = vec![(whole, users)];
        while stretches.len() < parts {
            let halves = stretches.iter().map(async |&(interval, users)| {
                let half = self.mirror.counts().halve(interval, users).await?;
                Ok::<_, Failure>(match half {
                    Some((at, before)) => {
                        let [first, second] = interval.split(at);
                        vec![(first, before), (second, users - before)]
                    }
                    None => vec![(interval, users)],
                })
            });
            let halves = try_join_all(halves).await?.concat();
            if halves.len() == stretches.len() {
                break;
            }
            stretches = halves;
        }
        let clerk = &self.clerk.patient();
        let counted = stretches.into_iter().map(async |(interval, local)| {
            let (remote, half) = tokio::join!(
                self.or_stop(clerk.count(interval)),
                self.half_beforehand(interval, local)
            );
            let (Some(remote), half) = (remote?, half?) else {
                return Ok::<_, Failure>(None);
            };
            let stretch = Stretch {
                interval,
                local,
                remote: i64::try_from(remote).unwrap_or(i64::MAX),
            };
            Ok(Some(Open { stretch, half }))
        });
        Ok(try_join_all(counted).await?.into_iter().collect())
    }

    /// The half of a stretch that may have to be counted next. It is looked up while Clerk counts, as going through the mirror's index takes about
    /// as long.
    async fn half_beforehand(&self, interval: Range, users: i64) -> Result<Option<Half>, Failure> {
        match is_large(users) {
            true => self.half(interval, users).await,
            false => Ok(None),
        }
    }

    /// The half of a stretch. In a task of its own: while the search takes another answer, nobody waits for this one, and its connection would not
    /// come back to the pool.
    async fn half(&self, interval: Range, users: i64) -> Result<Option<Half>, Failure> {
        let mirror = self.mirror.clone();
        let looking = tokio::spawn(async move { mirror.counts().halve(interval, users).await });
        let looked = AbortOnDropHandle::new(looking).await;
        Ok(looked.map_err(|error| Failure::new(Cause::Other, error.to_string()))??)
    }

    /// Asks what tells most about a stretch whose counts differ.
    async fn ask(&self, open: &Open) -> Result<Answer, Failure> {
        let stretch = &open.stretch;
        let clerk = self.clerk.patient();
        let offset = match stretch.how() {
            How::Names => return Ok(Answer::Names),
            How::Page { offset } => offset,
            How::Halve => {
                let half = match open.half {
                    Some(half) => Some(half),
                    None => self.half(stretch.interval, stretch.local).await?,
                };
                match half {
                    Some(half) => return self.count_half(stretch, half).await,
                    None => 0,
                }
            }
        };
        match self.or_stop_raw(clerk.stretch(stretch.interval, offset)).await? {
            Ok(page) => Ok(Answer::Page { offset, page }),
            Err(error) if self.is_of_this_request(&error).await? => {
                debug!(%error, "a page of the search cannot be read");
                Ok(Answer::Unreadable)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Counts up to the half of a stretch.
    async fn count_half(&self, stretch: &Stretch, (at, local): Half) -> Result<Answer, Failure> {
        let [before, behind] = stretch.interval.split(at);
        let clerk = self.clerk.patient();
        let (remote, first, second) = tokio::join!(
            self.or_stop(clerk.count(before)),
            self.half_beforehand(before, local),
            self.half_beforehand(behind, stretch.local - local),
        );
        Ok(Answer::Count {
            at,
            local,
            remote: remote?,
            halves: [first?, second?],
        })
    }
}
