//! When a failed request is sent again.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::{Duration, Instant},
};

use backon::{ExponentialBuilder, Retryable};
use tracing::{debug, info, warn};

use super::error::{Error, Retry};
use crate::humanize::duration;

/// How long a rate-limited request waits in all before it counts as failed.
const RATE_LIMITED: Duration = Duration::from_secs(120);

/// How often an answer that cannot be read is asked for again.
const GARBAGE_TRIES: u32 = 2;

/// How long Clerk is away before somebody who waits for it is informed.
const NOTICED: Duration = Duration::from_secs(1);

/// Sends a request until it succeeds, as long as its error allows. `outage` is how long to try
/// while Clerk is away. `is_away` says whether this was logged since the last answer to any request.
pub(super) async fn retrying<T, F: Future<Output = Result<T, Error>>>(
    outage: Duration,
    is_away: &AtomicBool,
    request: impl FnMut() -> F,
) -> Result<T, Error> {
    let started = Instant::now();
    let (rate_limited, mut garbage) = (AtomicU32::new(0), 0);
    let result = request
        .retry(
            ExponentialBuilder::default()
                .with_min_delay(Duration::from_millis(250))
                .with_max_delay(Duration::from_secs(10))
                .without_max_times()
                .with_jitter(),
        )
        .when(|error| match error.retry() {
            Retry::No => false,
            Retry::WhenTold(after) => {
                rate_limited.fetch_add(1, Ordering::Relaxed);
                started.elapsed().saturating_add(after) < RATE_LIMITED
            }
            Retry::Briefly => {
                garbage += 1;
                garbage <= GARBAGE_TRIES
            }
            // A server that asks for more time than an outage may last is away.
            Retry::Soon(after) => started.elapsed().saturating_add(after) < outage,
        })
        .adjust(|error, backoff| match error.retry() {
            // `Retry-After: 0` occurs: never at once. Source: observed.
            Retry::WhenTold(after) => {
                Some(after.max(Duration::from_secs(1)) + Duration::from_millis(fastrand::u64(50..500)))
            }
            // The last attempt is at the end of the outage's time, not a pause later.
            Retry::Soon(after) => {
                let left = outage.saturating_sub(started.elapsed());
                backoff.map(|backoff| backoff.max(after).min(left))
            }
            Retry::Briefly => backoff,
            Retry::No => None,
        })
        .notify(|error, wait| {
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            let is_long = matches!(error.retry(), Retry::Soon(_)) && started.elapsed() >= NOTICED;
            if rate_limited.load(Ordering::Relaxed) == 1 && matches!(error, Error::RateLimited { .. }) {
                warn!(wait_ms, "Clerk asks to slow down");
            } else if is_long && !is_away.swap(true, Ordering::Relaxed) {
                info!(%error, "asking Clerk again, for {} at most", duration(outage));
            } else {
                debug!(wait_ms, %error, "asking Clerk again");
            }
        })
        .await;
    // An error may be an answer, too.
    if !matches!(&result, Err(error) if matches!(error.retry(), Retry::Soon(_))) {
        is_away.store(false, Ordering::Relaxed);
    }
    result
}
