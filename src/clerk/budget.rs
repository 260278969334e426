//! The part of Clerk's rate limit that clerk2pg spends. The application's own backend shares the
//! limit, so it is a small part.

use std::{
    num::NonZeroU32,
    sync::{Arc, OnceLock},
    time::Duration,
};

use governor::{DefaultDirectRateLimiter, Quota};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
};

use crate::secret::Secret;

/// Clerk counts requests in windows of this length. Source: documented.
const WINDOW: Duration = Duration::from_secs(10);

/// How much of the budget a series of requests may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Share {
    /// All of it.
    Whole,
    /// All but a tenth: requests in great numbers, which others do not wait for.
    Patient,
    /// All of it, but a third for long series of requests: walks that can wait.
    Background,
    /// A quarter: requests that notifications ask for, because every role that may connect to the
    /// database can send notifications.
    Notifications,
}

/// A shared rate limit on requests.
#[derive(Debug)]
pub(super) struct Budget {
    /// A permit for each request in a window.
    all: Arc<Semaphore>,
    /// Permits for requests that can wait: a tenth fewer.
    patient: Arc<Semaphore>,
    /// Permits for requests that notifications ask for: a quarter of all.
    notified: Arc<Semaphore>,
    /// For long series of requests.
    steady: DefaultDirectRateLimiter,
    /// For those in the background.
    background: DefaultDirectRateLimiter,
    /// Requests in a window.
    requests: u32,
    /// The budget that this one replaced, which may have spent more than this one has permits.
    before: OnceLock<Arc<Budget>>,
}

/// The permit of a request. When it is dropped, the request may still count at Clerk for the length
/// of a window.
#[derive(Debug)]
pub(super) struct Permit(Vec<OwnedSemaphorePermit>);

impl Drop for Permit {
    fn drop(&mut self) {
        let permits = std::mem::take(&mut self.0);
        // Without a runtime, the process is about to exit.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                tokio::time::sleep(WINDOW).await;
                drop(permits);
            });
        }
    }
}

impl Budget {
    /// `part` of the limit, in requests in ten seconds. Without a limit, it is that of the key's
    /// kind of instance: 1000 for production (`sk_live_`), 100 for development. Source: documented.
    pub(super) fn new(key: &Secret, limit: Option<u32>, part: f64) -> Self {
        let of_kind = if key.expose().starts_with("sk_live_") {
            1000
        } else {
            100
        };
        let requests = ((f64::from(limit.unwrap_or(of_kind)) * part) as u32).max(1);
        Self {
            all: Arc::new(Semaphore::new(requests as usize)),
            patient: Arc::new(Semaphore::new((requests - requests / 10) as usize)),
            notified: Arc::new(Semaphore::new(part_of_notifications(requests) as usize)),
            steady: DefaultDirectRateLimiter::direct(quota(requests)),
            background: DefaultDirectRateLimiter::direct(quota(in_background(requests))),
            requests,
            before: OnceLock::new(),
        }
    }

    /// Returns the budget that replaces another: requests that may still count at Clerk are already
    /// spent.
    pub(super) fn in_place_of(this: Arc<Self>, other: &Arc<Self>) -> Arc<Self> {
        if this.requests == other.requests {
            return Arc::clone(other);
        }
        let spent = other.spent();
        let spent_on_notifications = part_of_notifications(other.requests) - other.notified.available_permits() as u32;
        for (permits, spent) in [
            (&this.all, spent),
            (&this.patient, spent),
            (&this.notified, spent_on_notifications),
        ] {
            let spent = (spent as usize).min(permits.available_permits());
            let permits = permits.clone().try_acquire_many_owned(spent as u32);
            // A window later, they are free again.
            drop(Permit(permits.into_iter().collect()));
        }
        // If nothing is spent, the old budget is not needed. Otherwise all budgets would be kept
        // forever.
        if spent > 0 {
            this.before.get_or_init(|| Arc::clone(other));
        }
        this
    }

    /// Returns how many requests may still count at Clerk.
    fn spent(&self) -> u32 {
        let own = self.requests - self.all.available_permits() as u32;
        own.max(self.before.get().map_or(0, |before| before.spent()))
    }

    /// Returns how many requests a second it allows over time.
    pub(super) fn per_second(&self) -> f64 {
        f64::from(self.requests) / WINDOW.as_secs_f64()
    }

    /// Returns the part of it that is spent now.
    pub(super) fn used(&self) -> f64 {
        (f64::from(self.spent()) / f64::from(self.requests)).min(1.0)
    }

    /// Waits until a request may be sent. It holds its permit until it is answered, and for a
    /// window more.
    pub(super) async fn permit(&self, share: Share) -> Permit {
        let part = match share {
            Share::Whole | Share::Background => None,
            Share::Patient => Some(&self.patient),
            Share::Notifications => Some(&self.notified),
        };
        let mut permits = Vec::new();
        for semaphore in part.into_iter().chain([&self.all]) {
            // The semaphores are never closed.
            permits.extend(semaphore.clone().acquire_owned().await);
        }
        Permit(permits)
    }

    /// Returns how many requests notifications may ask for in a window.
    pub(super) fn for_notifications(&self) -> usize {
        part_of_notifications(self.requests) as usize
    }

    /// Returns how many of them may be sent now.
    pub(super) fn free_for_notifications(&self) -> usize {
        self.notified.available_permits()
    }

    /// Waits until one of them may be sent.
    pub(super) async fn is_free_for_notifications(&self) {
        // The semaphore is never closed.
        drop(self.notified.acquire().await);
    }

    /// Waits until the next request of a long series may be sent, so that the series does not use
    /// up all permits at once.
    pub(super) async fn steady(&self, share: Share) {
        let limiter = match share {
            Share::Background => &self.background,
            Share::Whole | Share::Patient | Share::Notifications => &self.steady,
        };
        limiter.until_ready().await;
    }
}

/// Returns a quarter, but at least one request.
fn part_of_notifications(requests: u32) -> u32 {
    (requests / 4).max(1)
}

/// Returns a third, but at least a request a second, as far as the budget allows that.
fn in_background(requests: u32) -> u32 {
    (requests / 3).max(requests.min(WINDOW.as_secs() as u32))
}

/// Returns a quota that allows at most `requests` in any window: the burst is subtracted from the
/// steady rate.
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

    #[tokio::test(start_paused = true)]
    async fn a_burst_may_take_the_whole_budget_but_no_window_more() {
        let key = Secret::from("sk_live_budget".to_owned());
        let budget = Budget::new(&key, None, 0.25);
        let start = tokio::time::Instant::now();
        let mut arrivals = Vec::new();
        for request in 0..700u64 {
            let permit = budget.permit(Share::Whole).await;
            // Each request arrives some time after it was sent, and before it is answered.
            tokio::time::sleep(Duration::from_millis(request % 3)).await;
            arrivals.push(start.elapsed());
            tokio::time::sleep(Duration::from_millis(request % 2)).await;
            drop(permit);
        }
        let within = |from: Duration| arrivals.iter().filter(|at| (from..from + WINDOW).contains(*at)).count();
        let windows: Vec<usize> = arrivals.iter().map(|from| within(*from)).collect();
        assert_eq!(windows[0], 250);
        assert_eq!(windows.into_iter().max(), Some(250));
        assert!(arrivals[699] < Duration::from_secs(22), "{:?}", arrivals[699]);
    }

    #[tokio::test(start_paused = true)]
    async fn urgent_requests_get_permits_in_a_burst() {
        let budget = Budget::new(&Secret::from("sk_live_budget".to_owned()), None, 0.25);
        let start = tokio::time::Instant::now();
        for _ in 0..225 {
            budget.permit(Share::Patient).await;
        }
        for _ in 0..25 {
            budget.permit(Share::Whole).await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        budget.permit(Share::Patient).await;
        assert!(start.elapsed() >= WINDOW);
    }

    #[tokio::test(start_paused = true)]
    async fn notifications_have_a_quarter_in_any_window() {
        let budget = Budget::new(&Secret::from("sk_test_budget".to_owned()), None, 0.25);
        assert_eq!((budget.requests, budget.for_notifications()), (25, 6));
        let start = tokio::time::Instant::now();
        let mut arrivals = Vec::new();
        for _ in 0..20 {
            budget.permit(Share::Notifications).await;
            arrivals.push(start.elapsed());
        }
        for from in &arrivals {
            let window = *from..*from + WINDOW;
            let within = arrivals.iter().filter(|at| window.contains(*at)).count();
            assert!(within <= 6, "{within} from {from:?}");
        }
        assert_eq!(budget.free_for_notifications(), 4);
        budget.permit(Share::Whole).await;
        assert!(start.elapsed() < 4 * WINDOW, "the rest is left to others");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_takes_the_place_of_another_has_spent_what_that_one_has() {
        let key = Secret::from("sk_live_budget".to_owned());
        for (parts, left) in [(&[0.25][..], 50), (&[0.3], 100), (&[0.1], 0), (&[0.1, 0.25], 50)] {
            let (mut budget, start) = (Arc::new(Budget::new(&key, None, 0.25)), tokio::time::Instant::now());
            for _ in 0..200 {
                budget.permit(Share::Whole).await;
            }
            for part in parts {
                budget = Budget::in_place_of(Arc::new(Budget::new(&key, None, *part)), &budget);
            }
            for _ in 0..left {
                budget.permit(Share::Whole).await;
            }
            assert_eq!(start.elapsed(), Duration::ZERO, "{parts:?}");
            budget.permit(Share::Whole).await;
            assert!(start.elapsed() >= WINDOW, "{parts:?}");
        }
    }

    #[test]
    fn what_flows_steadily_takes_no_more_than_the_budget_in_any_window() {
        for budget in [10, 25, 83, 100, 250, 1000] {
            let clock = FakeRelativeClock::default();
            let limiter = RateLimiter::direct_with_clock(quota(budget), clock.clone());
            let mut sent = Vec::new();
            for millisecond in 0u64..40_000 {
                // An idle period in the middle lets a burst gather.
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
