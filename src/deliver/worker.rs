//! Delivers the events of one endpoint.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{debug, info, warn};

use super::{
    body::body,
    client::{Attempt, AttemptOutcome, EndpointClient},
    endpoint::Endpoint,
    message_id::MessageIds,
    pause::{Allowance, Health, HealthChange},
    queue::{Dispatch, Queue, Verdict, is_from_mirror},
    retry::pause_after,
};
use crate::{
    mirror::{Deliveries, DeliveryProgress, LastAttempt, LateEvent, MirrorError, PendingEvent},
    watch::Watch,
};

/// Events that are read at a time.
const READ_AT_ONCE: usize = 128;

/// Late events that are read at a time.
const LATE_AT_ONCE: usize = 64;

/// Outcomes that are noted at a time while others are being sent.
const NOTED_AT_ONCE: usize = 256;

/// The longest time until an outcome is noted while others are being sent.
const NOTED_WITHIN: Duration = Duration::from_millis(100);

/// How often the database is read although nothing announces an event: somebody may ask for events
/// again, or another process may have written some.
const POLL: Duration = Duration::from_secs(5);

/// Pause after a failure of the database.
const RETRY: Duration = Duration::from_secs(1);

/// How long events that are being sent may take at a stop. They would be sent again.
const GRACE: Duration = Duration::from_secs(2);

/// What a worker needs, shared by what it starts.
#[derive(Clone)]
pub(super) struct WorkerContext {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) client: EndpointClient,
    pub(super) ids: MessageIds,
    pub(super) deliveries: Deliveries,
    /// The name of this process in the election.
    pub(super) holder: Arc<str>,
    pub(super) watch: Watch,
}

/// The work of one endpoint.
pub(super) struct Worker {
    context: WorkerContext,
    queue: Queue,
    health: Health,
    sends: JoinSet<(Dispatch, Attempt)>,
    /// What the database is doing for this endpoint. One thing at a time, so that what is read
    /// contains all that was noted.
    operation: Option<AbortOnDropHandle<Result<Done, MirrorError>>>,
    /// Whether there may be events after those that were read.
    has_more: bool,
    /// When late events are read again.
    late_at: Instant,
    last_read: Instant,
    last_noted: Instant,
    /// No operation begins before, because the last one failed.
    retry_at: Option<Instant>,
    /// Since when the notes are no longer true.
    last: Option<LastAttempt>,
    hastens: Option<Duration>,
    /// Whether a change of the pause is to be noted.
    has_changed: bool,
    /// Whether a round of attempts of a paused endpoint is under way, and has read its events.
    round: Option<usize>,
}

/// What the database has done.
enum Done {
    Read {
        pending: Option<(Vec<PendingEvent>, bool)>,
        late: Option<(Vec<LateEvent>, Duration)>,
    },
    Noted,
}

/// What the worker reads.
#[derive(Debug, Clone, Copy)]
struct Reading {
    after: i64,
    /// Events after that id; 0 for none.
    pending: usize,
    /// Late events; 0 for none.
    late: usize,
    /// Whether these need not be due.
    any_late: bool,
}

impl Worker {
    /// A worker that begins after a position.
    pub(super) fn new(context: WorkerContext, position: i64, is_paused: bool) -> Self {
        let now = Instant::now();
        Self {
            context,
            queue: Queue::new(position),
            health: match is_paused {
                true => Health::paused(now),
                false => Health::default(),
            },
            sends: JoinSet::new(),
            operation: None,
            has_more: true,
            late_at: now,
            last_read: now,
            last_noted: now,
            retry_at: None,
            last: None,
            hastens: None,
            has_changed: false,
            round: None,
        }
    }

    /// Delivers until `stop`.
    ///
    /// # Errors
    /// [`MirrorError::LeaseLost`]: another daemon leads, or the endpoint was removed.
    pub(super) async fn run(
        mut self,
        mut committed: watch::Receiver<()>,
        stop: CancellationToken,
    ) -> Result<(), MirrorError> {
        loop {
            let now = Instant::now();
            let wake = self.proceed(now);
            tokio::select! {
                biased;
                () = stop.cancelled() => return self.stop().await,
                Some(sent) = self.sends.join_next() => self.record(sent),
                done = finished(&mut self.operation) => self.complete(done)?,
                changed = committed.changed() => match changed {
                    Ok(()) => self.has_more = true,
                    // The syncs have ended, and this worker is about to be stopped.
                    Err(_) => tokio::time::sleep(POLL).await,
                },
                () = tokio::time::sleep_until(wake.into()) => {}
            }
        }
    }

    /// Starts everything that can be started now. Returns when to try again.
    fn proceed(&mut self, now: Instant) -> Instant {
        let concurrency = self.context.endpoint.concurrency;
        let mut wake = now + POLL;
        match self.health.allowance(now, concurrency) {
            Allowance::All => {
                self.round = None;
                self.dispatch(concurrency);
            }
            Allowance::Round(size) => self.round(size.min(concurrency)),
            Allowance::None(until) => {
                self.round = None;
                if self.queue.sending() == 0 {
                    self.queue.forget_waiting();
                }
                wake = wake.min(until);
            }
        }
        if let Some(at) = self.retry_at.filter(|at| *at > now) {
            return wake.min(at);
        }
        self.retry_at = None;
        if self.operation.is_none() {
            self.start_operation(now);
        }
        if self.operation.is_none() && self.queue.unnoted() > 0 {
            wake = wake.min(self.last_noted + NOTED_WITHIN);
        }
        if !self.health.is_paused() {
            wake = wake.min(self.late_at.max(now + Duration::from_millis(1)));
        }
        wake
    }

    /// Sends events while there are places. Nothing is sent while outcomes cannot be noted.
    fn dispatch(&mut self, places: usize) {
        if self.retry_at.is_some() {
            return;
        }
        let most_late = (self.context.endpoint.concurrency / 2).max(1);
        while self.queue.sending() < places
            && let Some(event) = self.queue.next(most_late)
        {
            self.send(event);
        }
    }

    /// Runs a round of attempts of a paused endpoint: reads as many events as may be sent, sends
    /// them, and ends when all of them failed.
    fn round(&mut self, size: usize) {
        match self.round {
            None => {
                if self.queue.sending() == 0 {
                    self.queue.forget_waiting();
                    self.round = Some(0);
                }
            }
            Some(read) if read > 0 => {
                self.dispatch(size);
                if self.queue.sending() == 0 && self.operation.is_none() {
                    self.round = None;
                    self.health.round_ended(Instant::now());
                    self.has_changed = true;
                }
            }
            Some(_) => {}
        }
    }

    /// Begins to note or to read, if there is a reason.
    fn start_operation(&mut self, now: Instant) {
        let is_idle = self.queue.sending() == 0;
        let unnoted = self.queue.unnoted();
        let is_due = now >= self.last_noted + NOTED_WITHIN || unnoted >= NOTED_AT_ONCE;
        if (unnoted > 0 && (is_idle || is_due)) || self.has_changed {
            self.start_note(now);
        } else if let Some(reading) = self.reading(now) {
            self.last_read = now;
            let context = self.context.clone();
            self.operation = Some(AbortOnDropHandle::new(tokio::spawn(read(context, reading))));
        }
    }

    fn start_note(&mut self, now: Instant) {
        let progress = DeliveryProgress {
            last: self.last.take(),
            paused_for: self.health.remaining(now),
            hastens: self.hastens.take(),
            ..self.queue.begin_note()
        };
        self.has_changed = false;
        let context = self.context.clone();
        let note = async move {
            let WorkerContext {
                deliveries,
                holder,
                endpoint,
                ..
            } = context;
            deliveries.note(&holder, &endpoint.name, &progress).await?;
            Ok(Done::Noted)
        };
        self.operation = Some(AbortOnDropHandle::new(tokio::spawn(note)));
    }

    /// Returns what to read now.
    fn reading(&mut self, now: Instant) -> Option<Reading> {
        let after = self.queue.read_to();
        let concurrency = self.context.endpoint.concurrency;
        match self.health.allowance(now, concurrency) {
            Allowance::None(_) => None,
            Allowance::Round(size) => {
                let begins = self.round == Some(0);
                begins.then(|| Reading {
                    after,
                    pending: size.div_ceil(2),
                    late: size.div_ceil(2),
                    any_late: true,
                })
            }
            Allowance::All => {
                let polls = now >= self.last_read + POLL;
                let wants_more = self.queue.waiting() < READ_AT_ONCE / 2 && self.queue.len() < 4 * READ_AT_ONCE;
                let reads_pending = wants_more && (self.has_more || polls);
                let reads_late = self.queue.due() == 0 && (now >= self.late_at || polls);
                (reads_pending || reads_late).then_some(Reading {
                    after,
                    pending: if reads_pending { READ_AT_ONCE } else { 0 },
                    late: if reads_late { LATE_AT_ONCE } else { 0 },
                    any_late: false,
                })
            }
        }
    }

    fn send(&mut self, event: Dispatch) {
        let context = self.context.clone();
        self.sends.spawn(async move {
            let id = match is_from_mirror(event.id) {
                true => context.ids.of_object(&event.payload),
                false => context.ids.of_event(event.id),
            };
            let attempt = match body(&event.payload) {
                Ok(body) => context.client.send(&id, body).await,
                Err(error) => Attempt {
                    outcome: AttemptOutcome::Unanswered {
                        why: format!("the event cannot be written as JSON: {error}"),
                    },
                    took: Duration::ZERO,
                },
            };
            (event, attempt)
        });
    }

    /// Records how an attempt ended.
    fn record(&mut self, sent: Result<(Dispatch, Attempt), tokio::task::JoinError>) {
        let (event, Attempt { outcome, took }) = match sent {
            Ok(sent) => sent,
            // Tasks are not cancelled, so it panicked. Nothing is known of the event.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        let now = Instant::now();
        let endpoint = &self.context.endpoint.name;
        let was_probing = self.health.is_probing();
        let change = self.health.record(now, &event.object, &outcome);
        self.context.watch.record_delivery(endpoint, &outcome, took);
        let (status, error) = describe(&outcome);
        let has_delivered = error.is_none() || self.last.as_ref().is_some_and(|last| last.has_delivered);
        self.last = Some(LastAttempt {
            status,
            error: error.clone(),
            has_delivered,
        });
        match change {
            Some(HealthChange::Paused) => {
                warn!(endpoint, status, error, "the endpoint is paused; its events wait");
                self.has_changed = true;
            }
            Some(HealthChange::Resumed { since }) => {
                info!(endpoint, "the endpoint works again");
                // Somewhat more, because attempts are noted later than they end.
                self.hastens = Some(since.elapsed() + 2 * self.context.endpoint.timeout);
                self.has_changed = true;
                self.has_more = true;
            }
            None => {}
        }
        let verdict = self.judge(&event, &outcome, was_probing);
        self.queue.settle(event, verdict);
    }

    /// Returns what becomes of an event. Attempts of a paused endpoint do not count, except the
    /// first one of an event.
    fn judge(&self, event: &Dispatch, outcome: &AttemptOutcome, was_probing: bool) -> Verdict {
        let retry_after = match outcome {
            AttemptOutcome::Delivered { .. } => return Verdict::Delivered,
            AttemptOutcome::Unreachable { .. } => return Verdict::Unsent,
            AttemptOutcome::Refused { retry_after, .. } => *retry_after,
            AttemptOutcome::Unanswered { .. } => None,
        };
        let (status, error) = describe(outcome);
        let attempts = match was_probing {
            true => event.attempts.max(1),
            false => event.attempts + 1,
        };
        let retry_in = pause_after(attempts, retry_after);
        let endpoint = &self.context.endpoint.name;
        match retry_in {
            Some(_) => debug!(endpoint, event = event.id, attempts, status, error, "an event was not accepted"),
            None => warn!(
                endpoint,
                event = event.id,
                attempts,
                status,
                error,
                "an event is dead: its last attempt failed; `clerk2pg redeliver` sends it again"
            ),
        }
        Verdict::Failed {
            attempts,
            retry_in,
            status,
            error: error.unwrap_or_default(),
        }
    }

    /// Continues after an operation of the database.
    fn complete(&mut self, done: Result<Done, MirrorError>) -> Result<(), MirrorError> {
        let now = Instant::now();
        match done {
            Ok(Done::Noted) => {
                self.queue.noted(true);
                self.last_noted = now;
                // Other events of these objects may be due now.
                self.late_at = now;
            }
            Ok(Done::Read { pending, late }) => {
                if let Some(round) = &mut self.round {
                    let read = pending.as_ref().map_or(0, |(events, _)| events.len());
                    *round = 1 + read + late.as_ref().map_or(0, |(events, _)| events.len());
                }
                if let Some((events, has_more)) = pending {
                    self.has_more = has_more;
                    self.queue.extend(events);
                }
                if let Some((events, next)) = late {
                    self.late_at = now + next.min(POLL);
                    self.queue.add_due(events);
                }
            }
            Err(MirrorError::LeaseLost) => return Err(MirrorError::LeaseLost),
            Err(error) => {
                debug!(%error, endpoint = self.context.endpoint.name, "deliveries wait for Postgres");
                self.queue.noted(false);
                self.round = None;
                self.has_changed = true;
                self.retry_at = Some(now + RETRY);
            }
        }
        Ok(())
    }

    /// Waits shortly for what is being sent, and notes it.
    async fn stop(mut self) -> Result<(), MirrorError> {
        let rest = async {
            while let Some(sent) = self.sends.join_next().await {
                self.record(sent);
            }
        };
        let _ = tokio::time::timeout(GRACE, rest).await;
        if self.operation.is_some() {
            let done = finished(&mut self.operation).await;
            self.complete(done)?;
        }
        if self.queue.unnoted() > 0 || self.last.is_some() {
            self.start_note(Instant::now());
            finished(&mut self.operation).await?;
        }
        Ok(())
    }
}

/// Waits until the operation ends; for ever if there is none.
async fn finished(
    operation: &mut Option<AbortOnDropHandle<Result<Done, MirrorError>>>,
) -> Result<Done, MirrorError> {
    let Some(handle) = operation else {
        return std::future::pending().await;
    };
    let done = handle.await;
    *operation = None;
    done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

async fn read(context: WorkerContext, reading: Reading) -> Result<Done, MirrorError> {
    let WorkerContext {
        endpoint, deliveries, ..
    } = context;
    let (name, types) = (&endpoint.name, &endpoint.types);
    let pending = match reading.pending {
        0 => None,
        limit => Some(deliveries.pending(name, types, reading.after, limit).await?),
    };
    let late = match reading.late {
        0 => None,
        limit if reading.any_late => Some((deliveries.least_tried(name, types, limit).await?, POLL)),
        limit => {
            let events = deliveries.due(name, types, limit).await?;
            let next = match events.len() < limit {
                true => deliveries.next_due(name).await?.unwrap_or(POLL),
                false => Duration::ZERO,
            };
            Some((events, next))
        }
    };
    Ok(Done::Read { pending, late })
}

/// Returns the status, and why an attempt failed.
fn describe(outcome: &AttemptOutcome) -> (Option<u16>, Option<String>) {
    match outcome {
        AttemptOutcome::Delivered { status } => (Some(*status), None),
        AttemptOutcome::Refused { status, .. } => (Some(*status), Some(format!("it answered {status}"))),
        AttemptOutcome::Unreachable { why } | AttemptOutcome::Unanswered { why } => (None, Some(why.clone())),
    }
}
