//! Whether an endpoint works at all. One that does not is tried only now and then, until it answers
//! again: its events wait, instead of using up their attempts.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use super::AttemptOutcome;
use crate::mirror::EventObject;

/// If events of so many objects fail, and none succeeds meanwhile, the endpoint does not work.
const MOST_FAILING: usize = 5;

/// The first pause, and the longest one. Each pause is twice as long as the one before.
const FIRST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(30);

/// The size of the largest round of attempts. Each round of an endpoint that accepts nothing is four
/// times as large as the one before: it may refuse what many objects have in common, and accept the
/// events behind those.
const LARGEST_ROUND: usize = 64;

/// The longest time that an endpoint can ask for.
const MOST_THROTTLED: Duration = Duration::from_hours(1);

/// How an endpoint does.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Objects whose events have failed since the last success, up to [`MOST_FAILING`].
    failing: BTreeSet<EventObject>,
    /// The object with whose event the endpoint last asked for a pause, if none succeeded since.
    throttled_by: Option<EventObject>,
    pause: Option<Pause>,
}

#[derive(Debug)]
struct Pause {
    kind: PauseKind,
    until: Instant,
    /// Rounds of attempts since the pause began, none of which succeeded.
    rounds: u32,
}

/// Why an endpoint is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PauseKind {
    /// Nothing can be sent to it.
    Unreachable,
    /// It accepts nothing.
    Failing,
    /// It asked for a pause. After that, it counts as working.
    Throttled,
}

/// What may be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Allowance {
    /// Everything.
    All,
    /// One round of attempts.
    Round {
        /// How many events are tried.
        size: usize,
        /// How many late events are under way at most as long as there are others.
        late: usize,
    },
    /// Nothing until then.
    None(Instant),
}

/// How an attempt changed the endpoint's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HealthChange {
    /// It does not work any more.
    Paused,
    /// It works again.
    Resumed,
}

impl Health {
    /// An endpoint that is still paused for a time, as another process has found.
    pub(super) fn paused(now: Instant, remaining: Duration) -> Self {
        Self {
            pause: Some(Pause {
                kind: PauseKind::Failing,
                until: now + remaining.min(MOST_THROTTLED),
                rounds: 0,
            }),
            ..Self::default()
        }
    }

    /// Returns what may be sent. `concurrency` is the size of the first round.
    pub(super) fn allowance(&mut self, now: Instant, concurrency: usize) -> Allowance {
        match &self.pause {
            None => Allowance::All,
            Some(pause) if now < pause.until => Allowance::None(pause.until),
            Some(pause) => {
                let size = match pause.kind {
                    PauseKind::Throttled => {
                        self.pause = None;
                        return Allowance::All;
                    }
                    PauseKind::Unreachable => 1,
                    // A late event and a new one at least: either may be one that is never accepted.
                    PauseKind::Failing => concurrency
                        .max(2)
                        .saturating_mul(4_usize.saturating_pow(pause.rounds))
                        .min(LARGEST_ROUND),
                };
                // A receiver that crashes at a late event answers nothing else that is under way.
                let late = match pause.rounds % 2 {
                    0 => size.div_ceil(2),
                    _ => 0,
                };
                Allowance::Round { size, late }
            }
        }
    }

    /// Whether the endpoint is paused.
    pub(super) fn is_paused(&self) -> bool {
        self.pause.is_some()
    }

    /// Whether the endpoint itself asked for the pause.
    pub(super) fn is_throttled(&self) -> bool {
        let kind = self.pause.as_ref().map(|pause| pause.kind);
        kind == Some(PauseKind::Throttled)
    }

    /// Returns how long the pause lasts from now on.
    pub(super) fn remaining(&self, now: Instant) -> Option<Duration> {
        let pause = self.pause.as_ref()?;
        Some(pause.until.saturating_duration_since(now))
    }

    /// Records how an attempt ended.
    pub(super) fn record(
        &mut self,
        now: Instant,
        object: &EventObject,
        outcome: &AttemptOutcome,
    ) -> Option<HealthChange> {
        match outcome {
            AttemptOutcome::Delivered { .. } => self.succeeded(),
            AttemptOutcome::Unreachable { .. } => self.pause(now, PauseKind::Unreachable, FIRST),
            AttemptOutcome::Refused {
                status: 429 | 503,
                retry_after: Some(wait),
            } => {
                // One object whose events are always answered so must not hold back the others.
                let before = self.throttled_by.replace(object.clone());
                before.filter(|before| before != object)?;
                self.pause(now, PauseKind::Throttled, (*wait).min(MOST_THROTTLED))
            }
            AttemptOutcome::Refused { .. } | AttemptOutcome::Unanswered { .. } => {
                if self.failing.len() < MOST_FAILING {
                    self.failing.insert(object.clone());
                }
                match self.failing.len() < MOST_FAILING {
                    true => None,
                    false => self.pause(now, PauseKind::Failing, FIRST),
                }
            }
        }
    }

    /// Records that a round of attempts has ended without success, if the endpoint is still
    /// paused: the next pause is longer.
    pub(super) fn round_ended(&mut self, now: Instant) {
        if let Some(pause) = &mut self.pause
            && pause.until <= now
        {
            pause.rounds += 1;
            pause.until = now + FIRST.saturating_mul(2_u32.saturating_pow(pause.rounds)).min(LONGEST);
        }
    }

    /// Ends the pause of an endpoint for which there is nothing to try.
    pub(super) fn end_pause(&mut self) {
        *self = Self::default();
    }

    fn succeeded(&mut self) -> Option<HealthChange> {
        self.failing.clear();
        self.throttled_by = None;
        // An answer to a request from before the pause does not end what the endpoint asked for.
        self.pause.take_if(|pause| pause.kind != PauseKind::Throttled)?;
        Some(HealthChange::Resumed)
    }

    /// Begins a pause, unless there is one. A pause that becomes known while an endpoint is tried
    /// keeps its length, but may get another kind.
    fn pause(&mut self, now: Instant, kind: PauseKind, length: Duration) -> Option<HealthChange> {
        match &mut self.pause {
            None => {
                self.pause = Some(Pause {
                    kind,
                    until: now + length,
                    rounds: 0,
                });
                Some(HealthChange::Paused)
            }
            Some(pause) => {
                if kind == PauseKind::Throttled {
                    pause.until = pause.until.max(now + length);
                } else {
                    pause.kind = kind;
                }
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(number: usize) -> EventObject {
        EventObject {
            resource: "users".to_owned(),
            id: format!("user_{number}"),
        }
    }

    fn refused(status: u16) -> AttemptOutcome {
        AttemptOutcome::Refused {
            status,
            retry_after: None,
        }
    }

    fn unreachable() -> AttemptOutcome {
        AttemptOutcome::Unreachable {
            why: "connection refused".to_owned(),
        }
    }

    const DELIVERED: AttemptOutcome = AttemptOutcome::Delivered { status: 200 };

    #[test]
    fn one_failing_object_pauses_nothing() {
        let (mut health, now) = (Health::default(), Instant::now());
        for _ in 0..100 {
            assert_eq!(health.record(now, &object(1), &refused(500)), None);
        }
        assert_eq!(health.allowance(now, 8), Allowance::All);
    }

    #[test]
    fn failures_of_many_objects_pause_and_one_success_resumes() {
        let (mut health, now) = (Health::default(), Instant::now());
        for number in 1..MOST_FAILING {
            assert_eq!(health.record(now, &object(number), &refused(500)), None);
        }
        assert_eq!(
            health.record(now, &object(MOST_FAILING), &refused(500)),
            Some(HealthChange::Paused)
        );
        assert_eq!(health.allowance(now, 8), Allowance::None(now + FIRST));
        assert_eq!(health.allowance(now + FIRST, 8), Allowance::Round { size: 8, late: 4 });
        assert_eq!(health.allowance(now + FIRST, 1), Allowance::Round { size: 2, late: 1 });
        let resumed = health.record(now + FIRST, &object(1), &DELIVERED);
        assert_eq!(resumed, Some(HealthChange::Resumed));
        assert_eq!(health.allowance(now, 8), Allowance::All);
        assert_eq!(health.record(now, &object(1), &refused(500)), None);
    }

    #[test]
    fn rounds_grow_until_one_succeeds() {
        let (mut health, mut now) = (Health::default(), Instant::now());
        for number in 0..MOST_FAILING {
            health.record(now, &object(number), &refused(400));
        }
        // Every second round is of new events only.
        for (size, late) in [(8, 4), (32, 0), (64, 32), (64, 0)] {
            now += LONGEST;
            assert_eq!(health.allowance(now, 8), Allowance::Round { size, late });
            health.record(now, &object(1), &refused(400));
            health.round_ended(now);
        }
    }

    #[test]
    fn a_success_in_between_begins_the_count_again() {
        let (mut health, now) = (Health::default(), Instant::now());
        for number in 0..100 {
            assert_eq!(health.record(now, &object(number), &refused(400)), None);
            assert_eq!(health.record(now, &object(0), &DELIVERED), None);
        }
    }

    #[test]
    fn an_unreachable_endpoint_is_paused_at_once_and_longer_each_time() {
        let (mut health, mut now) = (Health::default(), Instant::now());
        assert_eq!(
            health.record(now, &object(1), &unreachable()),
            Some(HealthChange::Paused)
        );
        for (seconds, late) in [(5, 1), (10, 0), (20, 1), (30, 0), (30, 1), (30, 0)] {
            assert_eq!(health.remaining(now), Some(Duration::from_secs(seconds)));
            now += Duration::from_secs(seconds);
            assert_eq!(health.allowance(now, 8), Allowance::Round { size: 1, late });
            assert_eq!(health.record(now, &object(1), &unreachable()), None);
            health.round_ended(now);
        }
    }

    #[test]
    fn a_pause_that_the_endpoint_asks_for_ends_by_itself() {
        let (mut health, now) = (Health::default(), Instant::now());
        let wait = Duration::from_secs(7);
        let throttled = AttemptOutcome::Refused {
            status: 429,
            retry_after: Some(wait),
        };
        // One object alone pauses nothing.
        assert_eq!(health.record(now, &object(1), &throttled), None);
        assert_eq!(health.record(now, &object(1), &throttled), None);
        assert_eq!(health.record(now, &object(3), &throttled), Some(HealthChange::Paused));
        // An answer to an earlier request.
        assert_eq!(health.record(now, &object(2), &DELIVERED), None);
        assert_eq!(health.allowance(now, 8), Allowance::None(now + wait));
        assert_eq!(health.allowance(now + wait, 8), Allowance::All);
        assert!(!health.is_paused());
    }
}
