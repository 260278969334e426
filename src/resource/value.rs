//! The value of a field, compared by meaning.

use std::borrow::Cow;

use super::json;

/// The value of a field in a document, or of a derived column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldValue<'a> {
    /// The document does not have the key.
    Absent,
    /// The document has the key, with `null`.
    Null,
    /// Of [`super::FieldKind::Text`].
    Text(Cow<'a, str>),
    /// Of [`super::FieldKind::Bool`].
    Bool(bool),
    /// Of [`super::FieldKind::Int`].
    Int(i64),
    /// Of [`super::FieldKind::Time`], in Unix milliseconds.
    Time(i64),
    /// Of [`super::FieldKind::Json`], as received.
    Json(&'a str),
    /// A value that the column cannot hold: the column is NULL, and `extra` has this JSON text. It
    /// is the value as received, or, if `jsonb` cannot hold that either, a string of its JSON text.
    Unexpected(Cow<'a, str>),
}

impl FieldValue<'static> {
    /// The value of a derived column of text.
    pub(super) fn of_text(text: Option<String>) -> Self {
        text.map_or(Self::Null, |text| Self::Text(text.into()))
    }
}

impl FieldValue<'_> {
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, FieldValue::Absent | FieldValue::Null)
    }

    /// Whether both mean the same. A missing key and `null` mean the same.
    pub(super) fn same(&self, other: &FieldValue<'_>) -> bool {
        use FieldValue::{Bool, Int, Json, Text, Time, Unexpected};
        match (self, other) {
            (Text(a), Text(b)) => a == b,
            (Bool(a), Bool(b)) => a == b,
            (Int(a), Int(b)) | (Time(a), Time(b)) => a == b,
            (Json(a), Json(b)) => json::same(a, b),
            // A value that was stored in `extra` may fit its field when it is read back.
            (Unexpected(a), b) | (b, Unexpected(a)) => b.json().is_some_and(|b| json::same(a, &b)),
            (a, b) => a.is_empty() && b.is_empty(),
        }
    }

    /// The value as JSON text; `None` if there is no value.
    pub(crate) fn json(&self) -> Option<Cow<'_, str>> {
        match self {
            FieldValue::Absent | FieldValue::Null => None,
            FieldValue::Text(text) => Some(serde_json::Value::from(text.as_ref()).to_string().into()),
            FieldValue::Bool(value) => Some(value.to_string().into()),
            FieldValue::Int(number) | FieldValue::Time(number) => Some(number.to_string().into()),
            FieldValue::Json(json) => Some(Cow::Borrowed(json)),
            FieldValue::Unexpected(json) => Some(Cow::Borrowed(json)),
        }
    }
}
