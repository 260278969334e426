//! Checks whether the request budget is enough for the schedules.

use chrono::{DateTime, TimeDelta, Utc};

use super::finding::Finding;
use crate::{
    humanize::{age, number, users},
    mirror::SyncKind,
    resource::{MAX_PAGE, Resource},
    schedule::Timetable,
};

/// Requests of a full sync that are not for pages: the instance, the count, recent changes, and
/// some users by id.
const EXTRA_REQUESTS: u64 = 6;

/// Requests of an incremental sync that finds nothing.
const INCREMENTAL_REQUESTS: f64 = 2.0;

/// Requests of a full sync for a list, other than pages: whether it is switched on, and the counts.
const EXTRA_LIST_REQUESTS: u64 = 3;

/// Number of next times from which the average period of a schedule is computed.
const OCCURRENCES: i32 = 30;

/// Compares the requests a second that the budget allows with what the schedules need. `lists` are the
/// resources other than users, with their numbers of objects.
pub(super) fn check_budget(
    per_second: f64,
    total: Option<u64>,
    lists: &[(&'static Resource, u64)],
    [incremental, full]: [&str; 2],
    now: DateTime<Utc>,
) -> Finding {
    let name = "budget";
    let plural = if per_second == 1.0 { "" } else { "s" };
    let mut message = format!("{} request{plural} a second", short(per_second));
    let mut too_much = Vec::new();
    if let Some(total) = total {
        let pages = |objects: u64| objects.div_ceil(u64::from(MAX_PAGE));
        let of_lists = lists.iter().map(|(_, objects)| pages(*objects) + EXTRA_LIST_REQUESTS);
        let needed = pages(total) + EXTRA_REQUESTS + of_lists.sum::<u64>();
        let takes = seconds(needed as f64 / per_second);
        message += &format!(
            "; a full sync of {}{} sends about {}, in {}",
            if lists.is_empty() { "" } else { "everything with " },
            users(total),
            number(needed),
            age(takes)
        );
        if period(&Timetable::new(full, ""), SyncKind::Full, now).is_some_and(|gap| gap < takes) {
            too_much.push("full syncs are due more often than one can finish: schedule fewer (schedule.full)");
        }
    }
    if let Some(gap) = period(&Timetable::new("", incremental), SyncKind::Incremental, now) {
        let often = lists.iter().filter(|(resource, _)| !resource.is_rarely_changed);
        let of_lists = often.map(|(_, objects)| if *objects > u64::from(MAX_PAGE) { 2.0 } else { 1.0 });
        let wanted = (INCREMENTAL_REQUESTS + of_lists.sum::<f64>()) / (gap.num_milliseconds() as f64 / 1000.0);
        message += &format!(
            "; an incremental sync every {} sends {} a second",
            age(gap),
            short(wanted)
        );
        if wanted > per_second {
            too_much.push("incremental syncs will be late: schedule fewer (schedule.incremental)");
        }
    }
    match too_much.as_slice() {
        [] => Finding::ok(name, message),
        too_much => {
            Finding::warn(name, message).hint(format!("{}, or a larger clerk.request_budget", too_much.join("; ")))
        }
    }
}

/// Returns the average period of a schedule.
fn period(timetable: &Timetable, kind: SyncKind, now: DateTime<Utc>) -> Option<TimeDelta> {
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

/// Formats a number with two significant digits at most.
fn short(value: f64) -> String {
    match value {
        n if n >= 10.0 || n.fract() == 0.0 => number(n.round() as u64),
        n if n >= 1.0 => format!("{n:.1}"),
        n => format!("{n:.2}").trim_end_matches('0').to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        check::finding::CheckStatus,
        resource::{INVITATIONS, MEMBERSHIPS, ORGANIZATIONS, ROLES},
    };

    fn check(per_second: f64, users: Option<u64>, schedules: [&str; 2], status: CheckStatus, message: &str) {
        let now = "2026-01-02T10:30:02Z".parse().unwrap();
        let finding = check_budget(per_second, users, &[], schedules, now);
        assert_eq!((finding.status, finding.message.as_str()), (status, message));
    }

    #[test]
    fn the_defaults_fit() {
        check(
            25.0,
            Some(1_000_000),
            ["*/5 * * * * *", "0 0 * * * *"],
            CheckStatus::Ok,
            "25 requests a second; a full sync of 1,000,000 users sends about 2,006, in 80 s; an incremental sync every 5 s sends 0.4 a second",
        );
    }

    #[test]
    fn small_lists_cost_a_request_and_large_ones_two() {
        let lists = [
            (&ORGANIZATIONS, 500),
            (&MEMBERSHIPS, 501),
            (&INVITATIONS, 0),
            (&ROLES, 4),
        ];
        let now = "2026-01-02T10:30:02Z".parse().unwrap();
        let finding = check_budget(25.0, Some(100), &lists, ["*/5 * * * * *", ""], now);
        assert_eq!(
            finding.message,
            "25 requests a second; a full sync of everything with 100 users sends about 23, in 0.9 s; \
             an incremental sync every 5 s sends 1.2 a second"
        );
    }

    #[test]
    fn a_development_key_fits_narrowly() {
        check(
            2.5,
            Some(100),
            ["* * * * * *", ""],
            CheckStatus::Ok,
            "2.5 requests a second; a full sync of 100 users sends about 7, in 2.8 s; an incremental sync every 1 s sends 2 a second",
        );
    }

    #[test]
    fn schedules_that_are_too_tight_are_reported() {
        check(
            0.5,
            Some(100_000),
            ["* * * * * *", "0 * * * * *"],
            CheckStatus::Warn,
            "0.5 requests a second; a full sync of 100,000 users sends about 206, in 7 min; an incremental sync every 1 s sends 2 a second",
        );
        check(0.5, None, ["", ""], CheckStatus::Ok, "0.5 requests a second");
    }

    #[test]
    fn a_burst_counts_with_its_average() {
        // Ten incremental syncs in ten seconds, and then none for fifty.
        check(
            0.5,
            None,
            ["0-9 * * * * *", ""],
            CheckStatus::Ok,
            "0.5 requests a second; an incremental sync every 6 s sends 0.33 a second",
        );
    }
}
