//! Numbers and durations as people write them.

use std::time::Duration;

use chrono::TimeDelta;

use crate::resource::Resource;

/// Formats a number with commas between thousands.
pub(crate) fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats a duration with one unit. A negative one counts as zero.
pub(crate) fn age(delta: TimeDelta) -> String {
    duration(delta.to_std().unwrap_or_default())
}

/// Formats a duration with one unit.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match duration.as_millis() {
        0 => "0 s".to_owned(),
        ms @ 1..100 => format!("{ms} ms"),
        100..9_950 => format!("{} s", format!("{seconds:.1}").trim_end_matches(".0")),
        9_950..120_000 => format!("{seconds:.0} s"),
        120_000..7_200_000 => format!("{:.0} min", seconds / 60.0),
        7_200_000..172_800_000 => format!("{:.0} h", seconds / 3600.0),
        _ => format!("{} days", number((seconds / 86_400.0).round() as u64)),
    }
}

/// Formats a number of things, whose plural has an s.
pub(crate) fn count(n: u64, singular: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{} {singular}{plural}", number(n))
}

/// Returns the verb for a number of things.
pub(crate) fn are(n: u64) -> &'static str {
    if n == 1 { "is" } else { "are" }
}

/// Returns the pronoun for a number of things.
pub(crate) fn them(n: u64) -> &'static str {
    if n == 1 { "it" } else { "them" }
}

/// Formats a number of users.
pub(crate) fn users(n: u64) -> String {
    count(n, "user")
}

/// Formats a number of objects of a resource.
pub(crate) fn objects(n: u64, resource: &Resource) -> String {
    count(n, resource.title().trim_end_matches('s'))
}

/// Formats a number of rows.
pub(crate) fn rows(n: u64) -> String {
    count(n, "row")
}

/// Formats a number of deletions.
pub(crate) fn deletions(n: u64) -> String {
    count(n, "deletion")
}

/// Formats a number of requests.
pub(crate) fn requests(n: u64) -> String {
    count(n, "request")
}

/// Formats a number of events, which may be an estimate.
pub(crate) fn events(n: u64, is_estimate: bool) -> String {
    let about = if is_estimate && n != 1 { "about " } else { "" };
    format!("{about}{}", count(n, "event"))
}

/// Says how many users are rejected.
pub(crate) fn rejected_users(n: u64) -> String {
    format!("{} {} rejected", users(n), are(n))
}

/// Says how many objects of a resource are rejected.
pub(crate) fn rejected_objects(n: u64, resource: &Resource) -> String {
    format!("{} {} rejected", objects(n, resource), are(n))
}

/// Says how many deletions are held.
pub(crate) fn held_deletions(n: u64) -> String {
    format!("{} {} held", deletions(n), are(n))
}

/// Says how many removals of rows from the application's tables are held.
pub(crate) fn held_removals(n: u64) -> String {
    format!("{} {} held", count(n, "removal"), are(n))
}

/// Says how many rows of the application's tables are held.
pub(crate) fn held_rows(n: u64) -> String {
    match n {
        1 => "1 row of a table is held".to_owned(),
        n => format!("{} of tables are held", rows(n)),
    }
}

/// Says how many events are dead.
pub(crate) fn dead_events(n: u64) -> String {
    format!("{} {} dead", events(n, false), are(n))
}

/// Says how many rows of the application's tables are rejected.
pub(crate) fn rejected_rows(n: u64) -> String {
    match n {
        1 => "1 row of a table is rejected".to_owned(),
        n => format!("{} of tables are rejected", rows(n)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_ages_for_people() {
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(number),
            ["0", "999", "1,000", "1,234,567"]
        );
        let ages = [
            (-5, "0 s"),
            (0, "0 s"),
            (17, "17 ms"),
            (612, "0.6 s"),
            (5_000, "5 s"),
            (9_900, "9.9 s"),
            (9_960, "10 s"),
            (61_000, "61 s"),
            (600_000, "10 min"),
            (86_400_000, "24 h"),
            (864_000_000, "10 days"),
        ];
        for (ms, expected) in ages {
            assert_eq!(age(TimeDelta::milliseconds(ms)), expected, "{ms}");
        }
        assert_eq!([0, 1, 1000].map(users), ["0 users", "1 user", "1,000 users"]);
        assert_eq!([1, 2_500].map(|n| events(n, true)), ["1 event", "about 2,500 events"]);
    }

    #[test]
    fn one_and_many() {
        assert_eq!(
            [1, 1500].map(held_deletions),
            ["1 deletion is held", "1,500 deletions are held"]
        );
        assert_eq!([1, 2].map(held_removals), ["1 removal is held", "2 removals are held"]);
        assert_eq!(
            [1, 2].map(held_rows),
            ["1 row of a table is held", "2 rows of tables are held"]
        );
        assert_eq!([1, 2].map(dead_events), ["1 event is dead", "2 events are dead"]);
        let organizations = |count| rejected_objects(count, &crate::resource::ORGANIZATIONS);
        assert_eq!(
            [1, 2].map(organizations),
            ["1 organization is rejected", "2 organizations are rejected"]
        );
    }
}
