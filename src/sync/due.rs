//! What is to be done: marked by schedules, signals and notifications, taken by whoever can do it. A mark is a state, not an event: what is
//! marked twice is done once, and nothing piles up.

mod queue;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use tracing::warn;

use crate::mirror::SyncKind;
use queue::Queue;

/// The least time between two full syncs that notifications ask for.
const FULL_GAP: Duration = Duration::from_secs(10);

/// The marks. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Due(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    marks: Mutex<Marks>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Marks {
    full: bool,
    incremental: bool,
    /// An incremental sync by the schedule, which may be slowed down.
    tick: bool,
    /// What notifications ask for: anybody who may connect to the database can send them.
    asked_full: Asked,
    asked_incremental: Asked,
    users: Queue,
    limits: Limits,
    /// The kind that last had its turn, or failed: other kinds go first.
    yields: Option<SyncKind>,
}

/// A mark that takes effect only after a gap since the one before it.
#[derive(Debug, Default)]
struct Asked {
    is_marked: bool,
    not_before: Option<Instant>,
}

/// How much of the request budget notifications may spend.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// With more ids waiting than this, an incremental sync is due too: it brings them sooner.
    pub ids_at_once: usize,
    /// The least time between two incremental syncs that notifications ask for.
    pub gap: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            ids_at_once: queue::MOST,
            gap: Duration::ZERO,
        }
    }
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Users to be brought by id.
    Users(Vec<String>),
    /// A full sync, which absorbs a due incremental one.
    Full,
    /// An incremental sync that somebody asked for.
    Incremental,
    /// An incremental sync by the schedule.
    Tick,
}

impl Task {
    /// The kind of sync, as in `clerk.sync_runs`.
    pub fn kind(&self) -> SyncKind {
        match self {
            Task::Full => SyncKind::Full,
            Task::Incremental | Task::Tick => SyncKind::Incremental,
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

impl Asked {
    fn is_due(&self, now: Instant) -> bool {
        self.is_marked && self.not_before.is_none_or(|at| at <= now)
    }

    /// When it is due, if it is marked.
    fn next(&self, now: Instant) -> Option<Instant> {
        self.is_marked.then(|| self.not_before.unwrap_or(now))
    }

    fn take(&mut self, gap: Duration, now: Instant) {
        if std::mem::take(&mut self.is_marked) {
            self.not_before = Some(now + gap);
        }
    }
}

impl Marks {
    fn has_full(&self, now: Instant) -> bool {
        self.full || self.asked_full.is_due(now)
    }

    fn has_incremental(&self, now: Instant) -> bool {
        self.incremental || self.tick || self.asked_incremental.is_due(now)
    }

    fn has_users(&self, now: Instant) -> bool {
        self.users.next(now).is_some_and(|next| next <= now)
    }

    /// The next kind of sync, of those that may run.
    fn next(&self, allowed: &Allowed, now: Instant) -> Option<SyncKind> {
        // Somebody may be waiting for a single user. A full sync does what an incremental one does.
        let mut kinds = [
            (SyncKind::OnDemand, allowed.users > 0 && self.has_users(now)),
            (SyncKind::Full, allowed.full && self.has_full(now)),
            (SyncKind::Incremental, allowed.incremental && self.has_incremental(now)),
        ];
        kinds.sort_by_key(|(kind, _)| self.yields == Some(*kind));
        kinds.into_iter().find_map(|(kind, is_due)| is_due.then_some(kind))
    }

    /// Takes the marks of incremental syncs. Returns whether one came from other than the schedule.
    fn take_incremental(&mut self, now: Instant) -> bool {
        let asked = std::mem::take(&mut self.incremental) || self.asked_incremental.is_due(now);
        self.tick = false;
        self.asked_incremental.take(self.limits.gap, now);
        asked
    }

    fn absorb(&mut self, now: Instant) {
        self.full = false;
        self.asked_full.take(FULL_GAP, now);
        self.take_incremental(now);
    }
}

impl Due {
    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.0.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mark(&self, mark: impl FnOnce(&mut Marks)) {
        mark(&mut self.marks());
        self.0.changed.notify_one();
    }

    /// Bounds what notifications may ask for.
    pub fn limit(&self, limits: Limits) {
        self.mark(|marks| marks.limits = limits);
    }

    /// A full sync is due.
    pub fn full(&self) {
        self.mark(|marks| marks.full = true);
    }

    /// An incremental sync is due: somebody asked for it.
    pub fn incremental(&self) {
        self.mark(|marks| marks.incremental = true);
    }

    /// An incremental sync is due by the schedule.
    pub fn tick(&self) {
        self.mark(|marks| marks.tick = true);
    }

    /// A notification asks for a full sync.
    pub fn ask_full(&self) {
        self.mark(|marks| marks.asked_full.is_marked = true);
    }

    /// A notification asks for an incremental sync.
    pub fn ask_incremental(&self) {
        self.mark(|marks| marks.asked_incremental.is_marked = true);
    }

    /// A notification asks for a user. If more wait than can be asked for at once, an incremental
    /// sync is due as well.
    pub fn user(&self, id: &str) {
        self.mark(|marks| {
            let has_room = marks.users.add(id, Instant::now());
            if !has_room || marks.users.len() > marks.limits.ids_at_once {
                marks.asked_incremental.is_marked = true;
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
        let marked = |is_marked: bool, asked: &Asked| match is_marked {
            true => Some(now),
            false => asked.next(now),
        };
        [
            or_later(marked(marks.full, &marks.asked_full), full),
            or_later(
                marked(marks.incremental || marks.tick, &marks.asked_incremental),
                incremental,
            ),
            or_later(marks.users.next(now), users),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Takes what is most urgent of what may be done. Users go first, as somebody may be waiting for
    /// one of them, but in turns with everything else.
    pub fn take(&self, allowed: &Allowed) -> Option<Task> {
        let (mut marks, now) = (self.marks(), Instant::now());
        let kind = marks.next(allowed, now)?;
        marks.yields = (kind == SyncKind::OnDemand).then_some(kind);
        Some(match kind {
            SyncKind::OnDemand => Task::Users(marks.users.take(allowed.users, now)),
            SyncKind::Full => {
                marks.absorb(now);
                Task::Full
            }
            SyncKind::Incremental if marks.take_incremental(now) => Task::Incremental,
            SyncKind::Incremental => Task::Tick,
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
            Task::Tick => marks.tick = true,
            Task::Users(ids) => marks.users.put_back(ids, Instant::now()),
        });
    }

    /// Puts back a task that failed: others go first. Users that may be the cause are tried a
    /// limited number of times.
    pub fn failed(&self, task: Task, is_due_to_it: bool) {
        self.marks().yields = Some(task.kind());
        match task {
            Task::Users(ids) if is_due_to_it => self.users_failed(ids),
            task => self.put_back(task),
        }
    }

    /// Records users that could not be read. They are tried again after a pause, a limited number
    /// of times.
    pub fn users_failed(&self, ids: Vec<String>) {
        let mut given_up = Vec::new();
        self.mark(|marks| given_up = marks.users.failed(ids, Instant::now()));
        if let Some(first) = given_up.first() {
            warn!(
                users = given_up.len(),
                user_id = first,
                "users who were asked for cannot be brought; the next full sync brings them"
            );
        }
    }

    /// These users are done.
    pub fn users_done(&self, ids: &[String]) {
        self.marks().users.done(ids);
    }

    /// Records ids that neither Clerk nor the mirror has: they are not asked for again at once.
    pub fn users_unknown(&self, ids: Vec<String>) {
        self.marks().users.unknown(ids, Instant::now());
    }

    /// Takes up to `most` of the users to be read by id.
    pub fn take_users(&self, most: usize) -> Vec<String> {
        self.marks().users.take(most, Instant::now())
    }

    /// Forgets the users to be read by id.
    pub fn forget_users(&self) {
        self.marks().users = Queue::default();
    }

    /// Whether users are to be brought.
    pub fn has_users(&self) -> bool {
        self.marks().has_users(Instant::now())
    }

    /// Whether an incremental sync is due, whoever marked it.
    pub fn has_incremental(&self) -> bool {
        self.marks().has_incremental(Instant::now())
    }

    /// Takes the mark of an incremental sync, whoever made it.
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
mod tests {
    use super::*;

    fn users(ids: &[&str]) -> Option<Task> {
        Some(Task::Users(ids.iter().map(|id| (*id).to_owned()).collect()))
    }

    #[test]
    fn what_is_marked_twice_is_done_once_and_a_full_sync_absorbs_the_rest() {
        let due = Due::default();
        let take = || due.take(&Allowed::ALL);
        assert_eq!(take(), None);
        due.tick();
        due.tick();
        due.incremental();
        assert_eq!(take(), Some(Task::Incremental));
        assert_eq!(take(), None);
        due.user("user_b");
        due.full();
        due.tick();
        due.user("user_a");
        due.user("user_b");
        assert_eq!(take(), users(&["user_b", "user_a"]));
        assert_eq!(take(), Some(Task::Full));
        assert_eq!(take(), None);
    }

    #[test]
    fn too_many_users_become_an_incremental_sync() {
        let due = Due::default();
        for n in 0..=queue::MOST {
            due.user(&format!("user_{n}"));
        }
        assert_eq!(due.take_users(usize::MAX).len(), queue::MOST);
        assert_eq!(due.take(&Allowed::ALL), Some(Task::Incremental));
        due.limit(Limits {
            ids_at_once: 2,
            gap: Duration::ZERO,
        });
        due.user("user_a");
        due.user("user_b");
        assert!(!due.has_incremental());
        due.user("user_c");
        assert!(due.has_incremental());
    }

    #[test]
    fn users_go_first_but_in_turns_with_the_rest() {
        let due = Due::default();
        let some = Allowed {
            users: 1,
            ..Allowed::ALL
        };
        ["user_a", "user_b", "user_c"].iter().for_each(|id| due.user(id));
        due.tick();
        assert_eq!(due.take(&some), users(&["user_a"]));
        assert_eq!(due.take(&some), Some(Task::Tick));
        assert_eq!(due.take(&some), users(&["user_b"]));
        assert_eq!(due.take(&some), users(&["user_c"]), "nothing else is due");
        due.user("user_d");
        let none = Allowed {
            users: 0,
            ..Allowed::ALL
        };
        assert_eq!(due.take(&none), None);
    }

    #[test]
    fn what_failed_lets_everything_else_go_first() {
        let due = Due::default();
        let take = || due.take(&Allowed::ALL);
        due.full();
        let full = take().unwrap();
        due.failed(full, false);
        due.tick();
        assert_eq!(take(), Some(Task::Tick));
        assert_eq!(take(), Some(Task::Full));
        due.user("user_bad");
        let bad = take().unwrap();
        due.failed(bad, true);
        due.full();
        assert_eq!((take(), take()), (Some(Task::Full), None), "the user waits for a while");
        assert!(due.next(None, None, None).unwrap() > Instant::now());
    }

    #[test]
    fn notifications_ask_for_a_sync_only_so_often() {
        let due = Due::default();
        let gap = Duration::from_secs(60);
        due.limit(Limits { ids_at_once: 1, gap });
        let take = || due.take(&Allowed::ALL);
        for task in [Task::Incremental, Task::Full] {
            for asked in [true, false] {
                match task {
                    Task::Full => due.ask_full(),
                    _ => due.ask_incremental(),
                }
                assert_eq!(take(), asked.then(|| task.clone()));
            }
        }
        assert!(!due.has_incremental() && !due.take_incremental());
        assert!(due.next(None, None, None).unwrap() > Instant::now());
        due.tick();
        assert_eq!(take(), Some(Task::Tick), "the schedule does not wait for it");
        due.full();
        assert_eq!((take(), take()), (Some(Task::Full), None));
    }
}
