//! Clerk's user as a value: decoded from the bytes that Clerk sent, compared by meaning, free of HTTP and SQL.

mod contact;
mod decode;
pub mod fields;
mod json;
mod keys;
mod number;
mod storable;

use std::borrow::Cow;

use highway::{HighwayHash, HighwayHasher, Key};

pub use decode::{MAX_DOCUMENT, MAX_ID, MAX_KEYS, Rejection, decode, decode_stored};
use fields::{FIELDS, ID};
pub use number::{milliseconds, time};
pub use storable::MAX_DEPTH;

/// The key of digests, a secret of the database that they are stored in: end users write parts of their documents, and must not be able to
/// make two of them with the same digest. Where there is no database yet it is all zeros.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct DigestKey([u64; 4]);

impl std::fmt::Debug for DigestKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

impl DigestKey {
    /// A key of 32 bytes; what is missing is zero.
    pub fn new(bytes: &[u8]) -> Self {
        let mut key = [0; 4];
        for (part, bytes) in key.iter_mut().zip(bytes.chunks(8)) {
            *part = bytes.iter().fold(0, |part, byte| part << 8 | u64::from(*byte));
        }
        Self(key)
    }
}

/// A keyed hash (HighwayHash, 128 bits) of a user's bytes as received: equal bytes need no second look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 16]);

impl Digest {
    /// The digest of a document's bytes.
    pub fn of(key: &DigestKey, document: &[u8]) -> Self {
        let [low, high] = HighwayHasher::new(Key(key.0)).hash128(document);
        Self((u128::from(high) << 64 | u128::from(low)).to_le_bytes())
    }
}

/// The value of one field in one document.
#[derive(Debug, Clone)]
pub enum Value<'a> {
    /// The key was not in the document.
    Absent,
    /// The key was there, with `null`.
    Null,
    /// [`fields::Kind::Text`]
    Text(Cow<'a, str>),
    /// [`fields::Kind::Bool`]
    Bool(bool),
    /// [`fields::Kind::Int`]
    Int(i64),
    /// [`fields::Kind::Time`], in Unix milliseconds.
    Time(i64),
    /// [`fields::Kind::Json`], as it came.
    Json(&'a str),
    /// A value that the column cannot hold: NULL there, and this JSON text in `extra`. It is the value as it came, or, where `jsonb` cannot
    /// hold that either, a string of its JSON text.
    Unexpected(Cow<'a, str>),
}

impl Value<'_> {
    fn is_empty(&self) -> bool {
        matches!(self, Value::Absent | Value::Null)
    }

    /// By meaning; a missing key and a `null` mean the same.
    fn same(&self, other: &Value<'_>) -> bool {
        match (self, other) {
            (Value::Text(a), Value::Text(b)) => a == b,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Int(a), Value::Int(b)) | (Value::Time(a), Value::Time(b)) => a == b,
            (Value::Json(a), Value::Json(b)) => json::same(a, b),
            // What comes back from `extra` may look like a value that fits.
            (Value::Unexpected(a), b) | (b, Value::Unexpected(a)) => b.json().is_some_and(|b| json::same(a, &b)),
            (a, b) => a.is_empty() && b.is_empty(),
        }
    }

    /// The value as JSON text. None if there is no value.
    fn json(&self) -> Option<Cow<'_, str>> {
        match self {
            Value::Absent | Value::Null => None,
            Value::Text(text) => Some(serde_json::Value::from(text.as_ref()).to_string().into()),
            Value::Bool(value) => Some(value.to_string().into()),
            Value::Int(number) | Value::Time(number) => Some(number.to_string().into()),
            Value::Json(json) => Some(Cow::Borrowed(json)),
            Value::Unexpected(json) => Some(Cow::Borrowed(json)),
        }
    }
}

/// A decoded user. Borrows from the bytes of the page that it came on.
#[derive(Debug, Clone)]
pub struct User<'a> {
    /// Clerk's id, `user_…`.
    pub id: Cow<'a, str>,
    /// Unix milliseconds.
    pub created_at: i64,
    /// A value for each of [`FIELDS`], in its order.
    pub values: Vec<Value<'a>>,
    /// Names of the fields that are [`Value::Unexpected`].
    pub unexpected: Vec<&'static str>,
    /// Keys that [`FIELDS`] does not know, with their JSON texts as far as `jsonb` can hold them.
    pub extra: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// What the mirror offers to those who query.
    pub derived: Derived,
    /// The document with strings in place of what `jsonb` cannot hold; `None` if it can hold all of it.
    pub storable: Option<String>,
}

/// Columns that Clerk does not send but everybody asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Derived {
    /// The address that `primary_email_address_id` names; none where it names none. Often not the first of the list.
    pub primary_email: Option<String>,
    /// Whether that address is verified; none where there is none.
    pub primary_email_verified: Option<bool>,
    /// The number that `primary_phone_number_id` names; `None` if it names none.
    pub primary_phone: Option<String>,
    /// Whether that number is verified; `None` if there is none.
    pub primary_phone_verified: Option<bool>,
    /// First and last name, as far as there are any.
    pub full_name: Option<String>,
}

/// What a newly received document means for a row whose digest differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Nothing worth a write: only a countdown went on.
    Same,
    /// Worth keeping, but nobody changed the user: other spelling, `null` for a missing key, a field that moves by itself.
    Refresh,
    /// The user changed; the names of the fields (known ones first, in the table's order, then unknown keys).
    Update(Vec<String>),
}

impl<'a> User<'a> {
    /// The value of a field by its name.
    pub fn get(&self, name: &str) -> Option<&Value<'a>> {
        fields::position(name, ID).map(|at| &self.values[at])
    }

    /// Names of the known fields that the document does not hold.
    pub fn absent(&self) -> impl Iterator<Item = &'static str> + '_ {
        FIELDS
            .iter()
            .zip(&self.values)
            .filter(|(_, value)| matches!(value, Value::Absent))
            .map(|(field, _)| field.name)
    }

    /// What has no column of its own and what does not fit its column, as one JSON object; `None` if there is nothing.
    pub fn extra_object(&self) -> Option<String> {
        let extra = self.extra.iter().map(|(key, value)| (key.as_ref(), value.as_ref()));
        let misfits = self.unexpected.iter().filter_map(|&name| match self.get(name)? {
            Value::Unexpected(json) => Some((name, json.as_ref())),
            _ => None,
        });
        let pairs: Vec<String> = extra
            .chain(misfits)
            .map(|(key, value)| format!("{}:{value}", serde_json::Value::from(key)))
            .collect();
        (!pairs.is_empty()).then(|| format!("{{{}}}", pairs.join(",")))
    }

    /// What `new` changes of `self`.
    pub fn change(&self, new: &User<'_>) -> Change {
        let mut changed = Vec::new();
        let mut moved = false;
        let mut respelled = true;
        for ((field, old), new) in FIELDS.iter().zip(&self.values).zip(&new.values) {
            if old.same(new) {
                continue;
            }
            match (field.moves_by_itself, old, new) {
                // A lock that runs out says the same in other words each second; writing that would make every sync write.
                (true, Value::Int(old), Value::Int(new)) if field.name == "lockout_expires_in_seconds" && new < old => {
                    respelled = false;
                }
                (true, ..) => moved = true,
                (false, ..) => changed.push(field.name.to_owned()),
            }
        }
        for key in extra_keys(self, new) {
            let (old, new) = (self.extra(key), new.extra(key));
            let same = match (old, new) {
                (Some(old), Some(new)) => json::same(old, new),
                (one, other) => one.or(other).is_none_or(|value| value == "null"),
            };
            if !same {
                changed.push(key.to_owned());
            }
        }
        if !changed.is_empty() {
            Change::Update(changed)
        } else if moved || respelled {
            Change::Refresh
        } else {
            Change::Same
        }
    }

    fn extra(&self, key: &str) -> Option<&str> {
        self.extra
            .iter()
            .rev()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.as_ref())
    }
}

fn extra_keys<'k>(old: &'k User<'_>, new: &'k User<'_>) -> std::collections::BTreeSet<&'k str> {
    old.extra
        .iter()
        .chain(&new.extra)
        .map(|(key, _)| key.as_ref())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(old: &str, new: &str, expected: Change) {
        let with = |rest: &str| format!(r#"{{"id":"user_1","created_at":1700000000000{rest}}}"#);
        let (old, new) = (with(old), with(new));
        assert_eq!(
            decode(&old).unwrap().change(&decode(&new).unwrap()),
            expected,
            "{old} then {new}"
        );
    }

    fn update(fields: &[&str]) -> Change {
        Change::Update(fields.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_change_names_its_fields() {
        check(
            r#","first_name":"A","public_metadata":{"a":1},"z":1"#,
            r#","first_name":"B","public_metadata":{"a":2},"z":2"#,
            update(&["first_name", "public_metadata", "z"]),
        );
        check("", r#","banned":true"#, update(&["banned"]));
        check(r#","last_name":"""#, r#","last_name":null"#, update(&["last_name"]));
        check(r#","agent_policy":{}"#, "", update(&["agent_policy"]));
    }

    #[test]
    fn other_words_are_kept_but_are_no_change() {
        check(r#","last_name":null"#, "", Change::Refresh);
        check("", r#","scim":null,"brand_new":null"#, Change::Refresh);
        check(
            r#","public_metadata":{"a":1,"b":2}"#,
            r#","public_metadata":{"b":2,"a":1}"#,
            Change::Refresh,
        );
    }

    #[test]
    fn what_moves_by_itself_is_no_change() {
        let attempts = |n| format!(r#","verification_attempts_remaining":{n}"#);
        let lockout = |n| format!(r#","lockout_expires_in_seconds":{n}"#);
        check(&attempts("10"), &attempts("9"), Change::Refresh);
        check(&lockout("60"), &lockout("59"), Change::Same);
        check(&lockout("60"), &lockout("3600"), Change::Refresh);
        check(&lockout("60"), &lockout("null"), Change::Refresh);
        check(
            &(lockout("60") + r#","locked":true"#),
            &(lockout("59") + r#","locked":false"#),
            update(&["locked"]),
        );
    }
}
