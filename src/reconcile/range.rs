//! Ranges of `created_at`.

use serde::{Deserialize, Serialize};

/// A half-open range of `created_at`, in Unix milliseconds. An open end is unbounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// First millisecond in it.
    pub from: Option<i64>,
    /// First millisecond after it.
    pub before: Option<i64>,
}

impl Range {
    /// All time.
    pub const ALL: Self = Self {
        from: None,
        before: None,
    };

    /// Whether a moment is in it.
    pub fn contains(&self, at: i64) -> bool {
        self.from.is_none_or(|from| at >= from) && self.before.is_none_or(|before| at < before)
    }

    /// Returns what both ranges hold; `None` if that is no moment.
    pub fn intersection(self, other: Self) -> Option<Self> {
        let from = self.from.max(other.from);
        let before = match (self.before, other.before) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        let is_empty = from.zip(before).is_some_and(|(from, before)| from >= before);
        (!is_empty).then_some(Self { from, before })
    }

    /// Returns the part before a moment, and the part from it on.
    pub fn split(self, at: i64) -> [Self; 2] {
        let at = Some(at);
        [Self { before: at, ..self }, Self { from: at, ..self }]
    }
}
