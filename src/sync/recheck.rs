//! Answers of Clerk that count only when Clerk repeats them later. It may answer from a replica
//! that lags behind, so a user that it does not know yet, or shows in an older state, is asked for
//! again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::schedule::due::Due;

/// How far a replica at Clerk may lag behind. Source: a guess; two public reports show older states
/// in lists.
pub(super) const REPLICA_LAG: Duration = Duration::from_secs(10);

/// How long a first answer is remembered.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);

/// Most ids that are remembered of each observation. One more clears all ids of that observation.
const MAX_REMEMBERED: usize = 10_000;

/// First answers that Clerk has not repeated yet. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Rechecks(Arc<Mutex<FirstAnswers>>);

#[derive(Debug, Default)]
struct FirstAnswers {
    gone: HashMap<String, Instant>,
    older: HashMap<String, Instant>,
    deleted: HashMap<String, Instant>,
    ended: HashMap<String, Instant>,
}

/// What Clerk said about an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Observation {
    /// There is no such user.
    Gone,
    /// The user is in an older state than the mirror's.
    Older,
    /// There is no such user, and the row was deleted or marked.
    Deleted,
    /// There is no such organization, though the mirror has it.
    Ended,
}

/// Decides whether what a page shows is stored, as it may come from a replica that lags behind.
#[derive(Clone, Copy)]
pub(super) struct ReplicaTrust<'a> {
    pub(super) rechecks: &'a Rechecks,
    /// Whether the page answers a question by id.
    pub(super) is_by_id: bool,
}

impl ReplicaTrust<'_> {
    /// Whether a state older than the mirror's is stored: Clerk shows it by id, at least ten
    /// seconds after it showed it first, and the row was not updated meanwhile.
    pub(super) fn accepts_older(&self, id: &str, is_fresh: bool) -> bool {
        self.is_by_id && !is_fresh && self.has_lasted(Observation::Older, id) == Some(true)
    }

    /// Whether a user that is not in the mirror is stored: its row was not deleted a moment ago.
    pub(super) fn accepts_new(&self, id: &str) -> bool {
        self.has_lasted(Observation::Deleted, id) != Some(false)
    }

    fn has_lasted(&self, observation: Observation, id: &str) -> Option<bool> {
        let since = self.rechecks.since(observation, id, Instant::now())?;
        Some(since >= REPLICA_LAG)
    }
}

impl Rechecks {
    fn answers(&self) -> MutexGuard<'_, FirstAnswers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an answer. Returns how long ago Clerk gave it first; zero if that is now.
    pub(super) fn note(&self, observation: Observation, id: &str, now: Instant) -> Duration {
        let mut answers = self.answers();
        let firsts = answers.of(observation);
        match firsts.get(id).and_then(|first| remembered(*first, now)) {
            Some(since) => since,
            None => {
                if firsts.len() >= MAX_REMEMBERED {
                    firsts.retain(|_, first| remembered(*first, now).is_some());
                }
                if firsts.len() >= MAX_REMEMBERED {
                    firsts.clear();
                }
                firsts.insert(id.to_owned(), now);
                Duration::ZERO
            }
        }
    }

    /// How long ago Clerk gave an answer first; `None` if it did not.
    pub(super) fn since(&self, observation: Observation, id: &str, now: Instant) -> Option<Duration> {
        let first = self.answers().of(observation).get(id).copied()?;
        remembered(first, now)
    }

    /// Forgets an answer about an id, because Clerk says something else now.
    pub(super) fn forget(&self, observation: Observation, id: &str) {
        self.answers().of(observation).remove(id);
    }

    /// Ids that Clerk showed in an older state, in order, with the time left until they are asked
    /// for again.
    pub(super) fn older(&self, now: Instant) -> Vec<(String, Duration)> {
        let mut answers = self.answers();
        let older = answers.of(Observation::Older).iter().filter_map(|(id, first)| {
            let waited = remembered(*first, now)?;
            Some((id.clone(), REPLICA_LAG.saturating_sub(waited)))
        });
        let mut older: Vec<_> = older.collect();
        older.sort_unstable();
        older
    }
}

/// How long ago an answer was given; `None` if it is not remembered any more.
fn remembered(first: Instant, now: Instant) -> Option<Duration> {
    let since = now.saturating_duration_since(first);
    (since < REMEMBERED_FOR).then_some(since)
}

impl FirstAnswers {
    fn of(&mut self, observation: Observation) -> &mut HashMap<String, Instant> {
        match observation {
            Observation::Gone => &mut self.gone,
            Observation::Older => &mut self.older,
            Observation::Deleted => &mut self.deleted,
            Observation::Ended => &mut self.ended,
        }
    }
}

/// Makes users due after a pause, to be asked for by id.
pub(super) fn make_due_later(due: &Due, ids: Vec<String>, pause: Duration) {
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
        assert_eq!(rechecks.since(Observation::Gone, "a", start), None);
        assert_eq!(rechecks.note(Observation::Gone, "a", start), Duration::ZERO);
        assert_eq!(rechecks.note(Observation::Gone, "a", after(4)), Duration::from_secs(4));
        assert_eq!(rechecks.since(Observation::Older, "a", after(4)), None);
        rechecks.forget(Observation::Gone, "a");
        assert_eq!(rechecks.note(Observation::Gone, "a", after(5)), Duration::ZERO);
        assert_eq!(
            rechecks.note(Observation::Gone, "a", after(700)),
            Duration::ZERO,
            "forgotten"
        );
    }

    #[test]
    fn older_states_are_asked_for_when_a_replica_must_have_caught_up() {
        let (rechecks, start) = (Rechecks::default(), Instant::now());
        rechecks.note(Observation::Older, "b", start);
        rechecks.note(Observation::Older, "a", start + Duration::from_secs(3));
        let older = rechecks.older(start + Duration::from_secs(8));
        let expected = [("a", 5), ("b", 2)].map(|(id, left)| (id.to_owned(), Duration::from_secs(left)));
        assert_eq!(older, expected);
    }
}
