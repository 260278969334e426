//! The part of Clerk's rate limit that clerk2pg spends. The limit is shared with the user's own backend, so it is a guest's part.

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

/// A shared rate limit on requests.
#[derive(Debug)]
pub(super) struct Budget {
    /// One for each request in a window.
    places: Arc<Semaphore>,
    /// One for each request in a window that can wait: a tenth fewer.
    patient: Arc<Semaphore>,
    /// Places for requests that notifications ask for: a quarter of all.
    asked: Arc<Semaphore>,
    /// For what goes on for minutes.
    steady: DefaultDirectRateLimiter,
    /// Requests in a window.
    requests: u32,
    /// The one whose place it took, which may have spent more than there are places here.
    before: OnceLock<Arc<Budget>>,
}

/// A request's place in the budget. When it is dropped, the request may still count at Clerk for the length of a window.
#[derive(Debug)]
pub(super) struct Place(Vec<OwnedSemaphorePermit>);

impl Drop for Place {
    fn drop(&mut self) {
        let permits = std::mem::take(&mut self.0);
        // Without a runtime the program is at its end.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                tokio::time::sleep(WINDOW).await;
                drop(permits);
            });
        }
    }
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
        let requests = ((f64::from(limit.unwrap_or(of_kind)) * part) as u32).max(1);
        Self {
            places: Arc::new(Semaphore::new(requests as usize)),
            patient: Arc::new(Semaphore::new((requests - requests / 10) as usize)),
            asked: Arc::new(Semaphore::new(part_of_notifications(requests) as usize)),
            steady: DefaultDirectRateLimiter::direct(quota(requests)),
            requests,
            before: OnceLock::new(),
        }
    }

    /// One that takes the place of another: requests that may still count at Clerk are spent of it already.
    pub(super) fn in_place_of(this: Arc<Self>, other: &Arc<Self>) -> Arc<Self> {
        if this.requests == other.requests {
            return Arc::clone(other);
        }
        let spent = other.spent();
        let spent_on_notifications = part_of_notifications(other.requests) - other.asked.available_permits() as u32;
        for (places, spent) in [
            (&this.places, spent),
            (&this.patient, spent),
            (&this.asked, spent_on_notifications),
        ] {
            let spent = (spent as usize).min(places.available_permits());
            let permits = places.clone().try_acquire_many_owned(spent as u32);
            // A window later they are free again.
            drop(Place(permits.into_iter().collect()));
        }
        // Nothing spent is nothing to remember, else all that ever were would be kept.
        if spent > 0 {
            this.before.get_or_init(|| Arc::clone(other));
        }
        this
    }

    /// How many requests may still count at Clerk.
    fn spent(&self) -> u32 {
        let own = self.requests - self.places.available_permits() as u32;
        own.max(self.before.get().map_or(0, |before| before.spent()))
    }

    /// How many requests it lets out in a second, over time.
    pub(super) fn per_second(&self) -> f64 {
        f64::from(self.requests) / WINDOW.as_secs_f64()
    }

    /// The part of it that is spent at this moment.
    pub(super) fn used(&self) -> f64 {
        (f64::from(self.spent()) / f64::from(self.requests)).min(1.0)
    }

    /// Waits until a request may be sent. It holds its place until it is answered, and for a window more. One that is patient leaves a tenth of
    /// the places to others.
    pub(super) async fn place(&self, is_patient: bool) -> Place {
        Self::hold(is_patient.then_some(&self.patient), &self.places).await
    }

    /// The same for a request that a notification asks for.
    pub(super) async fn place_for_notification(&self) -> Place {
        Self::hold(Some(&self.asked), &self.places).await
    }

    async fn hold(part: Option<&Arc<Semaphore>>, whole: &Arc<Semaphore>) -> Place {
        let mut permits = Vec::new();
        for places in part.into_iter().chain([whole]) {
            // They are never closed.
            permits.extend(places.clone().acquire_owned().await);
        }
        Place(permits)
    }

    /// How many requests notifications may ask for in a window.
    pub(super) fn for_notifications(&self) -> usize {
        part_of_notifications(self.requests) as usize
    }

    /// How many of them may be sent at this moment.
    pub(super) fn free_for_notifications(&self) -> usize {
        self.asked.available_permits()
    }

    /// Waits until one of them may be sent.
    pub(super) async fn is_free_for_notifications(&self) {
        // It is never closed.
        drop(self.asked.acquire().await);
    }

    /// Keeps what goes on for minutes from using up all places at once, so that others find some.
    pub(super) async fn steady(&self) {
        self.steady.until_ready().await;
    }
}

/// A quarter, and one request at least.
fn part_of_notifications(requests: u32) -> u32 {
    (requests / 4).max(1)
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

    #[tokio::test(start_paused = true)]
    async fn a_burst_may_take_the_whole_budget_but_no_window_more() {
        let key = Secret::from("sk_live_budget".to_owned());
        let budget = Budget::new(&key, None, 0.25);
        let start = tokio::time::Instant::now();
        let mut arrivals = Vec::new();
        for request in 0..700u64 {
            let place = budget.place(false).await;
            // Each arrives some time after it was sent, and before it is answered.
            tokio::time::sleep(Duration::from_millis(request % 3)).await;
            arrivals.push(start.elapsed());
            tokio::time::sleep(Duration::from_millis(request % 2)).await;
            drop(place);
        }
        let within = |from: Duration| arrivals.iter().filter(|at| (from..from + WINDOW).contains(*at)).count();
        let windows: Vec<usize> = arrivals.iter().map(|from| within(*from)).collect();
        assert_eq!(windows[0], 250);
        assert_eq!(windows.into_iter().max(), Some(250));
        assert!(arrivals[699] < Duration::from_secs(22), "{:?}", arrivals[699]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_cannot_wait_finds_a_place_in_a_burst() {
        let budget = Budget::new(&Secret::from("sk_live_budget".to_owned()), None, 0.25);
        let start = tokio::time::Instant::now();
        for _ in 0..225 {
            budget.place(true).await;
        }
        for _ in 0..25 {
            budget.place(false).await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        budget.place(true).await;
        assert!(start.elapsed() >= WINDOW);
    }

    #[tokio::test(start_paused = true)]
    async fn notifications_have_a_quarter_in_any_window() {
        let budget = Budget::new(&Secret::from("sk_test_budget".to_owned()), None, 0.25);
        assert_eq!((budget.requests, budget.for_notifications()), (25, 6));
        let start = tokio::time::Instant::now();
        let mut arrivals = Vec::new();
        for _ in 0..20 {
            budget.place_for_notification().await;
            arrivals.push(start.elapsed());
        }
        for from in &arrivals {
            let window = *from..*from + WINDOW;
            let within = arrivals.iter().filter(|at| window.contains(*at)).count();
            assert!(within <= 6, "{within} from {from:?}");
        }
        assert_eq!(budget.free_for_notifications(), 4);
        budget.place(false).await;
        assert!(start.elapsed() < 4 * WINDOW, "the rest is left to others");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_takes_the_place_of_another_has_spent_what_that_one_has() {
        let key = Secret::from("sk_live_budget".to_owned());
        for (parts, left) in [(&[0.25][..], 50), (&[0.3], 100), (&[0.1], 0), (&[0.1, 0.25], 50)] {
            let (mut budget, start) = (Arc::new(Budget::new(&key, None, 0.25)), tokio::time::Instant::now());
            for _ in 0..200 {
                budget.place(false).await;
            }
            for part in parts {
                budget = Budget::in_place_of(Arc::new(Budget::new(&key, None, *part)), &budget);
            }
            for _ in 0..left {
                budget.place(false).await;
            }
            assert_eq!(start.elapsed(), Duration::ZERO, "{parts:?}");
            budget.place(false).await;
            assert!(start.elapsed() >= WINDOW, "{parts:?}");
        }
    }

    #[test]
    fn what_flows_steadily_takes_no_more_than_the_budget_in_any_window() {
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
