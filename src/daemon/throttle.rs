//! Slows down the scheduled syncs when Clerk's rate limit is used up. The application's own backend
//! shares that limit, and goes first.

use std::time::{Duration, Instant};

use tracing::{info, warn};

/// First pause between two scheduled incremental syncs.
const MIN_PAUSE: Duration = Duration::from_secs(5);

/// Longest pause between two scheduled incremental syncs.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// The current pause and when it ends; by default there is none.
#[derive(Debug, Default)]
pub(super) struct Throttle(Option<(Duration, Instant)>);

impl Throttle {
    /// Whether a scheduled sync may run.
    pub(super) fn allows(&self, now: Instant) -> bool {
        self.0.is_none_or(|(_, until)| now >= until)
    }

    /// Records whether the rate limit refused a request of the last sync. Pauses double while it
    /// does, and halve when it does not.
    pub(super) fn record(&mut self, is_limited: bool, now: Instant) {
        let pause = match (self.0, is_limited) {
            (None, false) => return,
            (None, true) => MIN_PAUSE,
            (Some((pause, _)), true) => (pause * 2).min(MAX_PAUSE),
            (Some((pause, _)), false) => pause / 2,
        };
        if is_limited && self.0.is_none() {
            warn!(
                pause_s = pause.as_secs(),
                "Clerk's rate limit is used up; syncing less often until it recovers"
            );
        }
        if pause < MIN_PAUSE {
            info!("Clerk's rate limit has recovered; syncing as scheduled");
            self.0 = None;
        } else {
            self.0 = Some((pause, now + pause));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_halve() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut throttle = Throttle::default();
        throttle.record(false, start);
        assert!(throttle.allows(start));
        throttle.record(true, start);
        assert!(!throttle.allows(after(4)) && throttle.allows(after(5)));
        throttle.record(true, after(5));
        assert!(!throttle.allows(after(14)) && throttle.allows(after(15)));
        for _ in 0..10 {
            throttle.record(true, start);
        }
        assert!(!throttle.allows(after(59)) && throttle.allows(after(60)));
        for _ in 0..4 {
            throttle.record(false, start);
        }
        assert!(throttle.allows(start));
    }
}
