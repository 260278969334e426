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
    /// When to try again.
    next: Instant,
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
                next: Instant::now(),
            });
        }
        if let Some(state) = &mut self.0 {
            state.next = Instant::now() + state.backoff.next().unwrap_or_default();
        }
    }

    /// A pass went through. Returns whether that ends an outage.
    pub(super) fn end(&mut self) -> bool {
        let ended = self.0.take();
        if let Some(state) = &ended {
            info!(after_s = state.since.elapsed().as_secs(), "back to normal");
        }
        ended.is_some()
    }

    /// Since when passes fail.
    pub(super) fn since(&self) -> Option<Instant> {
        self.0.as_ref().map(|state| state.since)
    }

    /// Until when the next pass waits, whatever the schedule says; none where nothing is waited for.
    pub(super) fn waits_until(&self) -> Option<Instant> {
        self.0
            .as_ref()
            .map(|state| state.next)
            .filter(|next| *next > Instant::now())
    }

    /// What was waited for may have been mended: the configuration changed, or a person asks. The pauses after more failures go on growing.
    pub(super) fn try_now(&mut self) {
        if let Some(state) = &mut self.0 {
            state.next = Instant::now();
        }
    }
}
