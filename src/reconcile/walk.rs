//! The walk over all users by ascending `created_at`: which page to ask for next, and what a page proves. Pure: it sees
//! neither HTTP nor SQL, so that every way in which a list can mislead is a table test.
//!
//! Clerk documents a cursor (`starting_after`) for this order. What happens when the cursor's user is deleted meanwhile is not
//! documented, emulators ignore cursors and filters, and offsets drift when users are deleted. So each page is held against
//! what the walk knows (nothing may lie before its bound), and where a way of asking misleads, the next one is taken:
//! the cursor, the cursor before it, a `created_at` bound, overlapping offsets.

mod bounds;
mod offset;

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::resource::Digest;
use bounds::{Bounds, Reading, name};
pub use bounds::{Crowd, Unreadable, Visits};
use offset::{Expect, OVERLAP, Verdict, advance, judge};

/// Most users in a page. A larger limit is answered with 10 users and no error. Source: documented, observed.
pub const PAGE: u32 = 500;

/// After this many pages in a row that the cursor could not give, it is not tried again in this walk.
const CURSOR_TRIES: u32 = 2;

/// By how much a user may lie before a stretch on its first page: the bound may include its own moment, and emulators cut times to seconds.
const SLACK_MS: i64 = 1_000;

/// How often a list without an order is read while it shows new users and holds fewer than Clerk counts: it may be shuffled at each request.
const ROUNDS: u32 = 8;

/// Most users of crowds that are remembered.
const CROWDED: u64 = 10_000;

/// A request for a page, in ascending order of `created_at`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// `starting_after`: the page begins behind this user.
    pub after: Option<String>,
    /// `created_at_after`, exclusive, in Unix milliseconds: the stretch's beginning, or the walk's bound.
    pub created_after: Option<i64>,
    /// `offset`; zero where `after` is given.
    pub offset: u64,
}

/// What the walk needs to know of a user on a page.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Clerk's id.
    pub id: &'a str,
    /// Unix milliseconds; none where the document has no readable one.
    pub created_at: Option<i64>,
    /// The same for the last change.
    pub updated_at: Option<i64>,
}

/// A half-open stretch of `created_at`, in Unix milliseconds; an open end is unbounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// First millisecond in it.
    pub from: Option<i64>,
    /// First millisecond behind it.
    pub before: Option<i64>,
}

impl Range {
    /// All time.
    pub const ALL: Self = Self {
        from: None,
        before: None,
    };

    /// Whether a moment lies in it.
    pub fn contains(&self, at: i64) -> bool {
        self.from.is_none_or(|from| at >= from) && self.before.is_none_or(|before| at < before)
    }

    /// What lies before a moment in it, and what does not.
    pub fn split(self, at: i64) -> [Self; 2] {
        let at = Some(at);
        [Self { before: at, ..self }, Self { from: at, ..self }]
    }
}

/// What a page means for the walk.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The page continues the walk.
    Page(Page),
    /// The page proves nothing; ask again: the next query differs.
    Again,
    /// The list is in no order: it is read from its top, and users are met again.
    Anew,
    /// More answers than any honest list needs: this server's list has no end.
    Endless,
    /// Nobody is left in the stretch. Judge the rest of its mirror against `carried`.
    End(Page),
    /// The list does not keep to the stretch, or to the order: this server can only be walked as a whole.
    Unfit,
}

/// The part of a page that continues the walk.
#[derive(Debug, PartialEq, Eq, Default)]
pub struct Page {
    /// Which entries are met for the first time, in their order.
    pub fresh: Vec<usize>,
    /// The stretch of the mirror that can now be judged: whoever is in it there, but neither fresh nor carried, is missing.
    /// `None` where the page allows no such judgement.
    pub judged: Option<Range>,
    /// Ids accepted before, that lie in the stretch too.
    pub carried: HashSet<String>,
}

/// Where a walk can be taken up again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Id of the last user before the bound.
    pub after: String,
    /// That user's `created_at`, in Unix milliseconds.
    pub after_created_at: i64,
    /// Everyone in the mirror before this moment, in Unix milliseconds, has been judged.
    pub judged_to: i64,
    /// Users met up to there.
    pub seen: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Cursor,
    CursorBefore,
    /// By `created_at_after`, with an offset among the users that share the bound.
    Date {
        offset: u64,
        expect: Expect,
    },
    /// By offset from the top.
    Offset {
        offset: u64,
        expect: Expect,
    },
    /// By offset through a list that is not in the order asked for: users can be read, but nobody judged.
    Unordered {
        offset: u64,
    },
}

/// The state of a walk. It holds the ids that share the last `created_at`, and nothing that grows with the number of users, unless the list is
/// in no order, or users have no readable `created_at`.
#[derive(Debug)]
pub struct Walk {
    /// What is walked. Its end is found by whoever lies behind it, not by a filter.
    stretch: Range,
    way: Way,
    /// `created_at` of the last accepted user.
    bound: Option<i64>,
    /// Accepted users at the bound.
    tied: HashSet<String>,
    last: Option<String>,
    before_last: Option<String>,
    judged_to: Option<i64>,
    position: Option<Position>,
    seen: u64,
    cursor_failures: u32,
    /// First id of the last page by offset that held nobody fresh.
    stale_page: Option<String>,
    /// Users without a readable `created_at`: no bound tells that they were met.
    undated: HashSet<String>,
    /// Users of a list without an order.
    met: HashSet<Digest>,
    rounds: u32,
    /// Whether this round through such a list has shown somebody new.
    has_news: bool,
    /// When the walk began, by Clerk's clock in Unix milliseconds; later users are left to the incremental sync.
    began: Option<i64>,
    reading: Reading,
    bounds: Bounds,
    /// How often the walk has stepped back in a row.
    backs: u32,
    crowds: Vec<Crowd>,
    /// Whether users of the bound were on more than one page, or some at the end of one.
    is_crowded: bool,
}

impl Default for Walk {
    fn default() -> Self {
        Self::new()
    }
}

impl Walk {
    /// A walk from the first user to the last.
    pub fn new() -> Self {
        Self::over(Range::ALL)
    }

    /// A walk over a stretch of `created_at`.
    pub fn over(stretch: Range) -> Self {
        Self {
            stretch,
            way: Way::Cursor,
            bound: None,
            tied: HashSet::new(),
            last: None,
            before_last: None,
            judged_to: stretch.from,
            position: None,
            seen: 0,
            cursor_failures: 0,
            stale_page: None,
            undated: HashSet::new(),
            met: HashSet::new(),
            rounds: 0,
            has_news: false,
            began: None,
            reading: Reading::default(),
            bounds: Bounds::default(),
            backs: 0,
            crowds: Vec::new(),
            is_crowded: false,
        }
    }

    /// The same walk, which ends at the moment when it began (by Clerk's clock, in Unix milliseconds): with people signing up between any two
    /// requests it would have no end. `users` is how many Clerk counts.
    #[must_use]
    pub fn began(self, at: i64, users: Option<u64>) -> Self {
        Self {
            began: Some(at),
            bounds: Bounds::of(users),
            ..self
        }
    }

    /// A walk that goes on where an earlier one over the same stretch was cut off.
    pub fn resume(stretch: Range, position: Position) -> Self {
        Self {
            bound: Some(position.after_created_at),
            tied: HashSet::from([position.after.clone()]),
            last: Some(position.after.clone()),
            judged_to: Some(position.judged_to),
            seen: position.seen,
            position: Some(position),
            ..Self::over(stretch)
        }
    }

    /// The page to ask for.
    pub fn query(&self) -> Query {
        // Every parameter but the cursor has to stay the same from page to page. Source: documented.
        let mut query = Query {
            after: None,
            created_after: self.stretch.from.map(|from| from - 1),
            offset: 0,
        };
        match self.way {
            Way::Cursor => query.after = self.last.clone(),
            Way::CursorBefore => query.after = self.before_last.clone(),
            Way::Date { offset, .. } => {
                query.created_after = self.bound.or(self.stretch.from).map(|bound| bound - 1);
                query.offset = offset;
            }
            Way::Offset { offset, .. } | Way::Unordered { offset } => query.offset = offset,
        }
        query
    }

    /// How many users to ask for.
    pub fn limit(&self) -> u32 {
        self.reading.limit
    }

    /// Users met so far.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Whether somebody could not be read and was stepped over.
    pub fn has_left_out(&self) -> bool {
        self.reading.has_left_out
    }

    /// Moments at which a server may have let users slip between two pages.
    pub fn take_crowds(&mut self) -> Vec<Crowd> {
        std::mem::take(&mut self.crowds)
    }

    /// Where to go on after a kill; none before the first bound was passed.
    pub fn position(&self) -> Option<&Position> {
        self.position.as_ref()
    }

    /// Whether the list has kept the order asked for, so that absence from it can be noticed.
    pub fn is_ordered(&self) -> bool {
        !matches!(self.way, Way::Unordered { .. })
    }

    /// Whether the cursor was given up on, so that the walk goes by dates or offsets.
    pub fn lost_cursor(&self) -> bool {
        self.cursor_failures >= CURSOR_TRIES
    }

    /// The server refused the query itself (404 or 422). False where there is no other way left to ask.
    pub fn refused(&mut self) -> bool {
        self.bounds.count(false);
        if (self.way == Way::Cursor && self.last.is_none()) || self.bounds.are_passed(self.seen) {
            return false;
        }
        self.another_way()
    }

    /// The answer to [`Self::query`] cannot be read: it is asked for in smaller parts, down to the user to blame, who is stepped over.
    pub fn unreadable(&mut self) -> Unreadable {
        self.bounds.count(false);
        if self.bounds.are_passed(self.seen) {
            return Unreadable::Broken;
        }
        let came = self.reading.fail();
        if came == Unreadable::SteppedOver {
            self.step_over();
        }
        came
    }

    /// Steps over the next user, whose page cannot be read even when it is asked for alone. Nobody is thereby judged gone: whoever
    /// is missing is asked for by id.
    fn step_over(&mut self) {
        let expect = Expect::Gap;
        self.way = match self.way {
            Way::Cursor | Way::CursorBefore => Way::Date {
                offset: self.tied.len() as u64 + 1,
                expect,
            },
            Way::Date { offset, .. } => Way::Date {
                offset: offset.max(self.tied.len() as u64) + 1,
                expect,
            },
            Way::Offset { offset, .. } => Way::Offset {
                offset: offset + 1,
                expect,
            },
            Way::Unordered { offset } => Way::Unordered { offset: offset + 1 },
        };
    }

    /// Takes the answer to [`Self::query`].
    pub fn receive(&mut self, entries: &[Entry<'_>]) -> Step {
        let step = self.weigh(entries);
        let has_fresh = matches!(&step, Step::Page(page) if !page.fresh.is_empty());
        self.reading.succeed(has_fresh);
        self.bounds.count(has_fresh);
        if matches!(step, Step::End(_) | Step::Unfit) || !self.bounds.are_passed(self.seen) {
            return step;
        }
        Step::Endless
    }

    fn weigh(&mut self, entries: &[Entry<'_>]) -> Step {
        let dates = || entries.iter().filter_map(|entry| entry.created_at);
        if self.is_ordered() && !dates().is_sorted() {
            if self.stretch != Range::ALL {
                return Step::Unfit;
            }
            self.way = Way::Unordered { offset: 0 };
            self.seen = 0;
            self.undated.clear();
            return Step::Anew;
        }
        if self
            .stretch
            .from
            .is_some_and(|from| dates().any(|at| at < from - SLACK_MS))
        {
            return Step::Unfit;
        }
        let backward = self.bound.is_some_and(|bound| dates().any(|at| at < bound));
        // Whoever comes behind the first one of the next stretch is that one's, those without a date as well.
        let is_next = |entry: &Entry<'_>| {
            entry
                .created_at
                .zip(self.stretch.before)
                .is_some_and(|(at, before)| at >= before)
        };
        let end = entries.iter().position(is_next);
        let reaches_end = end.is_some();
        let ours = end.unwrap_or(entries.len());
        let fresh = self.fresh(&entries[..ours]);
        match self.way {
            Way::Cursor if self.last.is_none() && entries.is_empty() => self.end(),
            Way::Cursor | Way::CursorBefore if !backward && reaches_end => self.accept_last(entries, fresh),
            Way::Cursor | Way::CursorBefore if !backward && !fresh.is_empty() => self.accept(entries, fresh),
            // The cursor before was obeyed: it leads to the last user alone, so behind that one there is nobody.
            Way::CursorBefore if self.is_last_alone(entries) => self.end(),
            Way::Cursor | Way::CursorBefore => {
                self.another_way();
                Step::Again
            }
            Way::Date { .. } if backward => {
                self.another_way();
                Step::Again
            }
            Way::Date { offset, expect } => {
                match judge(offset, expect, self.backs, entries.len(), ours, fresh.len()) {
                    Verdict::Believe if reaches_end => self.accept_last(entries, fresh),
                    // Asked for further on, the same again: offsets are ignored, and the bound leads to the last users alone.
                    Verdict::Believe if fresh.is_empty() && self.is_stale(entries) => self.end(),
                    Verdict::Believe if fresh.is_empty() => {
                        self.backs = 0;
                        self.way = onwards_by_date(offset, entries);
                        Step::Again
                    }
                    Verdict::Believe => self.accept(entries, fresh),
                    Verdict::StepBack(offset, expect) => {
                        self.backs += 1;
                        self.way = Way::Date { offset, expect };
                        Step::Again
                    }
                    Verdict::End => self.end(),
                }
            }
            Way::Offset { offset, expect } => {
                match judge(offset, expect, self.backs, entries.len(), ours, fresh.len()) {
                    Verdict::Believe if reaches_end => self.accept_last(entries, fresh),
                    Verdict::Believe => self.receive_by_offset(entries, fresh, offset),
                    Verdict::StepBack(offset, expect) => {
                        self.backs += 1;
                        self.way = Way::Offset { offset, expect };
                        Step::Again
                    }
                    Verdict::End => self.end(),
                }
            }
            Way::Unordered { offset } => self.receive_unordered(entries, offset),
        }
    }

    /// Takes a page of a list in no order: each user once, and none of them proves anything about another.
    fn receive_unordered(&mut self, entries: &[Entry<'_>], offset: u64) -> Step {
        self.way = Way::Unordered {
            offset: offset + entries.len() as u64,
        };
        let met = &mut self.met;
        let fresh: Vec<usize> = (0..entries.len())
            .filter(|&at| met.insert(name(entries[at].id)))
            .collect();
        if !fresh.is_empty() {
            self.stale_page = None;
            self.has_news = true;
            self.seen += fresh.len() as u64;
            return Step::Page(Page {
                fresh,
                ..Page::default()
            });
        }
        if !entries.is_empty() && !self.is_stale(entries) {
            return Step::Again;
        }
        let lacks_some = self.bounds.users.is_some_and(|users| self.seen < users);
        if !lacks_some || !std::mem::take(&mut self.has_news) || self.rounds >= ROUNDS {
            return self.end();
        }
        self.rounds += 1;
        self.stale_page = None;
        self.way = Way::Unordered { offset: 0 };
        Step::Again
    }

    fn receive_by_offset(&mut self, entries: &[Entry<'_>], fresh: Vec<usize>, offset: u64) -> Step {
        let step = if !fresh.is_empty() {
            self.accept(entries, fresh)
        } else if self.is_stale(entries) {
            return self.end();
        } else {
            Step::Again
        };
        self.way = Way::Offset {
            offset: offset + advance(entries.len()),
            expect: Expect::Overlap,
        };
        self.backs = 0;
        step
    }

    /// Entries of the stretch that the walk has not accepted before. Before the bound everybody has been met, or is someone whose
    /// `created_at` was set to the past meanwhile; the latter is asked for by id, or found by the next walk.
    fn fresh(&self, entries: &[Entry<'_>]) -> Vec<usize> {
        let mut met = HashSet::new();
        (0..entries.len())
            .filter(|&at| {
                let entry = entries[at];
                let behind = entry
                    .created_at
                    .is_none_or(|at| self.stretch.contains(at) && self.bound.is_none_or(|bound| at >= bound));
                let is_known = self.tied.contains(entry.id) || self.undated.contains(entry.id);
                behind && !is_known && met.insert(entry.id)
            })
            .collect()
    }

    fn is_last_alone(&self, entries: &[Entry<'_>]) -> bool {
        matches!(entries, [only] if self.last.as_deref() == Some(only.id))
    }

    /// Whether a page without anybody fresh begins as the one before it did, so that asking further on gets nowhere: the server ignores
    /// offsets, and has shown everything it has.
    fn is_stale(&mut self, entries: &[Entry<'_>]) -> bool {
        let first = entries.first().map(|entry| entry.id.to_owned());
        let before = std::mem::replace(&mut self.stale_page, first);
        before == self.stale_page
    }

    /// Whether a user came since the walk began. One whose `created_at` was set to the future did not.
    fn is_newcomer(&self, entry: &Entry<'_>) -> bool {
        let since = |at: i64| self.began.is_some_and(|began| at >= began);
        entry.created_at.is_some_and(since) && entry.updated_at.is_none_or(since)
    }

    /// Accepts a page. One whose users all came since the walk began ends it: the others are behind them.
    fn accept(&mut self, entries: &[Entry<'_>], fresh: Vec<usize>) -> Step {
        let is_end = fresh.iter().all(|&at| self.is_newcomer(&entries[at]));
        if is_end && (entries.len() as u64) < u64::from(self.reading.limit) {
            return self.accept_last(entries, fresh);
        }
        match self.go_on(entries, fresh) {
            // A whole page may be followed by users who are known to the mirror, so that nobody behind it is judged.
            Step::Page(page) if is_end => Step::End(page),
            step => step,
        }
    }

    fn go_on(&mut self, entries: &[Entry<'_>], fresh: Vec<usize>) -> Step {
        self.stale_page = None;
        self.backs = 0;
        let bound = fresh
            .iter()
            .rev()
            .find_map(|&at| entries[at].created_at)
            .max(self.bound);
        let carried = self.tied.clone();
        // Without a bound nothing is behind the walk yet.
        let judged = bound.is_some().then_some(Range {
            from: self.judged_to,
            before: bound,
        });

        let moved = bound > self.bound;
        self.note_crowd(entries, &fresh, moved);
        if moved {
            self.is_crowded = fresh.iter().filter(|&&at| entries[at].created_at == bound).count() > 1;
            self.tied.clear();
            if let Some(before) = fresh
                .iter()
                .rev()
                .map(|&at| entries[at])
                .find(|e| e.created_at.is_some() && e.created_at < bound)
                && let (Some(after_created_at), Some(judged_to)) = (before.created_at, bound)
            {
                let tied = fresh.iter().filter(|&&at| entries[at].created_at == bound).count();
                self.position = Some(Position {
                    after: before.id.to_owned(),
                    after_created_at,
                    judged_to,
                    seen: self.seen + (fresh.len() - tied) as u64,
                });
            }
        }
        for &at in &fresh {
            let entry = entries[at];
            if entry.created_at.is_none() {
                self.undated.insert(entry.id.to_owned());
            }
            if entry.created_at.is_none() || entry.created_at == bound {
                self.tied.insert(entry.id.to_owned());
            }
            self.before_last = self.last.replace(entry.id.to_owned());
        }
        self.bound = bound;
        self.judged_to = bound;
        self.seen += fresh.len() as u64;

        match self.way {
            Way::Cursor => self.cursor_failures = 0,
            Way::CursorBefore => self.way = Way::Cursor,
            Way::Date { .. } if !self.lost_cursor() => self.way = Way::Cursor,
            Way::Date { .. } if moved => self.way = from_bound(),
            Way::Date { offset, .. } => self.way = onwards_by_date(offset, entries),
            Way::Offset { .. } | Way::Unordered { .. } => {}
        }
        Step::Page(Page { fresh, judged, carried })
    }

    /// Notes a moment that the walk leaves behind, if its users were not all on one page with others around them.
    fn note_crowd(&mut self, entries: &[Entry<'_>], fresh: &[usize], is_left: bool) {
        let Some(at) = self.bound else { return };
        let there = fresh.iter().map(|&position| entries[position]);
        let more: Vec<&str> = there
            .filter(|entry| entry.created_at == Some(at))
            .map(|entry| entry.id)
            .collect();
        self.is_crowded |= !more.is_empty();
        let noted: u64 = self.crowds.iter().map(Crowd::met).sum();
        if is_left && self.is_crowded && noted < CROWDED {
            let dated = self.tied.difference(&self.undated).map(String::as_str);
            self.crowds.push(Crowd::new(at, dated.chain(more)));
        }
    }

    /// Accepts the page behind whose last fresh entry the stretch ends.
    fn accept_last(&mut self, entries: &[Entry<'_>], fresh: Vec<usize>) -> Step {
        self.note_crowd(entries, &fresh, true);
        self.seen += fresh.len() as u64;
        Step::End(Page {
            fresh,
            judged: Some(self.rest()),
            carried: self.tied.clone(),
        })
    }

    fn end(&mut self) -> Step {
        self.note_crowd(&[], &[], true);
        Step::End(Page {
            fresh: Vec::new(),
            judged: self.is_ordered().then(|| self.rest()),
            carried: self.tied.clone(),
        })
    }

    /// What is not judged yet.
    fn rest(&self) -> Range {
        Range {
            from: self.judged_to,
            before: self.stretch.before,
        }
    }

    fn another_way(&mut self) -> bool {
        self.way = match self.way {
            Way::Cursor if self.before_last.is_some() => Way::CursorBefore,
            Way::Cursor | Way::CursorBefore => {
                self.cursor_failures += 1;
                from_bound()
            }
            Way::Date { .. } => Way::Offset {
                offset: self.seen.saturating_sub(OVERLAP),
                expect: Expect::Overlap,
            },
            Way::Offset { .. } | Way::Unordered { .. } => return false,
        };
        true
    }
}

fn from_bound() -> Way {
    Way::Date {
        offset: 0,
        expect: Expect::Overlap,
    }
}

fn onwards_by_date(offset: u64, entries: &[Entry<'_>]) -> Way {
    Way::Date {
        offset: offset + advance(entries.len()),
        expect: Expect::Overlap,
    }
}

#[cfg(test)]
mod tests;
