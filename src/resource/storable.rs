//! Which values Postgres can hold as `jsonb`, and how other values are stored.

use std::borrow::Cow;

/// Levels of nesting per document. Postgres allows as many as its stack does: a document that just
/// fits into a column might not fit into an event, which wraps it, and the whole batch would fail.
pub const MAX_DEPTH: usize = 1_000;

/// Digits of a number before and after its decimal point. Source: documented for `numeric`.
const MAX_DIGITS: (u64, u64) = (131_072, 16_383);

/// How many bytes Postgres may still write for the exponents of a document's numbers: `1e99999` has
/// a hundred thousand digits when it is read back.
pub(super) struct ExponentRoom(u64);

impl ExponentRoom {
    /// ExponentRoom for this many bytes.
    pub(super) fn new(bytes: usize) -> Self {
        Self(bytes as u64)
    }

    /// No limit, for documents that Postgres has written.
    pub(super) fn unlimited() -> Self {
        Self(u64::MAX)
    }

    /// Whether `jsonb` can hold this JSON text within the room that is left, which it then takes
    /// up.
    pub(super) fn holds(&mut self, json: &str) -> bool {
        let extent = JsonExtent::of(json);
        // The document's own braces are the first level.
        let is_storable = !extent.is_refused && extent.depth < MAX_DEPTH && extent.exponents <= self.0;
        if is_storable {
            self.0 -= extent.exponents;
        }
        is_storable
    }

    /// Returns the JSON text as it is, or, if `jsonb` cannot hold it, a JSON string of that text.
    pub(super) fn storable<'a>(&mut self, json: &'a str) -> Cow<'a, str> {
        if self.holds(json) {
            Cow::Borrowed(json)
        } else {
            Cow::Owned(serde_json::Value::from(json).to_string())
        }
    }
}

/// The properties of a JSON text that Postgres limits.
#[derive(Default)]
struct JsonExtent {
    depth: usize,
    /// The sum of all exponents, whatever their sign.
    exponents: u64,
    /// Holds U+0000, half of a surrogate pair, or a number with more digits than `numeric` has.
    is_refused: bool,
}

impl JsonExtent {
    fn of(json: &str) -> Self {
        let bytes = json.as_bytes();
        let (mut at, mut open) = (0, 0_usize);
        let mut extent = Self::default();
        while let Some(&byte) = bytes.get(at) {
            match byte {
                b'"' => at = extent.string(bytes, at + 1),
                b'[' | b'{' => {
                    open += 1;
                    extent.depth = extent.depth.max(open);
                }
                b']' | b'}' => open = open.saturating_sub(1),
                b'0'..=b'9' => {
                    at = extent.number(bytes, at);
                    continue;
                }
                _ => {}
            }
            at += 1;
        }
        extent
    }

    /// Notes the string that begins at `at`. Returns the position of its closing quote.
    fn string(&mut self, bytes: &[u8], mut at: usize) -> usize {
        while let Some(next) = bytes[at..].iter().position(|byte| matches!(byte, b'"' | b'\\')) {
            at += next;
            if bytes[at] == b'"' {
                return at;
            }
            // The escape `\u0000`, and not `\\u0000`, which is a backslash and five letters.
            match escaped(bytes, at) {
                Some(0 | 0xDC00..=0xDFFF) => self.is_refused = true,
                Some(0xD800..=0xDBFF) => {
                    let follows = matches!(escaped(bytes, at + 6), Some(0xDC00..=0xDFFF));
                    self.is_refused |= !follows;
                    at += 6 * usize::from(follows);
                }
                _ => {}
            }
            // The escaped character may be a quote.
            at = bytes.len().min(at + 2);
        }
        bytes.len()
    }

    /// Notes the number whose first digit is at `at`. Returns the position of its end.
    fn number(&mut self, bytes: &[u8], at: usize) -> usize {
        let digits = |at: usize| bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let whole = digits(at);
        let mut end = at + whole;
        let mut fraction = 0;
        if bytes.get(end) == Some(&b'.') {
            fraction = digits(end + 1);
            end += 1 + fraction;
        }
        let (mut larger, mut smaller) = (0, 0);
        if let Some(b'e' | b'E') = bytes.get(end) {
            let sign = bytes.get(end + 1).filter(|byte| matches!(byte, b'+' | b'-'));
            let from = end + 1 + usize::from(sign.is_some());
            end = from + digits(from);
            let exponent = std::str::from_utf8(&bytes[from..end])
                .ok()
                .and_then(|text| text.parse().ok());
            let exponent = exponent.unwrap_or(u64::MAX);
            self.exponents = self.exponents.saturating_add(exponent);
            if sign == Some(&b'-') {
                smaller = exponent;
            } else {
                larger = exponent;
            }
        }
        self.is_refused |= larger.saturating_add(whole as u64) > MAX_DIGITS.0
            || smaller.saturating_add(fraction as u64) > MAX_DIGITS.1;
        end
    }
}

/// Returns the code unit of the escape (`\u` and four digits) at `at`; `None` if there is none.
fn escaped(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(br"\u")?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(json: &str, expected: bool) {
        assert_eq!(ExponentRoom::new(1 << 20).holds(json), expected, "{json:.60}");
    }

    #[test]
    fn what_jsonb_refuses() {
        check(r#""a\u0000""#, false);
        check(r#"{"a\u0000":1}"#, false);
        check(r#""\\u0000""#, true);
        check(r#""\\\u0000""#, false);
        check(r#""half \ud83d""#, false);
        check(r#""half \ude00""#, false);
        check(r#""\ud83d\ud83d\ude00""#, false);
        check(r#""\ud83d\ude00 \uD83D\uDE00""#, true);
        check("1e131072", false);
        check("1e131071", true);
        check("1e-16384", false);
        check("[-1.5e-16382, 0.0]", true);
        check(&format!("0.{}1", "0".repeat(16_383)), false);
        check("1e99999999999999999999", false);
        check(r#""1e200000""#, true);
        check(&format!("{}1{}", "[".repeat(999), "]".repeat(999)), true);
        check(&format!("{}1{}", "[".repeat(1_000), "]".repeat(1_000)), false);
    }

    #[test]
    fn the_exponents_of_a_document_share_one_room() {
        let mut room = ExponentRoom::new(150_000);
        assert!(room.holds("1e100000"));
        assert!(!room.holds("1e100000"));
        assert!(room.holds("1e50000"));
        assert_eq!(room.storable(r#"["a",1e9]"#), r#""[\"a\",1e9]""#);
    }
}
