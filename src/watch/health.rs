//! Whether the daemon is alive, and whether it is ready: in sync, and able to stay so.

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};

use super::{Done, timetable::Timetable};
use crate::{clock::Moment, mirror::SyncKind};

/// A loop that shows no life for so long is stuck.
const SILENCE: Duration = Duration::from_secs(60);

/// How late an incremental sync may come to its end before the mirror counts as out of sync.
const LATE: Duration = Duration::from_secs(2 * 60);

/// The same for a full sync; one that takes longer may be late by twice the time of the last one.
const FULL_LATE: Duration = Duration::from_secs(15 * 60);

/// The longest reason, in characters: some errors quote what a server said.
const LONGEST: usize = 500;

/// An answer to a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether all is well.
    pub is_good: bool,
    /// In words.
    pub says: String,
}

impl Verdict {
    /// All is well.
    pub fn good(says: impl Into<String>) -> Self {
        Self {
            is_good: true,
            says: says.into(),
        }
    }

    /// Something is not.
    pub fn bad(says: impl Into<String>) -> Self {
        Self {
            is_good: false,
            says: says.into(),
        }
    }
}

/// What is known of a daemon's health.
#[derive(Debug)]
pub(super) struct Health {
    /// When the loop last showed that it is alive.
    pub(super) beat: Instant,
    timetable: Timetable,
    /// When a sync of any kind last succeeded.
    pub(super) succeeded_at: Option<Instant>,
    full: Expected,
    incremental: Expected,
    /// How long the last full sync took.
    full_took: Duration,
    /// Why it is not for this one to sync.
    pub(super) standing_by: Option<String>,
    failing: Vec<Failing>,
    /// A full sync has come to its end.
    has_walked: bool,
    /// Why the last full sync did not see or judge everybody.
    incomplete: Option<String>,
    /// Deletions waited for a person at the end of the last sync that did something.
    holds: bool,
    /// Recent changes cannot be seen at this server.
    is_blind: bool,
}

#[derive(Debug)]
struct Failing {
    /// `None` if it is not about a sync.
    kind: Option<SyncKind>,
    why: String,
    since: DateTime<Utc>,
}

/// When the next sync of a kind is to succeed, by a clock that does not jump.
#[derive(Debug, Clone, Copy)]
struct Expected {
    /// When the last one succeeded, or could have for the first time.
    since: Instant,
    /// How long after that the next one is due by the schedule; `None` if never.
    due_in: Option<Duration>,
}

impl Expected {
    /// How long ago `since` is, if the next sync is late by more than `patience`.
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
            full: Expected {
                since: beat,
                due_in: None,
            },
            incremental: Expected {
                since: beat,
                due_in: None,
            },
            full_took: Duration::ZERO,
            standing_by: None,
            failing: Vec::new(),
            has_walked: false,
            incomplete: None,
            holds: false,
            is_blind: false,
        }
    }

    /// From now on, syncs are due by this timetable.
    pub(super) fn expects(&mut self, timetable: Timetable, now: Moment) {
        self.timetable = timetable;
        self.begins(now);
    }

    /// This daemon syncs from now on.
    pub(super) fn begins(&mut self, now: Moment) {
        for kind in [SyncKind::Full, SyncKind::Incremental] {
            self.expect(kind, now);
        }
    }

    fn expect(&mut self, kind: SyncKind, now: Moment) {
        let expected = Expected {
            since: now.steady,
            due_in: self.timetable.next_in(kind, now.wall),
        };
        match kind {
            SyncKind::Full => self.full = expected,
            SyncKind::Incremental => self.incremental = expected,
            SyncKind::OnDemand => {}
        }
    }

    /// A sync succeeded. A full one does what an incremental one does.
    pub(super) fn succeeded(&mut self, kind: SyncKind, now: Moment) {
        self.succeeded_at = Some(now.steady);
        self.expect(kind, now);
        if kind == SyncKind::Full {
            self.expect(SyncKind::Incremental, now);
        }
    }

    /// A sync of this kind went through: removes the failures that it ends.
    fn goes_through(&mut self, kind: SyncKind) {
        self.standing_by = None;
        // Clerk and Postgres have answered; another kind that fails still may fail.
        self.failing.retain(|failing| {
            let others = kind != SyncKind::Full && failing.kind != Some(kind);
            others && matches!(failing.kind, Some(SyncKind::Full | SyncKind::Incremental))
        });
    }

    pub(super) fn idle(&mut self, kind: SyncKind, now: Moment) {
        self.goes_through(kind);
        self.is_blind &= kind != SyncKind::Incremental;
        self.succeeded(kind, now);
    }

    pub(super) fn blind(&mut self) {
        self.goes_through(SyncKind::Incremental);
        self.is_blind = true;
    }

    pub(super) fn done(&mut self, kind: SyncKind, done: &Done, now: Moment) {
        if let (Some(why), SyncKind::Incremental | SyncKind::OnDemand) = (&done.incomplete, kind) {
            return self.failed(Some(kind), why, now.wall);
        }
        self.goes_through(kind);
        match kind {
            SyncKind::Full => {
                self.has_walked = true;
                self.full_took = done.took;
                self.holds = done.holds;
                self.incomplete = done.incomplete.as_deref().map(anonymous);
            }
            SyncKind::Incremental => {
                self.is_blind = false;
                self.holds |= done.holds;
            }
            SyncKind::OnDemand => self.holds |= done.holds,
        }
        if done.incomplete.is_none() {
            self.succeeded(kind, now);
        }
    }

    pub(super) fn failed(&mut self, kind: Option<SyncKind>, why: &str, now: DateTime<Utc>) {
        self.standing_by = None;
        let why = anonymous(why);
        match self.failing.iter_mut().find(|failing| failing.kind == kind) {
            Some(failing) => failing.why = why,
            None => self.failing.push(Failing { kind, why, since: now }),
        }
    }

    pub(super) fn stands_by(&mut self, why: String) {
        // Clerk and Postgres have answered.
        self.failing.clear();
        self.standing_by = Some(why);
    }

    pub(super) fn alive(&self, now: Instant) -> Verdict {
        let silence = now.saturating_duration_since(self.beat);
        if silence < SILENCE {
            return Verdict::good("alive");
        }
        let seconds = silence.as_secs();
        Verdict::bad(format!("the loop that does the work has shown no life for {seconds} s"))
    }

    pub(super) fn ready(&self, now: Instant) -> Verdict {
        // The failure that has lasted longest.
        if let Some(Failing { why, since, .. }) = self.failing.first() {
            return Verdict::bad(format!("{why}; failing since {}", clock(*since)));
        }
        if let Some(why) = &self.standing_by {
            return Verdict::good(format!("standing by: {why}"));
        }
        if !self.has_walked {
            return Verdict::bad("no full sync has come to its end since the start; the first is under way");
        }
        if let Some(why) = &self.incomplete {
            return Verdict::bad(format!("the last full sync was incomplete: {why}"));
        }
        let incremental = self.incremental.late(LATE, now).filter(|_| !self.is_blind);
        let full = self.full.late(FULL_LATE.max(2 * self.full_took), now);
        for (kind, late) in [("incremental", incremental), ("full", full)] {
            if let Some(late) = late {
                let late = humantime::format_duration(Duration::from_secs(late.as_secs()));
                return Verdict::bad(format!(
                    "no {kind} sync has succeeded for {late}, too long for the schedule"
                ));
            }
        }
        Verdict::good(match self.holds {
            true => "in sync, but for deletions that are held; `clerk2pg status` shows them",
            false => "in sync",
        })
    }
}

fn clock(at: DateTime<Utc>) -> impl std::fmt::Display {
    at.format("%F %T UTC")
}

/// An error without whom it is about. Some name a user's id, and an address may stand in what a trigger of the application says.
pub(super) fn anonymous(text: &str) -> String {
    let is_part = |letter: char| letter.is_alphanumeric() || "@_.+-%".contains(letter);
    let mut told = String::new();
    for piece in text.split_inclusive(|letter| !is_part(letter)) {
        let word = piece.trim_end_matches(|letter| !is_part(letter));
        let rest = &piece[word.len()..];
        if word.contains('@') {
            told.push('…');
        } else if let Some((before, behind)) = word.split_once("user_")
            && behind.chars().take_while(char::is_ascii_alphanumeric).count() >= 12
        {
            // A String takes whatever is written.
            let _ = write!(told, "{before}user_…");
        } else {
            told.push_str(word);
        }
        told.push_str(rest);
    }
    match told.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &told[..end]),
        None => told,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wall(time: &str) -> DateTime<Utc> {
        format!("2026-01-02T{time}Z").parse().unwrap()
    }

    /// A health that begins at midnight, and its moments.
    fn begin() -> (Health, impl Fn(&str) -> Moment) {
        let start = Instant::now();
        let at = move |time: &str| Moment {
            wall: wall(time),
            steady: start + (wall(time) - wall("00:00:00")).to_std().unwrap(),
        };
        let mut health = Health::new(start);
        health.expects(Timetable::new("0 0 * * * *", "*/5 * * * * *"), at("00:00:00"));
        (health, at)
    }

    fn full(incomplete: Option<&str>, holds: bool) -> Done {
        Done {
            outcome: "changed",
            took: Duration::ZERO,
            incomplete: incomplete.map(str::to_owned),
            holds,
        }
    }

    #[test]
    fn a_loop_is_alive_while_it_beats() {
        let now = Instant::now();
        let health = Health::new(now);
        assert!(health.alive(now + Duration::from_secs(59)).is_good);
        let verdict = health.alive(now + Duration::from_secs(75));
        assert_eq!(
            verdict,
            Verdict::bad("the loop that does the work has shown no life for 75 s")
        );
    }

    #[test]
    fn ready_in_words() {
        let (mut health, at) = begin();
        let check = |health: &Health, time, is_good, says: &str| {
            let verdict = health.ready(at(time).steady);
            assert_eq!((verdict.is_good, verdict.says.as_str()), (is_good, says));
        };
        let first = "no full sync has come to its end since the start; the first is under way";
        check(&health, "10:00:00", false, first);

        health.failed(Some(SyncKind::Full), "Clerk is away", wall("10:00:01"));
        health.failed(Some(SyncKind::Full), "Clerk refused the key", wall("10:00:05"));
        let refused = "Clerk refused the key; failing since 2026-01-02 10:00:01 UTC";
        check(&health, "10:00:06", false, refused);

        health.stands_by("other:1 leads".to_owned());
        let standby = "standing by: other:1 leads";
        check(&health, "23:00:00", true, standby);

        health.done(SyncKind::Full, &full(None, false), at("10:01:00"));
        check(&health, "10:01:00", true, "in sync");

        health.done(SyncKind::Full, &full(Some("two pages are gone"), false), at("11:00:00"));
        let incomplete = "the last full sync was incomplete: two pages are gone";
        check(&health, "11:00:00", false, incomplete);
        health.idle(SyncKind::Incremental, at("11:00:05"));
        check(&health, "11:00:05", false, incomplete);

        health.done(SyncKind::Full, &full(None, true), at("12:00:00"));
        let held = "in sync, but for deletions that are held; `clerk2pg status` shows them";
        check(&health, "12:00:00", true, held);
        health.done(SyncKind::Incremental, &full(Some("void"), false), at("12:00:05"));
        check(
            &health,
            "12:00:05",
            false,
            "void; failing since 2026-01-02 12:00:05 UTC",
        );
        health.idle(SyncKind::Incremental, at("12:00:10"));
        check(&health, "12:00:10", true, held);
    }

    #[test]
    fn each_kind_is_late_by_its_own_schedule() {
        let (mut health, at) = begin();
        let says = |health: &Health, time: &str| health.ready(at(time).steady).says;
        health.done(SyncKind::Full, &full(None, false), at("10:01:00"));
        assert_eq!(says(&health, "10:03:05"), "in sync");
        let late = "no incremental sync has succeeded for 2m 6s, too long for the schedule";
        assert_eq!(says(&health, "10:03:06"), late);
        // Users who are asked for one by one are not all that changed.
        health.idle(SyncKind::OnDemand, at("10:03:06"));
        assert_eq!(says(&health, "10:03:06"), late);
        for minute in 3..75 {
            let time = format!("{}:{:02}:07", 10 + minute / 60, minute % 60);
            health.idle(SyncKind::Incremental, at(&time));
            assert_eq!(says(&health, &time), "in sync");
        }
        health.idle(SyncKind::Incremental, at("11:15:01"));
        assert_eq!(
            says(&health, "11:15:01"),
            "no full sync has succeeded for 1h 14m 1s, too long for the schedule"
        );
        // One that takes long may be late for longer.
        let slow = Done {
            took: Duration::from_secs(20 * 60),
            ..full(None, false)
        };
        health.done(SyncKind::Full, &slow, at("11:20:00"));
        health.idle(SyncKind::Incremental, at("12:35:00"));
        assert_eq!(says(&health, "12:35:00"), "in sync");
    }

    #[test]
    fn a_clock_that_jumps_makes_nothing_late_and_hides_nothing() {
        let (mut health, at) = begin();
        health.done(SyncKind::Full, &full(None, false), at("10:01:00"));
        let back = |time: &str| Moment {
            wall: at(time).wall - chrono::TimeDelta::hours(5),
            ..at(time)
        };
        health.idle(SyncKind::Incremental, back("10:01:05"));
        assert!(health.ready(at("10:01:10").steady).is_good);
        assert!(!health.ready(at("10:03:20").steady).is_good);
        health.idle(SyncKind::Incremental, at("10:03:25"));
        assert!(health.ready(at("10:03:30").steady).is_good);
    }

    #[test]
    fn a_kind_that_fails_is_not_forgotten_for_another_that_does_not() {
        let (mut health, at) = begin();
        health.done(SyncKind::Full, &full(None, false), at("10:01:00"));
        health.failed(Some(SyncKind::Full), "no page can be read", wall("11:00:00"));
        health.failed(Some(SyncKind::OnDemand), "no user", wall("11:00:01"));
        health.idle(SyncKind::Incremental, at("11:00:05"));
        let verdict = health.ready(at("11:00:05").steady);
        assert_eq!(
            verdict.says,
            "no page can be read; failing since 2026-01-02 11:00:00 UTC"
        );
        health.done(SyncKind::Full, &full(None, false), at("11:01:00"));
        assert!(health.ready(at("11:01:00").steady).is_good);
    }

    #[test]
    fn one_that_begins_to_lead_has_the_time_of_its_schedule() {
        let (mut health, at) = begin();
        health.done(SyncKind::Full, &full(None, false), at("10:01:00"));
        health.stands_by("other:1 leads".to_owned());
        health.begins(at("15:00:01"));
        health.idle(SyncKind::Incremental, at("15:00:05"));
        assert!(health.ready(at("15:00:05").steady).is_good);
    }

    #[test]
    fn where_changes_cannot_be_seen_only_full_syncs_are_late() {
        let (mut health, at) = begin();
        health.done(SyncKind::Full, &full(None, false), at("10:00:10"));
        health.blind();
        assert!(health.ready(at("11:14:00").steady).is_good);
        assert!(!health.ready(at("11:16:00").steady).is_good);
    }

    #[test]
    fn reasons_name_nobody() {
        let check = |text: &str, expected: &str| assert_eq!(anonymous(text), expected);
        check(
            "GET users/user_2abcdefghijklmnopqrstuvwxyz: 403",
            "GET users/user_…: 403",
        );
        check("no row for Ann.B+c@example.com!", "no row for …!");
        check(
            "users ignored: this server ignores user_id, see user_events",
            "users ignored: this server ignores user_id, see user_events",
        );
        check("at 127.0.0.1:5432/app", "at 127.0.0.1:5432/app");
        assert_eq!(anonymous(&"é".repeat(600)).chars().count(), 501);
    }
}
