//! What the request budget is enough for.

use chrono::{DateTime, TimeDelta, Utc};

use super::Finding;
use crate::{
    humanize::{age, number},
    mirror::SyncKind,
    reconcile::walk::PAGE,
    schedule::Timetable,
};

/// What a full sync asks for besides its pages: the instance, the count, what is new, and some by id.
const BESIDES: u64 = 6;

/// What a look for changes asks for where there are none.
const LOOK: f64 = 2.0;

/// So many occurrences tell how often a schedule comes.
const OCCURRENCES: i32 = 30;

/// Holds the requests that the budget lets out in a second against what the schedules, the incremental and the full one, want of it.
pub(super) fn weigh(
    per_second: f64,
    users: Option<u64>,
    [incremental, full]: [&str; 2],
    now: DateTime<Utc>,
) -> Finding {
    let name = "budget";
    let mut says = format!("{} requests a second", short(per_second));
    let mut too_much = Vec::new();
    if let Some(users) = users {
        let requests = users.div_ceil(u64::from(PAGE)) + BESIDES;
        let takes = seconds(requests as f64 / per_second);
        says += &format!(
            "; a full sync of {} users sends about {}, in {}",
            number(users),
            number(requests),
            age(takes)
        );
        if every(&Timetable::new(full, ""), SyncKind::Full, now).is_some_and(|gap| gap < takes) {
            too_much.push("full syncs are due more often than one can be done: fewer of them (schedule.full)");
        }
    }
    if let Some(gap) = every(&Timetable::new("", incremental), SyncKind::Incremental, now) {
        let wanted = LOOK / (gap.num_milliseconds() as f64 / 1000.0);
        says += &format!(
            "; looking for changes every {} sends {} a second",
            age(gap),
            short(wanted)
        );
        if wanted > per_second {
            too_much.push("looks will come later than they are due: look less often (schedule.incremental)");
        }
    }
    match too_much.as_slice() {
        [] => Finding::ok(name, says),
        too_much => {
            Finding::warn(name, says).hint(format!("{}, or a larger clerk.request_budget", too_much.join("; ")))
        }
    }
}

/// How often a schedule comes, on the average of the next times.
fn every(timetable: &Timetable, kind: SyncKind, now: DateTime<Utc>) -> Option<TimeDelta> {
    let first = timetable.next(kind, now)?;
    let (mut last, mut gaps) = (first, 0);
    while gaps < OCCURRENCES {
        let Some(next) = timetable.next(kind, last) else { break };
        (last, gaps) = (next, gaps + 1);
    }
    (gaps > 0).then(|| (last - first) / gaps)
}

fn seconds(seconds: f64) -> TimeDelta {
    TimeDelta::milliseconds((seconds * 1000.0) as i64)
}

/// One or two figures that count.
fn short(number: f64) -> String {
    match number {
        n if n >= 10.0 || n.fract() == 0.0 => format!("{n:.0}"),
        n if n >= 1.0 => format!("{n:.1}"),
        n => format!("{n:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::CheckStatus;

    fn check(per_second: f64, users: Option<u64>, schedules: [&str; 2], status: CheckStatus, says: &str) {
        let now = "2026-01-02T10:30:02Z".parse().unwrap();
        let finding = weigh(per_second, users, schedules, now);
        assert_eq!((finding.status, finding.says.as_str()), (status, says));
    }

    #[test]
    fn the_defaults_fit() {
        check(
            25.0,
            Some(1_000_000),
            ["*/5 * * * * *", "0 0 * * * *"],
            CheckStatus::Ok,
            "25 requests a second; a full sync of 1,000,000 users sends about 2,006, in 80 s; looking for changes every 5.0 s sends 0.40 a second",
        );
    }

    #[test]
    fn a_development_key_fits_narrowly() {
        check(
            2.5,
            Some(100),
            ["* * * * * *", ""],
            CheckStatus::Ok,
            "2.5 requests a second; a full sync of 100 users sends about 7, in 2.8 s; looking for changes every 1.0 s sends 2 a second",
        );
    }

    #[test]
    fn what_is_too_much_is_told() {
        check(
            0.5,
            Some(100_000),
            ["* * * * * *", "0 * * * * *"],
            CheckStatus::Warn,
            "0.50 requests a second; a full sync of 100,000 users sends about 206, in 7 min; looking for changes every 1.0 s sends 2 a second",
        );
        check(0.5, None, ["", ""], CheckStatus::Ok, "0.50 requests a second");
    }

    #[test]
    fn a_burst_counts_by_its_average() {
        // Ten looks in ten seconds, and then none for fifty.
        check(
            0.5,
            None,
            ["0-9 * * * * *", ""],
            CheckStatus::Ok,
            "0.50 requests a second; looking for changes every 6.0 s sends 0.33 a second",
        );
    }
}
