//! The walk over all objects of a list by ascending `created_at`: which page to ask for next, and
//! what a page proves. Pure, so that each way in which a list can mislead is a table test.
//!
//! Clerk documents a cursor (`starting_after`) for this order. What happens when the cursor's
//! object is deleted meanwhile is not documented, emulators ignore cursors and filters, and offsets
//! drift when objects are deleted. So each page is compared with what the walk knows: nothing may
//! lie before its bound. If one way of asking misleads, the next one is taken: the cursor, the
//! cursor before it, a bound of `created_at`, overlapping offsets.

mod accept;
mod answer;
mod limits;
mod offset;
mod ties;

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::{ListEntry, Unreadable, range::Range};
use crate::resource::{Digest, MAX_PAGE};
use limits::{AnswerLimits, PageSize};
use offset::{OVERLAP, PageExpectation, advance};
pub use ties::{TieRereads, TiedMoment};

/// Pages in a row that the cursor may fail to give; after that, the walk does not use it any more.
const CURSOR_TRIES: u32 = 2;

/// A request for a page, in ascending order of `created_at`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListQuery {
    /// The cursor: the page begins after this object.
    pub after: Option<String>,
    /// Exclusive bound of `created_at` in Unix milliseconds: the range's beginning, or the walk's
    /// bound.
    pub created_after: Option<i64>,
    /// Objects to skip; zero if `after` is given.
    pub offset: u64,
}

/// What a page means for the walk.
#[derive(Debug, PartialEq, Eq)]
pub enum WalkStep {
    /// The page continues the walk.
    Page(AcceptedPage),
    /// The page proves nothing. Ask again: the next query differs.
    Again,
    /// The list has no order. It is read again from its beginning, and shows objects again.
    Restart,
    /// The server has sent more answers than any finite list needs: its list has no end.
    Endless,
    /// The range has no more objects. Judge the rest of its rows in the mirror against `carried`.
    End(AcceptedPage),
    /// The list ignores the range or the order: this server can only be walked as a whole.
    CannotPartition,
}

/// The part of a page that continues the walk.
#[derive(Debug, PartialEq, Eq, Default)]
pub struct AcceptedPage {
    /// Positions of the entries that the walk meets for the first time.
    pub fresh: Vec<usize>,
    /// The range that can now be judged: rows of the mirror in it that are neither fresh nor
    /// carried are missing at Clerk. `None` if the page allows no such judgement.
    pub judged: Option<Range>,
    /// Ids that were accepted before and are also in the judged range.
    pub carried: HashSet<String>,
}

/// Where a walk can be continued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Id of the last object before the bound.
    pub after: String,
    /// That object's `created_at`, in Unix milliseconds.
    pub after_created_at: i64,
    /// All rows of the mirror before this moment, in Unix milliseconds, are judged.
    pub judged_to: i64,
    /// Objects met up to there.
    pub seen: u64,
}

/// How the next page is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Paging {
    Cursor,
    CursorBefore,
    /// By a bound of `created_at`, with an offset among the objects that share the bound.
    Date {
        offset: u64,
        expect: PageExpectation,
    },
    /// By offset from the beginning.
    Offset {
        offset: u64,
        expect: PageExpectation,
    },
    /// By offset through a list that ignores the order: its objects can be read, but absence from
    /// it proves nothing.
    Unordered {
        offset: u64,
    },
}

/// The state of a walk. It holds the ids that share the last `created_at`, and nothing that grows
/// with the number of objects, unless the list has no order, or objects have no readable
/// `created_at`.
#[derive(Debug, Clone)]
pub struct Walk {
    /// What is walked. An object after it shows its end, not a filter.
    range: Range,
    paging: Paging,
    /// `created_at` of the last accepted object.
    bound: Option<i64>,
    /// Ids of accepted objects at the bound.
    tied: HashSet<String>,
    last: Option<String>,
    before_last: Option<String>,
    judged_to: Option<i64>,
    position: Option<Position>,
    seen: u64,
    cursor_failures: u32,
    /// First id of the last page by offset that had no fresh entry.
    stale_page: Option<String>,
    /// Ids of objects without a readable `created_at`: the bound does not show that they were met.
    undated: HashSet<String>,
    /// Objects of a list without an order.
    met: HashSet<Digest>,
    rounds: u32,
    /// Whether this round through such a list has shown a new object.
    has_news: bool,
    /// When the walk began, by Clerk's clock in Unix milliseconds. Objects created later are left
    /// to the incremental sync.
    began: Option<i64>,
    page_size: PageSize,
    limits: AnswerLimits,
    /// How many objects the whole list has, by the last answer; `None` if it does not say.
    total: Option<u64>,
    /// How often the walk has stepped back in a row.
    backs: u32,
    tied_moments: Vec<TiedMoment>,
    /// Whether objects at the bound were on more than one page, or several at the end of one.
    is_bound_tied: bool,
}

impl Default for Walk {
    fn default() -> Self {
        Self::new()
    }
}

impl Walk {
    /// A walk over the whole list.
    pub fn new() -> Self {
        Self::over(Range::ALL)
    }

    /// A walk over a range of `created_at`.
    pub fn over(range: Range) -> Self {
        Self {
            range,
            paging: Paging::Cursor,
            bound: None,
            tied: HashSet::new(),
            last: None,
            before_last: None,
            judged_to: range.from,
            position: None,
            seen: 0,
            cursor_failures: 0,
            stale_page: None,
            undated: HashSet::new(),
            met: HashSet::new(),
            rounds: 0,
            has_news: false,
            began: None,
            page_size: PageSize::default(),
            limits: AnswerLimits::default(),
            total: None,
            backs: 0,
            tied_moments: Vec::new(),
            is_bound_tied: false,
        }
    }

    /// Returns the same walk, which ends at the moment when it began (by Clerk's clock, in Unix
    /// milliseconds). With objects created between any two requests, it would never end otherwise.
    /// `count` is how many objects Clerk counts.
    #[must_use]
    pub fn began(self, at: i64, count: Option<u64>) -> Self {
        Self {
            began: Some(at),
            limits: AnswerLimits::of(count),
            ..self
        }
    }

    /// Returns the same walk, over a list of about as many objects.
    #[must_use]
    pub fn expecting(self, count: u64) -> Self {
        let limits = AnswerLimits::of(Some(count));
        Self { limits, ..self }
    }

    /// A walk that continues an earlier one over the same range.
    pub fn resume(range: Range, position: Position) -> Self {
        Self {
            bound: Some(position.after_created_at),
            tied: HashSet::from([position.after.clone()]),
            last: Some(position.after.clone()),
            judged_to: Some(position.judged_to),
            seen: position.seen,
            position: Some(position),
            ..Self::over(range)
        }
    }

    /// Returns the same walk, which reads the list by offset from the beginning: the list has neither
    /// a cursor nor filters by time.
    #[must_use]
    pub fn by_offset(self) -> Self {
        Self {
            paging: Paging::Offset {
                offset: self.seen.saturating_sub(OVERLAP),
                expect: PageExpectation::Overlap,
            },
            ..self
        }
    }

    /// Takes note how many objects the whole list has, as an answer says that [`Self::receive`] takes
    /// next.
    pub fn note_total(&mut self, total: Option<u64>) {
        self.total = total;
    }

    /// Returns the page to ask for.
    pub fn query(&self) -> ListQuery {
        // All parameters except the cursor must stay the same from page to page. Source:
        // documented.
        let mut query = ListQuery {
            after: None,
            created_after: self.range.from.map(|from| from - 1),
            offset: 0,
        };
        match self.paging {
            Paging::Cursor => query.after = self.last.clone(),
            Paging::CursorBefore => query.after = self.before_last.clone(),
            Paging::Date { offset, .. } => {
                query.created_after = self.bound.or(self.range.from).map(|bound| bound - 1);
                query.offset = offset;
            }
            Paging::Offset { offset, .. } | Paging::Unordered { offset } => query.offset = offset,
        }
        query
    }

    /// Returns the page to ask for, and those after it if each is full, as far as the list has more
    /// objects: at most `most` pages. Only pages by offset are known before the one before is there.
    pub fn queries(&self, most: usize) -> Vec<ListQuery> {
        let mut queries = vec![self.query()];
        if let Paging::Offset { mut offset, .. } = self.paging {
            let step = advance(self.limit() as usize);
            while queries.len() < most && self.total.is_some_and(|total| offset + u64::from(self.limit()) < total) {
                offset += step;
                queries.push(ListQuery { offset, ..self.query() });
            }
        }
        queries
    }

    /// Returns how many objects to ask for.
    pub fn limit(&self) -> u32 {
        self.page_size.limit
    }

    /// Returns the number of objects met so far.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Whether an object could not be read and was stepped over.
    pub fn has_left_out(&self) -> bool {
        self.page_size.has_stepped_over
    }

    /// Takes the moments at which objects may have slipped between two pages.
    pub fn take_tied_moments(&mut self) -> Vec<TiedMoment> {
        std::mem::take(&mut self.tied_moments)
    }

    /// Returns where to continue after an interruption; `None` before the first bound was passed.
    pub fn position(&self) -> Option<&Position> {
        self.position.as_ref()
    }

    /// Whether the list has kept the order, so that absence from it can be noticed.
    pub fn is_ordered(&self) -> bool {
        !matches!(self.paging, Paging::Unordered { .. })
    }

    /// Whether the walk does not use the cursor any more, and reads by dates or offsets.
    pub fn lost_cursor(&self) -> bool {
        self.cursor_failures >= CURSOR_TRIES
    }

    /// Takes note that the server refused the query itself (404 or 422). Returns false if there is
    /// no other way left to ask.
    pub fn refused(&mut self) -> bool {
        self.limits.count(false);
        if (self.paging == Paging::Cursor && self.last.is_none()) || self.limits.are_exceeded(self.seen) {
            return false;
        }
        self.try_next_paging()
    }

    /// Takes note that the answer to [`Self::query`] cannot be read. Smaller pages are asked for,
    /// down to the one object that is the cause, which is stepped over.
    pub fn unreadable(&mut self) -> Unreadable {
        self.limits.count(false);
        if self.limits.are_exceeded(self.seen) {
            return Unreadable::Broken;
        }
        let next = self.page_size.fail();
        if next == Unreadable::SteppedOver {
            self.step_over();
        }
        next
    }

    /// Steps over the next object, which cannot be read even alone. This judges nothing: missing
    /// objects are asked for by id.
    fn step_over(&mut self) {
        let expect = PageExpectation::Gap;
        self.paging = match self.paging {
            Paging::Cursor | Paging::CursorBefore => Paging::Date {
                offset: self.tied.len() as u64 + 1,
                expect,
            },
            Paging::Date { offset, .. } => Paging::Date {
                offset: offset.max(self.tied.len() as u64) + 1,
                expect,
            },
            Paging::Offset { offset, .. } => Paging::Offset {
                offset: offset + 1,
                expect,
            },
            Paging::Unordered { offset } => Paging::Unordered { offset: offset + 1 },
        };
    }

    /// Takes the answer to [`Self::query`].
    pub fn receive(&mut self, entries: &[ListEntry<'_>]) -> WalkStep {
        let step = self.judge_answer(entries);
        let has_fresh = matches!(&step, WalkStep::Page(page) if !page.fresh.is_empty());
        self.page_size.succeed(has_fresh);
        self.limits.count(has_fresh);
        if matches!(step, WalkStep::End(_) | WalkStep::CannotPartition) || !self.limits.are_exceeded(self.seen) {
            return step;
        }
        WalkStep::Endless
    }
}

#[cfg(test)]
mod tests;
