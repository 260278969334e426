//! Judges whether a difference between Clerk's count and the mirror's is worth a search.

use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

use crate::reconcile::recent::LAG;

/// Most flaps that are counted. A difference is searched for after it has shown in one more
/// comparison in a row than flaps were counted.
const MAX_FLAPS: u32 = 7;

/// Comparisons in a row without a difference that reset the flaps.
const CALM: u32 = 100;

/// What is known of a difference between Clerk's count and the number that the mirror expects.
///
/// A difference that a search did not explain is searched for again with growing pauses: the list
/// may lag behind, or the count may be wrong for good. A count that flaps between requests has to
/// show a difference in more and more comparisons in a row.
#[derive(Debug, Default)]
pub(super) struct CountMismatch {
    unexplained: Option<Unexplained>,
    /// Since when Clerk counts more. A user that is created between the list and the count is in
    /// the mirror after the next incremental sync.
    more_since: Option<Instant>,
    /// How often a difference vanished before it was explained.
    flaps: u32,
    /// The sign of the last difference, or 0.
    sign: i64,
    /// Comparisons in a row with this sign.
    in_a_row: u32,
}

/// A difference for which a search found no user.
#[derive(Debug)]
struct Unexplained {
    difference: i64,
    pauses: ExponentialBackoff,
    search_again_at: Instant,
}

/// What is done about a difference of the counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Response {
    Nothing,
    Search,
    /// A full sync: a user that is counted but not found may have hidden one that is gone.
    FullSync,
}

impl CountMismatch {
    /// Judges Clerk's count less the expected number.
    pub(super) fn judge(&mut self, difference: i64, now: Instant) -> Response {
        if difference <= 0 {
            self.more_since = None;
        }
        let before = std::mem::replace(&mut self.sign, difference.signum());
        self.in_a_row = if self.sign == before { self.in_a_row + 1 } else { 1 };
        if self.sign == 0 && self.in_a_row >= CALM {
            self.flaps = 0;
        }
        if let Some(unexplained) = &self.unexplained {
            if difference == unexplained.difference {
                return if now >= unexplained.search_again_at {
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
                return Response::FullSync;
            }
        }
        let lasts = self.in_a_row > self.flaps;
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

    /// New users were found: they may be why Clerk counts more.
    pub(super) fn saw_newcomers(&mut self) {
        self.more_since = None;
    }

    /// A difference vanished before a user was found that explains it.
    pub(super) fn vanished(&mut self) {
        self.flaps = (self.flaps + 1).min(MAX_FLAPS);
        self.in_a_row = 0;
    }

    /// A search found no user that explains the difference.
    pub(super) fn not_explained(&mut self, difference: i64, now: Instant) {
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
            search_again_at: now + pause,
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
    fn fewer_at_clerk_is_searched_for_at_once_and_then_with_growing_pauses() {
        let (mut mismatch, start) = (CountMismatch::default(), Instant::now());
        assert_eq!(mismatch.judge(0, start), Response::Nothing);
        assert_eq!(mismatch.judge(-1, start), Response::Search);
        mismatch.not_explained(-1, start);
        assert_eq!(mismatch.judge(-1, after(start, 4)), Response::Nothing);
        assert_eq!(mismatch.judge(-1, after(start, 5)), Response::Search);
        mismatch.not_explained(-1, after(start, 5));
        assert_eq!(mismatch.judge(-1, after(start, 14)), Response::Nothing);
        assert_eq!(mismatch.judge(-1, after(start, 15)), Response::Search);
        assert_eq!(
            mismatch.judge(-2, after(start, 15)),
            Response::Search,
            "one more user is gone"
        );
    }

    #[test]
    fn a_count_that_was_wrong_for_a_moment_has_to_last_longer_the_next_time() {
        let (mut mismatch, start) = (CountMismatch::default(), Instant::now());
        mismatch.not_explained(-3, start);
        assert_eq!(mismatch.judge(0, start), Response::Nothing);
        assert_eq!(mismatch.judge(-3, start), Response::Nothing);
        assert_eq!(mismatch.judge(-3, start), Response::Search);
        for _ in 0..CALM {
            mismatch.judge(0, start);
        }
        assert_eq!(
            mismatch.judge(-3, start),
            Response::Search,
            "the count was right for a long time"
        );
    }

    /// Counts the searches when the counts are compared every second and each difference has
    /// vanished when it is searched for.
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
    fn a_count_that_flaps_causes_few_searches() {
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
    fn more_at_clerk_is_searched_for_if_it_lasts() {
        let (mut mismatch, start) = (CountMismatch::default(), Instant::now());
        assert_eq!(mismatch.judge(1, start), Response::Nothing);
        assert_eq!(mismatch.judge(0, after(start, 5)), Response::Nothing);
        assert_eq!(mismatch.judge(1, after(start, 6)), Response::Nothing);
        assert_eq!(mismatch.judge(2, after(start, 16)), Response::Search);
    }

    #[test]
    fn a_user_that_is_counted_but_not_found_leads_to_a_full_sync() {
        let (mut mismatch, start) = (CountMismatch::default(), Instant::now());
        mismatch.not_explained(1, start);
        assert_eq!(mismatch.judge(1, start), Response::Nothing);
        assert_eq!(mismatch.judge(0, start), Response::FullSync);
        assert_eq!(mismatch.judge(0, start), Response::Nothing);
    }
}
