//! This machine's two clocks: the wall clock, which people set and which can jump, and a steady
//! one, which only goes forward and shows no time of day.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Instant,
};

use chrono::{DateTime, TimeDelta, Utc};

/// A moment on both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// On the wall clock.
    pub(crate) wall: DateTime<Utc>,
    /// On the steady clock.
    pub(crate) steady: Instant,
}

impl Moment {
    /// Returns the current moment.
    pub(crate) fn now() -> Self {
        Self {
            wall: Utc::now(),
            steady: Instant::now(),
        }
    }
}

/// Both clocks. In tests the wall clock can jump, for all clones at once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Clock {
    ahead_ms: Arc<AtomicI64>,
}

impl Clock {
    /// Returns the current moment, including the jumps so far.
    pub(crate) fn now(&self) -> Moment {
        let Moment { wall, steady } = Moment::now();
        let ahead = TimeDelta::milliseconds(self.ahead_ms.load(Ordering::Relaxed));
        Moment {
            wall: wall + ahead,
            steady,
        }
    }

    /// Lets the wall clock jump.
    #[cfg(test)]
    pub(crate) fn jump(&self, by: TimeDelta) {
        self.ahead_ms.fetch_add(by.num_milliseconds(), Ordering::Relaxed);
    }
}
