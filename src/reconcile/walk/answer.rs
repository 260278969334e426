//! What an answer proves, for each way in which it was asked for.

use std::collections::HashSet;

use super::{
    AcceptedPage, ListEntry, Paging, Range, Walk, WalkStep,
    offset::{OVERLAP, OffsetVerdict, PageExpectation, advance, judge},
    ties::id_digest,
};

/// By how much an object may lie before the range on its first page: the bound may include its own
/// moment, and emulators cut times to seconds.
const SLACK_MS: i64 = 1_000;

/// How often a list without an order is read again if it shows new objects and fewer than Clerk
/// counts: it may be shuffled at each request.
const ROUNDS: u32 = 8;

/// A page, compared with what the walk knows.
struct ComparedPage<'p> {
    entries: &'p [ListEntry<'p>],
    /// Positions of the entries that the walk has not accepted before.
    fresh: Vec<usize>,
    /// How many of the entries belong to the range.
    ours: usize,
    /// The page shows an entry of the next range.
    reaches_end: bool,
    /// An entry lies before the bound.
    is_backward: bool,
}

impl Walk {
    pub(super) fn judge_answer(&mut self, entries: &[ListEntry<'_>]) -> WalkStep {
        if self.is_ordered() && !dates(entries).is_sorted() {
            return self.give_up_order();
        }
        let from = self.range.from;
        if from.is_some_and(|from| dates(entries).any(|at| at < from - SLACK_MS)) {
            return WalkStep::CannotPartition;
        }
        let page = self.compare(entries);
        match self.paging {
            Paging::Cursor | Paging::CursorBefore => self.receive_by_cursor(page),
            Paging::Date { offset, expect } => self.receive_by_date(page, offset, expect),
            Paging::Offset { offset, expect } => self.receive_by_offset(page, offset, expect),
            Paging::Unordered { offset } => self.receive_unordered(entries, offset),
        }
    }

    /// Begins again without an order, if the walk is over the whole list.
    fn give_up_order(&mut self) -> WalkStep {
        if self.range != Range::ALL {
            return WalkStep::CannotPartition;
        }
        self.paging = Paging::Unordered { offset: 0 };
        self.seen = 0;
        self.undated.clear();
        WalkStep::Restart
    }

    fn compare<'p>(&self, entries: &'p [ListEntry<'p>]) -> ComparedPage<'p> {
        // The first entry of the next range ends this one, also for entries without a date after
        // it.
        let is_next = |entry: &ListEntry<'_>| {
            entry
                .created_at
                .zip(self.range.before)
                .is_some_and(|(at, before)| at >= before)
        };
        let end = entries.iter().position(is_next);
        let ours = end.unwrap_or(entries.len());
        ComparedPage {
            entries,
            fresh: self.fresh(&entries[..ours]),
            ours,
            reaches_end: end.is_some(),
            is_backward: self.bound.is_some_and(|bound| dates(entries).any(|at| at < bound)),
        }
    }

    fn receive_by_cursor(&mut self, page: ComparedPage<'_>) -> WalkStep {
        let entries = page.entries;
        if self.paging == Paging::Cursor && self.last.is_none() && entries.is_empty() {
            return self.end();
        }
        if !page.is_backward && page.reaches_end {
            return self.accept_last(entries, page.fresh);
        }
        if !page.is_backward && !page.fresh.is_empty() {
            return self.accept(entries, page.fresh);
        }
        // The server obeyed the cursor before: it shows the last object alone, so that there is
        // nothing after it.
        if self.paging == Paging::CursorBefore && self.is_last_alone(entries) {
            return self.end();
        }
        self.try_next_paging();
        WalkStep::Again
    }

    fn receive_by_date(&mut self, page: ComparedPage<'_>, offset: u64, expect: PageExpectation) -> WalkStep {
        if page.is_backward {
            self.try_next_paging();
            return WalkStep::Again;
        }
        let entries = page.entries;
        match judge(
            offset,
            expect,
            self.backs,
            entries.len(),
            page.ours,
            page.fresh.len(),
            false,
        ) {
            OffsetVerdict::Believe if page.reaches_end => self.accept_last(entries, page.fresh),
            // The same again at a larger offset: the server ignores offsets, and the bound shows
            // the last objects alone.
            OffsetVerdict::Believe if page.fresh.is_empty() && self.is_stale(entries) => self.end(),
            OffsetVerdict::Believe if page.fresh.is_empty() => {
                self.backs = 0;
                self.paging = onwards_by_date(offset, entries);
                WalkStep::Again
            }
            OffsetVerdict::Believe => self.accept(entries, page.fresh),
            OffsetVerdict::StepBack(offset, expect) => {
                self.backs += 1;
                self.paging = Paging::Date { offset, expect };
                WalkStep::Again
            }
            OffsetVerdict::End => self.end(),
        }
    }

    fn receive_by_offset(&mut self, page: ComparedPage<'_>, offset: u64, expect: PageExpectation) -> WalkStep {
        let entries = page.entries;
        let (length, ours, fresh) = (entries.len(), page.ours, page.fresh.len());
        let verdict = match judge(offset, expect, self.backs, length, ours, fresh, self.total.is_some()) {
            // The walk has stepped back over the end.
            OffsetVerdict::End if page.ours > 0 && self.has_more(offset, entries) => OffsetVerdict::Believe,
            verdict => verdict,
        };
        match verdict {
            OffsetVerdict::Believe if page.reaches_end || self.is_last_page(offset, entries) => {
                self.accept_last(entries, page.fresh)
            }
            OffsetVerdict::Believe => self.accept_by_offset(entries, page.fresh, offset),
            OffsetVerdict::StepBack(offset, expect) => {
                self.backs += 1;
                self.paging = Paging::Offset { offset, expect };
                WalkStep::Again
            }
            OffsetVerdict::End => self.end(),
        }
    }

    /// Whether no object follows a page, by what its answer says.
    fn is_last_page(&self, offset: u64, entries: &[ListEntry<'_>]) -> bool {
        self.total.is_some_and(|total| offset + entries.len() as u64 >= total)
    }

    /// Whether objects follow a page, by what its answer says.
    fn has_more(&self, offset: u64, entries: &[ListEntry<'_>]) -> bool {
        self.total.is_some_and(|total| offset + (entries.len() as u64) < total)
    }

    /// Takes a page of a list without an order. Each object is met once, and proves nothing about
    /// others.
    fn receive_unordered(&mut self, entries: &[ListEntry<'_>], offset: u64) -> WalkStep {
        self.paging = Paging::Unordered {
            offset: offset + entries.len() as u64,
        };
        let met = &mut self.met;
        let fresh: Vec<usize> = (0..entries.len())
            .filter(|&at| met.insert(id_digest(entries[at].id)))
            .collect();
        if !fresh.is_empty() {
            self.stale_page = None;
            self.has_news = true;
            self.seen += fresh.len() as u64;
            return WalkStep::Page(AcceptedPage {
                fresh,
                ..AcceptedPage::default()
            });
        }
        if !entries.is_empty() && !self.is_stale(entries) {
            return WalkStep::Again;
        }
        let lacks_some = self.limits.counted.is_some_and(|counted| self.seen < counted);
        if !lacks_some || !std::mem::take(&mut self.has_news) || self.rounds >= ROUNDS {
            return self.end();
        }
        self.rounds += 1;
        self.stale_page = None;
        self.paging = Paging::Unordered { offset: 0 };
        WalkStep::Again
    }

    fn accept_by_offset(&mut self, entries: &[ListEntry<'_>], fresh: Vec<usize>, offset: u64) -> WalkStep {
        let step = if !fresh.is_empty() {
            self.accept(entries, fresh)
        } else if self.is_stale(entries) {
            return self.end();
        } else {
            WalkStep::Again
        };
        self.paging = Paging::Offset {
            offset: offset + advance(entries.len()),
            expect: PageExpectation::Overlap,
        };
        self.backs = 0;
        step
    }

    /// Returns the entries of the range that the walk has not accepted before. Entries before the
    /// bound were met, or their `created_at` was set to the past meanwhile; the latter are asked
    /// for by id, or found by the next walk.
    fn fresh(&self, entries: &[ListEntry<'_>]) -> Vec<usize> {
        let mut met = HashSet::new();
        (0..entries.len())
            .filter(|&at| {
                let entry = entries[at];
                let is_after = entry
                    .created_at
                    .is_none_or(|at| self.range.contains(at) && self.bound.is_none_or(|bound| at >= bound));
                let is_known = self.tied.contains(entry.id) || self.undated.contains(entry.id);
                is_after && !is_known && met.insert(entry.id)
            })
            .collect()
    }

    fn is_last_alone(&self, entries: &[ListEntry<'_>]) -> bool {
        matches!(entries, [only] if self.last.as_deref() == Some(only.id))
    }

    /// Whether a page without fresh entries begins as the one before it did, so that larger offsets
    /// lead nowhere: the server ignores offsets, and has shown everything it has.
    fn is_stale(&mut self, entries: &[ListEntry<'_>]) -> bool {
        let first = entries.first().map(|entry| entry.id.to_owned());
        let before = std::mem::replace(&mut self.stale_page, first);
        before == self.stale_page
    }

    /// Returns false if there is no other way left to ask.
    pub(super) fn try_next_paging(&mut self) -> bool {
        self.paging = match self.paging {
            Paging::Cursor if self.before_last.is_some() => Paging::CursorBefore,
            Paging::Cursor | Paging::CursorBefore => {
                self.cursor_failures += 1;
                from_bound()
            }
            Paging::Date { .. } => Paging::Offset {
                offset: self.seen.saturating_sub(OVERLAP),
                expect: PageExpectation::Overlap,
            },
            Paging::Offset { .. } | Paging::Unordered { .. } => return false,
        };
        true
    }
}

fn dates(entries: &[ListEntry<'_>]) -> impl Iterator<Item = i64> {
    entries.iter().filter_map(|entry| entry.created_at)
}

pub(super) fn from_bound() -> Paging {
    Paging::Date {
        offset: 0,
        expect: PageExpectation::Overlap,
    }
}

pub(super) fn onwards_by_date(offset: u64, entries: &[ListEntry<'_>]) -> Paging {
    Paging::Date {
        offset: offset + advance(entries.len()),
        expect: PageExpectation::Overlap,
    }
}
