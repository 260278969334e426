//! Decides whether the daemon is alive, and whether it is ready: in sync, and able to stay so.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use super::condition::{Condition, HeldKind, ProbeResult};
use crate::{
    clock::Moment,
    mirror::{Outcome, SyncKind},
    schedule::Timetable,
    secret::without_personal_data,
};

/// The loop counts as stuck after this time without a heartbeat.
const MAX_SILENCE: Duration = Duration::from_secs(60);

/// How late an incremental sync may end before the mirror counts as out of sync.
const MAX_DELAY: Duration = Duration::from_secs(2 * 60);

/// How late a full sync may end. A full sync that takes long may be late by twice the duration of
/// the last one.
const MAX_FULL_DELAY: Duration = Duration::from_secs(15 * 60);

/// A sync that ended, and that changed something or was a full one.
#[derive(Debug, Clone)]
pub struct CompletedSync {
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took.
    pub took: Duration,
    /// Why some of Clerk's users could not be seen or judged; `None` if all were.
    pub incomplete: Option<String>,
    /// What waits for approval; `None` if nothing does.
    pub holds: Option<HeldKind>,
}

/// The health of a daemon.
#[derive(Debug)]
pub(super) struct Health {
    /// When the loop last had a heartbeat.
    pub(super) beat: Instant,
    timetable: Timetable,
    /// When a sync of any kind last succeeded.
    pub(super) succeeded_at: Option<Instant>,
    full: SyncDeadline,
    incremental: SyncDeadline,
    /// How long the last full sync took.
    full_took: Duration,
    /// Why this daemon does not sync; `None` if it does.
    pub(super) standing_by: Option<String>,
    /// Failures that are not over yet, the oldest first.
    failures: Vec<OngoingFailure>,
    /// Whether a full sync has ended since the start.
    had_full_sync: bool,
    /// Why the last full sync could not see or judge every user.
    incomplete: Option<String>,
    /// What waited for approval at the end of the last sync that changed something.
    holds: Option<HeldKind>,
    /// Whether this server does not show recent changes.
    is_blind: bool,
}

/// A failure that is not over yet.
#[derive(Debug)]
struct OngoingFailure {
    /// The kind of sync that fails; `None` if it is the election.
    kind: Option<SyncKind>,
    why: String,
    since: DateTime<Utc>,
}

/// When the next sync of a kind should succeed, by the steady clock.
#[derive(Debug, Clone, Copy)]
struct SyncDeadline {
    /// When the last one succeeded, or when this daemon began to sync.
    since: Instant,
    /// How long after that the next one is due; `None` if never.
    due_in: Option<Duration>,
}

impl SyncDeadline {
    /// Returns the time since the last success if the next sync is late by more than `patience`.
    fn late(&self, patience: Duration, now: Instant) -> Option<Duration> {
        let passed = now.saturating_duration_since(self.since);
        (passed > self.due_in?.saturating_add(patience)).then_some(passed)
    }
}

impl Health {
    pub(super) fn new(beat: Instant) -> Self {
        Self {
            beat,
            timetable: Timetable::default(),
            succeeded_at: None,
            full: SyncDeadline {
                since: beat,
                due_in: None,
            },
            incremental: SyncDeadline {
                since: beat,
                due_in: None,
            },
            full_took: Duration::ZERO,
            standing_by: None,
            failures: Vec::new(),
            had_full_sync: false,
            incomplete: None,
            holds: None,
            is_blind: false,
        }
    }

    /// Sets the timetable by which syncs are due.
    pub(super) fn set_timetable(&mut self, timetable: Timetable, now: Moment) {
        self.timetable = timetable;
        self.restart_deadlines(now);
    }

    /// Measures delays from now on, because this daemon begins to sync.
    pub(super) fn restart_deadlines(&mut self, now: Moment) {
        for kind in [SyncKind::Full, SyncKind::Incremental] {
            self.expect(kind, now);
        }
    }

    fn expect(&mut self, kind: SyncKind, now: Moment) {
        let deadline = SyncDeadline {
            since: now.steady,
            due_in: self.timetable.next_in(kind, now.wall),
        };
        match kind {
            SyncKind::Full => self.full = deadline,
            SyncKind::Incremental => self.incremental = deadline,
            SyncKind::OnDemand => {}
        }
    }

    /// Records a sync that succeeded. A full one includes what an incremental one does.
    pub(super) fn succeeded(&mut self, kind: SyncKind, now: Moment) {
        self.succeeded_at = Some(now.steady);
        self.expect(kind, now);
        if kind == SyncKind::Full {
            self.expect(SyncKind::Incremental, now);
        }
    }

    /// Removes the failures that a successful sync of this kind ends.
    fn end_failures(&mut self, kind: SyncKind) {
        self.standing_by = None;
        // Clerk and Postgres have answered, but another kind of sync may still fail.
        self.failures.retain(|failure| {
            let is_other = kind != SyncKind::Full && failure.kind != Some(kind);
            is_other && matches!(failure.kind, Some(SyncKind::Full | SyncKind::Incremental))
        });
    }

    /// Records a sync that found nothing to do.
    pub(super) fn idle(&mut self, kind: SyncKind, now: Moment) {
        self.end_failures(kind);
        self.is_blind &= kind != SyncKind::Incremental;
        self.succeeded(kind, now);
    }

    /// Records that this server does not show recent changes.
    pub(super) fn blind(&mut self) {
        self.end_failures(SyncKind::Incremental);
        self.is_blind = true;
    }

    /// Records a completed sync.
    pub(super) fn done(&mut self, kind: SyncKind, sync: &CompletedSync, now: Moment) {
        if let (Some(why), SyncKind::Incremental | SyncKind::OnDemand) = (&sync.incomplete, kind) {
            return self.failed(Some(kind), why, now.wall);
        }
        self.end_failures(kind);
        match kind {
            SyncKind::Full => {
                self.had_full_sync = true;
                self.full_took = sync.took;
                self.holds = sync.holds;
                self.incomplete = sync.incomplete.as_deref().map(without_personal_data);
            }
            SyncKind::Incremental => {
                self.is_blind = false;
                self.holds = self.holds.max(sync.holds);
            }
            SyncKind::OnDemand => self.holds = self.holds.max(sync.holds),
        }
        if sync.incomplete.is_none() {
            self.succeeded(kind, now);
        }
    }

    /// Records a failed sync, or a failed election if there is no kind.
    pub(super) fn failed(&mut self, kind: Option<SyncKind>, why: &str, now: DateTime<Utc>) {
        self.standing_by = None;
        let why = without_personal_data(why);
        match self.failures.iter_mut().find(|failure| failure.kind == kind) {
            Some(failure) => failure.why = why,
            None => self.failures.push(OngoingFailure { kind, why, since: now }),
        }
    }

    /// Records that this daemon does not sync, and why.
    pub(super) fn set_standing_by(&mut self, why: String) {
        // Clerk and Postgres have answered.
        self.failures.clear();
        self.standing_by = Some(why);
    }

    /// Returns how the daemon is doing.
    pub(super) fn condition(&self, now: Instant) -> Condition {
        let silence = now.saturating_duration_since(self.beat);
        match silence >= MAX_SILENCE {
            true => Condition::Stuck(silence),
            false => self.condition_of_syncs(now),
        }
    }

    /// The same, whether or not the loop runs.
    fn condition_of_syncs(&self, now: Instant) -> Condition {
        if let Some(OngoingFailure { why, since, .. }) = self.failures.first() {
            return Condition::Failing {
                why: why.clone(),
                since: *since,
            };
        }
        if let Some(why) = &self.standing_by {
            return Condition::StandingBy(why.clone());
        }
        if !self.had_full_sync {
            return Condition::FirstSync;
        }
        if let Some(why) = &self.incomplete {
            return Condition::Incomplete(why.clone());
        }
        let incremental = self.incremental.late(MAX_DELAY, now).filter(|_| !self.is_blind);
        let full = self.full.late(MAX_FULL_DELAY.max(2 * self.full_took), now);
        for (kind, late) in [(SyncKind::Incremental, incremental), (SyncKind::Full, full)] {
            if let Some(without_success) = late {
                return Condition::Late { kind, without_success };
            }
        }
        Condition::InSync(self.holds)
    }

    /// Answers whether the loop had a heartbeat lately.
    pub(super) fn alive(&self, now: Instant) -> ProbeResult {
        match self.condition(now) {
            stuck @ Condition::Stuck(_) => stuck.probe(),
            _ => ProbeResult::ok("alive"),
        }
    }

    /// Answers whether the mirror is in sync.
    pub(super) fn ready(&self, now: Instant) -> ProbeResult {
        self.condition_of_syncs(now).probe()
    }
}

#[cfg(test)]
mod tests;
