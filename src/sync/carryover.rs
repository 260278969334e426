//! What a daemon remembers from one sync to the next. Losing it costs requests, never users.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tracing::warn;

use crate::{
    clerk,
    failure::Cause,
    reconcile::recent::{Floor, LAG},
};

/// The smallest first page of an incremental sync.
const FIRST_PAGE: u32 = 20;

/// How often syncs other than full ones remove old events.
const PRUNE_EVERY: Duration = Duration::from_secs(600);

/// How often full syncs are due for one and the same reason.
const WALK_EVERY: Duration = Duration::from_secs(10);

/// Clocks that differ by less are called the same: Clerk tells its time in whole seconds.
const SAME_CLOCK_MS: i64 = 2_000;

/// What is remembered. By default nothing is.
#[derive(Debug, Default)]
pub struct Carryover {
    /// Whose users these are, as the last full sync asked.
    pub(super) instance: Option<clerk::Instance>,
    /// When Clerk was last asked for it.
    pub(super) asked_instance: Option<Instant>,
    pub(super) floor: Floor,
    /// Users on the last incremental sync's pages that lay above the floor.
    pub(super) above: u64,
    pub(super) mismatch: CountMismatch,
    /// The server does not list users by their last change, as the last full sync found.
    pub(super) has_no_order: bool,
    /// Clerk failed to count its users when it was last asked to.
    pub(super) cannot_count: bool,
    /// The server can only be walked as a whole.
    pub(super) walks_in_one: bool,
    /// Why a full sync is due.
    walk: Option<&'static str>,
    walked: BTreeMap<&'static str, Instant>,
    told: BTreeSet<&'static str>,
    pruned: Option<Instant>,
    failed: Option<Cause>,
    /// Clerk's clock less ours, in milliseconds.
    clock: i64,
}

impl Carryover {
    /// Whether a full sync has told whose users these are; the others go by it.
    pub fn knows_instance(&self) -> bool {
        self.instance.is_some()
    }

    /// Why a full sync is due before its time, if it is.
    pub fn take_walk(&mut self) -> Option<&'static str> {
        self.walk.take()
    }

    /// A full sync is due, but not again and again for the same reason.
    pub(super) fn walk(&mut self, why: &'static str) {
        let is_new = self.walked.get(why).is_none_or(|at| at.elapsed() >= WALK_EVERY);
        if is_new {
            self.walked.insert(why, Instant::now());
            self.walk = Some(why);
        }
    }

    /// Says once what this server lacks.
    pub(super) fn tell_once(&mut self, what: &'static str) {
        if self.told.insert(what) {
            warn!("{what}");
        }
    }

    /// How many users Clerk has; `None` if it does not count them, or fails to. Changes are followed without the number.
    ///
    /// # Errors
    /// Clerk refuses the key.
    pub(super) fn counted(&mut self, total: Result<Option<u64>, clerk::Error>) -> Result<Option<u64>, clerk::Error> {
        let could_count = !self.cannot_count;
        self.cannot_count = total.is_err();
        match total {
            Err(error @ clerk::Error::KeyRefused(_)) => Err(error),
            Err(error) => {
                if could_count {
                    warn!(%error, "users cannot be counted; until they can, only full syncs see deletions");
                }
                Ok(None)
            }
            Ok(total) => Ok(total),
        }
    }

    /// The first page shall hold what the last walk met, so that steady change takes no second request.
    pub(super) fn first_page(&self) -> u32 {
        u32::try_from(self.above + 10).unwrap_or(u32::MAX).max(FIRST_PAGE)
    }

    /// Whether a failure is another than the one before: an outage is listed once, however often it is tried.
    pub(super) fn is_news(&mut self, cause: Cause) -> bool {
        self.failed.replace(cause) != Some(cause)
    }

    /// A failure is listed already.
    pub(super) fn listed(&mut self, cause: Cause) {
        self.failed = Some(cause);
    }

    pub(super) fn succeeded(&mut self) {
        self.failed = None;
    }

    /// Whether old events are to be removed now.
    pub(super) fn prunes(&mut self, always: bool) -> bool {
        let is_due = always || self.pruned.is_none_or(|at| at.elapsed() >= PRUNE_EVERY);
        if is_due {
            self.pruned = Some(Instant::now());
        }
        is_due
    }

    /// Takes note of Clerk's clock, in Unix milliseconds.
    pub(super) fn set_clock(&mut self, theirs: Option<i64>) {
        let difference = theirs.map_or(0, |theirs| theirs - chrono::Utc::now().timestamp_millis());
        self.clock = if difference.abs() < SAME_CLOCK_MS {
            0
        } else {
            difference
        };
    }

    /// The time by Clerk's clock, in Unix milliseconds.
    pub(super) fn now(&self) -> i64 {
        chrono::Utc::now().timestamp_millis() + self.clock
    }
}

/// How many flaps count at most: a difference has to show in one more look in a row than flaps counted before it is searched for.
const MOST_FLAPS: u32 = 7;

/// Looks in a row without a difference that reset the flaps.
const CALM: u32 = 100;

/// A difference between Clerk's count and what the mirror expects, for which nobody was found. It is looked into again with growing pauses, as it
/// may be a list that lags, or a count that is wrong for good. A count that flaps between requests has to show a difference in more and more looks
/// in a row.
#[derive(Debug, Default)]
pub(super) struct CountMismatch {
    unexplained: Option<Unexplained>,
    /// Since when Clerk counts more. A user who is created between the list and the count is in the mirror after the next look.
    more_since: Option<Instant>,
    /// How often a difference was gone before it was explained.
    flaps: u32,
    /// Looks in a row that showed a difference of the same sign, and that sign; or none, and 0.
    row: u32,
    sign: i64,
}

#[derive(Debug)]
struct Unexplained {
    difference: i64,
    pauses: ExponentialBackoff,
    again: Instant,
}

/// What a difference of counts deserves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Response {
    Nothing,
    Search,
    /// A full sync: somebody who is counted but not found may have hidden somebody who is gone.
    Walk,
}

impl CountMismatch {
    /// Judges Clerk's count less the expected one.
    pub(super) fn judge(&mut self, difference: i64, now: Instant) -> Response {
        if difference <= 0 {
            self.more_since = None;
        }
        let before = std::mem::replace(&mut self.sign, difference.signum());
        self.row = if self.sign == before { self.row + 1 } else { 1 };
        if self.sign == 0 && self.row >= CALM {
            self.flaps = 0;
        }
        if let Some(unexplained) = &self.unexplained {
            if difference == unexplained.difference {
                return if now >= unexplained.again {
                    Response::Search
                } else {
                    Response::Nothing
                };
            }
            let hides = unexplained.difference > 0 && difference < unexplained.difference;
            self.unexplained = None;
            if difference == 0 {
                self.vanished();
            }
            if hides {
                return Response::Walk;
            }
        }
        let lasts = self.row > self.flaps;
        match difference {
            0 => Response::Nothing,
            ..0 if lasts => Response::Search,
            ..0 => Response::Nothing,
            1.. => {
                let since = *self.more_since.get_or_insert(now);
                if lasts && now.saturating_duration_since(since) >= LAG {
                    Response::Search
                } else {
                    Response::Nothing
                }
            }
        }
    }

    /// Users came since the last look: that Clerk counts more has a reason that will sync.
    pub(super) fn saw_newcomers(&mut self) {
        self.more_since = None;
    }

    /// A difference was gone before anybody was found who explains it.
    pub(super) fn vanished(&mut self) {
        self.flaps = (self.flaps + 1).min(MOST_FLAPS);
        self.row = 0;
    }

    /// Nobody was found.
    pub(super) fn found_nobody(&mut self, difference: i64, now: Instant) {
        if difference == 0 {
            self.unexplained = None;
            return;
        }
        let mut pauses = match self.unexplained.take() {
            Some(unexplained) if unexplained.difference == difference => unexplained.pauses,
            _ => ExponentialBuilder::default()
                .with_min_delay(Duration::from_secs(5))
                .with_max_delay(Duration::from_secs(3600))
                .without_max_times()
                .build(),
        };
        let pause = pauses.next().unwrap_or(Duration::from_secs(3600));
        self.unexplained = Some(Unexplained {
            difference,
            pauses,
            again: now + pause,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn fewer_at_clerk_is_searched_for_at_once_and_in_vain_with_growing_pauses() {
        let (mut mismatch, start) = (CountMismatch::default(), Instant::now());
        assert_eq!(mismatch.judge(0, start), Response::Nothing);
        assert_eq!(mismatch.judge(-1, start), Response::Search);
        mismatch.found_nobody(-1, start);
        assert_eq!(mismatch.judge(-1, after(start, 4)), Response::Nothing);
        assert_eq!(mismatch.judge(-1, after(start, 5)), Response::Search);
        mismatch.found_nobody(-1, after(start, 5));
        assert_eq!(mismatch.judge(-1, after(start, 14)), Response::Nothing);
        assert_eq!(mismatch.judge(-1, after(start, 15)), Response::Search);
        assert_eq!(
            mismatch.judge(-2, after(start, 15)),
            Response::Search,
            "one more is gone"
        );
    }

    #[test]
    fn a_count_that_was_wrong_for_a_moment_has_to_last_longer_the_next_time() {
        let (mut mismatch, start) = (CountMismatch::default(), Instant::now());
        mismatch.found_nobody(-3, start);
        assert_eq!(mismatch.judge(0, start), Response::Nothing);
        assert_eq!(mismatch.judge(-3, start), Response::Nothing);
        assert_eq!(mismatch.judge(-3, start), Response::Search);
        for _ in 0..CALM {
            mismatch.judge(0, start);
        }
        assert_eq!(mismatch.judge(-3, start), Response::Search, "it was right for long");
    }

    /// Looks every second for so many seconds, at differences that are gone when they are looked into.
    fn searches(seconds: usize, mut difference: impl FnMut(usize) -> i64) -> usize {
        let (mut mismatch, start) = (CountMismatch::default(), Instant::now());
        let searched = |second: &usize| {
            let is_searched = mismatch.judge(difference(*second), after(start, *second as u64)) == Response::Search;
            if is_searched {
                mismatch.vanished();
            }
            is_searched
        };
        (0..seconds).filter(searched).count()
    }

    #[test]
    fn a_count_that_flaps_is_looked_into_a_few_times_only() {
        assert_eq!(searches(45, |second| -((second % 2) as i64)), 1);
        assert_eq!(searches(45, |second| (second % 3) as i64 - 1), 1);
        for seed in 0..20 {
            let mut dice = fastrand::Rng::with_seed(seed);
            let flaps = searches(45, |_| dice.i64(-1..=0));
            assert!(flaps <= 6, "{flaps} searches");
        }
        assert!(searches(45, |_| -1) <= 9, "a count that never agrees");
    }

    #[test]
    fn more_at_clerk_has_to_last() {
        let (mut mismatch, start) = (CountMismatch::default(), Instant::now());
        assert_eq!(mismatch.judge(1, start), Response::Nothing);
        assert_eq!(mismatch.judge(0, after(start, 5)), Response::Nothing);
        assert_eq!(mismatch.judge(1, after(start, 6)), Response::Nothing);
        assert_eq!(mismatch.judge(2, after(start, 16)), Response::Search);
    }

    #[test]
    fn one_who_is_counted_but_not_found_hides_nobody_for_long() {
        let (mut mismatch, start) = (CountMismatch::default(), Instant::now());
        mismatch.found_nobody(1, start);
        assert_eq!(mismatch.judge(1, start), Response::Nothing);
        assert_eq!(mismatch.judge(0, start), Response::Walk);
        assert_eq!(mismatch.judge(0, start), Response::Nothing);
    }
}
