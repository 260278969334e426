//! Splits the list into stretches of `created_at` with about as many users each, to be walked side by side. Pure.

use serde::{Deserialize, Serialize};

use crate::reconcile::walk::{PAGE, Position, Range, Walk};

/// Stretches for each one that is under way: with short ones, all that are under way end at about the same time.
const FOR_EACH: usize = 2;

/// A shorter stretch is not worth its own last request.
const FEWEST: u64 = 8 * PAGE as u64;

/// Rounds of counts that show well enough how users are spread.
const ROUNDS: u32 = 12;

/// A stretch of the list, and how far its walk has come. The end of one is the beginning of the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// Where it lies.
    pub stretch: Range,
    /// Where to go on; none where nothing is known yet.
    pub position: Option<Position>,
    /// Users met in it, once it is walked to its end; the last one has none, as users may come.
    pub done: Option<u64>,
}

impl Partition {
    /// A walk over it, from where the last one was cut off.
    pub fn walk(&self) -> Walk {
        match &self.position {
            Some(position) => Walk::resume(self.stretch, position.clone()),
            None => Walk::over(self.stretch),
        }
    }

    /// Users known to be met.
    pub fn seen(&self) -> u64 {
        let walked = self.position.as_ref().map_or(0, |position| position.seen);
        self.done.unwrap_or(walked)
    }
}

/// Into how many parts so many users are split, where so many walks may be under way.
pub fn parts(users: u64, walks: usize) -> usize {
    let most = if walks > 1 { walks * FOR_EACH } else { 1 };
    usize::try_from(users / FEWEST).unwrap_or(most).clamp(1, most)
}

/// The parts that these moments leave, nothing of them walked yet.
pub fn at(bounds: &[i64]) -> Vec<Partition> {
    let ends = bounds.iter().map(|at| Some(*at));
    let stretches = std::iter::once(None).chain(ends.clone()).zip(ends.chain([None]));
    stretches
        .map(|(from, before)| Partition {
            stretch: Range { from, before },
            position: None,
            done: None,
        })
        .collect()
}

/// How many users Clerk has before some moments: learnt by counts, to split a list that the mirror does not know yet.
#[derive(Debug)]
pub struct Histogram {
    /// A moment in Unix milliseconds, and how many were created before it; both ascending.
    marks: Vec<(i64, u64)>,
    parts: u64,
    rounds: u32,
}

impl Histogram {
    /// Of so many users between the first one and a moment behind the last.
    pub fn new(first: i64, behind: i64, users: u64, parts: usize) -> Self {
        Self {
            marks: vec![(first, 0), (behind.max(first), users)],
            parts: parts.max(1) as u64,
            rounds: 0,
        }
    }

    fn users(&self) -> u64 {
        self.marks.last().map_or(0, |(_, users)| *users)
    }

    /// The moments to be counted next: the middles of stretches that hold more than a part, not more than there are parts. Empty if
    /// that is known well enough, or enough was counted.
    pub fn open(&self) -> Vec<i64> {
        if self.rounds >= ROUNDS {
            return Vec::new();
        }
        let most = self.users() / self.parts;
        let large = self
            .marks
            .windows(2)
            .filter(|pair| pair[1].1 - pair[0].1 > most && pair[1].0 - pair[0].0 > 1);
        large.map(|pair| pair[0].0 + (pair[1].0 - pair[0].0) / 2).collect()
    }

    /// Takes counts. False where they do not grow with time: nothing can be learnt from such a server.
    pub fn learn(&mut self, counted: &[(i64, u64)]) -> bool {
        self.rounds += 1;
        self.marks.extend_from_slice(counted);
        self.marks.sort_unstable();
        self.marks.is_sorted_by_key(|(_, users)| *users)
    }

    /// The moments between the parts: of those counted, the nearest to where the parts would be equal.
    pub fn bounds(&self) -> Vec<i64> {
        let nearest = |part: u64| {
            let wanted = self.users() * part / self.parts;
            self.marks.iter().min_by_key(|(_, users)| users.abs_diff(wanted))
        };
        let mut bounds: Vec<i64> = (1..self.parts)
            .filter_map(nearest)
            .filter(|(_, users)| (1..self.users()).contains(users))
            .map(|(at, _)| *at)
            .collect();
        bounds.dedup();
        bounds
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Counts until the histogram is known; returns the parts' sizes and the number of requests.
    fn split(times: &[i64], parts: usize) -> (Vec<usize>, usize) {
        let before = |at: i64| times.partition_point(|time| *time < at);
        let (first, last) = (times[0], times[times.len() - 1]);
        let mut histogram = Histogram::new(first, last + 1_000, times.len() as u64, parts);
        let mut requests = 0;
        for _ in 0..64 {
            let open = histogram.open();
            requests += open.len();
            let counted: Vec<_> = open.into_iter().map(|at| (at, before(at) as u64)).collect();
            if counted.is_empty() || !histogram.learn(&counted) {
                break;
            }
        }
        let mut ranks: Vec<usize> = histogram.bounds().into_iter().map(before).collect();
        ranks.insert(0, 0);
        ranks.push(times.len());
        (ranks.windows(2).map(|pair| pair[1] - pair[0]).collect(), requests)
    }

    #[test]
    fn growth_over_years_is_split_evenly_for_few_requests() {
        let year = 365.0 * 24.0 * 3_600_000.0;
        // Twice as many each year, for eight years.
        let times: Vec<i64> = (0..100_000)
            .map(|n| ((1.0 + f64::from(n) / 400.0).log2() * year) as i64)
            .collect();
        let (sizes, requests) = split(&times, 32);
        assert_eq!(sizes.iter().sum::<usize>(), 100_000);
        assert!(sizes.iter().all(|size| *size < 2 * 100_000 / 32), "{sizes:?}");
        assert!(requests <= 80, "{requests}");
    }

    #[test]
    fn users_of_one_moment_are_one_part() {
        let (sizes, _) = split(&[7; 50_000], 8);
        assert_eq!(sizes, [50_000]);
    }

    #[test]
    fn counts_that_do_not_grow_are_noticed() {
        let mut histogram = Histogram::new(0, 1_000, 100, 4);
        assert!(!histogram.learn(&[(250, 60), (500, 30)]));
    }

    proptest! {
        #[test]
        fn no_server_is_asked_for_counts_for_ever(
            counts in prop::collection::vec(0u64..200_000, 1..50), users in 8_000u64..200_000, parts in 2usize..40,
        ) {
            let mut histogram = Histogram::new(0, 1 << 40, users, parts);
            let mut counts = counts.iter().cycle();
            let mut requests = 0;
            loop {
                let open = histogram.open();
                prop_assert!(open.len() <= parts);
                requests += open.len();
                let counted: Vec<(i64, u64)> = open.into_iter().zip(counts.by_ref().copied()).collect();
                if counted.is_empty() || !histogram.learn(&counted) {
                    break;
                }
            }
            prop_assert!(requests <= 12 * parts);
        }
    }

    #[test]
    fn few_users_are_not_split() {
        assert_eq!(parts(3_999, 16), 1);
        assert_eq!(parts(10_000, 16), 2);
        assert_eq!(parts(1_000_000, 16), 32);
        assert_eq!(parts(1_000_000, 1), 1);
    }

    proptest! {
        #[test]
        fn every_split_tiles_all_time(mut times in prop::collection::vec(0i64..2_000, 1..300), parts in 1usize..20) {
            times.sort_unstable();
            let (sizes, _) = split(&times, parts);
            prop_assert_eq!(sizes.iter().sum::<usize>(), times.len());
            prop_assert!(sizes.len() <= parts && sizes.iter().all(|size| *size > 0));
        }
    }
}
