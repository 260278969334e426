//! The walk over recent changes: newest `updated_at` first, down to a floor below which everything is in the mirror already. Pure: it sees
//! neither HTTP nor SQL.
//!
//! Clerk has no filter by `updated_at` and no cursor for this order, so pages are asked for by offset, and the list shifts under the walk. Who
//! changes moves to the top, and what lay above moves down: met twice, no harm. Who is deleted lets everything below move up: a page that
//! does not overlap with the one before shows it, and the walk steps back.
//!
//! Users that share an `updated_at` may be in another order at each request. So the next page begins before all that share the last moment
//! of a page: one page shows all of them, with somebody newer before them. Where more share it than a page holds, the walk goes on, but it
//! proves nothing about that moment.

use std::{
    collections::{HashSet, VecDeque},
    time::{Duration, Instant},
};

use crate::reconcile::walk::{PAGE, Unreadable};

/// By how many users pages overlap.
const OVERLAP: u64 = 10;

/// Requests that any walk may take, plus one for each `USERS_PER_REQUEST` users: beyond that a full sync is cheaper.
const REQUESTS: u64 = 40;
const USERS_PER_REQUEST: u64 = 250;

/// Requests that stepping over a user may take.
const REQUESTS_PER_STEP: u64 = 24;

/// Unreadable users in a row, and in all, that are taken for a broken server, not for broken users.
const STEPS_IN_A_ROW: u32 = 3;
const STEPS: u32 = 10;

/// Pages narrowed until larger ones are no longer asked for from the same place.
const NARROWINGS: u32 = 4;

/// How long a change may take at Clerk from its `updated_at` to its place in the list: that it may take a while is a guess, and what takes
/// longer is found by the next full sync.
pub const LAG: Duration = Duration::from_secs(10);

/// The same in milliseconds.
pub const LAG_MS: i64 = 10_000;

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
    /// The list is not in the order asked for, offsets are ignored, or it has no end; changes cannot be followed by it.
    Unordered,
}

/// The state of a walk. It holds the ids of one page, and the moments that are larger than one.
#[derive(Debug)]
pub struct Recent {
    floor: i64,
    offset: u64,
    limit: u32,
    /// The oldest `updated_at` met.
    reached: Option<i64>,
    newest: Option<i64>,
    last_page: HashSet<String>,
    last_offset: u64,
    /// A page was empty: the end is where known users are followed by nobody.
    is_past_end: bool,
    /// The next page need not overlap with the one before.
    is_gap: bool,
    above: u64,
    /// How often a page had to be narrowed. Where it happens often, pages are too small to show all of a moment.
    narrowed: u32,
    /// Where the page with somebody newer than those who share its last moment begins; `None` where no page shows that.
    anchor: Option<u64>,
    /// Somebody at the last page's oldest moment may be on the next page only.
    has_to_prove: Option<i64>,
    /// Moments of which no page has shown all users.
    tied: Vec<i64>,
    /// About how many users there are.
    users: u64,
    requests: u64,
    /// Users stepped over, in all and since the last page with somebody new.
    stepped: u32,
    stepped_in_a_row: u32,
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
            last_offset: 0,
            is_past_end: false,
            is_gap: false,
            above: 0,
            narrowed: 0,
            anchor: Some(0),
            has_to_prove: None,
            tied: Vec::new(),
            users: 0,
            requests: 0,
            stepped: 0,
            stepped_in_a_row: 0,
        }
    }

    /// Sets the number of users in the list: the more users, the more requests the walk may take.
    #[must_use]
    pub fn among(self, users: u64) -> Self {
        Self { users, ..self }
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

    /// Whether somebody could not be read and was stepped over.
    pub fn has_stepped(&self) -> bool {
        self.stepped > 0
    }

    /// The newest moment up to `now` of which no page has shown all users, in Unix milliseconds. One of the future is shown at the top each time.
    pub fn tied(&self, now: Option<i64>) -> Option<i64> {
        let past = |at: &&i64| now.is_none_or(|now| **at <= now);
        self.tied.iter().filter(past).max().copied()
    }

    /// The page cannot be read: the next one is smaller, down to the user to blame, who is stepped over.
    pub fn unreadable(&mut self) -> Unreadable {
        self.requests += 1;
        if self.is_endless() || self.stepped_in_a_row >= STEPS_IN_A_ROW || self.stepped >= STEPS {
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
        self.requests > REQUESTS + self.users / USERS_PER_REQUEST + REQUESTS_PER_STEP * u64::from(self.stepped)
    }

    /// Takes the answer to [`Self::query`].
    pub fn receive(&mut self, entries: &[Entry<'_>]) -> Step {
        self.requests += 1;
        match self.weigh(entries) {
            Step::More if self.is_endless() => Step::Unordered,
            step => step,
        }
    }

    fn weigh(&mut self, entries: &[Entry<'_>]) -> Step {
        let times = || entries.iter().filter_map(|entry| entry.updated_at);
        if !times().is_sorted_by(|a, b| a >= b) {
            return Step::Unordered;
        }
        if entries.is_empty() {
            // Stepping back leads to the user who cannot be read.
            if self.offset == 0 || self.is_past_end || self.is_gap {
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
        // A short page alone proves no end, as servers cut pages.
        if (is_short && is_known) || times().next_back().is_some_and(|oldest| oldest < self.floor) {
            return Step::End;
        }
        if is_known && is_whole && is_further {
            // Asked for further on, the same again: offsets are ignored.
            return Step::Unordered;
        }
        self.go_on(entries);
        Step::More
    }

    /// Where the next page begins: before those who share the last moment, if a page can show all of them.
    fn go_on(&mut self, entries: &[Entry<'_>]) {
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
        } else if self.limit < PAGE
            && length == u64::from(self.limit)
            && self.narrowed <= NARROWINGS
            && let Some(anchor) = self.anchor
        {
            self.offset = anchor;
            // From the same place, a larger page shows more.
        } else {
            let overlap = OVERLAP.min(length / 2);
            self.offset += length - overlap;
            self.anchor = None;
            // A page of one cannot both overlap and go on.
            self.is_gap = overlap == 0;
            self.has_to_prove = last;
        }
        self.limit = (self.limit * 4).min(PAGE);
    }

    fn note_tied(&mut self, at: i64) {
        if self.tied.last() != Some(&at) {
            self.tied.push(at);
        }
    }

    /// Whether nobody can have slipped between what was met and this page. Somebody known proves it only where the page cannot begin before all
    /// that share the last moment.
    fn touches(&self, entries: &[Entry<'_>]) -> bool {
        let first = entries.iter().find_map(|entry| entry.updated_at);
        let is_known = |entry: &Entry<'_>| self.last_page.contains(entry.id);
        first > self.reached || (self.has_to_prove.is_some() && entries.iter().any(is_known))
    }
}

/// How far down the next walk must go, learned from the walks before it. Clerk's times are only compared with each other, and time that
/// syncs here is measured by a clock that never jumps, so that clocks may differ.
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
    /// Everybody who changed up to this moment was met by a full sync.
    settled: Option<i64>,
}

impl Floor {
    /// The floor, in Unix milliseconds; from the stored `watermark` before any walk has taught more.
    pub fn get(&self, watermark: i64) -> i64 {
        let stored = watermark - LAG_MS;
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
            self.settled = None;
            self.walks.clear();
        }
    }

    /// A walk met `newest` at the top, but not everybody below it.
    pub fn note(&mut self, ended: Instant, newest: i64) {
        if self.walks.back().is_none_or(|(_, before)| *before < newest) {
            self.walks.push_back((ended, newest));
        }
    }

    /// A full sync that began long enough after `newest` has met everybody who changed up to then.
    pub fn settle(&mut self, newest: i64) {
        self.settled = self.settled.max(Some(newest));
    }

    /// Whether everybody who changed at a moment has been met, though no page shows all of them.
    pub fn is_settled(&self, at: i64) -> bool {
        self.settled >= Some(at)
    }

    /// Whether a walk over everybody that begins now would raise the floor above a moment.
    pub fn would_pass(&self, at: i64, now: Instant) -> bool {
        let is_seen = |(end, newest): &(Instant, i64)| *newest >= at && now.saturating_duration_since(*end) >= LAG;
        self.walks.iter().any(is_seen)
    }

    /// A walk from `began` to `ended` met everybody down to the floor, and `newest` at the top. A full sync is such a walk.
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
    struct Server(Vec<(u32, i64)>, Option<fastrand::Rng>);

    impl Server {
        /// Whoever shares a moment is in another order at each request, if there are dice.
        fn page(&mut self, (offset, limit): (u64, u32)) -> Vec<(String, i64)> {
            let mut list = self.0.clone();
            if let Some(dice) = &mut self.1 {
                dice.shuffle(&mut list);
                list.sort_by_key(|&(_, at)| std::cmp::Reverse(at));
            } else {
                list.sort_by_key(|&(id, at)| (std::cmp::Reverse(at), id));
            }
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
        let mut recent = Recent::new(floor, first).among(10_000);
        let mut met = HashSet::new();
        let mut events = events.iter();
        for asked in 1..10_000 {
            let page = server.page(recent.query());
            if page.iter().any(|(id, _)| broken.contains(id)) {
                assert_ne!(recent.unreadable(), Unreadable::Broken);
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
            let mut server = Server(times.into_iter().enumerate().map(|(id, at)| (id as u32, at)).collect(), None);
            let broken: HashSet<String> = broken.iter().map(ToString::to_string).collect();
            let (met, step, asked) = walk_past(&broken, &mut server, floor, first, &[]);
            prop_assert_eq!(step, Step::End);
            prop_assert!(asked < 200, "{} requests", asked);
            for (id, at) in server.0.iter().filter(|user| user.1 >= floor) {
                let id = id.to_string();
                prop_assert!(broken.contains(&id) || met.contains(&(id.clone(), *at)), "{}", id);
            }
        }

        /// Ties that are broken differently at each request: whoever shares a moment with less than a page is met.
        #[test]
        fn nobody_is_passed_by_where_ties_are_shuffled(
            times in prop::collection::vec(prop_oneof![0i64..50, 20i64..22], 0..900), floor in 0i64..60, first in 1u32..40,
            events in prop::collection::vec(event(), 0..20), seed in any::<u64>(),
        ) {
            let users = times.into_iter().enumerate().map(|(id, at)| (id as u32, at)).collect();
            let mut server = Server(users, Some(fastrand::Rng::with_seed(seed)));
            let before = server.0.clone();
            let (met, step, _) = walk(&mut server, floor, first, &events);
            prop_assert_eq!(step, Step::End);
            let tied = |at: i64| before.iter().filter(|user| user.1 == at).count() >= 450;
            for user in before.iter().filter(|user| user.1 >= floor && server.0.contains(user) && !tied(user.1)) {
                prop_assert!(met.contains(&(user.0.to_string(), user.1)), "{:?}", user);
            }
        }

        /// Whatever a server answers, over and over again, the walk ends after a number of requests that depends on the number of users.
        #[test]
        fn no_server_keeps_a_walk_for_ever(
            answers in prop::collection::vec(prop::option::weighted(0.8, prop::collection::vec((prop::option::of(0u8..40), 0i64..100), 0..30)), 1..8),
            users in 0u64..5_000, floor in 0i64..50, is_sorted in any::<bool>(),
        ) {
            let mut recent = Recent::new(floor, 20).among(users);
            let mut next = 0;
            for request in 0.. {
                prop_assert!(request < 300 + users / 250, "the walk does not end");
                let Some(page) = &answers[request as usize % answers.len()] else {
                    match recent.unreadable() {
                        Unreadable::Broken => break,
                        _ => continue,
                    }
                };
                let mut page: Vec<(String, i64)> = page.iter().map(|(number, at)| {
                    next += 1;
                    (number.map_or_else(|| format!("new_{next}"), |number| number.to_string()), *at)
                }).collect();
                if is_sorted {
                    page.sort_by_key(|(_, at)| std::cmp::Reverse(*at));
                }
                let entries: Vec<_> = page.iter().map(|(id, at)| Entry { id, updated_at: Some(*at) }).collect();
                if recent.receive(&entries) != Step::More {
                    break;
                }
            }
        }

        #[test]
        fn nobody_above_the_floor_is_passed_by(
            times in prop::collection::vec(0i64..50, 0..600), floor in 0i64..60, first in 1u32..40,
            events in prop::collection::vec(event(), 0..20),
        ) {
            let mut server = Server(times.into_iter().enumerate().map(|(id, at)| (id as u32, at)).collect(), None);
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
        let mut server = Server((0..1000).map(|id| (id, 5)).collect(), None);
        assert_eq!(walk(&mut server, 6, 20, &[]).2, 1);
        let mut few = Server((0..15).map(|id| (id, 5)).collect(), None);
        assert_eq!(walk(&mut few, 6, 20, &[]).2, 1);
        assert_eq!(walk(&mut few, 0, 20, &[]).2, 2);
    }

    #[test]
    fn who_moves_up_behind_the_first_page_is_met() {
        let mut server = Server((0..40).map(|id| (id, 100 - i64::from(id))).collect(), None);
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
        let mut recent = Recent::new(0, 3);
        let page = [entry("a", 3), entry("b", 2), entry("c", 1)];
        assert_eq!(recent.receive(&page), Step::More);
        recent.limit = 3;
        assert_eq!(recent.receive(&page), Step::Unordered);
    }

    #[test]
    fn one_who_cannot_be_read_is_stepped_over() {
        let entry = |id, at| Entry {
            id,
            updated_at: Some(at),
        };
        let mut recent = Recent::new(5, 20);
        assert_eq!(recent.unreadable(), Unreadable::Smaller);
        assert_eq!(recent.query(), (0, 2));
        assert_eq!(recent.unreadable(), Unreadable::Smaller);
        assert_eq!(
            recent.unreadable(),
            Unreadable::SteppedOver,
            "there is nothing smaller than one"
        );
        assert_eq!(recent.query(), (1, 1));
        assert_eq!(recent.receive(&[entry("b", 9)]), Step::More);
        assert_eq!(recent.query(), (2, 4));
        assert_eq!(recent.receive(&[entry("c", 4)]), Step::End);
        assert_eq!(recent.newest(None), Some(9));
    }

    #[test]
    fn an_only_user_who_cannot_be_read_ends_the_walk() {
        let mut recent = Recent::new(5, 20);
        while recent.unreadable() == Unreadable::Smaller {}
        assert_eq!(recent.query(), (1, 1));
        assert_eq!(recent.receive(&[]), Step::End);
    }

    #[test]
    fn a_moment_that_no_page_can_show_is_tied() {
        let times = |shared| std::iter::repeat_n(50, shared).chain((0..40).rev());
        let walk = |shared: usize, floor| {
            let users = times(shared).enumerate().map(|(id, at)| (id as u32, at)).collect();
            let mut server = Server(users, Some(fastrand::Rng::with_seed(5)));
            let mut recent = Recent::new(floor, 20).among(5_000);
            let mut met = HashSet::new();
            for requests in 1.. {
                let page = server.page(recent.query());
                met.extend(page.iter().map(|(id, _)| id.clone()));
                let entries = page.iter().map(|(id, at)| Entry {
                    id,
                    updated_at: Some(*at),
                });
                if recent.receive(&entries.collect::<Vec<_>>()) == Step::End {
                    return (met.len(), recent.tied(None), recent.tied(Some(49)), requests);
                }
            }
            unreachable!()
        };
        assert_eq!(walk(3, 50), (20, None, None, 1));
        assert_eq!(walk(490, 50), (500, None, None, 4));
        let (met, tied, earlier, requests) = walk(3_000, 50);
        assert_eq!((tied, earlier), (Some(50), None));
        assert!(met < 3_000 && requests < 20, "{met} met, {requests} requests");
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

    #[test]
    fn a_full_sync_raises_the_floor_above_what_earlier_walks_saw_but_did_not_meet() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut floor = Floor::default();
        floor.note(at(0), 100_000);
        assert!(!floor.would_pass(100_000, at(9)));
        assert!(floor.would_pass(100_000, at(10)) && !floor.would_pass(100_001, at(10)));
        floor.learn(at(10), at(40), 100_000);
        assert_eq!(floor.get(100_000), 100_001);
    }
}
