//! Equality of JSON by meaning, as Postgres' `jsonb` sees it: order of keys, white space and the spelling of numbers and
//! strings say nothing; a digit beyond the precision of a double does.

use serde_json::{Number, Value, value::RawValue};

/// Whether two JSON texts mean the same. A text that this parser refuses equals only itself, byte by byte.
pub fn same(a: &RawValue, b: &RawValue) -> bool {
    if a.get() == b.get() {
        return true;
    }
    match (serde_json::from_str(a.get()), serde_json::from_str(b.get())) {
        (Ok(a), Ok(b)) => same_value(&a, &b),
        _ => false,
    }
}

fn same_value(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => same_number(a, b),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_value(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same_value(a, b)))
        }
        (a, b) => a == b,
    }
}

/// A double would call 9007199254740993 and 9007199254740992 equal, and an update would be lost: numbers are compared as
/// the decimals that they are.
fn same_number(a: &Number, b: &Number) -> bool {
    let (a, b) = (a.as_str(), b.as_str());
    a == b || matches!((decimal(a), decimal(b)), (Some(a), Some(b)) if a == b)
}

/// Sign, digits without leading and trailing zeros, and the power of ten of the last digit.
fn decimal(text: &str) -> Option<(bool, String, i64)> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (text, 0),
    };
    let (negative, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_start_matches('0').trim_end_matches('0');
    if significant.is_empty() {
        return Some((false, String::new(), 0));
    }
    let trailing = digits.len() - digits.trim_end_matches('0').len();
    let power = exponent
        .checked_sub(fraction.len() as i64)?
        .checked_add(trailing as i64)?;
    Some((negative, significant.to_owned(), power))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(a: &str, b: &str, expected: bool) {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        assert_eq!(same(&raw(a), &raw(b)), expected, "{a} and {b}");
        assert_eq!(same(&raw(b), &raw(a)), expected, "{b} and {a}");
    }

    #[test]
    fn spelling_says_nothing() {
        check(
            r#"{"a":1,"b":[true,null]}"#,
            r#"{ "b" : [true, null], "a" : 1.0 }"#,
            true,
        );
        check(r#""caf\u00e9""#, r#""café""#, true);
        check("1e2", "100", true);
        check("-0.0", "0", true);
        check("0.00120", "12e-4", true);
    }

    #[test]
    fn meaning_does() {
        check("9007199254740993", "9007199254740992", false);
        check("0.1", "0.10000000000000000001", false);
        check("1", "-1", false);
        check("1", "10", false);
        check("1", r#""1""#, false);
        check("[1,2]", "[2,1]", false);
        check(r#"{"a":null}"#, "{}", false);
        check("1e99999999999999999999", "1e99999999999999999998", false);
    }
}
