//! The search for missing objects in a long list that can only be read by offset: which pages show
//! where the list and the mirror drift apart.
//!
//! Both are in the order of `created_at`. Objects of a few places in the list, asked for side by side,
//! say how many objects come before a moment; the mirror says how many should. Parts of the list with
//! as many objects as expected are left alone, and the others are divided further, until one page
//! holds the part.

use super::range::Range;
use crate::resource::MAX_PAGE;

/// Objects that are asked for at a place. Where two of them differ in `created_at`, the list can be
/// divided, whatever the order of objects of the same moment is.
pub const PROBE: u32 = 20;

/// Objects by which a page overlaps with what lies around the part that it is to hold.
const OVERLAP: u64 = 10;

/// Places of a part that are asked for at a time, at most.
const PLACES: usize = 3;

/// Requests that one search may take. What is left is found by the walk that never ends.
const MAX_REQUESTS: usize = 64;

/// What to ask for next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// The offset of the first object.
    pub offset: u64,
    /// The range that the page is to hold; `None` if [`PROBE`] objects are enough.
    pub holds: Option<Range>,
}

/// Where the list can be divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boundary {
    /// How many objects come before it.
    pub offset: u64,
    /// They were created before this moment, in Unix milliseconds, and the others at it or later.
    pub at: i64,
}

impl Boundary {
    /// The first boundary among objects from an offset on, of which `created_at` is given.
    pub fn among(offset: u64, created_at: &[i64]) -> Option<Self> {
        let first = created_at.windows(2).position(|pair| pair[0] < pair[1])? + 1;
        created_at.is_sorted().then(|| Self {
            offset: offset + first as u64,
            at: created_at[first],
        })
    }
}

/// A part of the list, from one offset to before another.
#[derive(Debug, Clone, Copy)]
struct Part {
    from: u64,
    to: u64,
    range: Range,
    /// How many objects it has less than expected.
    missing: i64,
    /// Whether it was asked for. It is not asked for again.
    is_asked: bool,
}

/// A search that is under way.
#[derive(Debug)]
pub struct OffsetSearch {
    /// In the order of the list.
    parts: Vec<Part>,
    requests: usize,
}

impl OffsetSearch {
    /// A search in a list of `total` objects that is expected to have another number of them.
    pub fn new(total: u64, expected: i64) -> Self {
        let all = Part {
            from: 0,
            to: total,
            range: Range::ALL,
            missing: expected - total as i64,
            is_asked: false,
        };
        Self {
            parts: vec![all],
            requests: 0,
        }
    }

    /// Returns what to ask for next, side by side: `most` questions, or those of one part. At the end of
    /// the search, there are none. Small parts come first, so that a search that ends early has found
    /// something.
    pub fn next_questions(&mut self, most: usize) -> Vec<Question> {
        let mut open: Vec<&mut Part> = self.parts.iter_mut().filter(|part| part.is_open()).collect();
        open.sort_by_key(|part| part.length());
        let places = (most / open.len().max(1)).clamp(1, PLACES);
        let mut questions = Vec::new();
        for part in open {
            let of_part = part.questions(places);
            let are_too_many = !questions.is_empty() && questions.len() + of_part.len() > most;
            if are_too_many || self.requests + of_part.len() > MAX_REQUESTS {
                break;
            }
            self.requests += of_part.len();
            part.is_asked = true;
            questions.extend(of_part);
        }
        questions
    }

    /// Returns the range of the part that a boundary divides, up to there. The mirror is to say how many
    /// objects are expected in it. `None` if it divides no part, as the list has changed.
    pub fn range_before(&self, boundary: Boundary) -> Option<Range> {
        let part = self.parts.iter().find(|part| part.has_inside(boundary))?;
        let [before, _] = part.range.split(boundary.at);
        Some(before)
    }

    /// Divides a part at a boundary, with the number of objects that are expected in the part before it.
    pub fn divide(&mut self, boundary: Boundary, expected: i64) {
        let Some(at) = self.parts.iter().position(|part| part.has_inside(boundary)) else {
            return;
        };
        let part = self.parts[at];
        let [before, after] = part.range.split(boundary.at);
        let missing = expected - (boundary.offset - part.from) as i64;
        let parts = [
            Part {
                to: boundary.offset,
                range: before,
                missing,
                is_asked: false,
                ..part
            },
            Part {
                from: boundary.offset,
                range: after,
                missing: part.missing - missing,
                is_asked: false,
                ..part
            },
        ];
        self.parts.splice(at..=at, parts);
    }
}

impl Part {
    /// Whether something in it differs, and it was not asked for yet.
    fn is_open(&self) -> bool {
        self.missing != 0 && !self.is_asked
    }

    fn length(&self) -> u64 {
        self.to.saturating_sub(self.from)
    }

    /// What to ask for: the whole part if it fits on a page, or some places that divide it evenly.
    fn questions(&self, places: usize) -> Vec<Question> {
        let length = self.length();
        if length + 2 * OVERLAP <= u64::from(MAX_PAGE) {
            return vec![Question {
                offset: self.from.saturating_sub(OVERLAP),
                holds: Some(self.range),
            }];
        }
        let places = places as u64;
        let offset = |n: u64| self.from + length * n / (places + 1) - u64::from(PROBE) / 2;
        let questions = (1..=places).map(|n| Question {
            offset: offset(n),
            holds: None,
        });
        questions.collect()
    }

    /// Whether a boundary is within the part, and not at its ends.
    fn has_inside(&self, boundary: Boundary) -> bool {
        self.from < boundary.offset
            && boundary.offset < self.to
            && self.range.contains(boundary.at)
            && self.range.from != Some(boundary.at)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Searches a list without some of the mirror's rows, of which `created_at` is given. Returns the
    /// rows that were found missing, how many requests that took, and in how many rounds.
    fn search(rows: &[i64], gone: &[usize]) -> (BTreeSet<usize>, usize, usize) {
        let list: Vec<(usize, i64)> = (0..)
            .zip(rows.iter().copied())
            .filter(|(row, _)| !gone.contains(row))
            .collect();
        let expected = |range: Range| rows.iter().filter(|at| range.contains(**at)).count() as i64;
        let mut search = OffsetSearch::new(list.len() as u64, expected(Range::ALL));
        let (mut found, mut requests, mut rounds) = (BTreeSet::new(), 0, 0);
        loop {
            let questions = search.next_questions(8);
            if questions.is_empty() {
                return (found, requests, rounds);
            }
            requests += questions.len();
            rounds += 1;
            for Question { offset, holds } in questions {
                let begin = (offset as usize).min(list.len());
                let limit = holds.map_or(PROBE, |_| MAX_PAGE) as usize;
                let page = &list[begin..(begin + limit).min(list.len())];
                if let Some(range) = holds {
                    let shown: BTreeSet<usize> = page.iter().map(|(row, _)| *row).collect();
                    let judged = (0..rows.len()).filter(|row| range.contains(rows[*row]));
                    found.extend(judged.filter(|row| !shown.contains(row)));
                    continue;
                }
                let dates: Vec<i64> = page.iter().map(|(_, at)| *at).collect();
                if let Some(boundary) = Boundary::among(offset, &dates)
                    && let Some(range) = search.range_before(boundary)
                {
                    search.divide(boundary, expected(range));
                }
            }
        }
    }

    /// Rows of which each was created at another moment.
    fn rows(number: i64) -> Vec<i64> {
        (0..number).map(|row| row * 10).collect()
    }

    #[test]
    fn one_among_a_hundred_thousand_takes_thirteen_requests_in_five_rounds() {
        for row in [0, 1, 499, 500, 50_000, 99_999] {
            let (found, requests, rounds) = search(&rows(100_000), &[row]);
            assert_eq!(found, BTreeSet::from([row]));
            assert!(requests <= 13 && rounds <= 5, "{row}: {requests} in {rounds}");
        }
    }

    #[test]
    fn five_scattered_ones_take_less_than_a_search_may() {
        let gone = [7, 20_500, 50_000, 77_777, 99_990];
        let (found, requests, rounds) = search(&rows(100_000), &gone);
        assert_eq!(found, BTreeSet::from(gone));
        assert!(requests <= 40 && rounds <= 8, "{requests} in {rounds}");
    }

    #[test]
    fn a_search_for_more_than_it_can_find_finds_some() {
        for number in [12, 50, 1_000] {
            let gone: Vec<usize> = (0..number).map(|n| n * 99_991 / number + 5).collect();
            let (found, requests, _) = search(&rows(100_000), &gone);
            assert!(
                found.len() >= 6 && requests <= MAX_REQUESTS,
                "{} of {number}",
                found.len()
            );
        }
    }

    #[test]
    fn nothing_is_asked_for_if_nothing_is_missing() {
        assert_eq!(OffsetSearch::new(7_000, 7_000).next_questions(8), []);
    }

    #[test]
    fn objects_of_one_moment_are_not_divided() {
        // An import of 400 members, all in the same millisecond, and one of them is gone.
        let mut rows = rows(10_000);
        rows[5_000..5_400].fill(50_000);
        let (found, ..) = search(&rows, &[5_123]);
        assert_eq!(found, BTreeSet::from([5_123]));
        // More than a page: the walk that never ends finds out.
        rows[5_000..7_000].fill(50_000);
        let (found, requests, _) = search(&rows, &[5_123]);
        assert!(found.is_empty() && requests < 30, "{found:?}, {requests}");
    }

    #[test]
    fn a_boundary_is_where_moments_differ_in_a_sorted_list() {
        let boundary = |offset, at| Some(Boundary { offset, at });
        assert_eq!(Boundary::among(40, &[3, 3, 5, 9]), boundary(42, 5));
        assert_eq!(Boundary::among(0, &[1, 2]), boundary(1, 2));
        for none in [&[][..], &[4], &[4, 4], &[4, 6, 5]] {
            assert_eq!(Boundary::among(40, none), None);
        }
    }

    #[test]
    fn a_boundary_that_the_list_has_moved_away_divides_nothing() {
        let mut search = OffsetSearch::new(10_000, 10_001);
        search.divide(Boundary { offset: 5_000, at: 50 }, 5_001);
        for (offset, at) in [(0, 1), (4_000, 60), (6_000, 40), (5_000, 50), (10_000, 99)] {
            assert_eq!(search.range_before(Boundary { offset, at }), None, "{offset}, {at}");
        }
    }

    #[test]
    fn no_server_keeps_a_search_for_ever() {
        let mut search = OffsetSearch::new(1_000_000, 900_000);
        let mut requests = 0;
        loop {
            let questions = search.next_questions(8);
            if questions.is_empty() {
                break;
            }
            requests += questions.len();
            for Question { offset, .. } in questions {
                let at = offset as i64;
                if let Some(range) = search.range_before(Boundary { offset, at }) {
                    search.divide(Boundary { offset, at }, at - range.from.unwrap_or(0) - 1);
                }
            }
        }
        assert!((50..=MAX_REQUESTS).contains(&requests), "{requests}");
    }
}
