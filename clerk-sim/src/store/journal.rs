//! The recent changes of a store, from which older states are shown.

use std::collections::{HashSet, VecDeque};
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

/// How an older state differs from the present one.
#[derive(Default)]
pub(crate) struct Difference {
    /// Ids of all objects that have changed since.
    pub(crate) changed: HashSet<Box<str>>,
    /// The older entries of those. An object that was created since has none.
    pub(crate) before: Vec<Arc<Entry>>,
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

    /// The entry that the first change of this object after `as_of` replaced. `None` if the object
    /// has not changed since.
    pub(crate) fn entry_before(&self, id: &str, as_of: Option<i64>) -> Option<Option<Arc<Entry>>> {
        let first = self.since(as_of).find(|change| &*change.id == id)?;
        Some(first.before.clone())
    }

    /// How the state at `as_of` differs from the present one.
    pub(crate) fn difference(&self, as_of: Option<i64>) -> Difference {
        let mut difference = Difference::default();
        for change in self.since(as_of) {
            // The first change since shows the older entry; later changes show states in between.
            if difference.changed.insert(change.id.clone()) {
                difference.before.extend(change.before.clone());
            }
        }
        difference
    }
}
