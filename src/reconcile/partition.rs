//! Splits the list into ranges of `created_at` with about the same number of objects each, to be
//! walked side by side.

use serde::{Deserialize, Serialize};

use super::{
    range::Range,
    walk::{Position, Walk},
};
use crate::resource::MAX_PAGE;

/// Partitions per walk: with several short ones for each, all walks end at about the same time.
const PER_WALK: usize = 2;

/// Objects per partition, at least. A smaller one is not worth its own last request.
const MIN_OBJECTS: u64 = 8 * MAX_PAGE as u64;

/// Rounds of counts that show well enough how objects are spread.
const ROUNDS: u32 = 12;

/// A range of the list, and how far its walk has come. The end of one is the beginning of the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// What is walked.
    pub range: Range,
    /// Where to continue; `None` if nothing is walked yet.
    pub position: Option<Position>,
    /// Objects met in it, once it is walked to its end. `None` for the last partition, as new
    /// objects are created in it.
    pub done: Option<u64>,
}

impl Partition {
    /// Returns the walk over it, which continues where the last one was interrupted.
    pub fn walk(&self) -> Walk {
        match &self.position {
            Some(position) => Walk::resume(self.range, position.clone()),
            None => Walk::over(self.range),
        }
    }

    /// Returns how many of its objects are known to be met.
    pub fn seen(&self) -> u64 {
        let walked = self.position.as_ref().map_or(0, |position| position.seen);
        self.done.unwrap_or(walked)
    }
}

/// Returns into how many partitions `count` objects are split for this many walks side by side.
pub fn parts(count: u64, walks: usize) -> usize {
    let most = if walks > 1 { walks * PER_WALK } else { 1 };
    usize::try_from(count / MIN_OBJECTS).unwrap_or(most).clamp(1, most)
}

/// Returns the partitions between these moments, with nothing walked yet.
pub fn split_at(bounds: &[i64]) -> Vec<Partition> {
    let ends = bounds.iter().map(|at| Some(*at));
    let ranges = std::iter::once(None).chain(ends.clone()).zip(ends.chain([None]));
    ranges
        .map(|(from, before)| Partition {
            range: Range { from, before },
            position: None,
            done: None,
        })
        .collect()
}

/// How many objects Clerk has before some moments, learned by counts, to split a list that the
/// mirror does not know yet.
#[derive(Debug)]
pub struct Histogram {
    /// A moment in Unix milliseconds, and how many objects were created before it; both ascending.
    marks: Vec<(i64, u64)>,
    parts: u64,
    rounds: u32,
}

impl Histogram {
    /// A histogram of `count` objects between the first one and a moment after the last.
    pub fn new(first: i64, after: i64, count: u64, parts: usize) -> Self {
        Self {
            marks: vec![(first, 0), (after.max(first), count)],
            parts: parts.max(1) as u64,
            rounds: 0,
        }
    }

    fn count(&self) -> u64 {
        self.marks.last().map_or(0, |(_, count)| *count)
    }

    /// Returns the moments to be counted next: the middles of ranges that have more objects than a
    /// partition, at most as many as there are partitions. Empty if the spread is known well
    /// enough, or enough was counted.
    pub fn open(&self) -> Vec<i64> {
        if self.rounds >= ROUNDS {
            return Vec::new();
        }
        let most = self.count() / self.parts;
        let large = self
            .marks
            .windows(2)
            .filter(|pair| pair[1].1 - pair[0].1 > most && pair[1].0 - pair[0].0 > 1);
        large.map(|pair| pair[0].0 + (pair[1].0 - pair[0].0) / 2).collect()
    }

    /// Takes counts. Returns false if they do not grow with time: such a server cannot be used for
    /// this.
    pub fn learn(&mut self, counted: &[(i64, u64)]) -> bool {
        self.rounds += 1;
        self.marks.extend_from_slice(counted);
        self.marks.sort_unstable();
        self.marks.is_sorted_by_key(|(_, users)| *users)
    }

    /// Returns the moments between the partitions: of the counted ones, those nearest to equal
    /// partitions.
    pub fn bounds(&self) -> Vec<i64> {
        let nearest = |part: u64| {
            let wanted = self.count() * part / self.parts;
            self.marks.iter().min_by_key(|(_, users)| users.abs_diff(wanted))
        };
        let mut bounds: Vec<i64> = (1..self.parts)
            .filter_map(nearest)
            .filter(|(_, users)| (1..self.count()).contains(users))
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

    /// Counts until the histogram is known. Returns the sizes of the partitions and the number of
    /// requests.
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
