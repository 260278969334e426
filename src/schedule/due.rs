//! What is due: schedules, signals and notifications mark it, and the daemon takes it. A mark is a
//! state, not an event: what is marked twice is done once, and nothing piles up.

mod queue;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use tracing::warn;

use crate::{
    mirror::SyncKind,
    resource::{self, USERS},
};
use queue::Queue;

/// The least time between two full syncs that notifications ask for.
const NOTIFIED_FULL_GAP: Duration = Duration::from_secs(10);

/// What is due. Clones share the marks.
#[derive(Debug, Clone, Default)]
pub struct Due(Arc<DueState>);

#[derive(Debug, Default)]
struct DueState {
    marks: Mutex<DueMarks>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct DueMarks {
    /// A full sync.
    full: bool,
    /// An incremental sync that does not wait for the schedule.
    incremental: bool,
    /// An incremental sync by the schedule. The daemon may slow it down.
    scheduled: bool,
    /// Marks of notifications. Every role that may connect to the database can send them.
    notified_full: SpacedMark,
    notified_incremental: SpacedMark,
    /// Users to be stored by id.
    users: Queue,
    /// Organizations and the like. A long sync of users does not stop for them.
    others: Queue,
    limits: NotificationLimits,
    /// The kind that goes last, because it had its turn or failed.
    last: Option<SyncKind>,
}

/// A mark that takes effect only after a gap since the one before it.
#[derive(Debug, Default)]
struct SpacedMark {
    is_marked: bool,
    not_before: Option<Instant>,
}

/// How much of the request budget notifications may spend.
#[derive(Debug, Clone, Copy)]
pub struct NotificationLimits {
    /// With more ids waiting than this, an incremental sync is due, too: it stores them sooner.
    pub ids_at_once: usize,
    /// The least time between two incremental syncs that notifications ask for.
    pub gap: Duration,
}

impl Default for NotificationLimits {
    fn default() -> Self {
        Self {
            ids_at_once: queue::MAX_WAITING,
            gap: Duration::ZERO,
        }
    }
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Users to be stored by id.
    Users(Vec<String>),
    /// A full sync, which absorbs a due incremental one.
    Full,
    /// An incremental sync that a person, a notification or another sync asked for.
    Incremental,
    /// An incremental sync by the schedule.
    ScheduledIncremental,
}

impl Task {
    /// The kind of sync, as in `clerk.sync_runs`.
    pub fn kind(&self) -> SyncKind {
        match self {
            Task::Full => SyncKind::Full,
            Task::Incremental | Task::ScheduledIncremental => SyncKind::Incremental,
            Task::Users(_) => SyncKind::OnDemand,
        }
    }
}

/// Which syncs may run at a moment.
#[derive(Debug, Clone, Copy)]
pub struct Allowed {
    /// A full sync.
    pub full: bool,
    /// An incremental sync.
    pub incremental: bool,
    /// How many users may be read by id.
    pub users: usize,
}

impl Allowed {
    /// Everything.
    pub const ALL: Self = Self {
        full: true,
        incremental: true,
        users: usize::MAX,
    };
}

impl SpacedMark {
    fn is_due(&self, now: Instant) -> bool {
        self.is_marked && self.not_before.is_none_or(|at| at <= now)
    }

    /// When it is due; `None` if it is not marked.
    fn next(&self, now: Instant) -> Option<Instant> {
        self.is_marked.then(|| self.not_before.unwrap_or(now))
    }

    /// Takes the mark. The next one takes effect after the gap.
    fn take(&mut self, gap: Duration, now: Instant) {
        if std::mem::take(&mut self.is_marked) {
            self.not_before = Some(now + gap);
        }
    }
}

impl DueMarks {
    fn has_full(&self, now: Instant) -> bool {
        self.full || self.notified_full.is_due(now)
    }

    fn has_incremental(&self, now: Instant) -> bool {
        self.incremental || self.scheduled || self.notified_incremental.is_due(now)
    }

    fn has_users(&self, now: Instant) -> bool {
        self.users.next(now).is_some_and(|next| next <= now)
    }

    fn has_ids(&self, now: Instant) -> bool {
        let others = self.others.next(now).is_some_and(|next| next <= now);
        others || self.has_users(now)
    }

    /// The queue that an id belongs to.
    fn queue(&mut self, id: &str) -> &mut Queue {
        match is_user(id) {
            true => &mut self.users,
            false => &mut self.others,
        }
    }

    /// Both queues, each with its part of these ids.
    fn queues(&mut self, ids: Vec<String>) -> [(&mut Queue, Vec<String>); 2] {
        let (users, others) = ids.into_iter().partition(|id| is_user(id));
        [(&mut self.users, users), (&mut self.others, others)]
    }

    /// The next kind of sync, of those that may run.
    fn next(&self, allowed: &Allowed, now: Instant) -> Option<SyncKind> {
        // An application may wait for a single user. A full sync does what an incremental one does.
        let mut kinds = [
            (SyncKind::OnDemand, allowed.users > 0 && self.has_ids(now)),
            (SyncKind::Full, allowed.full && self.has_full(now)),
            (SyncKind::Incremental, allowed.incremental && self.has_incremental(now)),
        ];
        kinds.sort_by_key(|(kind, _)| self.last == Some(*kind));
        kinds.into_iter().find_map(|(kind, is_due)| is_due.then_some(kind))
    }

    /// Takes the marks of incremental syncs. Returns whether any of them is not the schedule's.
    fn take_incremental(&mut self, now: Instant) -> bool {
        let asked = std::mem::take(&mut self.incremental) || self.notified_incremental.is_due(now);
        self.scheduled = false;
        self.notified_incremental.take(self.limits.gap, now);
        asked
    }

    /// Takes the marks of full and incremental syncs.
    fn absorb(&mut self, now: Instant) {
        self.full = false;
        self.notified_full.take(NOTIFIED_FULL_GAP, now);
        self.take_incremental(now);
    }
}

fn is_user(id: &str) -> bool {
    resource::of_id(id).name == USERS.name
}

impl Due {
    fn marks(&self) -> MutexGuard<'_, DueMarks> {
        self.0.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mark(&self, mark: impl FnOnce(&mut DueMarks)) {
        mark(&mut self.marks());
        self.0.changed.notify_one();
    }

    /// Bounds what notifications may ask for.
    pub fn limit(&self, limits: NotificationLimits) {
        self.mark(|marks| marks.limits = limits);
    }

    /// A full sync is due.
    pub fn full(&self) {
        self.mark(|marks| marks.full = true);
    }

    /// An incremental sync is due: a person, a notification or another sync asked for it.
    pub fn incremental(&self) {
        self.mark(|marks| marks.incremental = true);
    }

    /// An incremental sync is due by the schedule.
    pub fn scheduled_incremental(&self) {
        self.mark(|marks| marks.scheduled = true);
    }

    /// A notification asks for a full sync.
    pub fn ask_full(&self) {
        self.mark(|marks| marks.notified_full.is_marked = true);
    }

    /// A notification asks for an incremental sync.
    pub fn ask_incremental(&self) {
        self.mark(|marks| marks.notified_incremental.is_marked = true);
    }

    /// A notification asks for a user. If more wait than can be asked for at once, an incremental
    /// sync is due as well.
    pub fn user(&self, id: &str) {
        self.mark(|marks| {
            let queue = marks.queue(id);
            let has_room = queue.add(id, Instant::now());
            let waiting = queue.len();
            if !has_room || waiting > marks.limits.ids_at_once {
                marks.notified_incremental.is_marked = true;
            }
        });
    }

    /// Waits until a mark is made.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// When the next sync is due, given the earliest time for each kind; `None` if nothing is
    /// marked. A moment in the past means now.
    pub fn next(&self, full: Option<Instant>, incremental: Option<Instant>, users: Option<Instant>) -> Option<Instant> {
        let (marks, now) = (self.marks(), Instant::now());
        let or_later = |at: Option<Instant>, not_before: Option<Instant>| {
            at.map(|at| not_before.map_or(at, |not_before| at.max(not_before)))
        };
        let marked = |is_marked: bool, notified: &SpacedMark| match is_marked {
            true => Some(now),
            false => notified.next(now),
        };
        [
            or_later(marked(marks.full, &marks.notified_full), full),
            or_later(
                marked(marks.incremental || marks.scheduled, &marks.notified_incremental),
                incremental,
            ),
            or_later(marks.users.next(now), users),
            or_later(marks.others.next(now), users),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Takes the most urgent task that may run. Users go first, because an application may wait for
    /// one of them, but in turns with all other tasks.
    pub fn take(&self, allowed: &Allowed) -> Option<Task> {
        let (mut marks, now) = (self.marks(), Instant::now());
        let kind = marks.next(allowed, now)?;
        marks.last = (kind == SyncKind::OnDemand).then_some(kind);
        Some(match kind {
            SyncKind::OnDemand if marks.has_users(now) => Task::Users(marks.users.take(allowed.users, now)),
            SyncKind::OnDemand => Task::Users(marks.others.take(allowed.users, now)),
            SyncKind::Full => {
                marks.absorb(now);
                Task::Full
            }
            SyncKind::Incremental if marks.take_incremental(now) => Task::Incremental,
            SyncKind::Incremental => Task::ScheduledIncremental,
        })
    }

    /// A full sync begins: it does what was due, except users to be read by id.
    pub fn absorb(&self) {
        self.marks().absorb(Instant::now());
    }

    /// Puts back a task that could not run but did not fail.
    pub fn put_back(&self, task: Task) {
        self.mark(|marks| match task {
            Task::Full => marks.full = true,
            Task::Incremental => marks.incremental = true,
            Task::ScheduledIncremental => marks.scheduled = true,
            Task::Users(ids) => {
                for (queue, ids) in marks.queues(ids) {
                    queue.put_back(ids, Instant::now());
                }
            }
        });
    }

    /// Puts back a task that failed. Other tasks go first. If the task itself may be the cause, its
    /// users are tried a limited number of times.
    pub fn failed(&self, task: Task, may_be_cause: bool) {
        self.marks().last = Some(task.kind());
        match task {
            Task::Users(ids) if may_be_cause => self.users_failed(ids),
            task => self.put_back(task),
        }
    }

    /// Records users that could not be read. They are tried again after a pause, a limited number
    /// of times.
    pub fn users_failed(&self, ids: Vec<String>) {
        let mut given_up = Vec::new();
        self.mark(|marks| {
            for (queue, ids) in marks.queues(ids) {
                given_up.extend(queue.failed(ids, Instant::now()));
            }
        });
        if let Some(first) = given_up.first() {
            warn!(
                users = given_up.len(),
                user_id = first,
                "users that were asked for cannot be stored; the next full sync tries again"
            );
        }
    }

    /// Records users that are done.
    pub fn users_done(&self, ids: &[String]) {
        let mut marks = self.marks();
        marks.users.done(ids);
        marks.others.done(ids);
    }

    /// Records ids that neither Clerk nor the mirror has: they are not asked for again at once.
    pub fn users_unknown(&self, ids: Vec<String>) {
        for (queue, ids) in self.marks().queues(ids) {
            queue.unknown(ids, Instant::now());
        }
    }

    /// Takes up to `most` of the users to be read by id.
    pub fn take_users(&self, most: usize) -> Vec<String> {
        self.marks().users.take(most, Instant::now())
    }

    /// Forgets the users to be read by id.
    pub fn forget_users(&self) {
        let mut marks = self.marks();
        (marks.users, marks.others) = Default::default();
    }

    /// Whether users are waiting to be stored by id.
    pub fn has_users(&self) -> bool {
        self.marks().has_users(Instant::now())
    }

    /// Whether an incremental sync is due, by any mark.
    pub fn has_incremental(&self) -> bool {
        self.marks().has_incremental(Instant::now())
    }

    /// Takes all marks of an incremental sync. Returns whether there was one.
    pub fn take_incremental(&self) -> bool {
        let (mut marks, now) = (self.marks(), Instant::now());
        let is_due = marks.has_incremental(now);
        if is_due {
            marks.take_incremental(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests;
