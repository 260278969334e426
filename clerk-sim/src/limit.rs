//! Clerk's rate limit.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::Serialize;

/// The length of Clerk's window (documented).
pub(crate) const WINDOW: Duration = Duration::from_secs(10);

/// Which limit applies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RateLimit {
    /// 1000 requests in 10 seconds (documented).
    Production,
    /// 100 requests in 10 seconds (documented).
    Development,
    /// No limit.
    #[default]
    Off,
}

impl RateLimit {
    fn requests(self) -> Option<usize> {
        match self {
            Self::Production => Some(1000),
            Self::Development => Some(100),
            Self::Off => None,
        }
    }
}

/// Counts the requests that were let through in the last ten seconds.
///
/// Documented are the numbers and the `Retry-After`; that the window slides, and that refused requests do not count, are guesses.
pub(crate) struct Limiter {
    limit: Option<usize>,
    passed: VecDeque<Instant>,
}

impl Limiter {
    pub(crate) fn new(limit: RateLimit) -> Self {
        Self {
            limit: limit.requests(),
            passed: VecDeque::new(),
        }
    }

    /// Lets the request through, or says after how many whole seconds the next would be.
    pub(crate) fn pass(&mut self, now: Instant) -> Result<(), u64> {
        let Some(limit) = self.limit else { return Ok(()) };
        while self
            .passed
            .front()
            .is_some_and(|first| now.duration_since(*first) >= WINDOW)
        {
            self.passed.pop_front();
        }
        if self.passed.len() < limit {
            self.passed.push_back(now);
            return Ok(());
        }
        let wait = self
            .passed
            .front()
            .map_or(WINDOW, |first| WINDOW.saturating_sub(now.duration_since(*first)));
        Err(wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_slides_and_says_how_long_to_wait() {
        let start = Instant::now();
        let mut limiter = Limiter::new(RateLimit::Development);
        for request in 0..100 {
            assert_eq!(limiter.pass(start + Duration::from_millis(request * 10)), Ok(()));
        }
        assert_eq!(limiter.pass(start + Duration::from_millis(1000)), Err(9));
        assert_eq!(limiter.pass(start + Duration::from_millis(9500)), Err(1));
        assert_eq!(limiter.pass(start + Duration::from_millis(10_000)), Ok(()));
        assert_eq!(limiter.pass(start + Duration::from_millis(10_001)), Err(1));
    }
}
