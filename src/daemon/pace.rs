//! Slowing down where Clerk's rate limit is used up: it is shared with the user's own backend, which comes first.

use std::time::{Duration, Instant};

use tracing::{info, warn};

/// The first and the longest pause between two incremental syncs of the schedule.
const PAUSES: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// How much slower than the schedule it goes; by default not at all.
#[derive(Debug, Default)]
pub(super) struct Pace(Option<(Duration, Instant)>);

impl Pace {
    /// Whether a tick of the schedule may be followed.
    pub(super) fn allows(&self, now: Instant) -> bool {
        self.0.is_none_or(|(_, until)| now >= until)
    }

    /// Takes note of whether the rate limit refused a request of the last sync. Pauses double while it does, and halve when it does not.
    pub(super) fn note(&mut self, is_limited: bool, now: Instant) {
        let (least, most) = PAUSES;
        let pause = match (self.0, is_limited) {
            (None, false) => return,
            (None, true) => least,
            (Some((pause, _)), true) => (pause * 2).min(most),
            (Some((pause, _)), false) => pause / 2,
        };
        if is_limited && self.0.is_none() {
            warn!(
                pause_s = pause.as_secs(),
                "Clerk's rate limit is used up; looking less often until it eases"
            );
        }
        if pause < least {
            info!("Clerk's rate limit has eased; looking as often as scheduled");
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
        let mut pace = Pace::default();
        pace.note(false, start);
        assert!(pace.allows(start));
        pace.note(true, start);
        assert!(!pace.allows(after(4)) && pace.allows(after(5)));
        pace.note(true, after(5));
        assert!(!pace.allows(after(14)) && pace.allows(after(15)));
        for _ in 0..10 {
            pace.note(true, start);
        }
        assert!(!pace.allows(after(59)) && pace.allows(after(60)));
        for _ in 0..4 {
            pace.note(false, start);
        }
        assert!(pace.allows(start));
    }
}
