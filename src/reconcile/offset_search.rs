//! The search for missing objects in a long list that can only be read by offset: which pages show
//! where the list and the mirror drift apart.
//!
//! Both are in the order of `created_at`. If objects are gone from the list, each object after them
//! has a smaller offset in it than its rank among the mirror's rows. This shift is compared at two
//! places: where it differs, something between them is gone. Each page halves what is left, so that
//! one missing object among 100,000 takes eight pages. Pages of different parts are asked for side by
//! side: what happens to the list meanwhile misleads a long search.

use std::collections::VecDeque;

use crate::resource::MAX_PAGE;

/// Objects by which a page overlaps with what lies around the part that it is asked for.
const OVERLAP: u64 = 10;

/// Pages that one search may take. What is left is found by the walk that never ends.
const MAX_PAGES: u32 = 64;

/// A part of the list, between two offsets with different shifts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    from: u64,
    to: u64,
    shift_from: i64,
    shift_to: i64,
}

/// How far objects of a page are shifted: their rank in the mirror less their offset in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageShift {
    /// At the page's beginning.
    pub first: i64,
    /// After its end.
    pub last: i64,
}

/// A search that is under way.
#[derive(Debug)]
pub struct OffsetSearch {
    /// The parts that are not searched yet, in the order in which they are.
    parts: VecDeque<Part>,
    /// The parts that pages were asked for, and whether the page covers it.
    asked: VecDeque<(Part, bool)>,
    pages: u32,
}

impl OffsetSearch {
    /// A search in a list of `total` objects, of which the mirror has `rows`.
    pub fn new(total: u64, rows: u64) -> Self {
        let shift_to = rows as i64 - total as i64;
        Self {
            parts: VecDeque::from([Part {
                from: 0,
                to: total,
                shift_from: 0,
                shift_to,
            }]),
            asked: VecDeque::new(),
            pages: 0,
        }
    }

    /// Returns the offsets of the next pages to ask for, `most` at a time; none at the end of the search.
    pub fn next_offsets(&mut self, most: usize) -> Vec<u64> {
        let mut offsets = Vec::new();
        while offsets.len() < most
            && self.pages < MAX_PAGES
            && let Some(part) = self.parts.pop_front()
        {
            if part.shift_from == part.shift_to {
                continue;
            }
            self.pages += 1;
            let length = part.to.saturating_sub(part.from);
            let page = u64::from(MAX_PAGE);
            let is_covered = length + 2 * OVERLAP <= page;
            self.asked.push_back((part, is_covered));
            offsets.push(match is_covered {
                true => part.from.saturating_sub(OVERLAP),
                false => part.from + length.saturating_sub(page) / 2,
            });
        }
        offsets
    }

    /// Takes the shift of the next page that was asked for, which begins at `offset` and has `length`
    /// objects; `None` if the mirror knows none of them.
    pub fn receive(&mut self, offset: u64, length: u64, shift: Option<PageShift>) {
        let (Some((part, false)), Some(shift)) = (self.asked.pop_front(), shift) else {
            return;
        };
        self.parts.push_back(Part {
            to: offset,
            shift_to: shift.first,
            ..part
        });
        if offset + length < part.to {
            self.parts.push_back(Part {
                from: offset + length,
                shift_from: shift.last,
                ..part
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Searches for rows that are not on the list. Returns those that some page shows as missing,
    /// and the number of pages.
    fn search(rows: u64, gone: &BTreeSet<u64>) -> (BTreeSet<u64>, u32) {
        let list: Vec<u64> = (0..rows).filter(|row| !gone.contains(row)).collect();
        let mut search = OffsetSearch::new(list.len() as u64, rows);
        let (mut found, mut pages) = (BTreeSet::new(), 0);
        let mut asked = VecDeque::new();
        while let Some(offset) = next(&mut search, &mut asked) {
            pages += 1;
            let begin = (offset as usize).min(list.len());
            let end = (begin + MAX_PAGE as usize).min(list.len());
            let page = &list[begin..end];
            let (first, last) = match page {
                [] => (rows, rows),
                [first, .., last] => (*first, *last),
                [only] => (*only, *only),
            };
            // What lies between two objects of the page, or at an end of the list, is shown.
            let from = if offset == 0 { 0 } else { first };
            let to = if end == list.len() { rows } else { last };
            found.extend((from..to).filter(|row| gone.contains(row)));
            let shift = (!page.is_empty()).then(|| PageShift {
                first: first as i64 - offset as i64,
                last: last as i64 + 1 - end as i64,
            });
            search.receive(offset, page.len() as u64, shift);
        }
        (found, pages)
    }

    /// The next offset of those that are asked for side by side.
    fn next(search: &mut OffsetSearch, asked: &mut VecDeque<u64>) -> Option<u64> {
        if asked.is_empty() {
            asked.extend(search.next_offsets(8));
        }
        asked.pop_front()
    }

    #[test]
    fn one_among_a_hundred_thousand_takes_eight_pages() {
        for row in [0, 1, 499, 500, 50_000, 99_999] {
            let (found, pages) = search(100_000, &BTreeSet::from([row]));
            assert_eq!(found, BTreeSet::from([row]));
            assert!(pages <= 8, "{row}: {pages}");
        }
    }

    #[test]
    fn nothing_is_asked_for_if_nothing_is_missing() {
        assert!(OffsetSearch::new(7_000, 7_000).next_offsets(8).is_empty());
    }

    #[test]
    fn no_server_keeps_a_search_for_ever() {
        let mut search = OffsetSearch::new(1_000_000, 900_000);
        let (mut pages, mut asked) = (0, VecDeque::new());
        while let Some(offset) = next(&mut search, &mut asked) {
            pages += 1;
            search.receive(
                offset,
                500,
                Some(PageShift {
                    first: 7 - i64::from(pages),
                    last: -9,
                }),
            );
        }
        assert!(pages <= MAX_PAGES, "{pages}");
    }

    proptest! {
        #[test]
        fn every_missing_object_is_shown(rows in 501_u64..6_000, gone in prop::collection::btree_set(0_u64..6_000, 1..5)) {
            let gone: BTreeSet<u64> = gone.into_iter().filter(|row| *row < rows).collect();
            let (found, pages) = search(rows, &gone);
            prop_assert_eq!(found, gone);
            prop_assert!(pages <= MAX_PAGES);
        }
    }
}
