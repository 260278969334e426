//! What the database does for a worker: one thing at a time, so that what is read contains all that
//! was noted.

use std::time::{Duration, Instant};

use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use super::{Worker, WorkerContext};
use crate::{
    clock::Moment,
    deliver::pause::Allowance,
    mirror::{DeliveryProgress, EventObject, LateEvent, LateEvents, MirrorError, Noted, PendingEvent, Standing},
};

/// Events that are read at a time.
pub(super) const READ_AT_ONCE: usize = 128;

/// Events after the position in memory, most of them without their payloads: those that pass by
/// while an object's event takes long.
const MOST_AHEAD: usize = 16_384;

/// Payloads that wait in memory, in bytes: no more are read beyond this.
const MAX_WAITING_BYTES: usize = 4 << 20;

/// Late events that are read at a time.
const LATE_AT_ONCE: usize = 64;

/// Outcomes that are noted at a time while others are being sent.
const NOTED_AT_ONCE: usize = 256;

/// The longest time until an outcome is noted while others are being sent.
pub(super) const NOTED_WITHIN: Duration = Duration::from_millis(100);

/// How often the database is read although nothing announces an event: somebody may ask for events
/// again, or another process may have written some.
pub(super) const POLL: Duration = Duration::from_secs(5);

/// Pause after a failure of the database.
const RETRY: Duration = Duration::from_secs(1);

/// The shortest time after which late events are read again if there was nothing new.
pub(super) const LEAST_WAIT: Duration = Duration::from_millis(50);

/// What the database has done.
pub(super) enum Done {
    Read {
        /// The events after this id were read.
        after: i64,
        pending: Option<(Vec<PendingEvent>, bool)>,
        late: Option<(Vec<LateEvent>, Duration)>,
    },
    Noted(Noted),
    /// Somebody has redelivered events. What was read may have to follow these.
    Redelivered(Standing),
}

/// What the worker reads.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    after: i64,
    /// Events after that id; 0 for none.
    pending: usize,
    /// Late events; 0 for none.
    late: usize,
    /// Whether these need not be due.
    any_late: bool,
    /// The objects whose late events are not read.
    except: Vec<EventObject>,
    redeliveries: i64,
}

impl Worker {
    /// Begins to note or to read, if there is a reason.
    pub(super) fn start_operation(&mut self, now: Instant) {
        let is_idle = self.queue.sending() == 0;
        let unnoted = self.queue.unnoted();
        let is_due = now >= self.last_noted + NOTED_WITHIN || unnoted >= NOTED_AT_ONCE;
        let is_changed = self.health.is_paused() != self.is_pause_noted;
        if (unnoted > 0 || self.last.is_some()) && (is_idle || is_due) || is_changed {
            self.start_note(now);
        } else if let Some(reading) = self.reading(now) {
            if reading.pending > 0 {
                self.last_read = now;
                // What is committed from now on is not read.
                self.has_more = false;
            }
            if reading.late > 0 {
                self.late_at = now + POLL;
            }
            self.begun = Moment::now();
            let context = self.context.clone();
            self.operation = Some(AbortOnDropHandle::new(tokio::spawn(read(context, reading))));
        }
    }

    pub(super) fn start_note(&mut self, now: Instant) {
        let progress = DeliveryProgress {
            last: self.last.take(),
            paused_for: self.health.remaining(now),
            ..self.queue.begin_note()
        };
        self.noting_last = progress.last.clone();
        self.is_pause_noted = self.health.is_paused();
        self.begun = Moment::now();
        let (context, redeliveries) = (self.context.clone(), self.redeliveries);
        let note = async move {
            let WorkerContext {
                deliveries,
                holder,
                endpoint,
                ..
            } = context;
            let noted = deliveries
                .note(&holder, &endpoint.name, redeliveries, &progress)
                .await?;
            Ok(Done::Noted(noted))
        };
        self.operation = Some(AbortOnDropHandle::new(tokio::spawn(note)));
    }

    /// Returns what to read now.
    fn reading(&mut self, now: Instant) -> Option<Reading> {
        let (pending, late, any_late) = match self.health.allowance(now, self.context.endpoint.concurrency) {
            Allowance::None(_) => return None,
            Allowance::Round { size, .. } => match self.round.is_some_and(|round| !round.has_read) {
                true => (size, size, true),
                false => (0, 0, true),
            },
            Allowance::All => {
                let polls = now >= self.last_read + POLL;
                let wants_more = self.queue.waiting() < READ_AT_ONCE / 2
                    && self.queue.waiting_bytes() < MAX_WAITING_BYTES
                    && self.queue.len() < MOST_AHEAD;
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
            redeliveries: self.redeliveries,
            except: match late {
                0 => Vec::new(),
                _ => self.queue.unavailable().cloned().collect(),
            },
        })
    }

    /// Continues after an operation of the database.
    pub(super) fn complete(&mut self, done: Result<Done, MirrorError>) -> Result<(), MirrorError> {
        let now = Instant::now();
        if done.is_ok() {
            self.confirmed = self.begun;
        }
        match done {
            Ok(Done::Redelivered(standing) | Done::Noted(Noted::Redelivered(standing))) => {
                self.begins_again = Some(standing);
                self.last = self.last.take().or(self.noting_last.take());
                self.retry_at = None;
            }
            Ok(Done::Noted(Noted::Stored)) => {
                if self.queue.noted(true) {
                    self.late_at = now;
                }
                self.last_noted = now;
                self.retry_at = None;
            }
            Ok(Done::Read { after, pending, late }) => {
                self.retry_at = None;
                if after != self.queue.read_to() {
                    // The endpoint was paused meanwhile, and what was read before is forgotten.
                    (self.has_more, self.late_at) = (true, now);
                    return Ok(());
                }
                if let Some(round) = &mut self.round {
                    round.has_read = true;
                }
                if let Some((events, has_more)) = pending {
                    let is_current = self.queue.extend(after, events);
                    self.has_more |= has_more || !is_current;
                }
                if let Some((events, next)) = late {
                    self.queue.add_due(events);
                    let least = if self.queue.due() > 0 {
                        Duration::ZERO
                    } else {
                        LEAST_WAIT
                    };
                    self.late_at = self.late_at.min(now + next.clamp(least, POLL));
                }
            }
            Err(MirrorError::LeaseLost) => return Err(MirrorError::LeaseLost),
            Err(error) => {
                if self.retry_at.is_none() {
                    let endpoint = &self.context.endpoint.name;
                    warn!(endpoint, %error, hint = error.hint(), "nothing is delivered until Postgres works");
                }
                self.queue.noted(false);
                self.last = self.last.take().or(self.noting_last.take());
                // Whether the pause is noted is not known.
                self.is_pause_noted = !self.health.is_paused();
                self.retry_at = Some(now + RETRY);
                (self.has_more, self.late_at) = (true, now);
            }
        }
        Ok(())
    }
}

/// Waits until the operation ends; for ever if there is none.
pub(super) async fn finished(
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
    // After everything that was read.
    let standing = deliveries.standing(name).await?;
    if standing.redeliveries != reading.redeliveries {
        return Ok(Done::Redelivered(standing));
    }
    Ok(Done::Read {
        after: reading.after,
        pending,
        late,
    })
}
