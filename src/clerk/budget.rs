//! The part of Clerk's rate limit that clerk2pg spends. The limit is shared with the user's own backend, so it is a guest's part.

use std::{num::NonZeroU32, time::Duration};

use governor::{DefaultDirectRateLimiter, Quota};

use crate::secret::Secret;

/// Clerk counts requests in windows of this length. Source: documented.
const WINDOW: Duration = Duration::from_secs(10);

/// A shared rate limit on requests.
#[derive(Debug)]
pub(super) struct Budget {
    limiter: DefaultDirectRateLimiter,
    /// Requests in a window.
    requests: u32,
}

impl Budget {
    /// `part` of the limit, in requests in ten seconds; where it is not stated, that of the key's kind of instance: 1000 for production
    /// (`sk_live_`), 100 for development. Source: documented.
    pub(super) fn new(key: &Secret, limit: Option<u32>, part: f64) -> Self {
        let of_kind = if key.expose().starts_with("sk_live_") {
            1000
        } else {
            100
        };
        let requests = (f64::from(limit.unwrap_or(of_kind)) * part) as u32;
        Self {
            limiter: DefaultDirectRateLimiter::direct(quota(requests)),
            requests,
        }
    }

    /// How many requests it lets out in a second, over time.
    pub(super) fn per_second(&self) -> f64 {
        f64::from(self.requests) / WINDOW.as_secs_f64()
    }

    /// Waits until a request may be sent.
    pub(super) async fn wait(&self) {
        self.limiter.until_ready().await;
    }
}

/// A quota that lets at most `requests` through in any window: what may come in a burst is taken off what flows steadily.
fn quota(requests: u32) -> Quota {
    let burst = NonZeroU32::MIN.max(NonZeroU32::new(requests / 10).unwrap_or(NonZeroU32::MIN));
    let steady = requests.saturating_sub(burst.get()).max(1);
    Quota::with_period(WINDOW / steady)
        .unwrap_or_else(|| Quota::per_second(NonZeroU32::MIN))
        .allow_burst(burst)
}

#[cfg(test)]
mod tests {
    use governor::{RateLimiter, clock::FakeRelativeClock};

    use super::*;

    #[test]
    fn no_window_sees_more_than_the_budget() {
        for budget in [10, 25, 100, 250, 1000] {
            let clock = FakeRelativeClock::default();
            let limiter = RateLimiter::direct_with_clock(quota(budget), clock.clone());
            let mut sent = Vec::new();
            for millisecond in 0u64..40_000 {
                // An idle stretch in the middle lets a burst gather.
                let idle = (12_000..25_000).contains(&millisecond);
                while !idle && limiter.check().is_ok() {
                    sent.push(millisecond);
                }
                clock.advance(Duration::from_millis(1));
            }
            let busiest = sent
                .iter()
                .map(|start| sent.iter().filter(|at| (*start..start + 10_000).contains(at)).count());
            let busiest = busiest.max().unwrap();
            assert!(busiest <= budget as usize, "{busiest} of {budget}");
            assert!(
                busiest * 10 >= budget as usize * 9,
                "{busiest} of {budget} wastes the budget"
            );
        }
    }
}
