//! Answers of Clerk that count only when they are given again later. Clerk may answer from a replica that lags behind,
//! so a user that it does not know yet, or shows in an older state, is asked for again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::sync::due::Due;

/// How far a replica at Clerk may lag behind. Source: a guess; two public reports show older states in lists.
pub(super) const REPLICA_LAG: Duration = Duration::from_secs(10);

/// How long a first answer is remembered.
const REMEMBERED: Duration = Duration::from_secs(600);

/// Most ids that are remembered of each kind; one more clears all of its kind.
const MOST_IDS: usize = 10_000;

/// First answers that wait to be given again. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Rechecks(Arc<Mutex<Answers>>);

#[derive(Debug, Default)]
struct Answers {
    gone: HashMap<String, Instant>,
    older: HashMap<String, Instant>,
    deleted: HashMap<String, Instant>,
}

/// What Clerk said of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// There is no such user.
    Gone,
    /// The user is in a state older than the mirror's.
    Older,
    /// There is no such user, and the row was deleted or marked.
    Deleted,
}

/// Whether what a page shows is stored at once.
#[derive(Clone, Copy)]
pub(super) struct Trust<'a> {
    pub(super) rechecks: &'a Rechecks,
    /// Whether the page answers a question by id.
    pub(super) is_by_id: bool,
}

impl Trust<'_> {
    /// Whether a state older than the mirror's is stored: Clerk still shows it by id, ten seconds after it did so first,
    /// and the row was not updated meanwhile.
    pub(super) fn takes_older(&self, id: &str, is_fresh: bool) -> bool {
        self.is_by_id && !is_fresh && self.is_over(Said::Older, id) == Some(true)
    }

    /// Whether a user who is not in the mirror is stored: the row was not deleted a moment ago.
    pub(super) fn takes_new(&self, id: &str) -> bool {
        self.is_over(Said::Deleted, id) != Some(false)
    }

    fn is_over(&self, said: Said, id: &str) -> Option<bool> {
        let since = self.rechecks.since(said, id, Instant::now())?;
        Some(since >= REPLICA_LAG)
    }
}

impl Rechecks {
    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an answer. Returns how long ago it was given for the first time; zero if that is now.
    pub(super) fn note(&self, said: Said, id: &str, now: Instant) -> Duration {
        let mut answers = self.answers();
        let firsts = answers.of(said);
        firsts.retain(|_, first| now.saturating_duration_since(*first) < REMEMBERED);
        match firsts.get(id) {
            Some(first) => now.saturating_duration_since(*first),
            None => {
                if firsts.len() >= MOST_IDS {
                    firsts.clear();
                }
                firsts.insert(id.to_owned(), now);
                Duration::ZERO
            }
        }
    }

    /// How long ago an answer was given for the first time; `None` if it was not given.
    pub(super) fn since(&self, said: Said, id: &str, now: Instant) -> Option<Duration> {
        let first = self.answers().of(said).get(id).copied()?;
        Some(now.saturating_duration_since(first))
    }

    /// Forgets what was said of an id: Clerk says something else now.
    pub(super) fn forget(&self, said: Said, id: &str) {
        self.answers().of(said).remove(id);
    }

    /// Ids whose older state was shown, in order, with the time that is left until they are asked for again.
    pub(super) fn older(&self, now: Instant) -> Vec<(String, Duration)> {
        let mut answers = self.answers();
        let older = answers.of(Said::Older).iter().map(|(id, first)| {
            let waited = now.saturating_duration_since(*first);
            (id.clone(), REPLICA_LAG.saturating_sub(waited))
        });
        let mut older: Vec<_> = older.collect();
        older.sort_unstable();
        older
    }
}

impl Answers {
    fn of(&mut self, said: Said) -> &mut HashMap<String, Instant> {
        match said {
            Said::Gone => &mut self.gone,
            Said::Older => &mut self.older,
            Said::Deleted => &mut self.deleted,
        }
    }
}

/// Makes ids due after a pause, each to be asked for by id.
pub(super) fn make_due(due: &Due, ids: Vec<String>, pause: Duration) {
    let due = due.clone();
    tokio::spawn(async move {
        tokio::time::sleep(pause).await;
        ids.iter().for_each(|id| due.user(id));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_answer_counts_until_another_one_is_given() {
        let (rechecks, start) = (Rechecks::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(rechecks.since(Said::Gone, "a", start), None);
        assert_eq!(rechecks.note(Said::Gone, "a", start), Duration::ZERO);
        assert_eq!(rechecks.note(Said::Gone, "a", after(4)), Duration::from_secs(4));
        assert_eq!(rechecks.since(Said::Older, "a", after(4)), None);
        rechecks.forget(Said::Gone, "a");
        assert_eq!(rechecks.note(Said::Gone, "a", after(5)), Duration::ZERO);
        assert_eq!(rechecks.note(Said::Gone, "a", after(700)), Duration::ZERO, "forgotten");
    }

    #[test]
    fn older_states_are_asked_for_when_a_replica_must_have_caught_up() {
        let (rechecks, start) = (Rechecks::default(), Instant::now());
        rechecks.note(Said::Older, "b", start);
        rechecks.note(Said::Older, "a", start + Duration::from_secs(3));
        let older = rechecks.older(start + Duration::from_secs(8));
        let expected = [("a", 5), ("b", 2)].map(|(id, left)| (id.to_owned(), Duration::from_secs(left)));
        assert_eq!(older, expected);
    }
}
