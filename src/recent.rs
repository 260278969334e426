//! The walk over recent changes: newest `updated_at` first, down to a floor below which everything is in the mirror already. Pure: it sees
//! neither HTTP nor SQL.
//!
//! Clerk has no filter by `updated_at` and no cursor for this order, so pages are asked for by offset, and the list shifts under the walk. Who
//! changes moves to the top, and what lay above moves down: met twice, no harm. Who is deleted lets everything below move up: a page that
//! does not overlap with the one before shows it, and the walk steps back.

use std::{
    collections::{HashSet, VecDeque},
    time::{Duration, Instant},
};

use crate::walk::PAGE;

/// By how many users pages overlap.
const OVERLAP: u64 = 10;

/// How long a change may take at Clerk from its `updated_at` to its place in the list: that it may take a while is a guess, and what takes
/// longer is found by the next full sync.
pub const LAG: Duration = Duration::from_secs(10);

/// What the walk needs to know of a user on a page.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Clerk's id, or what stands for it.
    pub id: &'a str,
    /// Unix milliseconds; none where the document has no readable one.
    pub updated_at: Option<i64>,
}

/// What a page means for the walk. Whatever it is, the page's users can be held against the mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Ask for the next page.
    More,
    /// Everybody down to the floor has been met.
    End,
    /// The list is not in the order asked for, or offsets are ignored; changes cannot be followed by it.
    Unordered,
}

/// The state of a walk. It holds the ids of one page.
#[derive(Debug)]
pub struct Recent {
    floor: i64,
    offset: u64,
    limit: u32,
    /// The oldest `updated_at` met.
    reached: Option<i64>,
    newest: Option<i64>,
    last_page: HashSet<String>,
    /// A page was empty: the end is where known users are followed by nobody.
    is_past_end: bool,
    /// The next page need not overlap with the one before.
    is_gap: bool,
    above: u64,
}

impl Recent {
    /// A walk down to `floor`, in Unix milliseconds, with a first page of `limit` users, at least two: pages of one cannot overlap.
    pub fn new(floor: i64, limit: u32) -> Self {
        Self {
            floor,
            offset: 0,
            limit: limit.clamp(2, PAGE),
            reached: None,
            newest: None,
            last_page: HashSet::new(),
            is_past_end: false,
            is_gap: false,
            above: 0,
        }
    }

    /// Offset and limit of the page to ask for.
    pub fn query(&self) -> (u64, u32) {
        (self.offset, self.limit)
    }

    /// The newest `updated_at` on the first page, but not beyond `now`, the server's clock cut to whole seconds: a time of the future would
    /// make every later change look old. In Unix milliseconds.
    pub fn newest(&self, now: Option<i64>) -> Option<i64> {
        let newest = self.newest?;
        Some(now.map_or(newest, |now| newest.min(now)))
    }

    /// How many users at or above the floor were met, some of them twice perhaps.
    pub fn above(&self) -> u64 {
        self.above
    }

    /// The page cannot be read: the next one is smaller. False where it holds one user already, who is to be stepped over.
    pub fn narrow(&mut self) -> bool {
        let is_one = self.limit == 1;
        self.limit = (self.limit / 10).max(1);
        !is_one
    }

    /// Steps over the user at the offset, who cannot be read even alone.
    pub fn step_over(&mut self) {
        self.offset += 1;
        self.is_gap = true;
    }

    /// Takes the answer to [`Self::query`].
    pub fn receive(&mut self, entries: &[Entry<'_>]) -> Step {
        let times = || entries.iter().filter_map(|entry| entry.updated_at);
        if !times().is_sorted_by(|a, b| a >= b) {
            return Step::Unordered;
        }
        if entries.is_empty() {
            if self.offset == 0 || self.is_past_end {
                return Step::End;
            }
            // The list has become shorter meanwhile.
            self.is_past_end = true;
            self.offset = self.offset.saturating_sub(u64::from(self.limit));
            return Step::More;
        }
        self.above += times().filter(|&at| at >= self.floor).count() as u64;
        let length = entries.len() as u64;
        if self.offset > 0 && !std::mem::take(&mut self.is_gap) && !self.touches(entries) {
            self.offset = self.offset.saturating_sub(length.max(OVERLAP));
            return Step::More;
        }
        if self.newest.is_none() {
            self.newest = times().next();
        }
        let is_known = !self.last_page.is_empty() && entries.iter().all(|entry| self.last_page.contains(entry.id));
        let is_whole = length == self.last_page.len() as u64;
        self.last_page = entries.iter().map(|entry| entry.id.to_owned()).collect();
        self.reached = times().next_back().into_iter().chain(self.reached).min();
        let is_short = length < u64::from(self.limit);
        // A short page alone proves no end, as servers cut pages.
        if (is_short && is_known) || times().next_back().is_some_and(|oldest| oldest < self.floor) {
            return Step::End;
        }
        if is_known && is_whole {
            // Asked for further on, the same again: offsets are ignored.
            return Step::Unordered;
        }
        let overlap = OVERLAP.min(length / 2);
        self.offset += length - overlap;
        // A page of one cannot both overlap and go on.
        self.is_gap = overlap == 0;
        self.limit = (self.limit * 4).min(PAGE);
        Step::More
    }

    /// Whether nobody can have slipped between what was met and this page.
    fn touches(&self, entries: &[Entry<'_>]) -> bool {
        let first = entries.iter().find_map(|entry| entry.updated_at);
        first > self.reached || entries.iter().any(|entry| self.last_page.contains(entry.id))
    }
}

/// How far down the next walk must go, learned from the walks before it. Clerk's times are only compared with each other, and time that
/// passes here is measured by a clock that never jumps, so that clocks may differ.
///
/// A change is visible at the latest [`LAG`] after its `updated_at`. So when a walk began at least that long after an earlier one, it has met all
/// that was changed up to what was the newest then; those who share that moment are not met again, as there may be many.
#[derive(Debug, Default)]
pub struct Floor {
    floor: Option<i64>,
    /// When walks ended, and the newest change that they met; the oldest first.
    walks: VecDeque<(Instant, i64)>,
    /// The stored watermark, as last heard.
    watermark: Option<i64>,
}

impl Floor {
    /// The floor, in Unix milliseconds; from the stored `watermark` before any walk has taught more.
    pub fn get(&self, watermark: i64) -> i64 {
        let stored = watermark - i64::try_from(LAG.as_millis()).unwrap_or(i64::MAX);
        self.floor.map_or(stored, |floor| floor.max(stored))
    }

    /// Takes note of the stored watermark. One that went back means that the database did: a standby that has taken over lacks what it was
    /// not sent, and what walks have taught is true of the other database.
    pub fn heed(&mut self, watermark: i64) {
        if self
            .watermark
            .replace(watermark)
            .is_some_and(|before| watermark < before)
        {
            self.floor = None;
            self.walks.clear();
        }
    }

    /// A walk from `began` to `ended` met everybody down to the floor, and `newest` at the top.
    pub fn learn(&mut self, began: Instant, ended: Instant, newest: i64) {
        while let Some((end, at)) = self.walks.front().copied()
            && began.saturating_duration_since(end) >= LAG
        {
            self.floor = self.floor.max(Some(at + 1));
            self.walks.pop_front();
        }
        self.walks.push_back((ended, newest));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A server's list: ids with their `updated_at`.
    #[derive(Debug, Clone)]
    struct Server(Vec<(u32, i64)>);

    impl Server {
        fn page(&self, (offset, limit): (u64, u32)) -> Vec<(String, i64)> {
            let mut list = self.0.clone();
            list.sort_by_key(|&(id, at)| (std::cmp::Reverse(at), id));
            list.into_iter()
                .skip(offset as usize)
                .take(limit as usize)
                .map(|(id, at)| (id.to_string(), at))
                .collect()
        }
    }

    /// What happens between two requests.
    #[derive(Debug, Clone)]
    enum Event {
        Update(Vec<u8>),
        Delete(Vec<u8>),
        Create(u8),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40).prop_map(Event::Update),
            prop::collection::vec(any::<u8>(), 0..30).prop_map(Event::Delete),
            (0u8..40).prop_map(Event::Create),
            Just(Event::Create(0)),
        ]
    }

    fn happen(server: &mut Server, event: &Event, now: i64) {
        let pick = |n: &u8, list: &[(u32, i64)]| (usize::from(*n) * list.len()) / 256;
        match event {
            Event::Update(whom) => {
                for n in whom {
                    let at = pick(n, &server.0);
                    if let Some(user) = server.0.get_mut(at) {
                        user.1 = now;
                    }
                }
            }
            Event::Delete(whom) => {
                for n in whom {
                    let at = pick(n, &server.0);
                    if at < server.0.len() {
                        server.0.remove(at);
                    }
                }
            }
            Event::Create(count) => {
                let next = server.0.iter().map(|user| user.0).max().unwrap_or(0) + 1;
                server.0.extend((0..u32::from(*count)).map(|n| (next + n, now)));
            }
        }
    }

    /// Walks down to `floor` past those who cannot be read, and returns whom it met with which `updated_at`, how it ended, and after how many
    /// requests.
    fn walk_past(
        broken: &HashSet<String>,
        server: &mut Server,
        floor: i64,
        first: u32,
        events: &[Event],
    ) -> (HashSet<(String, i64)>, Step, usize) {
        let mut recent = Recent::new(floor, first);
        let mut met = HashSet::new();
        let mut events = events.iter();
        for asked in 1..10_000 {
            let page = server.page(recent.query());
            if page.iter().any(|(id, _)| broken.contains(id)) {
                if !recent.narrow() {
                    recent.step_over();
                }
                continue;
            }
            met.extend(page.iter().cloned());
            let entries: Vec<_> = page
                .iter()
                .map(|(id, at)| Entry {
                    id,
                    updated_at: Some(*at),
                })
                .collect();
            let step = recent.receive(&entries);
            if step != Step::More {
                return (met, step, asked);
            }
            if let Some(event) = events.next() {
                happen(server, event, 100_000 + asked as i64);
            }
        }
        panic!("the walk does not end");
    }

    fn walk(server: &mut Server, floor: i64, first: u32, events: &[Event]) -> (HashSet<(String, i64)>, Step, usize) {
        walk_past(&HashSet::new(), server, floor, first, events)
    }

    proptest! {
        #[test]
        fn those_who_cannot_be_read_cost_themselves_alone(
            times in prop::collection::vec(0i64..200, 1..300), floor in 0i64..210, first in 1u32..40,
            broken in prop::collection::hash_set(0u32..300, 0..4),
        ) {
            let mut server = Server(times.into_iter().enumerate().map(|(id, at)| (id as u32, at)).collect());
            let broken: HashSet<String> = broken.iter().map(ToString::to_string).collect();
            let (met, step, asked) = walk_past(&broken, &mut server, floor, first, &[]);
            prop_assert_eq!(step, Step::End);
            prop_assert!(asked < 200, "{} requests", asked);
            for (id, at) in server.0.iter().filter(|user| user.1 >= floor) {
                let id = id.to_string();
                prop_assert!(broken.contains(&id) || met.contains(&(id.clone(), *at)), "{}", id);
            }
        }

        #[test]
        fn nobody_above_the_floor_is_passed_by(
            times in prop::collection::vec(0i64..50, 0..600), floor in 0i64..60, first in 1u32..40,
            events in prop::collection::vec(event(), 0..20),
        ) {
            let mut server = Server(times.into_iter().enumerate().map(|(id, at)| (id as u32, at)).collect());
            let before = server.clone();
            let (met, step, _) = walk(&mut server, floor, first, &events);
            prop_assert_eq!(step, Step::End);
            // Whoever changed meanwhile is at the top, for the next walk; all others above the floor were met.
            for user in before.0.iter().filter(|user| user.1 >= floor && server.0.contains(user)) {
                prop_assert!(met.contains(&(user.0.to_string(), user.1)), "{:?}", user);
            }
        }
    }

    #[test]
    fn a_quiet_list_is_one_request() {
        let mut server = Server((0..1000).map(|id| (id, 5)).collect());
        assert_eq!(walk(&mut server, 6, 20, &[]).2, 1);
        let mut few = Server((0..15).map(|id| (id, 5)).collect());
        assert_eq!(walk(&mut few, 6, 20, &[]).2, 1);
        assert_eq!(walk(&mut few, 0, 20, &[]).2, 2);
    }

    #[test]
    fn who_moves_up_behind_the_first_page_is_met() {
        let mut server = Server((0..40).map(|id| (id, 100 - i64::from(id))).collect());
        let (met, step, _) = walk(&mut server, 70, 1, &[Event::Delete(vec![0; 10])]);
        assert_eq!(step, Step::End);
        assert!((10..=30).all(|id| met.contains(&(id.to_string(), 100 - id))), "{met:?}");
    }

    #[test]
    fn a_list_in_another_order_or_without_offsets_is_not_followed() {
        let entry = |id, at| Entry {
            id,
            updated_at: Some(at),
        };
        let mut recent = Recent::new(0, 2);
        assert_eq!(recent.receive(&[entry("a", 1), entry("b", 2)]), Step::Unordered);
        let mut recent = Recent::new(0, 2);
        let page = [entry("a", 2), entry("b", 1)];
        assert_eq!(recent.receive(&page), Step::More);
        recent.limit = 2;
        assert_eq!(recent.receive(&page), Step::Unordered);
    }

    #[test]
    fn one_who_cannot_be_read_is_stepped_over() {
        let entry = |id, at| Entry {
            id,
            updated_at: Some(at),
        };
        let mut recent = Recent::new(5, 20);
        assert!(recent.narrow());
        assert_eq!(recent.query(), (0, 2));
        assert!(recent.narrow());
        assert!(!recent.narrow(), "there is nothing smaller than one");
        recent.step_over();
        assert_eq!(recent.query(), (1, 1));
        assert_eq!(recent.receive(&[entry("b", 9)]), Step::More);
        assert_eq!(recent.query(), (2, 4));
        assert_eq!(recent.receive(&[entry("c", 4)]), Step::End);
        assert_eq!(recent.newest(None), Some(9));
    }

    #[test]
    fn a_time_of_the_future_does_not_become_the_watermark() {
        let mut recent = Recent::new(0, 2);
        let page = [Entry {
            id: "a",
            updated_at: Some(4_000_000_000_000),
        }];
        recent.receive(&page);
        assert_eq!(recent.newest(Some(1_700_000_000_000)), Some(1_700_000_000_000));
        assert_eq!(recent.newest(None), Some(4_000_000_000_000));
    }

    #[test]
    fn the_floor_rises_once_a_later_walk_has_looked_behind_it() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut floor = Floor::default();
        assert_eq!(floor.get(100_000), 90_000);
        floor.learn(at(0), at(1), 100_000);
        assert_eq!(floor.get(100_000), 90_000);
        floor.learn(at(10), at(10), 100_000);
        assert_eq!(floor.get(100_000), 90_000, "the walk at 10 began too early");
        floor.learn(at(11), at(11), 100_000);
        assert_eq!(floor.get(100_000), 100_001);
        floor.learn(at(30), at(30), 50_000);
        assert_eq!(floor.get(100_000), 100_001, "a list that lags lowers nothing");
        floor.heed(100_000);
        floor.heed(100_000);
        assert_eq!(floor.get(100_000), 100_001);
        floor.heed(95_000);
        assert_eq!(floor.get(95_000), 85_000, "the database has forgotten what was met");
        floor.learn(at(50), at(50), 100_000);
        assert_eq!(floor.get(95_000), 85_000);
    }
}
