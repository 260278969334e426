//! The recent changes of a store, from which older states are shown.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::entry::Entry;

/// How far back an older state can be shown, in milliseconds.
const MAX_AGE_MS: i64 = 10 * 60 * 1000;
/// Changes that are kept. This bounds the memory under heavy churn.
const MAX_CHANGES: usize = 100_000;

/// The changes of the last ten minutes, oldest first.
#[derive(Default)]
pub(crate) struct Journal(VecDeque<Change>);

struct Change {
    at: i64,
    id: Box<str>,
    before: Option<Arc<Entry>>,
}

/// How an older state differs from the present one: the older entries of all objects that have
/// changed since. An object that was created since has none.
#[derive(Default)]
pub(crate) struct Difference(HashMap<Box<str>, Option<Arc<Entry>>>);

impl Difference {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn has_changed(&self, id: &str) -> bool {
        self.0.contains_key(id)
    }

    /// The older entry of an object. `None` if the object has not changed.
    pub(crate) fn before(&self, id: &str) -> Option<Option<&Arc<Entry>>> {
        self.0.get(id).map(Option::as_ref)
    }

    /// The older entries of all objects that have changed and existed before.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.0.values().flatten()
    }

    /// The ids of all objects that have changed, with their older entries.
    pub(crate) fn changes(&self) -> impl Iterator<Item = (&str, Option<&Arc<Entry>>)> {
        self.0.iter().map(|(id, before)| (&**id, before.as_ref()))
    }
}

impl Journal {
    /// Adds a change that was made at the time `now`.
    pub(crate) fn record(&mut self, now: i64, id: &str, before: Option<Arc<Entry>>) {
        // A writer may have read the clock before it got the lock: keep the times in order.
        let at = self.0.back().map_or(now, |last| last.at.max(now));
        self.0.push_back(Change {
            at,
            id: id.into(),
            before,
        });
        while self.0.len() > MAX_CHANGES || self.0.front().is_some_and(|first| first.at < now - MAX_AGE_MS) {
            self.0.pop_front();
        }
    }

    /// The changes after `as_of`. None if `as_of` is the present.
    fn since(&self, as_of: Option<i64>) -> impl Iterator<Item = &Change> {
        let first = as_of.map_or(self.0.len(), |as_of| {
            self.0.partition_point(|change| change.at <= as_of)
        });
        self.0.range(first..)
    }

    /// How the state at `as_of` differs from the present one.
    pub(crate) fn difference(&self, as_of: Option<i64>) -> Difference {
        let mut difference = Difference::default();
        for change in self.since(as_of) {
            // The first change since shows the older entry; later changes show states in between.
            let before = difference.0.entry(change.id.clone());
            before.or_insert_with(|| change.before.clone());
        }
        difference
    }
}
