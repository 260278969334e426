//! The state of a daemon, which probes, metrics and the status page show.

use std::{
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};

use super::{
    condition::{Condition, ProbeResult},
    health::{CompletedSync, Health},
    metrics::{Changes, Metrics, OutcomeLabel},
};
use crate::{
    clerk::Tally,
    clock::Moment,
    mirror::{Outcome, SyncKind},
    schedule::Timetable,
};

/// Longest time between two heartbeats of the loop.
const HEARTBEAT: Duration = Duration::from_secs(3);

/// The health and the metrics of a daemon. Clones share it, and it outlives a reload of the
/// configuration.
#[derive(Debug, Clone, Default)]
pub struct Watch(Arc<WatchState>);

#[derive(Debug)]
struct WatchState {
    started: DateTime<Utc>,
    health: Mutex<Health>,
    metrics: Metrics,
    requests: Tally,
}

impl Default for WatchState {
    fn default() -> Self {
        Self {
            started: Utc::now(),
            health: Mutex::new(Health::new(Instant::now())),
            metrics: Metrics::default(),
            requests: Tally::default(),
        }
    }
}

/// Records that this process has the lease, until it is dropped.
#[derive(Debug)]
pub struct LeaseGuard(Watch);

impl Drop for LeaseGuard {
    fn drop(&mut self) {
        self.0.0.metrics.lease_held.set(0);
    }
}

impl Watch {
    /// Returns the counter of requests to Clerk.
    pub fn requests(&self) -> Tally {
        self.0.requests.clone()
    }

    /// Runs the loop with a heartbeat, which stops if the loop blocks its thread. `beat` is called
    /// with each heartbeat, at least once in `period` if there is one. Waiting for a slow Clerk
    /// does not stop the heartbeat.
    pub async fn with_heartbeat<T>(
        &self,
        period: Option<Duration>,
        beat: impl Fn(),
        work: impl Future<Output = T>,
    ) -> T {
        let pause = period.map_or(HEARTBEAT, |period| period.min(HEARTBEAT));
        let mut work = pin!(work);
        loop {
            self.health().beat = Instant::now();
            beat();
            tokio::select! {
                biased;
                result = &mut work => return result,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Sets the schedules by which syncs are due; an empty one is never due.
    pub fn set_schedule(&self, full: &str, incremental: &str) {
        self.health()
            .set_timetable(Timetable::new(full, incremental), Moment::now());
    }

    /// Records that a sync starts.
    pub fn started(&self, kind: SyncKind) {
        self.0.metrics.attempted(kind, Utc::now());
    }

    /// Records a sync that found nothing to do.
    pub fn idle(&self, kind: SyncKind) {
        self.succeeded(kind, OutcomeLabel::Idle);
        self.health().idle(kind, Moment::now());
    }

    /// Records that an incremental sync succeeded between two pages of a full sync.
    pub fn incremental_succeeded(&self) {
        let now = Moment::now();
        self.0.metrics.succeeded(SyncKind::Incremental, now.wall);
        self.health().succeeded(SyncKind::Incremental, now);
    }

    /// Records that this server does not show recent changes, so that only full syncs find them.
    pub fn blind(&self, kind: SyncKind) {
        self.0.metrics.ended(kind, OutcomeLabel::Blind);
        self.health().blind();
    }

    /// Records a completed sync.
    pub fn done(&self, kind: SyncKind, sync: &CompletedSync) {
        self.0.metrics.took(kind, sync.took);
        match &sync.incomplete {
            None => self.succeeded(kind, OutcomeLabel::Ended(sync.outcome)),
            Some(_) => self.0.metrics.ended(kind, OutcomeLabel::Ended(sync.outcome)),
        }
        self.health().done(kind, sync, Moment::now());
    }

    fn succeeded(&self, kind: SyncKind, outcome: OutcomeLabel) {
        self.0.metrics.ended(kind, outcome);
        self.0.metrics.succeeded(kind, Utc::now());
    }

    /// Records a failed sync.
    pub fn failed(&self, kind: SyncKind, why: &str) {
        self.0.metrics.ended(kind, OutcomeLabel::Ended(Outcome::Failed));
        self.health().failed(Some(kind), why, Utc::now());
    }

    /// Records a sync that was left to another clerk2pg; [`Self::set_standing_by`] says which one.
    pub fn stood_by(&self, kind: SyncKind) {
        self.0.metrics.ended(kind, OutcomeLabel::StandingBy);
    }

    /// Records that another clerk2pg has the lease.
    pub fn set_standing_by(&self, holder: &str) {
        let why = format!("{holder} is syncing this database");
        self.health().set_standing_by(why);
    }

    /// Records which other clerk2pg leads.
    pub fn set_standby_of(&self, leader: &str) {
        self.health().set_standing_by(format!("{leader} leads"));
    }

    /// Records whether this daemon leads.
    pub fn set_leader(&self, is_leader: bool) {
        self.0.metrics.leader.set(i64::from(is_leader));
        if is_leader {
            self.health().restart_deadlines(Moment::now());
        }
    }

    /// Records that it is unknown whether another clerk2pg leads, and why.
    pub fn election_failed(&self, why: &str) {
        self.health().failed(None, why, Utc::now());
    }

    /// Records that this process has the lease, until the guard is dropped.
    pub fn lease_taken(&self) -> LeaseGuard {
        self.health().standing_by = None;
        self.0.metrics.lease_held.set(1);
        LeaseGuard(self.clone())
    }

    /// Records committed changes of users.
    pub fn record_changes(&self, changes: Changes) {
        self.0.metrics.record_changes(changes);
    }

    /// Records an attempt to deliver an event. `status` is that of the answer, if there was one.
    pub fn record_delivery(&self, endpoint: &str, status: Option<u16>) {
        self.0.metrics.record_delivery(endpoint, status);
    }

    /// Records how old a change was when it was committed.
    pub fn record_freshness(&self, kind: SyncKind, age: Duration) {
        self.0.metrics.record_freshness(kind, age);
    }

    /// Answers whether the loop is alive.
    pub fn alive(&self) -> ProbeResult {
        self.health().alive(Instant::now())
    }

    /// Answers whether the mirror is in sync, and this daemon can keep it so.
    pub fn ready(&self) -> ProbeResult {
        self.health().ready(Instant::now())
    }

    /// Returns the time since a sync of any kind last ended with the mirror in sync.
    pub(super) fn since_success(&self) -> Option<Duration> {
        self.health().succeeded_at.map(|at| at.elapsed())
    }

    /// Returns how the daemon is doing.
    pub(super) fn condition(&self) -> Condition {
        self.health().condition(Instant::now())
    }

    /// Whether another clerk2pg led, or had the lease, when this one last tried to sync.
    pub(super) fn is_standing_by(&self) -> bool {
        self.health().standing_by.is_some()
    }

    /// When the process started.
    pub(super) fn started_at(&self) -> DateTime<Utc> {
        self.0.started
    }

    /// What is counted as it happens.
    pub(super) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.0.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_heartbeat_continues_while_the_loop_waits() {
        let watch = Watch::default();
        let long_ago = Instant::now().checked_sub(Duration::from_secs(90)).unwrap();
        let work = async {
            watch.health().beat = long_ago;
            assert!(!watch.alive().is_ok);
            tokio::time::sleep(2 * HEARTBEAT).await;
            watch.alive()
        };
        let beats = std::cell::Cell::new(0);
        let beat = || beats.set(beats.get() + 1);
        assert_eq!(
            watch.with_heartbeat(Some(HEARTBEAT / 2), beat, work).await,
            ProbeResult::ok("alive")
        );
        assert!((4..=5).contains(&beats.get()), "{beats:?}");
    }
}
