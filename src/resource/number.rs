//! Whole numbers and times in every spelling that servers use.

use chrono::{DateTime, NaiveDate, NaiveDateTime};

use super::json::Decimal;

/// Where a time comes from, which decides whether a small number is in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// A server: milliseconds or seconds, see [`milliseconds`].
    Server,
    /// The mirror: milliseconds.
    Mirror,
}

/// Converts a time to Unix milliseconds. Clerk sends milliseconds; old fixtures and emulators send
/// seconds. A value below 10^11 (1973 in milliseconds) is in seconds. Source: observed.
pub fn milliseconds(time: i64) -> i64 {
    if is_seconds(time) { time * 1000 } else { time }
}

fn is_seconds(time: i64) -> bool {
    (0..100_000_000_000).contains(&time)
}

/// Times that are stored, in Unix milliseconds: from the year 1 to the last one of chrono, 262142,
/// which is within those of Postgres' `timestamptz`.
const TIMES: std::ops::RangeInclusive<i64> = -62_135_596_800_000..=8_210_000_000_000_000;

/// Returns the whole number that a JSON text spells: `5`, `5.0`, `5e0`, `"5"`. `None` for anything
/// else, and for numbers that need more than 64 bits.
pub(super) fn integer(json: &str) -> Option<i64> {
    json.parse().ok().or_else(|| number(json)?.whole())
}

/// Returns the Unix milliseconds that a JSON text spells, as a number of milliseconds or seconds,
/// or as ISO 8601 text, which is in UTC if it has no offset. Parts of a millisecond are cut off.
/// `None` for anything else, and for times that are not stored.
pub fn time(json: &str) -> Option<i64> {
    time_from(json, Origin::Server)
}

pub(super) fn time_from(json: &str, origin: Origin) -> Option<i64> {
    let time = match json.parse() {
        Ok(time) if origin == Origin::Server => milliseconds(time),
        Ok(time) => time,
        Err(_) => spelled(json, origin)?,
    };
    TIMES.contains(&time).then_some(time)
}

fn spelled(json: &str, origin: Origin) -> Option<i64> {
    let Some(number) = number(json) else {
        return of_text(unquoted(json)?);
    };
    match number.floor(0)? {
        time if origin == Origin::Server && is_seconds(time) => number.floor(3),
        time => Some(time),
    }
}

/// A number, or a string that holds nothing but one.
fn number(json: &str) -> Option<Decimal> {
    let text = unquoted(json).unwrap_or(json);
    let number: serde_json::Number = serde_json::from_str(text).ok()?;
    Decimal::of(number.as_str())
}

fn unquoted(json: &str) -> Option<&str> {
    json.strip_prefix('"')?.strip_suffix('"')
}

/// Reads ISO 8601 and the similar forms that libraries and databases write. No library reads all of
/// them.
fn of_text(text: &str) -> Option<i64> {
    const WITH_OFFSET: [&str; 3] = [
        "%Y-%m-%dT%H:%M:%S%.f%#z",
        "%Y-%m-%d %H:%M:%S%.f%#z",
        "%Y-%m-%dT%H:%M%#z",
    ];
    const WITHOUT: [&str; 4] = [
        "%Y-%m-%dT%H:%M:%S%.f",
        "%Y-%m-%d %H:%M:%S%.f",
        "%Y-%m-%dT%H:%M",
        "%Y-%m-%d %H:%M",
    ];
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.timestamp_millis());
    }
    let with_offset = || {
        WITH_OFFSET
            .iter()
            .find_map(|form| DateTime::parse_from_str(text, form).ok())
    };
    let without = || {
        WITHOUT
            .iter()
            .find_map(|form| NaiveDateTime::parse_from_str(text, form).ok())
    };
    let day = || NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0);
    with_offset()
        .map(|time| time.timestamp_millis())
        .or_else(|| Some(without().or_else(day)?.and_utc().timestamp_millis()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers() {
        let check = |json, expected| assert_eq!(integer(json), expected, "{json}");
        for json in ["5", "5.0", "5e0", "50e-1", "0.5e1", r#""5""#, r#""5.0""#] {
            check(json, Some(5));
        }
        check("-0.0", Some(0));
        check("-7.00E+0", Some(-7));
        check("9223372036854775807.0", Some(i64::MAX));
        check("-9.223372036854775808e18", Some(i64::MIN));
        for json in [
            "5.5",
            "1e19",
            "9223372036854775808",
            "1e99999",
            "1e-99999",
            "true",
            "[5]",
            r#""five""#,
            r#""""#,
            r#""+5""#,
            r#""0x5""#,
            "1e9999999999999999999",
        ] {
            check(json, None);
        }
    }

    #[test]
    fn times() {
        let check = |json, expected| assert_eq!(time(json), expected, "{json}");
        for json in [
            "1790000000000",
            "1790000000000.0",
            "1790000000000.9",
            "1.79e12",
            "1790000000",
            "1790000000.0",
            "1.79E9",
            r#""1790000000000""#,
            r#""2026-09-21T14:13:20Z""#,
            r#""2026-09-21T14:13:20.000Z""#,
            r#""2026-09-21T14:13:20.000999+00:00""#,
            r#""2026-09-21T16:13:20+02:00""#,
            r#""2026-09-21T16:13:20+0200""#,
            r#""2026-09-21 16:13:20+02""#,
            r#""2026-09-21t14:13:20z""#,
            r#""2026-09-21T14:13:20""#,
            r#""2026-09-21 14:13:20.0""#,
        ] {
            check(json, Some(1_790_000_000_000));
        }
        check("1790000000.123", Some(1_790_000_000_123));
        check(r#""2026-09-21T14:13:20.123456""#, Some(1_790_000_000_123));
        check(r#""2026-09-21T14:13Z""#, Some(1_789_999_980_000));
        check(r#""2026-09-21""#, Some(1_789_948_800_000));
        check("0.5", Some(500));
        check("-1.5", Some(-2));
        // Text names its own unit.
        check(r#""1970-01-01T00:00:05Z""#, Some(5_000));
        for json in [
            "9223372036854775807",
            "1e30",
            "true",
            "{}",
            r#""soon""#,
            r#""""#,
            r#""2026-13-01""#,
            r#""12/31/2026""#,
            r#""300000-01-01T00:00:00Z""#,
        ] {
            check(json, None);
        }
        assert_eq!(time_from("5000", Origin::Mirror), Some(5_000));
    }
}
