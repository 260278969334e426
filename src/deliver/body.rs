//! The body of a request: JSON that survives `JSON.stringify(JSON.parse(body))` byte for byte.
//!
//! Many handlers verify the signature over what they parsed and wrote again. So the body is spelled
//! as ECMAScript spells it. Source: ECMA-262, `JSON.stringify`, `Number::toString` and
//! `OrdinaryOwnPropertyKeys`.
//!
//! By hand over a text that `serde_json` has checked: a `Visitor` of serde could not tell a number
//! from the object `{"$serde_json::private::Number": "1"}`, as numbers arrive in this form here
//! (`arbitrary_precision`), and it could not read documents that are nested deeper than 128 levels.
//! Nothing here is recursive.

use serde_json::value::RawValue;

/// The place of keys that are no array index: behind all that are.
const NO_INDEX: u32 = u32::MAX;

/// Members for which there is space at once: somewhat more than a user has.
const MEMBERS: usize = 64;

/// Rewrites a JSON text as the body of a request. Each object must have a key only once, as in
/// `jsonb`.
///
/// # Errors
/// It is not JSON, or a string has an escape that stands for half a character, which `jsonb` cannot
/// have.
pub fn body(payload: &str) -> Result<String, serde_json::Error> {
    // All that follows relies on this check. A raw value has no limit of depth.
    let _: &RawValue = serde_json::from_str(payload)?;
    let mut writer = BodyWriter {
        out: String::with_capacity(payload.len()),
        open: Vec::new(),
        members: Vec::with_capacity(MEMBERS),
        expects_key: false,
    };
    let mut rest = payload;
    while let Some(&first) = rest.as_bytes().first() {
        let (length, has_escape) = match first {
            b'"' => string_length(rest),
            b'-' | b'0'..=b'9' | b'a'..=b'z' => (scalar_length(rest), false),
            _ => (1, false),
        };
        let (token, after) = rest.split_at(length);
        match first {
            b'"' => writer.string(token, has_escape)?,
            _ => writer.token(first, token),
        }
        rest = after;
    }
    Ok(writer.out)
}

/// An array or an object that is not complete yet.
struct Container {
    is_object: bool,
    /// The number of members in all objects around it.
    first_member: usize,
    /// Whether the members so far are in the order in which ECMAScript writes them.
    is_sorted: bool,
}

/// A member of an object that is not complete yet: key and value.
struct Member {
    /// The key, if it is an array index.
    index: u32,
    start: usize,
    end: usize,
}

struct BodyWriter {
    out: String,
    open: Vec<Container>,
    members: Vec<Member>,
    expects_key: bool,
}

impl BodyWriter {
    /// Writes anything but a string. `first` is its first byte.
    fn token(&mut self, first: u8, token: &str) {
        match first {
            b'{' | b'[' => {
                self.expects_key = first == b'{';
                self.open.push(Container {
                    is_object: self.expects_key,
                    first_member: self.members.len(),
                    is_sorted: true,
                });
                self.out.push_str(token);
            }
            b'}' | b']' => {
                self.close();
                self.out.push_str(token);
            }
            b',' => {
                self.end_member();
                self.expects_key = self.open.last().is_some_and(|container| container.is_object);
                self.out.push_str(token);
            }
            b'-' | b'0'..=b'9' => number(token, &mut self.out),
            b' ' | b'\t' | b'\n' | b'\r' => {}
            _ => self.out.push_str(token),
        }
    }

    fn string(&mut self, token: &str, has_escape: bool) -> Result<(), serde_json::Error> {
        let start = self.out.len();
        if has_escape {
            // serde_json escapes what JSON.stringify escapes, in the same way.
            let content: String = serde_json::from_str(token)?;
            self.out.push_str(&serde_json::to_string(&content)?);
        } else {
            self.out.push_str(token);
        }
        if std::mem::take(&mut self.expects_key) {
            let index = array_index(&self.out[start + 1..self.out.len() - 1]);
            if let Some(container) = self.open.last_mut() {
                let before = self.members[container.first_member..].last();
                container.is_sorted &= before.is_none_or(|before| before.index <= index);
            }
            self.members.push(Member {
                index,
                start,
                end: start,
            });
        }
        Ok(())
    }

    /// Notes where the last member of the innermost container ends, if that is an object.
    fn end_member(&mut self) {
        if let Some(container) = self.open.last()
            && let Some(member) = self.members[container.first_member..].last_mut()
        {
            member.end = self.out.len();
        }
    }

    fn close(&mut self) {
        self.end_member();
        self.expects_key = false;
        let Some(container) = self.open.pop() else { return };
        let members = &mut self.members[container.first_member..];
        if !container.is_sorted {
            let start = members[0].start;
            members.sort_by_key(|member| member.index);
            let mut sorted = String::with_capacity(self.out.len() - start);
            for member in members {
                if !sorted.is_empty() {
                    sorted.push(',');
                }
                sorted.push_str(&self.out[member.start..member.end]);
            }
            self.out.replace_range(start.., &sorted);
        }
        self.members.truncate(container.first_member);
    }
}

/// Returns the length of the string at the beginning of a text, and whether it has an escape.
fn string_length(text: &str) -> (usize, bool) {
    let mut has_escape = false;
    let mut bytes = text.bytes().enumerate().skip(1);
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => return (at + 1, has_escape),
            b'\\' => {
                has_escape = true;
                bytes.next();
            }
            _ => {}
        }
    }
    (text.len(), has_escape)
}

/// Returns the length of the number or word at the beginning of a text.
fn scalar_length(text: &str) -> usize {
    text.bytes()
        .position(|byte| !matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'-' | b'+' | b'.' | b'E'))
        .unwrap_or(text.len())
}

/// Writes a number as a double.
fn number(token: &str, out: &mut String) {
    let digits = token.strip_prefix('-').unwrap_or(token);
    // A whole number of up to 15 digits is exact, and has only one spelling.
    if digits.len() <= 15 && digits.bytes().all(|byte| byte.is_ascii_digit()) && token != "-0" {
        out.push_str(token);
        return;
    }
    match token.parse::<f64>() {
        // -0, too.
        Ok(0.0) => out.push('0'),
        Ok(number) if number.is_finite() => out.push_str(ryu_js::Buffer::new().format_finite(number)),
        // Infinity.
        _ => out.push_str("null"),
    }
}

/// Returns a key as an array index, a whole number below 2^32 - 1 in its only spelling; otherwise
/// [`NO_INDEX`].
fn array_index(key: &str) -> u32 {
    match key.as_bytes() {
        [b'0'] => 0,
        [b'1'..=b'9', ..] if key.bytes().all(|byte| byte.is_ascii_digit()) => key.parse().unwrap_or(NO_INDEX),
        _ => NO_INDEX,
    }
}

#[cfg(test)]
mod tests;
