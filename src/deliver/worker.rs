//! Delivers the events of one endpoint.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{debug, info, warn};

use super::{
    attempt::{Attempt, AttemptOutcome},
    body::body,
    client::EndpointClient,
    endpoint::Endpoint,
    message_id::MessageIds,
    pause::{Allowance, Health, HealthChange},
    queue::{Dispatch, Queue, Verdict, is_from_mirror},
    retry::pause_after,
};
use crate::{
    mirror::{
        Deliveries, DeliveryProgress, EventObject, LastAttempt, LateEvent, LateEvents, MirrorError, PendingEvent,
    },
    watch::Watch,
};

/// Events that are read at a time.
const READ_AT_ONCE: usize = 128;

/// Events after the position in memory, most of them without their payloads: those that pass by
/// while an object's event takes long.
const MOST_AHEAD: usize = 16_384;

/// If only events of objects of which one is being sent are in memory, others are read after this
/// time, and these become late: one that takes long must not hold back other objects.
const SET_ASIDE_AFTER: Duration = Duration::from_secs(1);

/// Events are sent only if this process led this short a time ago. One that was suspended may find
/// that another one has taken over and sent newer events.
const CONFIRMED_FOR: Duration = Duration::from_secs(2);

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
    /// When events after the position were last read.
    last_read: Instant,
    last_noted: Instant,
    /// When the operation began.
    begun: Instant,
    /// When the last operation that succeeded began: this process led.
    confirmed: Instant,
    /// Since when only events of objects of which one is being sent are in memory.
    stuck_since: Option<Instant>,
    /// When the database is tried again, if the last operation failed. Nothing is sent meanwhile:
    /// it could not be noted.
    retry_at: Option<Instant>,
    /// The last attempt, if it is not noted.
    last: Option<LastAttempt>,
    hastens: Option<Duration>,
    /// Whether the endpoint was paused when its state was noted last.
    is_pause_noted: bool,
    /// The attempts of a paused endpoint that are under way.
    round: Option<Round>,
}

/// A round of attempts of a paused endpoint.
#[derive(Debug, Clone, Copy)]
struct Round {
    /// Whether its events are read.
    has_read: bool,
    /// How many of them may still be sent.
    left: usize,
}

/// The shortest time after which late events are read again if there was nothing new.
const LEAST_WAIT: Duration = Duration::from_millis(50);

/// What the database has done.
enum Done {
    Read {
        pending: Option<(Vec<PendingEvent>, bool)>,
        late: Option<(Vec<LateEvent>, Duration)>,
    },
    Noted,
}

/// What the worker reads.
#[derive(Debug, Clone)]
struct Reading {
    after: i64,
    /// Events after that id; 0 for none.
    pending: usize,
    /// Late events; 0 for none.
    late: usize,
    /// Whether these need not be due.
    any_late: bool,
    /// The objects whose late events are not read.
    except: Vec<EventObject>,
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
            begun: now,
            confirmed: now,
            stuck_since: None,
            retry_at: None,
            last: None,
            hastens: None,
            is_pause_noted: is_paused,
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
        let mut is_announced = true;
        loop {
            let wake = self.proceed(Instant::now());
            tokio::select! {
                biased;
                () = stop.cancelled() => return self.stop().await,
                Some(sent) = self.sends.join_next() => self.record(sent),
                done = finished(&mut self.operation) => self.complete(done)?,
                changed = committed.changed(), if is_announced => match changed {
                    Ok(()) => self.has_more = true,
                    // The syncs have ended, and this worker is about to be stopped.
                    Err(_) => is_announced = false,
                },
                () = tokio::time::sleep_until(wake.into()) => {}
            }
        }
    }

    /// Starts everything that can be started now. Returns when to try again.
    fn proceed(&mut self, now: Instant) -> Instant {
        let mut wake = now + POLL;
        match self.health.allowance(now, self.context.endpoint.concurrency) {
            Allowance::All => {
                self.round = None;
                self.dispatch(now);
                if let Some(until) = self.make_room(now) {
                    wake = wake.min(until);
                }
            }
            Allowance::Round(size) => self.proceed_with_round(size, now),
            Allowance::None(until) => {
                self.round = None;
                self.forget_waiting();
                wake = wake.min(until);
            }
        }
        if self.operation.is_some() {
            return wake;
        }
        if let Some(at) = self.retry_at.filter(|at| *at > now) {
            return wake.min(at);
        }
        self.start_operation(now);
        if self.operation.is_none() {
            if self.queue.unnoted() > 0 {
                wake = wake.min(self.last_noted + NOTED_WITHIN);
            }
            if self.queue.due() == 0 && !self.health.is_paused() {
                wake = wake.min(self.late_at);
            }
        }
        wake
    }

    /// Whether events may be sent now: what comes of them can be noted.
    fn may_send(&self, now: Instant) -> bool {
        self.retry_at.is_none() && now < self.confirmed + CONFIRMED_FOR
    }

    /// Sends events while there are places.
    fn dispatch(&mut self, now: Instant) {
        let concurrency = self.context.endpoint.concurrency;
        while self.may_send(now)
            && self.queue.sending() < concurrency
            && let Some(event) = self.queue.next((concurrency / 2).max(1))
        {
            self.send(event);
        }
    }

    /// Sets events aside if they have kept others from being read for [`SET_ASIDE_AFTER`]. Returns
    /// when that may be so.
    fn make_room(&mut self, now: Instant) -> Option<Instant> {
        let has_place = self.queue.sending() < self.context.endpoint.concurrency;
        if self.retry_at.is_some() || !has_place || self.queue.waiting() < READ_AT_ONCE / 2 {
            self.stuck_since = None;
            return None;
        }
        let until = *self.stuck_since.get_or_insert(now) + SET_ASIDE_AFTER;
        if now < until {
            return Some(until);
        }
        self.stuck_since = None;
        self.queue.set_aside();
        None
    }

    /// Continues a round of attempts of a paused endpoint: reads as many events as may be sent,
    /// sends them, and ends when all of them failed.
    fn proceed_with_round(&mut self, size: usize, now: Instant) {
        let Some(round) = &mut self.round else {
            if self.queue.sending() == 0 {
                self.forget_waiting();
                self.round = Some(Round {
                    has_read: false,
                    left: size,
                });
            }
            return;
        };
        if !round.has_read {
            return;
        }
        let mut left = round.left;
        if left > 0 && self.queue.waiting() + self.queue.due() > 0 && !self.may_send(now) {
            return;
        }
        while left > 0
            && self.queue.sending() < self.context.endpoint.concurrency
            && let Some(event) = self.queue.next(size.div_ceil(2))
        {
            left -= 1;
            self.round = Some(Round { has_read: true, left });
            self.send(event);
        }
        if self.queue.sending() == 0 {
            self.round = None;
            self.health.round_ended(now);
        }
    }

    /// Frees the memory of what waits for a paused endpoint.
    fn forget_waiting(&mut self) {
        if self.queue.sending() == 0 && self.queue.waiting() + self.queue.due() > 0 {
            self.queue.forget_waiting();
        }
        self.has_more = true;
    }

    /// Begins to note or to read, if there is a reason.
    fn start_operation(&mut self, now: Instant) {
        let is_idle = self.queue.sending() == 0;
        let unnoted = self.queue.unnoted();
        let is_due = now >= self.last_noted + NOTED_WITHIN || unnoted >= NOTED_AT_ONCE;
        let is_changed = self.health.is_paused() != self.is_pause_noted;
        if (unnoted > 0 || self.last.is_some()) && (is_idle || is_due) || is_changed {
            self.start_note(now);
        } else if let Some(reading) = self.reading(now) {
            if reading.pending > 0 {
                self.last_read = now;
            }
            self.begun = now;
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
        self.is_pause_noted = self.health.is_paused();
        self.begun = now;
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
        let (pending, late, any_late) = match self.health.allowance(now, self.context.endpoint.concurrency) {
            Allowance::None(_) => return None,
            Allowance::Round(size) => match self.round.is_some_and(|round| !round.has_read) {
                true => (size, size, true),
                false => (0, 0, true),
            },
            Allowance::All => {
                let polls = now >= self.last_read + POLL;
                let wants_more = self.queue.waiting() < READ_AT_ONCE / 2 && self.queue.len() < MOST_AHEAD;
                let reads_pending = wants_more && (self.has_more || polls);
                let reads_late = self.queue.due() == 0 && now >= self.late_at;
                (
                    if reads_pending { READ_AT_ONCE } else { 0 },
                    if reads_late { LATE_AT_ONCE } else { 0 },
                    false,
                )
            }
        };
        // Nothing may be sent before this process is found to lead.
        let confirms = self.queue.waiting() + self.queue.due() > 0 && !self.may_send(now);
        (pending + late > 0 || confirms).then(|| Reading {
            after: self.queue.read_to(),
            pending,
            late,
            any_late,
            except: match late {
                0 => Vec::new(),
                _ => self.queue.unavailable().cloned().collect(),
            },
        })
    }

    fn send(&mut self, event: Dispatch) {
        let context = self.context.clone();
        self.sends.spawn(async move {
            let id = match is_from_mirror(event.id) {
                true => context.ids.of_object(&event.object, event.asked_at),
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
        let (event, Attempt { outcome, .. }) = match sent {
            Ok(sent) => sent,
            // Tasks are not cancelled, so it panicked. Nothing is known of the event.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        let now = Instant::now();
        let endpoint = &self.context.endpoint.name;
        let was_probing = self.health.is_probing();
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
            Some(HealthChange::Resumed { since }) => {
                info!(endpoint, "the endpoint works again");
                // Somewhat more, because attempts are noted later than they end.
                self.hastens = Some(since.elapsed() + 2 * self.context.endpoint.timeout);
            }
            None => {}
        }
        let verdict = self.judge(&event, &outcome, was_probing);
        if self.queue.settle(event, verdict) {
            self.late_at = now;
        }
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
        let (status, error) = outcome.describe();
        let attempts = match was_probing {
            true => event.attempts.max(1),
            false => event.attempts + 1,
        };
        let retry_in = pause_after(attempts, retry_after);
        let endpoint = &self.context.endpoint.name;
        match retry_in {
            Some(_) => debug!(
                endpoint,
                event = event.id,
                attempts,
                status,
                error,
                "an event was not accepted"
            ),
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
        if done.is_ok() {
            self.confirmed = self.begun;
        }
        match done {
            Ok(Done::Noted) => {
                if self.queue.noted(true) {
                    self.late_at = now;
                }
                self.last_noted = now;
                self.retry_at = None;
            }
            Ok(Done::Read { pending, late }) => {
                self.retry_at = None;
                if let Some(round) = &mut self.round {
                    round.has_read = true;
                }
                if let Some((events, has_more)) = pending {
                    self.has_more = has_more;
                    self.queue.extend(events);
                }
                if let Some((events, next)) = late {
                    self.queue.add_due(events);
                    let least = if self.queue.due() > 0 {
                        Duration::ZERO
                    } else {
                        LEAST_WAIT
                    };
                    self.late_at = now + next.clamp(least, POLL);
                }
            }
            Err(MirrorError::LeaseLost) => return Err(MirrorError::LeaseLost),
            Err(error) => {
                if self.retry_at.is_none() {
                    let endpoint = &self.context.endpoint.name;
                    warn!(endpoint, %error, hint = error.hint(), "nothing is delivered until Postgres works");
                }
                self.queue.noted(false);
                // Whether the pause is noted is not known.
                self.is_pause_noted = !self.health.is_paused();
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
async fn finished(operation: &mut Option<AbortOnDropHandle<Result<Done, MirrorError>>>) -> Result<Done, MirrorError> {
    let Some(handle) = operation else {
        return std::future::pending().await;
    };
    let done = handle.await;
    *operation = None;
    done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

async fn read(context: WorkerContext, reading: Reading) -> Result<Done, MirrorError> {
    let WorkerContext {
        endpoint,
        deliveries,
        holder,
        ..
    } = context;
    deliveries.require_leader(&holder).await?;
    let (name, types) = (&endpoint.name, &endpoint.types);
    let pending = match reading.pending {
        0 => None,
        limit => Some(deliveries.pending(name, types, reading.after, limit).await?),
    };
    let last = pending.as_ref().and_then(|(events, _)| events.last());
    let which = LateEvents {
        up_to: last.map_or(reading.after, |last| last.id),
        except: &reading.except,
        limit: reading.late,
    };
    let late = match reading.late {
        0 => None,
        _ if reading.any_late => Some((deliveries.next(name, types, which).await?.0, POLL)),
        _ => {
            let (events, has_more) = deliveries.due(name, types, which).await?;
            let next = match has_more {
                true => Duration::ZERO,
                false => deliveries.next_due(name, which.up_to).await?.unwrap_or(POLL),
            };
            Some((events, next))
        }
    };
    Ok(Done::Read { pending, late })
}
