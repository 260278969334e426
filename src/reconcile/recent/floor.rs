//! The floor of the walk over recent changes.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// How long after its `updated_at` a change may appear in the list. Source: a guess. A change that
/// takes longer is found by the next full sync.
pub const LAG: Duration = Duration::from_secs(10);

/// [`LAG`] in milliseconds.
pub const LAG_MS: i64 = 10_000;

/// How far down the next walk must go, learned from the walks before it. Clerk's times are only
/// compared with each other, and time that passes here is measured by a clock that never jumps, so
/// that the two clocks may differ.
///
/// A change is visible at the latest [`LAG`] after its `updated_at`. So a walk that began at least
/// that long after an earlier one has met all changes up to what was the newest then. Objects that
/// share that moment are not read again, as there may be many.
#[derive(Debug, Default)]
pub struct Floor {
    floor: Option<i64>,
    /// When walks ended, and the newest change that they met; the oldest walk first.
    walks: VecDeque<(Instant, i64)>,
    /// The stored watermark, as last read.
    watermark: Option<i64>,
    /// A full sync has met all objects that changed up to this moment.
    settled: Option<i64>,
}

impl Floor {
    /// Returns the floor in Unix milliseconds. It follows from the stored `watermark` until walks
    /// show more.
    pub fn get(&self, watermark: i64) -> i64 {
        let stored = watermark - LAG_MS;
        self.floor.map_or(stored, |floor| floor.max(stored))
    }

    /// Takes note of the stored watermark. If it went back, the database did: a standby that took
    /// over lacks what it was not sent, and what walks have shown is true of the other database
    /// only.
    pub fn note_watermark(&mut self, watermark: i64) {
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

    /// Notes a walk that met `newest` at the top, but not all objects below it.
    pub fn note(&mut self, ended: Instant, newest: i64) {
        if self.walks.back().is_none_or(|(_, before)| *before < newest) {
            self.walks.push_back((ended, newest));
        }
    }

    /// Notes a full sync that began long enough after `newest` to meet all objects that changed up
    /// to then.
    pub fn settle(&mut self, newest: i64) {
        self.settled = self.settled.max(Some(newest));
    }

    /// Whether all objects that changed at a moment were met, although no page shows all of them.
    pub fn is_settled(&self, at: i64) -> bool {
        self.settled >= Some(at)
    }

    /// Whether a walk over all objects that begins now would raise the floor above a moment.
    pub fn would_pass(&self, at: i64, now: Instant) -> bool {
        let is_seen = |(end, newest): &(Instant, i64)| *newest >= at && now.saturating_duration_since(*end) >= LAG;
        self.walks.iter().any(is_seen)
    }

    /// Notes a walk from `began` to `ended` that met all objects down to the floor, and `newest` at
    /// the top. A full sync is such a walk.
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
    use super::*;

    #[test]
    fn the_floor_rises_after_a_later_walk() {
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
        floor.note_watermark(100_000);
        floor.note_watermark(100_000);
        assert_eq!(floor.get(100_000), 100_001);
        floor.note_watermark(95_000);
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
