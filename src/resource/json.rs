//! Equality of JSON by meaning, as in Postgres' `jsonb`: the order of keys, white space and the
//! spelling of numbers and strings mean nothing; a digit beyond the precision of a double does.

use std::borrow::Cow;

use serde_json::{Number, Value};

/// Whether two JSON texts mean the same. A text that this parser refuses equals only itself, byte
/// by byte.
pub fn same(a: &str, b: &str) -> bool {
    if a == b {
        return true;
    }
    match (serde_json::from_str(a), serde_json::from_str(b)) {
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

/// Compares numbers as decimals. As doubles, 9007199254740993 and 9007199254740992 would be equal,
/// and an update would be lost.
fn same_number(a: &Number, b: &Number) -> bool {
    let (a, b) = (a.as_str(), b.as_str());
    a == b || matches!((Decimal::of(a), Decimal::of(b)), (Some(a), Some(b)) if a == b)
}

/// A number as it is written: digits × 10^power. By hand, as a decimal type has a limited number of
/// digits.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decimal {
    is_negative: bool,
    /// Without leading and trailing zeros; empty for zero.
    digits: String,
    power: i64,
}

impl Decimal {
    /// Reads a JSON number. `None` if its exponent is too large.
    pub(super) fn of(text: &str) -> Option<Self> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
            None => (text, 0),
        };
        let (is_negative, mantissa) = match mantissa.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, mantissa),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{whole}{fraction}");
        let significant = digits.trim_start_matches('0').trim_end_matches('0');
        if significant.is_empty() {
            return Some(Self {
                is_negative: false,
                digits: String::new(),
                power: 0,
            });
        }
        let trailing = digits.len() - digits.trim_end_matches('0').len();
        let power = exponent
            .checked_sub(fraction.len() as i64)?
            .checked_add(trailing as i64)?;
        Some(Self {
            is_negative,
            digits: significant.to_owned(),
            power,
        })
    }

    /// Returns the number if it is a whole one of 64 bits.
    pub(super) fn whole(&self) -> Option<i64> {
        if self.power < 0 { None } else { self.floor(0) }
    }

    /// Returns the largest whole number that is not above this one × 10^`shift`, if it has 64 bits.
    pub(super) fn floor(&self, shift: i64) -> Option<i64> {
        let power = self.power.checked_add(shift)?;
        let length = (self.digits.len() as i64).checked_add(power)?;
        // Numbers of 64 bits have at most 19 digits.
        if length > 19 {
            return None;
        }
        // Trailing zeros are cut off, so that a digit after the decimal point is never zero.
        let has_fraction = power < 0 && !self.digits.is_empty();
        let digits = &self.digits[..self.digits.len().min(usize::try_from(length).unwrap_or_default())];
        let mut whole = digits
            .bytes()
            .fold(0_i128, |whole, digit| whole * 10 + i128::from(digit - b'0'));
        if power > 0 {
            whole *= 10_i128.pow(u32::try_from(power).ok().filter(|_| whole > 0).unwrap_or_default());
        }
        let whole = match self.is_negative {
            true => -whole - i128::from(has_fraction),
            false => whole,
        };
        whole.try_into().ok()
    }
}

/// Returns the content of a JSON string that Postgres can hold, borrowed if nothing is escaped.
pub(super) fn string(text: &str) -> Option<Cow<'_, str>> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains('\\') {
        return Some(Cow::Borrowed(inner));
    }
    let content: String = serde_json::from_str(text).ok()?;
    (!content.contains('\0')).then_some(Cow::Owned(content))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(a: &str, b: &str, expected: bool) {
        assert_eq!(same(a, b), expected, "{a} and {b}");
        assert_eq!(same(b, a), expected, "{b} and {a}");
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
