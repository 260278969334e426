//! This machine's two clocks: the wall clock, which people set and which jumps, and a steady one,
//! which only goes forward but knows no time of day.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Instant,
};

use chrono::{DateTime, TimeDelta, Utc};

/// A moment by both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// By the wall clock.
    pub(crate) wall: DateTime<Utc>,
    /// By the steady one.
    pub(crate) steady: Instant,
}

impl Moment {
    /// The current moment.
    pub(crate) fn now() -> Self {
        Self {
            wall: Utc::now(),
            steady: Instant::now(),
        }
    }
}

/// Returns the time; in tests the wall clock can jump, for all clones at once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Clock {
    ahead_ms: Arc<AtomicI64>,
}

impl Clock {
    /// The current moment, with the jumps so far.
    pub(crate) fn now(&self) -> Moment {
        let Moment { wall, steady } = Moment::now();
        let ahead = TimeDelta::milliseconds(self.ahead_ms.load(Ordering::Relaxed));
        Moment {
            wall: wall + ahead,
            steady,
        }
    }

    /// The wall clock jumps.
    #[cfg(test)]
    pub(crate) fn jump(&self, by: TimeDelta) {
        self.ahead_ms.fetch_add(by.num_milliseconds(), Ordering::Relaxed);
    }
}
