//! From a document's bytes to a [`Record`], or to the reason why it cannot be stored.

use std::borrow::Cow;

use serde_json::{error::Category, value::RawValue};

use super::{
    definition::{DocumentKeys, FieldKind, ID, Resource},
    json::string,
    keys::keys,
    number::{self, Origin},
    record::Record,
    storable::ExponentRoom,
    value::FieldValue,
};
use crate::humanize;

/// The largest document that is stored, in bytes. Clerk limits a user's metadata to 8 kB a kind, so
/// that a real user stays far below.
pub const MAX_DOCUMENT: usize = 1 << 20;

/// The longest id that is stored, in bytes. Clerk's ids have 32; a much longer one does not fit
/// into an index.
pub const MAX_ID: usize = 255;

/// Keys per document. Clerk's documents have some fifty.
pub const MAX_KEYS: usize = 1_000;

/// Why an object cannot be stored. Names fields and kinds of values, never their content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Rejection {
    /// The reason, for `clerk.rejected`.
    pub reason: String,
}

impl Rejection {
    /// A rejection with this reason.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}

/// Decodes an object's document. A value that does not fit its column, or that Postgres cannot
/// hold, becomes [`FieldValue::Unexpected`]. If a key occurs twice, the last value counts, as in
/// `jsonb`.
///
/// # Errors
/// The document is no JSON object, is too large, or has no usable `id` or `created_at`.
pub fn decode<'a>(resource: &'static Resource, document: &'a str) -> Result<Record<'a>, Rejection> {
    let Some(room) = MAX_DOCUMENT.checked_sub(document.len()) else {
        return Err(Rejection::new(format!(
            "the document is too large: {} bytes, at most {} are stored",
            humanize::number(document.len() as u64),
            humanize::number(MAX_DOCUMENT as u64)
        )));
    };
    read(resource, document, Origin::Server, ExponentRoom::new(room))
}

/// Decodes a document that Postgres has put together from its columns. It may be larger than it was
/// when it was received, and its times are in milliseconds.
///
/// # Errors
/// As [`decode`], except for the size.
pub fn decode_stored<'a>(resource: &'static Resource, document: &'a str) -> Result<Record<'a>, Rejection> {
    read(resource, document, Origin::Mirror, ExponentRoom::unlimited())
}

fn read<'a>(
    resource: &'static Resource,
    document: &'a str,
    origin: Origin,
    mut room: ExponentRoom,
) -> Result<Record<'a>, Rejection> {
    let Pairs(pairs) = keys(document).map_err(|error| {
        Rejection::new(match error.classify() {
            Category::Data => "the document is not a JSON object".to_owned(),
            _ => format!("the document is not valid JSON at byte {}", error.column()),
        })
    })?;
    if pairs.len() > MAX_KEYS {
        return Err(Rejection::new(format!("the document has more than {MAX_KEYS} keys")));
    }

    let mut values = vec![FieldValue::Absent; resource.fields.len()];
    let mut extra = Vec::new();
    // Keys and values that Postgres cannot hold, with their substitutes, by their place in the
    // document.
    let mut replaced: Vec<(usize, String)> = Vec::new();
    let (mut hint, mut fits) = (0, true);
    for (place, &(ref key, raw)) in pairs.iter().enumerate() {
        if let Some(at) = resource.position(key, hint) {
            values[at] = value(resource.fields[at].kind, raw.get(), origin, &mut room);
            fits &= !matches!(values[at], FieldValue::Unexpected(_));
            match &values[at] {
                FieldValue::Unexpected(Cow::Owned(text)) => replaced.push((place, text.clone())),
                // A number in an odd spelling can be more than Postgres holds, though its value is
                // not.
                FieldValue::Int(number) | FieldValue::Time(number)
                    if raw.get().len() > 20 && !room.holds(raw.get()) =>
                {
                    replaced.push((place, number.to_string()));
                }
                _ => {}
            }
            hint = at + 1;
            continue;
        }
        let value = room.storable(raw.get());
        if let Cow::Owned(text) = &value {
            replaced.push((place, text.clone()));
        }
        if resource.embedded != Some(key.as_ref()) {
            extra.push((key.clone(), value));
        }
    }

    let id = id(&values[ID])?;
    let created_at = created_at(resource.position("created_at", ID).map(|at| &values[at]))?;
    // A key that is spelled out has a backslash.
    let is_spelled_out = |key: &Cow<'_, str>| matches!(key, Cow::Owned(key) if key.contains('\\'));
    let is_storable = replaced.is_empty() && !pairs.iter().any(|(key, _)| is_spelled_out(key));
    let unexpected = match fits {
        true => Vec::new(),
        false => unexpected(resource, &values),
    };
    let mut record = Record {
        resource,
        id,
        created_at,
        values,
        unexpected,
        extra,
        derived: Vec::new(),
        storable: (!is_storable).then(|| rewritten(&pairs, &replaced)),
    };
    record.derived = (resource.derived.values)(&DocumentKeys::new(resource, &record.values, &pairs));
    Ok(record)
}

fn id<'a>(value: &FieldValue<'a>) -> Result<Cow<'a, str>, Rejection> {
    match value {
        FieldValue::Text(id) if id.len() > MAX_ID => Err(Rejection::new(format!(
            "id: {} bytes, at most {MAX_ID} are stored",
            id.len()
        ))),
        FieldValue::Text(id) if !id.is_empty() => Ok(id.clone()),
        FieldValue::Unexpected(found) => Err(wrong_kind("id", "a string that Postgres can hold", found)),
        _ => Err(Rejection::new("id is missing")),
    }
}

fn created_at(value: Option<&FieldValue<'_>>) -> Result<i64, Rejection> {
    match value {
        Some(FieldValue::Time(at)) => Ok(*at),
        Some(FieldValue::Unexpected(found)) if number::integer(found).is_some() => {
            Err(Rejection::new("created_at: the time is out of range"))
        }
        Some(FieldValue::Unexpected(found)) => Err(wrong_kind("created_at", "a time", found)),
        _ => Err(Rejection::new("created_at is missing")),
    }
}

/// The keys of a document with their values, in its order.
struct Pairs<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl Default for Pairs<'_> {
    fn default() -> Self {
        // Room for the keys of a usual document.
        Self(Vec::with_capacity(64))
    }
}

impl<'a> Extend<(Cow<'a, str>, &'a RawValue)> for Pairs<'a> {
    fn extend<I: IntoIterator<Item = (Cow<'a, str>, &'a RawValue)>>(&mut self, pairs: I) {
        self.0.extend(pairs);
    }
}

/// Returns the names of the fields whose values do not fit.
fn unexpected(resource: &'static Resource, values: &[FieldValue<'_>]) -> Vec<&'static str> {
    let pairs = resource.fields.iter().zip(values);
    let misfits = pairs.filter(|(_, value)| matches!(value, FieldValue::Unexpected(_)));
    misfits.map(|(field, _)| field.name).collect()
}

/// Returns what a column of this kind holds for a value.
fn value<'a>(kind: FieldKind, json: &'a str, origin: Origin, room: &mut ExponentRoom) -> FieldValue<'a> {
    if json == "null" {
        return FieldValue::Null;
    }
    let read = match kind {
        FieldKind::Text => string(json).map(FieldValue::Text),
        FieldKind::Bool => json.parse().ok().map(FieldValue::Bool),
        FieldKind::Int => number::integer(json).map(FieldValue::Int),
        FieldKind::Time => number::time_from(json, origin).map(FieldValue::Time),
        FieldKind::Json => None,
    };
    match (read, kind) {
        (Some(value), _) => value,
        (None, FieldKind::Json) => match room.storable(json) {
            Cow::Borrowed(json) => FieldValue::Json(json),
            text => FieldValue::Unexpected(text),
        },
        (None, _) => FieldValue::Unexpected(room.storable(json)),
    }
}

/// Returns the document with substitutes for the keys and values that Postgres cannot hold.
fn rewritten(pairs: &[(Cow<'_, str>, &RawValue)], replaced: &[(usize, String)]) -> String {
    let mut replaced = replaced.iter().peekable();
    let pairs: Vec<String> = pairs
        .iter()
        .enumerate()
        .map(|(place, (key, raw))| {
            let value = replaced
                .next_if(|(at, _)| *at == place)
                .map_or(raw.get(), |(_, text)| text);
            format!("{}:{value}", serde_json::Value::from(key.as_ref()))
        })
        .collect();
    format!("{{{}}}", pairs.join(","))
}

fn wrong_kind(field: &str, expected: &str, found: &str) -> Rejection {
    let found = match found.as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "a list",
        Some(b't' | b'f') => "true or false",
        _ => "another number",
    };
    Rejection::new(format!("{field}: expected {expected}, found {found}"))
}

#[cfg(test)]
mod tests;
