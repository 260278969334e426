//! Delivers the events of one endpoint.

mod attempts;
mod operations;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::Utc;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::info;

use super::{
    attempt::Attempt,
    client::EndpointClient,
    endpoint::Endpoint,
    message_id::MessageIds,
    pause::{Allowance, Health},
    queue::{Dispatch, Queue},
};
use crate::{
    clock::Moment,
    mirror::{Deliveries, LastAttempt, MirrorError, RegisteredEndpoint, Standing},
    watch::Watch,
};
use operations::{Done, LEAST_WAIT, NOTED_WITHIN, POLL, READ_AT_ONCE, finished};

/// If only events of objects of which one is being sent are in memory, others are read after this
/// time, and these become late: one that takes long must not hold back other objects.
const SET_ASIDE_AFTER: Duration = Duration::from_secs(1);

/// Events are sent only if this process led this short a time ago, or two thirds of the election's time
/// if that is shorter. One that was suspended may find that another one has taken over and sent newer
/// events.
const CONFIRMED_FOR: Duration = Duration::from_secs(2);

/// Events that pass by one that takes long, until that one becomes late.
const MOST_PASSING: usize = 1_024;

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
    /// How long a leader that is silent keeps its role.
    pub(super) ttl: Duration,
    pub(super) watch: Watch,
}

impl WorkerContext {
    /// Whether this process led at a moment, and may therefore send events `now`.
    fn is_recent(&self, confirmed: Moment, now: Instant) -> bool {
        let Moment { wall, steady } = confirmed;
        let lasts = CONFIRMED_FOR.min(self.ttl * 2 / 3);
        // The steady clock stands still while the machine is suspended.
        let slept = (Utc::now() - wall).to_std().unwrap_or_default();
        now < steady + lasts && slept < lasts
    }
}

/// The work of one endpoint.
pub(super) struct Worker {
    context: WorkerContext,
    queue: Queue,
    /// How often somebody had redelivered events when the queue began.
    redeliveries: i64,
    /// Where the queue begins again once nothing is being sent, because somebody has redelivered
    /// events since.
    begins_again: Option<Standing>,
    health: Health,
    /// What is being sent. `None` in place of an attempt: it was too late to send it.
    sends: JoinSet<(Dispatch, Option<Attempt>)>,
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
    begun: Moment,
    /// When the last operation that succeeded began: this process led.
    confirmed: Moment,
    /// Since when only events of objects of which one is being sent are in memory.
    stuck_since: Option<Instant>,
    /// When the database is tried again, if the last operation failed. Nothing is sent meanwhile:
    /// it could not be noted.
    retry_at: Option<Instant>,
    /// The last attempt, if it is not noted.
    last: Option<LastAttempt>,
    /// The attempt that is being noted as the last one.
    noting_last: Option<LastAttempt>,
    /// When the log last warned of an event that was not accepted.
    warned_at: Option<Instant>,
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

impl Worker {
    /// A worker that begins where an endpoint stands.
    pub(super) fn new(context: WorkerContext, endpoint: &RegisteredEndpoint) -> Self {
        let now = Instant::now();
        Self {
            context,
            queue: Queue::new(endpoint.position),
            redeliveries: endpoint.redeliveries,
            begins_again: None,
            health: match endpoint.paused_for {
                Some(remaining) => Health::paused(now, remaining),
                None => Health::default(),
            },
            sends: JoinSet::new(),
            operation: None,
            has_more: true,
            late_at: now,
            last_read: now,
            last_noted: now,
            begun: Moment::now(),
            confirmed: Moment::now(),
            stuck_since: None,
            retry_at: None,
            last: None,
            noting_last: None,
            warned_at: None,
            is_pause_noted: endpoint.paused_for.is_some(),
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
        if self.queue.sending() == 0
            && let Some(Standing { position, redeliveries }) = self.begins_again.take()
        {
            self.queue = Queue::new(position);
            (self.redeliveries, self.round) = (redeliveries, None);
            (self.has_more, self.late_at) = (true, now);
        }
        let was_paused = self.health.is_paused();
        match self.health.allowance(now, self.context.endpoint.concurrency) {
            Allowance::All => {
                if was_paused {
                    let endpoint = &self.context.endpoint.name;
                    info!(endpoint, "the pause that the endpoint asked for is over");
                }
                if self.round.take().is_some() {
                    // They need not be due.
                    self.queue.forget_due();
                    self.late_at = now;
                }
                self.dispatch(now);
                if let Some(until) = self.make_room(now) {
                    wake = wake.min(until);
                }
            }
            Allowance::Round { size, late } => self.proceed_with_round(size, late, now),
            Allowance::None(until) => {
                self.round = None;
                self.forget_waiting();
                wake = wake.min(until);
            }
        }
        if self.operation.is_some() || self.begins_again.is_some() {
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
            wake = wake.min((self.last_read + POLL).max(now + LEAST_WAIT));
        }
        wake
    }

    /// Whether events may be sent now: what comes of them can be noted.
    fn may_send(&self, now: Instant) -> bool {
        let is_blocked = self.retry_at.is_some() || self.begins_again.is_some();
        !is_blocked && self.context.is_recent(self.confirmed, now)
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
        if self.queue.len() >= MOST_PASSING {
            self.queue.pass_first();
        }
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
    fn proceed_with_round(&mut self, size: usize, late: usize, now: Instant) {
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
            && let Some(event) = self.queue.next(late)
        {
            left -= 1;
            self.round = Some(Round { has_read: true, left });
            self.send(Dispatch {
                is_probe: true,
                ..event
            });
        }
        if self.queue.sending() > 0 {
            return;
        }
        self.round = None;
        match left < size {
            true => self.health.round_ended(now),
            // What was read is not for this endpoint. The round reads on.
            false if self.has_more => {
                self.round = Some(Round {
                    has_read: false,
                    left: size,
                });
            }
            false => self.health.end_pause(),
        }
    }

    /// Frees the memory of what waits for a paused endpoint.
    fn forget_waiting(&mut self) {
        if self.queue.sending() == 0 && self.queue.waiting() + self.queue.due() > 0 {
            self.queue.forget_waiting();
        }
        self.has_more = true;
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
        if self.begins_again.is_none() && (self.queue.unnoted() > 0 || self.last.is_some()) {
            self.start_note(Instant::now());
            finished(&mut self.operation).await?;
        }
        Ok(())
    }
}
