//! What a daemon lets others see: probes, metrics and a page. The loop and its syncs tell a [`Watch`] how it goes, in plain values; a
//! [`Listener`] reads it, and answers those who ask.

mod ask;
mod crowd;
mod health;
mod listener;
mod metrics;
mod page;
mod plot;
mod show;
mod timetable;

use std::{
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};

pub use ask::{ask, hear};
pub use health::Verdict;
pub use listener::Listener;
pub use metrics::Changes;
pub use show::Sources;
pub(crate) use timetable::Timetable;

use crate::{clerk::Tally, clock::Moment, mirror::SyncKind};
use health::Health;
use metrics::Metrics;

/// How often the loop shows that it is alive, at least.
const BEAT: Duration = Duration::from_secs(3);

/// How a daemon is and what it did. Clones share it, and it outlives a reload of the configuration.
#[derive(Debug, Clone, Default)]
pub struct Watch(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    started: DateTime<Utc>,
    health: Mutex<Health>,
    metrics: Metrics,
    requests: Tally,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            started: Utc::now(),
            health: Mutex::new(Health::new(Instant::now())),
            metrics: Metrics::default(),
            requests: Tally::default(),
        }
    }
}

/// How a sync went that did something.
#[derive(Debug, Clone)]
pub struct Done {
    /// As in the report.
    pub outcome: &'static str,
    /// From start to end.
    pub took: Duration,
    /// Why part of Clerk's users could not be seen or judged, if so.
    pub incomplete: Option<String>,
    /// Deletions wait for a person.
    pub holds: bool,
}

/// As long as it lives, this process has the lease.
#[derive(Debug)]
pub struct Holding(Watch);

impl Drop for Holding {
    fn drop(&mut self) {
        self.0.0.metrics.lease_held.set(0);
    }
}

impl Watch {
    /// Where requests to Clerk are counted.
    pub fn requests(&self) -> Tally {
        self.0.requests.clone()
    }

    /// Does the work of the loop, and shows all the time that its thread is not stuck in it: here, and with each beat to somebody else who may want
    /// to know it more often. Waiting for a slow Clerk is life; being stuck is none.
    pub async fn beating<T>(&self, pulse: Option<Duration>, beat: impl Fn(), work: impl Future<Output = T>) -> T {
        let pause = pulse.map_or(BEAT, |pulse| pulse.min(BEAT));
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

    /// From now on syncs are due by these schedules; an empty one is never due.
    pub fn expects(&self, full: &str, incremental: &str) {
        self.health().expects(Timetable::new(full, incremental), Moment::now());
    }

    /// A sync begins.
    pub fn begins(&self, kind: SyncKind) {
        self.0.metrics.attempted(kind, Utc::now());
    }

    /// A look found nothing to do.
    pub fn idle(&self, kind: SyncKind) {
        self.succeeded(kind, "idle");
        self.health().idle(kind, Moment::now());
    }

    /// A look between two pages of a full sync saw what changed.
    pub fn looked(&self) {
        let now = Moment::now();
        self.0.metrics.succeeded(SyncKind::Incremental, now.wall);
        self.health().succeeded(SyncKind::Incremental, now);
    }

    /// This server does not show what changed, so that only full syncs bring it.
    pub fn blind(&self, kind: SyncKind) {
        self.0.metrics.ended(kind, "blind");
        self.health().blind();
    }

    /// A sync came to its end.
    pub fn done(&self, kind: SyncKind, done: &Done) {
        self.0.metrics.took(kind, done.took);
        match &done.incomplete {
            None => self.succeeded(kind, done.outcome),
            Some(_) => self.0.metrics.ended(kind, done.outcome),
        }
        self.health().done(kind, done, Moment::now());
    }

    fn succeeded(&self, kind: SyncKind, outcome: &'static str) {
        self.0.metrics.ended(kind, outcome);
        self.0.metrics.succeeded(kind, Utc::now());
    }

    /// A sync could not be carried through.
    pub fn failed(&self, kind: SyncKind, why: &str) {
        self.0.metrics.ended(kind, "failed");
        self.health().failed(Some(kind), why, Utc::now());
    }

    /// Nothing was done, as another clerk2pg is at work; [`Self::stands_by`] says who.
    pub fn stood_by(&self, kind: SyncKind) {
        self.0.metrics.ended(kind, "standing_by");
    }

    /// Another clerk2pg has the lease.
    pub fn stands_by(&self, holder: &str) {
        let why = format!("{holder} is syncing this database at this moment");
        self.health().stands_by(why);
    }

    /// Another clerk2pg leads.
    pub fn follows(&self, leader: &str) {
        self.health().stands_by(format!("{leader} leads"));
    }

    /// Whether this one leads the others.
    pub fn leads(&self, leads: bool) {
        self.0.metrics.leader.set(i64::from(leads));
        if leads {
            self.health().begins(Moment::now());
        }
    }

    /// Nobody sees at this moment whether another clerk2pg leads.
    pub fn loses_sight(&self, why: &str) {
        self.health().failed(None, why, Utc::now());
    }

    /// This process has the lease, until what is returned is dropped.
    pub fn holds_lease(&self) -> Holding {
        self.health().standing_by = None;
        self.0.metrics.lease_held.set(1);
        Holding(self.clone())
    }

    /// Users were changed in the mirror, and the change is committed.
    pub fn changed(&self, changes: Changes) {
        self.0.metrics.changed(changes);
    }

    /// A change was so old when it was committed.
    pub fn fresh(&self, kind: SyncKind, age: Duration) {
        self.0.metrics.fresh(kind, age);
    }

    /// Whether the loop that does the work is alive.
    pub fn alive(&self) -> Verdict {
        self.health().alive(Instant::now())
    }

    /// Whether the mirror is in sync, and this daemon able to keep it so.
    pub fn ready(&self) -> Verdict {
        self.health().ready(Instant::now())
    }

    /// How long ago a sync of any kind last ended with the mirror in sync.
    fn since_success(&self) -> Option<Duration> {
        self.health().succeeded_at.map(|at| at.elapsed())
    }

    /// Whether another clerk2pg had the lease when this one last looked.
    fn is_standing_by(&self) -> bool {
        self.health().standing_by.is_some()
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.0.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_heart_beats_while_the_work_waits() {
        let watch = Watch::default();
        let long_ago = Instant::now().checked_sub(Duration::from_secs(90)).unwrap();
        let work = async {
            watch.health().beat = long_ago;
            assert!(!watch.alive().is_good);
            tokio::time::sleep(2 * BEAT).await;
            watch.alive()
        };
        let beats = std::cell::Cell::new(0);
        let beat = || beats.set(beats.get() + 1);
        assert_eq!(watch.beating(Some(BEAT / 2), beat, work).await, Verdict::good("alive"));
        assert!((4..=5).contains(&beats.get()), "{beats:?}");
    }
}
