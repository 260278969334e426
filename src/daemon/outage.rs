//! Waiting out an outage: with backoff, and told once when it begins and once when it ends.

use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tracing::{error, info, warn};

use crate::failure::{Cause, Failure};

/// The state of an outage; by default there is none.
#[derive(Debug, Default)]
pub(super) struct Outage(Option<State>);

#[derive(Debug)]
struct State {
    cause: Cause,
    /// Tells failures of one cause apart; their words may hold a trace of each request.
    hint: Option<String>,
    since: Instant,
    backoff: ExponentialBackoff,
    next: Option<Duration>,
}

impl Outage {
    /// Takes note of a failed pass. What goes on is not told again.
    pub(super) fn note(&mut self, failure: &Failure) {
        let is_away = matches!(failure.cause, Cause::ClerkAway | Cause::PostgresAway);
        let is_new = self
            .0
            .as_ref()
            .is_none_or(|state| state.cause != failure.cause || (!is_away && state.hint != failure.hint));
        if is_new {
            match failure.cause {
                Cause::ClerkAway | Cause::PostgresAway => {
                    warn!(error = %failure, hint = failure.hint, "waiting until it can be reached");
                }
                _ => error!(error = %failure, hint = failure.hint, "the pass failed"),
            }
            self.0 = Some(State {
                cause: failure.cause,
                hint: failure.hint.clone(),
                since: Instant::now(),
                backoff: ExponentialBuilder::default()
                    .with_min_delay(Duration::from_secs(1))
                    .with_max_delay(Duration::from_secs(60))
                    .without_max_times()
                    .with_jitter()
                    .build(),
                next: None,
            });
        }
        if let Some(state) = &mut self.0 {
            state.next = state.backoff.next();
        }
    }

    /// A pass went through.
    pub(super) fn end(&mut self) {
        if let Some(state) = self.0.take() {
            info!(after_s = state.since.elapsed().as_secs(), "back to normal");
        }
    }

    /// Whether the next pass waits for the backoff, whatever the schedule says.
    pub(super) fn is_waiting(&self) -> bool {
        self.wait().is_some()
    }

    /// The configuration changed, and what was waited for may be what was changed.
    pub(super) fn try_now(&mut self) {
        if let Some(state) = &mut self.0 {
            state.next = Some(Duration::ZERO);
        }
    }

    /// When to try again: after the backoff; never where there is no outage.
    pub(super) async fn over(&self) {
        match self.wait() {
            Some(wait) => tokio::time::sleep(wait).await,
            None => std::future::pending().await,
        }
    }

    fn wait(&self) -> Option<Duration> {
        self.0.as_ref().and_then(|state| state.next)
    }
}
