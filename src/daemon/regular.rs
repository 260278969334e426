//! Keeps syncs regular while this machine's clock jumps. A scheduler goes by the wall clock: when
//! that goes back an hour, nothing is due for an hour.

use std::time::{Duration, Instant};

use chrono::TimeDelta;

use crate::{clock::Moment, mirror::SyncKind, watch::Timetable};

/// The wall clock has jumped if it differs by more than this from what it should be by the steady
/// one, from one check to the next.
const JUMP: TimeDelta = TimeDelta::seconds(2);

/// How late a sync may be marked without a jump: the scheduler wakes every half second, and a check
/// comes every three seconds at least. Beyond that, a hundredth of the period, as a clock may be set by a little
/// again and again.
const SLACK: Duration = Duration::from_secs(3);

/// The state of the checks.
#[derive(Debug)]
pub(super) struct Regular {
    timetable: Timetable,
    last: Moment,
    full: Job,
    incremental: Job,
}

/// One kind of sync by the schedule.
#[derive(Debug)]
struct Job {
    kind: SyncKind,
    /// Until when it has to be marked, by the steady clock; `None` if it never is.
    until: Option<Instant>,
}

/// Which kinds the scheduler has marked since the last check.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Marked {
    pub(super) full: bool,
    pub(super) incremental: bool,
}

/// What a check found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// By how much the wall clock has jumped, if it did: the scheduler has to be restarted.
    pub(super) jump: Option<TimeDelta>,
    /// A full sync is due that the scheduler has not marked.
    pub(super) full: bool,
    /// The same for an incremental one.
    pub(super) incremental: bool,
}

impl Regular {
    pub(super) fn new(timetable: Timetable, now: Moment) -> Self {
        let job = |kind| Job {
            kind,
            until: until(&timetable, kind, now),
        };
        let (full, incremental) = (job(SyncKind::Full), job(SyncKind::Incremental));
        Self {
            timetable,
            last: now,
            full,
            incremental,
        }
    }

    /// Compares the clocks. Returns a jump, and the syncs that are due but were not marked.
    pub(super) fn check(&mut self, now: Moment, marked: Marked) -> Found {
        let expected = self.last.wall + (now.steady - self.last.steady);
        let jump = now.wall - expected;
        let before = std::mem::replace(&mut self.last, now);
        let skipped = Moment {
            wall: before.wall,
            ..now
        };
        let skipped = (jump > JUMP).then_some(skipped);
        Found {
            jump: (jump.abs() > JUMP).then_some(jump),
            full: self.full.check(&self.timetable, now, skipped, marked.full),
            incremental: self
                .incremental
                .check(&self.timetable, now, skipped, marked.incremental),
        }
    }
}

impl Job {
    /// Whether it is due although the scheduler did not mark it: its period is over by the steady
    /// clock, or the clock jumped over its moment, for example while the machine slept.
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

fn until(timetable: &Timetable, kind: SyncKind, now: Moment) -> Option<Instant> {
    let period = timetable.next_in(kind, now.wall)?;
    now.steady.checked_add(period + period / 100 + SLACK)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = "0 0 * * * *";
    const INCREMENTAL: &str = "*/5 * * * * *";

    /// Plays a second after the other with a scheduler that marks nothing any more.
    struct Play {
        regular: Regular,
        now: Moment,
        start: Instant,
    }

    impl Play {
        fn new(full: &str, incremental: &str, wall: &str) -> Self {
            let now = Moment {
                wall: wall.parse().unwrap(),
                steady: Instant::now(),
            };
            Self {
                regular: Regular::new(Timetable::new(full, incremental), now),
                now,
                start: now.steady,
            }
        }

        fn jump(&mut self, by: TimeDelta) -> Found {
            self.now.wall += by;
            self.second(Marked::default())
        }

        fn second(&mut self, marked: Marked) -> Found {
            self.now.wall += TimeDelta::seconds(1);
            self.now.steady += Duration::from_secs(1);
            self.regular.check(self.now, marked)
        }

        /// After how many seconds a full sync is due, and how often an incremental one was by then.
        fn until_full(&mut self) -> (u64, u32) {
            let mut incremental = 0;
            loop {
                let found = self.second(Marked::default());
                assert_eq!(found.jump, None);
                incremental += u32::from(found.incremental);
                if found.full {
                    return ((self.now.steady - self.start).as_secs(), incremental);
                }
            }
        }
    }

    #[test]
    fn a_clock_that_goes_back_stops_nothing() {
        let mut play = Play::new(FULL, INCREMENTAL, "2026-01-02T10:30:00Z");
        let found = play.jump(TimeDelta::hours(-1));
        assert_eq!(
            found,
            Found {
                jump: Some(TimeDelta::hours(-1)),
                ..Found::default()
            }
        );
        let (after, incremental) = play.until_full();
        assert!((1800..1830).contains(&after), "{after}");
        assert!(incremental > 200, "{incremental}");
    }

    #[test]
    fn what_was_due_while_the_machine_slept_is_due_at_once() {
        let mut play = Play::new(FULL, INCREMENTAL, "2026-01-02T10:30:00Z");
        let found = play.jump(TimeDelta::minutes(40));
        assert!(found.jump.is_some() && found.full && found.incremental, "{found:?}");
        assert_eq!(play.second(Marked::default()), Found::default());
        let found = play.jump(TimeDelta::minutes(40));
        assert!(found.incremental && !found.full, "no hour began: {found:?}");
    }

    #[test]
    fn a_schedule_that_is_kept_is_left_alone() {
        let mut play = Play::new(FULL, INCREMENTAL, "2026-01-02T10:30:00Z");
        for second in 1..20_000u32 {
            // A clock that is set by a little, again and again.
            if second % 100 == 0 {
                play.now.wall -= TimeDelta::milliseconds(10);
            }
            let marked = Marked {
                full: second % 3600 == 1802,
                incremental: second % 5 == 2,
            };
            assert_eq!(play.second(marked), Found::default(), "{second}");
        }
        let mut never = Play::new("", "", "2026-01-02T10:30:00Z");
        let found = never.jump(TimeDelta::days(400));
        assert!(!found.full && !found.incremental);
    }
}
