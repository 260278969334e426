//! Clerk's rate limit.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::Serialize;

/// The window of Clerk's rate limit (documented).
pub(crate) const WINDOW: Duration = Duration::from_secs(10);

/// The rate limit that applies.
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

/// Counts the requests that were admitted in the last ten seconds.
///
/// The numbers and `Retry-After` are documented. Guessed: that the window slides, and that refused
/// requests do not count.
pub(crate) struct Limiter {
    limit: Option<usize>,
    admitted: VecDeque<Instant>,
}

impl Limiter {
    pub(crate) fn new(limit: RateLimit) -> Self {
        Self {
            limit: limit.requests(),
            admitted: VecDeque::new(),
        }
    }

    /// Admits a request. The error is the number of whole seconds to wait.
    pub(crate) fn admit(&mut self, now: Instant) -> Result<(), u64> {
        let Some(limit) = self.limit else { return Ok(()) };
        while self
            .admitted
            .front()
            .is_some_and(|first| now.duration_since(*first) >= WINDOW)
        {
            self.admitted.pop_front();
        }
        if self.admitted.len() < limit {
            self.admitted.push_back(now);
            return Ok(());
        }
        let wait = self
            .admitted
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
            assert_eq!(limiter.admit(start + Duration::from_millis(request * 10)), Ok(()));
        }
        assert_eq!(limiter.admit(start + Duration::from_millis(1000)), Err(9));
        assert_eq!(limiter.admit(start + Duration::from_millis(9500)), Err(1));
        assert_eq!(limiter.admit(start + Duration::from_millis(10_000)), Ok(()));
        assert_eq!(limiter.admit(start + Duration::from_millis(10_001)), Err(1));
    }
}
