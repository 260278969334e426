//! From a document's bytes to a [`User`], or to the reason why it cannot be stored.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    Derived, User, Value,
    fields::{self, FIELDS, Field, ID, Kind},
};

/// The largest document that is stored, in bytes. Clerk caps a user's metadata at 8 kB a kind, so that a real user stays far below.
/// Numbers count as long as Postgres writes them out: `1e99999` has a hundred thousand digits when it is read back.
pub const MAX_DOCUMENT: usize = 1 << 20;

/// The longest id that is stored, in bytes. Clerk's have 32; what is much longer does not fit into an index.
pub const MAX_ID: usize = 255;

/// Most keys of a document. Clerk's have some fifty.
pub const MAX_KEYS: usize = 1_000;

/// How deep a document may be nested. Postgres goes as deep as its stack allows: what just fits into a column might not fit into an event, which
/// wraps the document, and nobody would be to blame.
pub const MAX_DEPTH: usize = 1_000;

/// Why one user cannot be stored. Names fields and kinds of values, never their content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Rejection {
    /// In words, for `clerk.rejected_users`.
    pub reason: String,
}

impl Rejection {
    /// A rejection with this reason.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }

    fn wrong_kind(field: &str, expected: &str, found: &RawValue) -> Self {
        Self::new(format!("{field}: expected {expected}, found {}", kind_of(found)))
    }
}

/// Decodes one user's document.
///
/// # Errors
/// The document is no JSON object, is too large or too deep, lacks `id` or `created_at`, holds a value of another kind than Clerk
/// documents, or a character that Postgres cannot store.
pub fn decode(document: &str) -> Result<User<'_>, Rejection> {
    let too_large = |bytes: u64, how: &str| {
        Rejection::new(format!(
            "the document is too large: {bytes} bytes{how}, at most {MAX_DOCUMENT} are stored"
        ))
    };
    if document.len() > MAX_DOCUMENT {
        return Err(too_large(document.len() as u64, ""));
    }
    let (user, exponents) = read(document, milliseconds)?;
    let written = exponents.saturating_add(document.len() as u64);
    if written > MAX_DOCUMENT as u64 {
        return Err(too_large(written, " with its numbers written out"));
    }
    Ok(user)
}

/// Decodes a document that Postgres has put together again: it may be larger than it was when it came, and its times are in milliseconds.
///
/// # Errors
/// As [`decode`], but for the size.
pub fn decode_stored(document: &str) -> Result<User<'_>, Rejection> {
    read(document, |time| time).map(|(user, _)| user)
}

/// The user, and how many bytes Postgres may write for exponents.
fn read(document: &str, unit: fn(i64) -> i64) -> Result<(User<'_>, u64), Rejection> {
    let Keys(keys) = serde_json::from_str(document).map_err(|error| {
        Rejection::new(match error.classify() {
            serde_json::error::Category::Data if document.trim_start().starts_with('{') => {
                format!("the document has more than {MAX_KEYS} keys")
            }
            serde_json::error::Category::Data => "the document is not a JSON object".to_owned(),
            _ => format!("the document is not valid JSON at byte {}", error.column()),
        })
    })?;

    let mut values = vec![Value::Absent; FIELDS.len()];
    let mut extra = Vec::new();
    let mut hint = 0;
    let mut exponents = 0_u64;
    for (key, raw) in keys {
        match fields::position(&key, hint) {
            Some(at) => {
                values[at] = value(&FIELDS[at], raw, unit, &mut exponents)?;
                hint = at + 1;
            }
            None => {
                if key.contains('\0') {
                    return Err(nul("an unknown key"));
                }
                exponents = exponents.saturating_add(json("an unknown key", raw)?);
                extra.push((key, raw));
            }
        }
    }

    let id = match &values[ID] {
        Value::Text(id) if id.len() > MAX_ID => {
            return Err(Rejection::new(format!(
                "id: {} bytes, at most {MAX_ID} are stored",
                id.len()
            )));
        }
        Value::Text(id) if !id.is_empty() => id.clone(),
        _ => return Err(Rejection::new("id is missing")),
    };
    let created_at = match fields::position("created_at", ID).map(|at| &values[at]) {
        Some(Value::Time(at)) => *at,
        _ => return Err(Rejection::new("created_at is missing")),
    };
    let mut user = User {
        id,
        created_at,
        values,
        extra,
        derived: Derived::default(),
    };
    user.derived = derive(&user);
    Ok((user, exponents))
}

/// Clerk's times are Unix milliseconds; old fixtures and emulators send seconds. A value below 10^11 (1973 in milliseconds)
/// is seconds. Source: observed.
pub fn milliseconds(time: i64) -> i64 {
    if (0..100_000_000_000).contains(&time) {
        time * 1000
    } else {
        time
    }
}

/// chrono ends in the year 262142, before Postgres' `timestamptz` does; earlier than the year 1 nobody signed up.
const TIMES: std::ops::RangeInclusive<i64> = -62_135_596_800_000..=8_210_000_000_000_000;

/// Whether a time in Unix milliseconds lies within what is stored.
pub fn is_storable(time: i64) -> bool {
    TIMES.contains(&time)
}

fn value<'a>(
    field: &Field,
    raw: &'a RawValue,
    unit: fn(i64) -> i64,
    exponents: &mut u64,
) -> Result<Value<'a>, Rejection> {
    let text = raw.get();
    if text == "null" {
        return Ok(Value::Null);
    }
    let wrong = |expected| Rejection::wrong_kind(field.name, expected, raw);
    match field.kind {
        Kind::Text => {
            let string = string(text).ok_or_else(|| wrong("a string"))?;
            if string.contains('\0') {
                return Err(nul(field.name));
            }
            Ok(Value::Text(string))
        }
        Kind::Bool => serde_json::from_str(text)
            .map(Value::Bool)
            .map_err(|_| wrong("true or false")),
        Kind::Int => serde_json::from_str(text)
            .map(Value::Int)
            .map_err(|_| wrong("a whole number")),
        Kind::Time => {
            let time = serde_json::from_str(text).map_err(|_| wrong("a time in milliseconds"))?;
            let time = unit(time);
            if !is_storable(time) {
                return Err(Rejection::new(format!("{}: the time is out of range", field.name)));
            }
            Ok(Value::Time(time))
        }
        Kind::Json => {
            *exponents = exponents.saturating_add(json(field.name, raw)?);
            Ok(Value::Json(raw))
        }
    }
}

/// Checks what becomes `jsonb`. Returns how many bytes Postgres may write for exponents.
fn json(place: &str, raw: &RawValue) -> Result<u64, Rejection> {
    let Extent {
        depth,
        exponents,
        holds_nul,
    } = Extent::of(raw.get());
    if holds_nul {
        return Err(nul(place));
    }
    // The document's own braces are the first level.
    if depth >= MAX_DEPTH {
        return Err(Rejection::new(format!(
            "{place}: nested deeper than {MAX_DEPTH} levels"
        )));
    }
    Ok(exponents)
}

fn nul(place: &str) -> Rejection {
    Rejection::new(format!(
        "{place} holds the character U+0000, which Postgres cannot store"
    ))
}

/// A JSON string's content; borrowed where nothing is escaped.
fn string(text: &str) -> Option<Cow<'_, str>> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str(text).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// What a JSON text will be to Postgres.
struct Extent {
    depth: usize,
    /// The sum of all exponents, whatever their sign.
    exponents: u64,
    /// The escape `\u0000` occurs (and not `\\u0000`, which is a backslash and five letters).
    holds_nul: bool,
}

impl Extent {
    fn of(json: &str) -> Self {
        let bytes = json.as_bytes();
        let (mut at, mut open, mut is_string) = (0, 0_usize, false);
        let mut extent = Self {
            depth: 0,
            exponents: 0,
            holds_nul: false,
        };
        while let Some(&byte) = bytes.get(at) {
            match byte {
                b'"' => is_string = !is_string,
                b'\\' => {
                    extent.holds_nul |= bytes[at..].starts_with(br"\u0000");
                    at += 1;
                }
                _ if is_string => {}
                b'[' | b'{' => {
                    open += 1;
                    extent.depth = extent.depth.max(open);
                }
                b']' | b'}' => open -= 1,
                b'e' | b'E' if bytes[at - 1].is_ascii_digit() => {
                    let exponent = json[at + 1..].trim_start_matches(['+', '-']);
                    let end = exponent.find(|c: char| !c.is_ascii_digit()).unwrap_or(exponent.len());
                    let exponent = exponent[..end].parse().unwrap_or(u64::MAX);
                    extent.exponents = extent.exponents.saturating_add(exponent);
                }
                _ => {}
            }
            at += 1;
        }
        extent
    }
}

fn kind_of(raw: &RawValue) -> &'static str {
    match raw.get().as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "a list",
        Some(b't' | b'f') => "true or false",
        _ => "another number",
    }
}

#[derive(Deserialize)]
struct Contact<'a> {
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, alias = "phone_number")]
    email_address: Option<Cow<'a, str>>,
    #[serde(borrow)]
    verification: Option<Verification<'a>>,
}

#[derive(Deserialize)]
struct Verification<'a> {
    #[serde(borrow)]
    status: Option<Cow<'a, str>>,
}

fn derive(user: &User<'_>) -> Derived {
    let email = primary(user, "email_addresses", "primary_email_address_id");
    let phone = primary(user, "phone_numbers", "primary_phone_number_id");
    let name: Vec<&str> = ["first_name", "last_name"]
        .into_iter()
        .filter_map(|field| match user.get(field) {
            Some(Value::Text(name)) => Some(name.trim()).filter(|name| !name.is_empty()),
            _ => None,
        })
        .collect();
    Derived {
        primary_email_verified: email.as_ref().map(|email| {
            let status = email.verification.as_ref().and_then(|v| v.status.as_deref());
            status == Some("verified")
        }),
        primary_email: address(email),
        primary_phone: address(phone),
        full_name: (!name.is_empty()).then(|| name.join(" ")),
    }
}

/// An address with a NUL cannot get here: the list that holds it was refused before.
fn address(contact: Option<Contact<'_>>) -> Option<String> {
    contact?.email_address.map(Cow::into_owned)
}

fn primary<'u>(user: &'u User<'_>, list: &str, primary_id: &str) -> Option<Contact<'u>> {
    let (Some(Value::Json(list)), Some(Value::Text(primary_id))) = (user.get(list), user.get(primary_id)) else {
        return None;
    };
    // Elements are read one by one: an odd one must not hide the primary one.
    let contacts: Vec<&RawValue> = serde_json::from_str(list.get()).ok()?;
    contacts
        .into_iter()
        .filter_map(|contact| serde_json::from_str::<Contact<'_>>(contact.get()).ok())
        .find(|contact| contact.id.as_deref() == Some(primary_id.as_ref()))
}

/// The keys of an object with their values unread.
struct Keys<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Keys<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Keys<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys<'de>, A::Error> {
                let mut keys = Vec::with_capacity(FIELDS.len());
                while let Some((Key(key), value)) = map.next_entry()? {
                    if keys.len() == MAX_KEYS {
                        return Err(serde::de::Error::custom("too many keys"));
                    }
                    keys.push((key, value));
                }
                Ok(Keys(keys))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    fn check(document: &str, reason: &str) {
        assert_eq!(decode(document).unwrap_err().reason, reason, "{document}");
    }

    #[test]
    fn what_cannot_be_stored_says_why() {
        check("[]", "the document is not a JSON object");
        check("{", "the document is not valid JSON at byte 1");
        check(r#"{"created_at":1}"#, "id is missing");
        check(r#"{"id":"u"}"#, "created_at is missing");
        check(r#"{"id":"u","created_at":null}"#, "created_at is missing");
        check(
            r#"{"id":"u","created_at":"2024-01-01"}"#,
            "created_at: expected a time in milliseconds, found a string",
        );
        check(
            r#"{"id":"u","created_at":9e99}"#,
            "created_at: expected a time in milliseconds, found another number",
        );
        check(
            r#"{"id":"u","created_at":9223372036854775807}"#,
            "created_at: the time is out of range",
        );
        check(
            r#"{"id":"u","created_at":1,"first_name":7}"#,
            "first_name: expected a string, found another number",
        );
        check(
            r#"{"id":"u","created_at":1,"banned":"yes"}"#,
            "banned: expected true or false, found a string",
        );
        let nul = "holds the character U+0000, which Postgres cannot store";
        check(
            r#"{"id":"u","created_at":1,"first_name":"a\u0000"}"#,
            &format!("first_name {nul}"),
        );
        check(
            r#"{"id":"u","created_at":1,"public_metadata":{"a":"\\\u0000"}}"#,
            &format!("public_metadata {nul}"),
        );
        check(
            r#"{"id":"u","created_at":1,"\u0000":1}"#,
            &format!("an unknown key {nul}"),
        );
        let large = format!(r#"{{"id":"u","created_at":1,"x":"{}"}}"#, "x".repeat(MAX_DOCUMENT));
        assert!(
            decode(&large)
                .unwrap_err()
                .reason
                .starts_with("the document is too large")
        );
    }

    #[test]
    fn an_escaped_backslash_before_u0000_is_not_a_nul() {
        let user = decode(r#"{"id":"u","created_at":1,"public_metadata":{"a":"\\u0000"}}"#);
        assert!(user.is_ok());
    }

    #[test]
    fn seconds_become_milliseconds() {
        let user = decode(r#"{"id":"u","created_at":1700000000}"#).unwrap();
        assert_eq!(user.created_at, 1_700_000_000_000);
    }

    #[test]
    fn what_is_stored_is_in_milliseconds_already() {
        let stored = r#"{"id":"u","created_at":1000,"x":"large"}"#.replace("large", &"x".repeat(MAX_DOCUMENT));
        assert_eq!(decode_stored(&stored).unwrap().created_at, 1_000);
    }

    #[test]
    fn the_primary_address_is_the_named_one_whatever_stands_around_it() {
        let document = r#"{"id":"u","created_at":1,"first_name":" Ann ","last_name":"",
            "primary_email_address_id":"b","email_addresses":[{},7,{"id":"a","email_address":"a@x"},
            {"id":"b","email_address":"b@x","verification":{"status":"verified"}}],
            "primary_phone_number_id":"gone","phone_numbers":[{"id":"p","phone_number":"+1"}]}"#;
        assert_eq!(
            decode(document).unwrap().derived,
            Derived {
                primary_email: Some("b@x".into()),
                primary_email_verified: Some(true),
                primary_phone: None,
                full_name: Some("Ann".into()),
            }
        );
    }
}
