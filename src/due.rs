//! What is to be done: marked by schedules, signals and notifications, taken by whoever can do it. A mark is a state, not an event: what is
//! marked twice is done once, and nothing piles up.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// Most users that wait to be asked for by name; who asks for more gets an incremental sync.
const MOST_USERS: usize = 1_000;

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
    users: BTreeSet<String>,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Users to be brought by name.
    Users(Vec<String>),
    /// A full sync, which absorbs a due incremental one.
    Full,
    /// An incremental sync that somebody asked for.
    Incremental,
    /// An incremental sync by the schedule.
    Tick,
}

impl Due {
    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.0.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mark(&self, mark: impl FnOnce(&mut Marks)) {
        mark(&mut self.marks());
        self.0.changed.notify_one();
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

    /// A user is to be brought.
    pub fn user(&self, id: &str) {
        self.mark(|marks| {
            if marks.users.len() < MOST_USERS {
                marks.users.insert(id.to_owned());
            } else {
                marks.incremental = true;
            }
        });
    }

    /// Waits until something is due.
    pub async fn any(&self) {
        loop {
            let changed = self.0.changed.notified();
            {
                let marks = self.marks();
                if marks.full || marks.incremental || marks.tick || !marks.users.is_empty() {
                    return;
                }
            }
            changed.await;
        }
    }

    /// Takes the most urgent thing: somebody may be waiting for a single user.
    pub fn take(&self) -> Option<Task> {
        let users = self.take_users();
        if !users.is_empty() {
            return Some(Task::Users(users));
        }
        if self.marks().full {
            self.absorb();
            return Some(Task::Full);
        }
        let mut marks = self.marks();
        let (asked, tick) = (std::mem::take(&mut marks.incremental), std::mem::take(&mut marks.tick));
        match (asked, tick) {
            (true, _) => Some(Task::Incremental),
            (false, true) => Some(Task::Tick),
            (false, false) => None,
        }
    }

    /// A full sync begins: it does what was due, users who are to be brought aside.
    pub fn absorb(&self) {
        let mut marks = self.marks();
        (marks.full, marks.incremental, marks.tick) = (false, false, false);
    }

    /// Takes the users who are to be brought.
    pub fn take_users(&self) -> Vec<String> {
        std::mem::take(&mut self.marks().users).into_iter().collect()
    }

    /// Whether users are to be brought.
    pub fn has_users(&self) -> bool {
        !self.marks().users.is_empty()
    }

    /// Whether an incremental sync is due, whoever marked it.
    pub fn has_incremental(&self) -> bool {
        let marks = self.marks();
        marks.incremental || marks.tick
    }

    /// Takes the mark of an incremental sync, whoever made it.
    pub fn take_incremental(&self) -> bool {
        let mut marks = self.marks();
        let (asked, tick) = (std::mem::take(&mut marks.incremental), std::mem::take(&mut marks.tick));
        asked || tick
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_marked_twice_is_done_once_and_a_full_sync_absorbs_the_rest() {
        let due = Due::default();
        assert_eq!(due.take(), None);
        due.tick();
        due.tick();
        due.incremental();
        assert_eq!(due.take(), Some(Task::Incremental));
        assert_eq!(due.take(), None);
        due.user("user_b");
        due.full();
        due.tick();
        due.user("user_a");
        due.user("user_b");
        assert_eq!(due.take(), Some(Task::Users(vec!["user_a".into(), "user_b".into()])));
        assert_eq!(due.take(), Some(Task::Full));
        assert_eq!(due.take(), None);
    }

    #[test]
    fn too_many_users_become_an_incremental_sync() {
        let due = Due::default();
        for n in 0..=MOST_USERS {
            due.user(&format!("user_{n}"));
        }
        assert_eq!(due.take_users().len(), MOST_USERS);
        assert_eq!(due.take(), Some(Task::Incremental));
    }
}
