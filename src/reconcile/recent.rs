//! The walk over recent changes: newest `updated_at` first, down to a floor below which the mirror
//! has everything. Pure.
//!
//! Clerk has no filter by `updated_at` and no cursor for this order, so pages are asked for by
//! offset, and the list shifts under the walk. An object that changes moves to the top, and the
//! ones above its old place move down: the walk meets them twice, which does no harm. If an object
//! is deleted, all below it move up: a page that does not overlap with the one before shows it, and
//! the walk steps back.
//!
//! Objects that share an `updated_at` may be in another order at each request. So the next page
//! begins before all that share the last moment of a page: one page shows all of them, with a newer
//! object before them. If more share it than a page has, the walk goes on, but it proves nothing
//! about that moment.

mod floor;

use std::collections::HashSet;

use super::{ListEntry, Unreadable};
use crate::resource::MAX_PAGE;
pub use floor::{Floor, LAG, LAG_MS};

/// Entries by which pages overlap.
const OVERLAP: u64 = 10;

/// Requests that any walk may take, plus one for each `OBJECTS_PER_REQUEST` objects. A full sync is
/// cheaper than more.
const REQUESTS: u64 = 40;
const OBJECTS_PER_REQUEST: u64 = 250;

/// Further requests per object that is stepped over.
const REQUESTS_PER_STEP: u64 = 24;

/// Unreadable objects in a row, and in all, after which the server is taken for broken.
const MAX_STEPS_IN_A_ROW: u32 = 3;
const MAX_STEPS: u32 = 10;

/// Narrowed pages after which larger ones are no longer asked for from the same place.
const NARROWINGS: u32 = 4;

/// What a page means for the walk. In each case, the page's objects can be compared with the
/// mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecentStep {
    /// Ask for the next page.
    More,
    /// All objects down to the floor are met.
    End,
    /// The list ignores the order or offsets, or has no end: it does not show changes.
    Unordered,
}

/// The state of a walk. It holds the ids of one page, and the moments that no page shows
/// completely.
#[derive(Debug)]
pub struct RecentWalk {
    floor: i64,
    offset: u64,
    limit: u32,
    /// The oldest `updated_at` met.
    reached: Option<i64>,
    newest: Option<i64>,
    last_page: HashSet<String>,
    last_offset: u64,
    /// A page was empty: the end is where known objects are the last ones.
    is_past_end: bool,
    /// The next page need not overlap with the one before.
    is_gap: bool,
    above: u64,
    /// How often a page had to be narrowed. After many times, pages are too small to show a whole
    /// moment.
    narrowed: u32,
    /// Offset of the page that begins with an object newer than those that share its last moment;
    /// `None` if there is no such page.
    anchor: Option<u64>,
    /// The last page's oldest moment, if objects of it may be on the next page only.
    has_to_prove: Option<i64>,
    /// Moments of which no page has shown all objects.
    tied: Vec<i64>,
    /// About how many objects the list has.
    count: u64,
    requests: u64,
    /// Objects stepped over, in all and since the last page with a new one.
    stepped: u32,
    stepped_in_a_row: u32,
}

impl RecentWalk {
    /// A walk down to `floor`, in Unix milliseconds. Its first page has `limit` objects, at least
    /// two: pages of one cannot overlap.
    pub fn new(floor: i64, limit: u32) -> Self {
        Self {
            floor,
            offset: 0,
            limit: limit.clamp(2, MAX_PAGE),
            reached: None,
            newest: None,
            last_page: HashSet::new(),
            last_offset: 0,
            is_past_end: false,
            is_gap: false,
            above: 0,
            narrowed: 0,
            anchor: Some(0),
            has_to_prove: None,
            tied: Vec::new(),
            count: 0,
            requests: 0,
            stepped: 0,
            stepped_in_a_row: 0,
        }
    }

    /// Sets the number of objects in the list: the more there are, the more requests the walk may
    /// take.
    #[must_use]
    pub fn among(self, count: u64) -> Self {
        Self { count, ..self }
    }

    /// Returns offset and limit of the page to ask for.
    pub fn query(&self) -> (u64, u32) {
        (self.offset, self.limit)
    }

    /// Returns the newest `updated_at` on the first page, but not beyond `now`, the server's clock
    /// cut to whole seconds: a time of the future would make every later change look old. In Unix
    /// milliseconds.
    pub fn newest(&self, now: Option<i64>) -> Option<i64> {
        let newest = self.newest?;
        Some(now.map_or(newest, |now| newest.min(now)))
    }

    /// Returns how many objects at or above the floor were met, some of them perhaps twice.
    pub fn above(&self) -> u64 {
        self.above
    }

    /// Whether an object could not be read and was stepped over.
    pub fn has_stepped(&self) -> bool {
        self.stepped > 0
    }

    /// Returns the newest moment up to `now` of which no page has shown all objects, in Unix
    /// milliseconds. A moment of the future is at the top each time.
    pub fn tied(&self, now: Option<i64>) -> Option<i64> {
        let past = |at: &&i64| now.is_none_or(|now| **at <= now);
        self.tied.iter().filter(past).max().copied()
    }

    /// Takes note that the page cannot be read. The next one is smaller, down to the one object
    /// that is the cause, which is stepped over.
    pub fn unreadable(&mut self) -> Unreadable {
        self.requests += 1;
        if self.is_endless() || self.stepped_in_a_row >= MAX_STEPS_IN_A_ROW || self.stepped >= MAX_STEPS {
            return Unreadable::Broken;
        }
        if self.limit > 1 {
            self.narrowed += 1;
            self.limit = (self.limit / 10).max(1);
            return Unreadable::Smaller;
        }
        self.offset += 1;
        self.anchor = None;
        self.is_gap = true;
        self.stepped += 1;
        self.stepped_in_a_row += 1;
        Unreadable::SteppedOver
    }

    fn is_endless(&self) -> bool {
        self.requests > REQUESTS + self.count / OBJECTS_PER_REQUEST + REQUESTS_PER_STEP * u64::from(self.stepped)
    }

    /// Takes the answer to [`Self::query`].
    pub fn receive(&mut self, entries: &[ListEntry<'_>]) -> RecentStep {
        self.requests += 1;
        match self.weigh(entries) {
            RecentStep::More if self.is_endless() => RecentStep::Unordered,
            step => step,
        }
    }

    fn weigh(&mut self, entries: &[ListEntry<'_>]) -> RecentStep {
        let times = || entries.iter().filter_map(|entry| entry.updated_at);
        if !times().is_sorted_by(|a, b| a >= b) {
            return RecentStep::Unordered;
        }
        if entries.is_empty() {
            // A step back would lead to the unreadable object again.
            if self.offset == 0 || self.is_past_end || self.is_gap {
                return RecentStep::End;
            }
            // The list has become shorter.
            self.is_past_end = true;
            self.offset = self.offset.saturating_sub(u64::from(self.limit));
            return RecentStep::More;
        }
        self.above += times().filter(|&at| at >= self.floor).count() as u64;
        let length = entries.len() as u64;
        if self.offset > 0 && !std::mem::take(&mut self.is_gap) && !self.touches(entries) {
            self.offset = self.offset.saturating_sub(length.max(OVERLAP));
            return RecentStep::More;
        }
        if let Some(at) = self.has_to_prove.take()
            && times().any(|time| time == at)
        {
            self.note_tied(at);
        }
        if self.newest.is_none() {
            self.newest = times().next();
        }
        let is_known = !self.last_page.is_empty() && entries.iter().all(|entry| self.last_page.contains(entry.id));
        let is_whole = length == self.last_page.len() as u64;
        let is_further = self.offset > std::mem::replace(&mut self.last_offset, self.offset);
        if !is_known {
            self.stepped_in_a_row = 0;
        }
        self.last_page = entries.iter().map(|entry| entry.id.to_owned()).collect();
        self.reached = times().next_back().into_iter().chain(self.reached).min();
        let is_short = length < u64::from(self.limit);
        // A short page alone is not the end: servers cut pages.
        if (is_short && is_known) || times().next_back().is_some_and(|oldest| oldest < self.floor) {
            return RecentStep::End;
        }
        if is_known && is_whole && is_further {
            // The same again at a larger offset: the server ignores offsets.
            return RecentStep::Unordered;
        }
        self.go_on(entries);
        RecentStep::More
    }

    /// Sets where the next page begins: before the objects that share the last moment, if a page
    /// can show all of them.
    fn go_on(&mut self, entries: &[ListEntry<'_>]) {
        let length = entries.len() as u64;
        let last = entries.iter().rev().find_map(|entry| entry.updated_at);
        let sharing = entries
            .iter()
            .rev()
            .take_while(|entry| entry.updated_at == last)
            .count() as u64;
        let overlap = OVERLAP.min(length / 2).max(sharing + 1);
        if overlap < length {
            self.offset += length - overlap;
            self.anchor = Some(self.offset);
        } else if self.limit < MAX_PAGE
            && length == u64::from(self.limit)
            && self.narrowed <= NARROWINGS
            && let Some(anchor) = self.anchor
        {
            self.offset = anchor;
            // From the same place, a larger page shows more of them.
        } else {
            let overlap = OVERLAP.min(length / 2);
            self.offset += length - overlap;
            self.anchor = None;
            // A page of one entry cannot both overlap and go on.
            self.is_gap = overlap == 0;
            self.has_to_prove = last;
        }
        self.limit = (self.limit * 4).min(MAX_PAGE);
    }

    fn note_tied(&mut self, at: i64) {
        if self.tied.last() != Some(&at) {
            self.tied.push(at);
        }
    }

    /// Whether no object can have slipped between what was met and this page. A known object proves
    /// it only if the page cannot begin before all that share the last moment.
    fn touches(&self, entries: &[ListEntry<'_>]) -> bool {
        let first = entries.iter().find_map(|entry| entry.updated_at);
        let is_known = |entry: &ListEntry<'_>| self.last_page.contains(entry.id);
        first > self.reached || (self.has_to_prove.is_some() && entries.iter().any(is_known))
    }
}

#[cfg(test)]
mod tests;
