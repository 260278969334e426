//! Sends events, and records how the attempts end.

use std::time::{Duration, Instant};

use tokio::task::JoinError;
use tracing::{debug, info, warn};

use super::Worker;
use crate::{
    deliver::{
        attempt::{Attempt, AttemptOutcome},
        body::body,
        pause::HealthChange,
        queue::{Dispatch, Verdict, is_from_mirror},
        retry::pause_after,
    },
    mirror::LastAttempt,
};

/// The log warns once in this time of events that are not accepted, so that an endpoint that refuses
/// many does not fill it.
const WARN_PERIOD: Duration = Duration::from_mins(1);

impl Worker {
    pub(super) fn send(&mut self, event: Dispatch) {
        let (context, confirmed) = (self.context.clone(), self.confirmed);
        self.sends.spawn(async move {
            let id = match is_from_mirror(event.id) {
                true => context.ids.of_object(&event.object, event.asked_at),
                false => context.ids.of_event(event.id),
            };
            let attempt = match body(&event.payload) {
                // The process may have been suspended before this task ran.
                Ok(_) if !context.is_recent(confirmed, Instant::now()) => return (event, None),
                Ok(body) => context.client.send(&id, body).await,
                Err(error) => Attempt {
                    outcome: AttemptOutcome::Unanswered {
                        why: format!("the event cannot be written as JSON: {error}"),
                    },
                    took: Duration::ZERO,
                },
            };
            (event, Some(attempt))
        });
    }

    /// Records how an attempt ended.
    pub(super) fn record(&mut self, sent: Result<(Dispatch, Option<Attempt>), JoinError>) {
        let (event, Attempt { outcome, .. }) = match sent {
            Ok((event, Some(attempt))) => (event, attempt),
            Ok((event, None)) => {
                if self.queue.settle(event, Verdict::Unsent) {
                    self.late_at = Instant::now();
                }
                return;
            }
            // Tasks are not cancelled, so it panicked. Nothing is known of the event.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        let now = Instant::now();
        let endpoint = &self.context.endpoint.name;
        let change = self.health.record(now, &event.object, &outcome);
        let (status, error) = outcome.describe();
        self.context.watch.record_delivery(endpoint, status);
        let has_delivered = error.is_none() || self.last.as_ref().is_some_and(|last| last.has_delivered);
        self.last = Some(LastAttempt {
            status,
            error: error.clone(),
            has_delivered,
        });
        if let (AttemptOutcome::Unreachable { .. }, Some(round)) = (&outcome, &mut self.round) {
            // The others would not arrive either.
            round.left = 0;
        }
        match change {
            Some(HealthChange::Paused) => {
                warn!(endpoint, status, error, "the endpoint is paused; its events wait");
            }
            Some(HealthChange::Resumed) => info!(endpoint, "the endpoint works again"),
            None => {}
        }
        let verdict = self.judge(&event, &outcome);
        if self.queue.settle(event, verdict) {
            self.late_at = now;
        }
    }

    /// Returns what becomes of an event. Attempts that are made while the endpoint is paused do not
    /// count, except the first one of an event.
    fn judge(&mut self, event: &Dispatch, outcome: &AttemptOutcome) -> Verdict {
        let retry_after = match outcome {
            AttemptOutcome::Delivered { .. } => return Verdict::Delivered,
            AttemptOutcome::Unreachable { .. } => return Verdict::Unsent,
            AttemptOutcome::Refused { retry_after, .. } => *retry_after,
            AttemptOutcome::Unanswered { .. } => None,
        };
        let (status, error) = outcome.describe();
        // Of those that the endpoint wants to pause for, neither.
        let attempts = match event.is_probe || self.health.is_throttled() {
            true => event.attempts.max(1),
            false => event.attempts + 1,
        };
        let retry_in = pause_after(attempts, retry_after);
        self.log_failure(event.id, attempts, retry_in, outcome);
        Verdict::Failed {
            attempts,
            retry_in,
            status,
            error: error.unwrap_or_default(),
        }
    }
    /// Warns of a dead event, and from time to time of one that is tried again.
    fn log_failure(&mut self, event: i64, attempts: u32, retry_in: Option<Duration>, outcome: &AttemptOutcome) {
        let endpoint = &self.context.endpoint.name;
        let (status, error) = outcome.describe();
        let Some(retry_in) = retry_in else {
            warn!(
                endpoint,
                event,
                attempts,
                status,
                error,
                "an event is dead: its last attempt failed; `clerk2pg redeliver` sends it again"
            );
            return;
        };
        let (retry_s, message) = (retry_in.as_secs(), "an event was not accepted; it is tried again");
        if self.warned_at.is_some_and(|at| at.elapsed() < WARN_PERIOD) {
            debug!(endpoint, event, attempts, status, error, retry_s, "{message}");
            return;
        }
        self.warned_at = Some(Instant::now());
        let hint = outcome.hint();
        warn!(endpoint, event, attempts, status, error, retry_s, hint, "{message}");
    }
}
