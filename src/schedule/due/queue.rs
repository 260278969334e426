//! Users that were asked for by id and wait for their turn. Any role that may connect to the
//! database can ask, so everything here is bounded.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

/// Ids that may wait. Further ones are left to an incremental sync.
pub(super) const MAX_WAITING: usize = 1_000;

/// How long an id that neither Clerk nor the mirror has is not asked for again.
const UNKNOWN_FOR: Duration = Duration::from_secs(10);

/// Unknown ids that are remembered.
const MAX_UNKNOWN: usize = 4_000;

/// The pause after the first failure; each further one is four times as long.
const PAUSE: Duration = Duration::from_secs(2);

/// Attempts for an id.
const ATTEMPTS: u32 = 5;

/// Ids that wait to be asked for.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// In the order in which they were asked for.
    ready: VecDeque<String>,
    /// Unknown ids, by when they may be asked for again.
    deferred: BTreeSet<(Instant, String)>,
    /// Ids that failed, by when they are tried again.
    retries: BTreeSet<(Instant, String)>,
    /// All ids of the three fields above.
    waiting: HashSet<String>,
    /// How often an id failed.
    failures: HashMap<String, u32>,
    /// Unknown ids, and until when they are not asked for again, the oldest first.
    unknown: VecDeque<(Instant, String)>,
    unknown_until: HashMap<String, Instant>,
}

impl Queue {
    /// Adds an id, unless it waits already. Returns whether there was room for it.
    pub(super) fn add(&mut self, id: &str, now: Instant) -> bool {
        if self.waiting.contains(id) {
            return true;
        }
        if self.waiting.len() >= MAX_WAITING {
            return false;
        }
        self.waiting.insert(id.to_owned());
        match self.unknown_until.get(id).copied().filter(|until| *until > now) {
            Some(until) => drop(self.deferred.insert((until, id.to_owned()))),
            None => self.ready.push_back(id.to_owned()),
        }
        true
    }

    /// Takes up to `most` ids whose turn it is. One that failed is taken alone, and after all that
    /// did not: it may be the one that makes a sync fail.
    pub(super) fn take(&mut self, most: usize, now: Instant) -> Vec<String> {
        while self.deferred.first().is_some_and(|(until, _)| *until <= now) {
            self.ready.extend(self.deferred.pop_first().map(|(_, id)| id));
        }
        let mut taken: Vec<String> = self.ready.drain(..most.min(self.ready.len())).collect();
        if taken.is_empty() && most > 0 && self.retries.first().is_some_and(|(until, _)| *until <= now) {
            taken.extend(self.retries.pop_first().map(|(_, id)| id));
        }
        for id in &taken {
            self.waiting.remove(id);
        }
        taken
    }

    /// When there is something to take: `None` if never, a moment in the past if now.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        let later = [&self.deferred, &self.retries].map(|ids| ids.first().map(|(until, _)| *until));
        match self.ready.is_empty() {
            false => Some(now),
            true => later.into_iter().flatten().min(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Puts back ids that were not asked for and did not fail.
    pub(super) fn put_back(&mut self, ids: impl IntoIterator<Item = String>, now: Instant) {
        for id in ids {
            if !self.add(&id, now) {
                self.failures.remove(&id);
            }
        }
    }

    /// Records ids that failed. Returns those that are given up.
    pub(super) fn failed(&mut self, ids: impl IntoIterator<Item = String>, now: Instant) -> Vec<String> {
        let mut given_up = Vec::new();
        for id in ids {
            let failures = self.failures.get(&id).copied().unwrap_or_default() + 1;
            let is_waiting = self.waiting.contains(&id);
            if failures >= ATTEMPTS || (self.waiting.len() >= MAX_WAITING && !is_waiting) {
                self.failures.remove(&id);
                given_up.push(id);
                continue;
            }
            self.failures.insert(id.clone(), failures);
            if !is_waiting {
                self.waiting.insert(id.clone());
                self.retries.insert((now + PAUSE * 4u32.pow(failures - 1), id));
            }
        }
        given_up
    }

    /// Records ids that are done. An id that waits again keeps its failures.
    pub(super) fn done(&mut self, ids: &[String]) {
        for id in ids {
            if !self.waiting.contains(id) {
                self.failures.remove(id);
            }
        }
    }

    /// Records ids that neither Clerk nor the mirror has.
    pub(super) fn unknown(&mut self, ids: impl IntoIterator<Item = String>, now: Instant) {
        while let Some((until, _)) = self.unknown.front()
            && (*until <= now || self.unknown.len() >= MAX_UNKNOWN)
        {
            self.forget_one();
        }
        for id in ids {
            if self.unknown.len() >= MAX_UNKNOWN {
                self.forget_one();
            }
            let until = now + UNKNOWN_FOR;
            // The id was asked for again while it was being read.
            if self.waiting.contains(&id)
                && let Some(at) = self.ready.iter().position(|ready| *ready == id)
            {
                self.ready.remove(at);
                self.deferred.insert((until, id.clone()));
            }
            self.unknown_until.insert(id.clone(), until);
            self.unknown.push_back((until, id));
        }
    }

    fn forget_one(&mut self) {
        if let Some((until, id)) = self.unknown.pop_front()
            && self.unknown_until.get(&id) == Some(&until)
        {
            self.unknown_until.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[&str]) -> Vec<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    fn queue(waiting: &[&str], now: Instant) -> Queue {
        let mut queue = Queue::default();
        waiting.iter().for_each(|id| assert!(queue.add(id, now)));
        queue
    }

    #[test]
    fn ids_come_in_order_once_and_up_to_the_limit() {
        let now = Instant::now();
        let mut queue = queue(&["c", "a", "b", "a"], now);
        assert_eq!(queue.take(0, now), ids(&[]));
        assert_eq!(queue.take(2, now), ids(&["c", "a"]));
        assert_eq!(queue.take(9, now), ids(&["b"]));
        assert_eq!((queue.len(), queue.next(now)), (0, None));
    }

    #[test]
    fn a_failed_id_waits_after_all_others_with_growing_pauses_and_is_given_up() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut queue = queue(&["bad", "worse"], start);
        let taken = queue.take(9, start);
        assert!(queue.failed(taken, start).is_empty());
        assert_eq!(queue.next(start), Some(after(2)));
        assert!(queue.add("bad", start), "it waits already");
        assert!(queue.add("good", after(2)));
        assert_eq!(queue.take(9, after(2)), ids(&["good"]));
        assert_eq!(queue.take(9, after(2)), ids(&["bad"]));
        assert!(queue.failed(ids(&["bad"]), after(2)).is_empty());
        assert_eq!(queue.take(9, after(3)), ids(&["worse"]));
        queue.done(&ids(&["worse"]));
        for at in [10, 42, 170] {
            assert_eq!(queue.next(start), Some(after(at)));
            assert_eq!(queue.take(9, after(at)), ids(&["bad"]));
            let given_up = queue.failed(ids(&["bad"]), after(at));
            assert_eq!(given_up, if at == 170 { ids(&["bad"]) } else { ids(&[]) });
        }
        assert_eq!((queue.len(), queue.failures.len()), (0, 0));
    }

    #[test]
    fn an_unknown_id_is_asked_for_again_after_a_while() {
        let start = Instant::now();
        let mut queue = queue(&["nobody"], start);
        let taken = queue.take(9, start);
        assert!(queue.add("nobody", start), "again, while it is being read");
        queue.unknown(taken, start);
        assert_eq!((queue.len(), queue.take(9, start)), (1, ids(&[])));
        assert!(queue.add("nobody", start) && queue.add("nobody", start));
        assert_eq!(queue.take(9, start + UNKNOWN_FOR / 2), ids(&[]));
        assert_eq!(queue.take(9, start + UNKNOWN_FOR), ids(&["nobody"]));
        assert!(queue.add("nobody", start + UNKNOWN_FOR));
        assert_eq!(queue.take(9, start + UNKNOWN_FOR), ids(&["nobody"]));
    }

    #[test]
    fn a_flood_of_ids_takes_bounded_memory() {
        let start = Instant::now();
        let mut queue = Queue::default();
        for second in 0..30 {
            let now = start + Duration::from_secs(second);
            for n in 0..2 * MAX_WAITING {
                queue.add(&format!("user_{second}_{n}"), now);
            }
            assert_eq!(queue.len(), MAX_WAITING);
            let taken = queue.take(MAX_WAITING, now);
            match second % 3 {
                0 => drop(queue.failed(taken, now)),
                _ => queue.unknown(taken, now),
            }
            assert!(queue.unknown.len() <= MAX_UNKNOWN && queue.unknown_until.len() <= MAX_UNKNOWN);
            assert!(queue.failures.len() <= 2 * MAX_WAITING, "{}", queue.failures.len());
        }
    }
}
