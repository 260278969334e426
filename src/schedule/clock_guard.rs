//! Keeps syncs regular when this machine's clock jumps. The scheduler uses the wall clock: when the
//! wall clock goes back by an hour, the scheduler marks nothing for an hour.

use std::time::{Duration, Instant};

use chrono::TimeDelta;

use super::timetable::Timetable;
use crate::{clock::Moment, mirror::SyncKind};

/// Largest difference between the two clocks' progress from one check to the next; more is a jump.
const JUMP: TimeDelta = TimeDelta::seconds(2);

/// How late the scheduler may mark a sync: it wakes every half second, and a check happens every
/// three seconds at least. A hundredth of the period is added, because the clock may be adjusted a
/// little again and again.
const SLACK: Duration = Duration::from_secs(3);

/// Compares the wall clock with the steady one, and finds syncs that the scheduler did not mark.
#[derive(Debug)]
pub(super) struct ClockGuard {
    timetable: Timetable,
    last: Moment,
    full: MarkDeadline,
    incremental: MarkDeadline,
}

/// When the scheduler has to mark one kind of sync at the latest.
#[derive(Debug)]
struct MarkDeadline {
    kind: SyncKind,
    /// By the steady clock; `None` if this kind is never due.
    until: Option<Instant>,
}

/// Which kinds of sync the scheduler has marked since the last check.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct MarkedKinds {
    pub(super) full: bool,
    pub(super) incremental: bool,
}

/// The result of a check.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ClockCheck {
    /// By how much the wall clock has jumped, if it did. The scheduler has to be restarted then.
    pub(super) jump: Option<TimeDelta>,
    /// Whether a full sync is due that the scheduler has not marked.
    pub(super) full: bool,
    /// The same for an incremental sync.
    pub(super) incremental: bool,
}

impl ClockGuard {
    /// Starts the deadlines at this moment.
    pub(super) fn new(timetable: Timetable, now: Moment) -> Self {
        let deadline = |kind| MarkDeadline {
            kind,
            until: until(&timetable, kind, now),
        };
        let (full, incremental) = (deadline(SyncKind::Full), deadline(SyncKind::Incremental));
        Self {
            timetable,
            last: now,
            full,
            incremental,
        }
    }

    /// Compares the clocks. Returns a jump, and the syncs that are due but were not marked.
    pub(super) fn check(&mut self, now: Moment, marked: MarkedKinds) -> ClockCheck {
        let expected = self.last.wall + (now.steady - self.last.steady);
        let jump = now.wall - expected;
        let before = std::mem::replace(&mut self.last, now);
        let skipped = Moment {
            wall: before.wall,
            ..now
        };
        let skipped = (jump > JUMP).then_some(skipped);
        ClockCheck {
            jump: (jump.abs() > JUMP).then_some(jump),
            full: self.full.check(&self.timetable, now, skipped, marked.full),
            incremental: self
                .incremental
                .check(&self.timetable, now, skipped, marked.incremental),
        }
    }
}

impl MarkDeadline {
    /// Whether a sync is due although the scheduler did not mark it: the deadline has passed by the
    /// steady clock, or the wall clock jumped over its time, for example while the machine slept.
    fn check(&mut self, timetable: &Timetable, now: Moment, skipped: Option<Moment>, is_marked: bool) -> bool {
        let is_over = self.until.is_some_and(|until| until <= now.steady);
        let was_skipped = skipped
            .and_then(|from| timetable.next(self.kind, from.wall))
            .is_some_and(|next| next <= now.wall);
        if is_marked || is_over || was_skipped {
            self.until = until(timetable, self.kind, now);
        }
        !is_marked && (is_over || was_skipped)
    }
}

/// Returns the deadline, by the steady clock, for marking the next sync of a kind.
fn until(timetable: &Timetable, kind: SyncKind, now: Moment) -> Option<Instant> {
    let period = timetable.next_in(kind, now.wall)?;
    now.steady.checked_add(period + period / 100 + SLACK)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = "0 0 * * * *";
    const INCREMENTAL: &str = "*/5 * * * * *";

    /// Plays one second after another with a scheduler that marks nothing any more.
    struct Simulation {
        guard: ClockGuard,
        now: Moment,
        start: Instant,
    }

    impl Simulation {
        fn new(full: &str, incremental: &str, wall: &str) -> Self {
            let now = Moment {
                wall: wall.parse().unwrap(),
                steady: Instant::now(),
            };
            Self {
                guard: ClockGuard::new(Timetable::new(full, incremental), now),
                now,
                start: now.steady,
            }
        }

        fn jump(&mut self, by: TimeDelta) -> ClockCheck {
            self.now.wall += by;
            self.second(MarkedKinds::default())
        }

        fn second(&mut self, marked: MarkedKinds) -> ClockCheck {
            self.now.wall += TimeDelta::seconds(1);
            self.now.steady += Duration::from_secs(1);
            self.guard.check(self.now, marked)
        }

        /// Returns after how many seconds a full sync is due, and how many incremental ones were
        /// due by then.
        fn until_full(&mut self) -> (u64, u32) {
            let mut incremental = 0;
            loop {
                let found = self.second(MarkedKinds::default());
                assert_eq!(found.jump, None);
                incremental += u32::from(found.incremental);
                if found.full {
                    return ((self.now.steady - self.start).as_secs(), incremental);
                }
            }
        }
    }

    #[test]
    fn a_clock_that_goes_back_stops_no_sync() {
        let mut play = Simulation::new(FULL, INCREMENTAL, "2026-01-02T10:30:00Z");
        let found = play.jump(TimeDelta::hours(-1));
        assert_eq!(
            found,
            ClockCheck {
                jump: Some(TimeDelta::hours(-1)),
                ..ClockCheck::default()
            }
        );
        let (after, incremental) = play.until_full();
        assert!((1800..1830).contains(&after), "{after}");
        assert!(incremental > 200, "{incremental}");
    }

    #[test]
    fn syncs_that_were_due_while_the_machine_slept_are_due_at_once() {
        let mut play = Simulation::new(FULL, INCREMENTAL, "2026-01-02T10:30:00Z");
        let found = play.jump(TimeDelta::minutes(40));
        assert!(found.jump.is_some() && found.full && found.incremental, "{found:?}");
        assert_eq!(play.second(MarkedKinds::default()), ClockCheck::default());
        let found = play.jump(TimeDelta::minutes(40));
        assert!(found.incremental && !found.full, "no hour began: {found:?}");
    }

    #[test]
    fn a_schedule_that_is_met_marks_nothing_twice() {
        let mut play = Simulation::new(FULL, INCREMENTAL, "2026-01-02T10:30:00Z");
        for second in 1..20_000u32 {
            // A clock that is adjusted a little, again and again.
            if second % 100 == 0 {
                play.now.wall -= TimeDelta::milliseconds(10);
            }
            let marked = MarkedKinds {
                full: second % 3600 == 1802,
                incremental: second % 5 == 2,
            };
            assert_eq!(play.second(marked), ClockCheck::default(), "{second}");
        }
        let mut never = Simulation::new("", "", "2026-01-02T10:30:00Z");
        let found = never.jump(TimeDelta::days(400));
        assert!(!found.full && !found.incremental);
    }
}
