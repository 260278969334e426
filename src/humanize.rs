//! Numbers and durations as people write them.

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
    let seconds = delta.num_milliseconds().max(0) as f64 / 1000.0;
    match seconds {
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3600.0),
        s => format!("{:.0} days", s / 86_400.0),
    }
}

/// Formats a number of users.
pub(crate) fn users(count: u64) -> String {
    match count {
        1 => "1 user".to_owned(),
        count => format!("{} users", number(count)),
    }
}

/// Formats a number of objects of a resource.
pub(crate) fn objects(count: u64, resource: &Resource) -> String {
    let title = resource.title();
    match count {
        1 => format!("1 {}", title.trim_end_matches('s')),
        count => format!("{} {title}", number(count)),
    }
}

/// Formats a number of rows.
pub(crate) fn rows(count: u64) -> String {
    match count {
        1 => "1 row".to_owned(),
        count => format!("{} rows", number(count)),
    }
}

/// Formats a number of events, which may be an estimate.
pub(crate) fn events(count: u64, is_estimate: bool) -> String {
    match count {
        1 => "1 event".to_owned(),
        count if is_estimate => format!("about {} events", number(count)),
        count => format!("{} events", number(count)),
    }
}

/// Says how many users are rejected.
pub(crate) fn rejected_users(count: u64) -> String {
    let are = if count == 1 { "is" } else { "are" };
    format!("{} {are} rejected", users(count))
}

/// Says how many rows of the application's tables are rejected.
pub(crate) fn rejected_rows(count: u64) -> String {
    match count {
        1 => "1 row of a table is rejected".to_owned(),
        count => format!("{} of tables are rejected", rows(count)),
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
        let ages = [0, 9_900, 61_000, 600_000, 86_400_000, 864_000_000];
        let ages = ages.map(|ms| age(TimeDelta::milliseconds(ms)));
        assert_eq!(ages, ["0.0 s", "9.9 s", "61 s", "10 min", "24 h", "10 days"]);
    }
}
