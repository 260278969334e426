//! Whether the daemon is alive, and whether it is ready: in step, and able to stay so.

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};

use super::{Done, timetable::Timetable};
use crate::mirror::Kind;

/// A loop that shows no life for so long is stuck.
const SILENCE: Duration = Duration::from_secs(60);

/// How late a pass may come to its end before the mirror counts as out of step.
const LATE: TimeDelta = TimeDelta::minutes(15);

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
    pub(super) timetable: Timetable,
    pub(super) succeeded_at: Option<DateTime<Utc>>,
    /// Why it is not for this one to sync.
    pub(super) standing_by: Option<String>,
    failing: Option<Failing>,
    /// A full sync has come to its end.
    has_walked: bool,
    /// Why the last full sync did not see or judge everybody.
    incomplete: Option<String>,
    /// Deletions waited for a person at the end of the last pass that did something.
    holds: bool,
    /// Recent changes cannot be seen at this server.
    is_blind: bool,
}

#[derive(Debug)]
struct Failing {
    why: String,
    since: DateTime<Utc>,
}

impl Health {
    pub(super) fn new(beat: Instant) -> Self {
        Self {
            beat,
            timetable: Timetable::default(),
            succeeded_at: None,
            standing_by: None,
            failing: None,
            has_walked: false,
            incomplete: None,
            holds: false,
            is_blind: false,
        }
    }

    pub(super) fn idle(&mut self, kind: Kind, now: DateTime<Utc>) {
        (self.standing_by, self.failing) = (None, None);
        self.is_blind &= kind != Kind::Incremental;
        self.succeeded_at = Some(now);
    }

    pub(super) fn blind(&mut self) {
        (self.standing_by, self.failing, self.is_blind) = (None, None, true);
    }

    pub(super) fn done(&mut self, kind: Kind, done: &Done, now: DateTime<Utc>) {
        if let (Some(why), Kind::Incremental | Kind::OnDemand) = (&done.incomplete, kind) {
            return self.failed(why, now);
        }
        (self.standing_by, self.failing) = (None, None);
        match kind {
            Kind::Full => {
                self.has_walked = true;
                self.holds = done.holds;
                self.incomplete = done.incomplete.as_deref().map(anonymous);
            }
            Kind::Incremental => {
                self.is_blind = false;
                self.holds |= done.holds;
            }
            Kind::OnDemand => self.holds |= done.holds,
        }
        if done.incomplete.is_none() {
            self.succeeded_at = Some(now);
        }
    }

    pub(super) fn failed(&mut self, why: &str, now: DateTime<Utc>) {
        self.standing_by = None;
        let since = self.failing.take().map_or(now, |failing| failing.since);
        self.failing = Some(Failing {
            why: anonymous(why),
            since,
        });
    }

    pub(super) fn stands_by(&mut self, why: String) {
        // Clerk and Postgres have answered.
        self.failing = None;
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

    pub(super) fn ready(&self, now: DateTime<Utc>) -> Verdict {
        if let Some(Failing { why, since }) = &self.failing {
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
        if let Some(at) = self.succeeded_at
            && let Some(due) = self.timetable.next(at, self.is_blind)
            && now - due > LATE
        {
            let at = clock(at);
            return Verdict::bad(format!(
                "the last pass that succeeded ended {at}, too long ago for the schedule"
            ));
        }
        Verdict::good(match self.holds {
            true => "in step, but for deletions that are held; `clerk2pg status` shows them",
            false => "in step",
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

    fn at(time: &str) -> DateTime<Utc> {
        format!("2026-01-02T{time}Z").parse().unwrap()
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
        let mut health = Health::new(Instant::now());
        health.timetable = Timetable::new("0 0 * * * *", "*/5 * * * * *");
        let check = |health: &Health, time, is_good, says: &str| {
            let verdict = health.ready(at(time));
            assert_eq!((verdict.is_good, verdict.says.as_str()), (is_good, says));
        };
        let first = "no full sync has come to its end since the start; the first is under way";
        check(&health, "10:00:00", false, first);

        health.failed("Clerk is away", at("10:00:01"));
        health.failed("Clerk refused the key", at("10:00:05"));
        let refused = "Clerk refused the key; failing since 2026-01-02 10:00:01 UTC";
        check(&health, "10:00:06", false, refused);

        health.stands_by("other:1 leads".to_owned());
        let standby = "standing by: other:1 leads";
        check(&health, "23:00:00", true, standby);

        health.done(Kind::Full, &full(None, false), at("10:01:00"));
        check(&health, "10:01:00", true, "in step");
        check(&health, "10:16:05", true, "in step");
        let late = "the last pass that succeeded ended 2026-01-02 10:01:00 UTC, too long ago for the schedule";
        check(&health, "10:16:06", false, late);
        health.idle(Kind::Incremental, at("10:16:07"));
        check(&health, "10:16:07", true, "in step");

        health.done(Kind::Full, &full(Some("two pages are gone"), false), at("11:00:00"));
        let incomplete = "the last full sync was incomplete: two pages are gone";
        check(&health, "11:00:00", false, incomplete);
        health.idle(Kind::Incremental, at("11:00:05"));
        check(&health, "11:00:05", false, incomplete);

        health.done(Kind::Full, &full(None, true), at("12:00:00"));
        let held = "in step, but for deletions that are held; `clerk2pg status` shows them";
        check(&health, "12:00:00", true, held);
        health.done(Kind::Incremental, &full(Some("void"), false), at("12:00:05"));
        check(
            &health,
            "12:00:05",
            false,
            "void; failing since 2026-01-02 12:00:05 UTC",
        );
        health.idle(Kind::Incremental, at("12:00:10"));
        check(&health, "12:00:10", true, held);
    }

    #[test]
    fn who_sees_no_changes_is_late_by_the_other_schedule() {
        let mut health = Health::new(Instant::now());
        health.timetable = Timetable::new("0 0 * * * *", "*/5 * * * * *");
        health.done(Kind::Full, &full(None, false), at("10:00:10"));
        health.blind();
        assert!(health.ready(at("11:14:00")).is_good);
        assert!(!health.ready(at("11:16:00")).is_good);
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
