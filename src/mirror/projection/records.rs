//! Rows of the mirror as they will be, as JSON that SQL reads as rows.

use std::borrow::Cow;

use crate::{
    mirror::{Write, convert::timestamp},
    resource::{FieldKind, FieldValue, Record, Resource},
};

/// Columns of the mirror that are neither fields nor derived, with their types.
const OWN: [(&str, &str); 7] = [
    ("extra", "jsonb"),
    ("absent", "text[]"),
    ("unexpected", "text[]"),
    ("digest", "bytea"),
    ("first_seen_at", "timestamptz"),
    ("changed_at", "timestamptz"),
    ("deleted_at", "timestamptz"),
];

/// Returns the columns of a resource's table with their types, for a column definition list.
pub(super) fn columns(resource: &Resource) -> String {
    let fields = resource.fields.iter().map(|field| (field.name, field.kind));
    let derived = resource.derived.columns.iter().map(|column| (column.name, column.kind));
    let columns = fields.chain(derived).map(|(name, kind)| (name, sql_type(kind)));
    let columns: Vec<String> = columns
        .chain(OWN)
        .map(|(name, kind)| format!("{name} pg_catalog.{kind}"))
        .collect();
    columns.join(", ")
}

/// The column's type, as `pg_catalog` names it.
fn sql_type(kind: FieldKind) -> &'static str {
    match kind {
        FieldKind::Text => "text",
        FieldKind::Bool => "bool",
        FieldKind::Int => "int8",
        FieldKind::Time => "timestamptz",
        FieldKind::Json => "jsonb",
    }
}

/// Returns a JSON array with the rows that these writes would leave. Each object has all keys that a
/// write sets, with `null` for those without a value.
pub(super) fn json(writes: &[&Write<'_>]) -> String {
    let rows: Vec<String> = writes.iter().map(|write| row(write)).collect();
    format!("[{}]", rows.join(","))
}

fn row(write: &Write<'_>) -> String {
    let record: &Record<'_> = write.record;
    let fields = record.resource.fields.iter().map(|field| field.name);
    let derived = record.resource.derived.columns.iter().map(|column| column.name);
    let values = fields.zip(&record.values).chain(derived.zip(&record.derived));
    let values = values.map(|(name, value)| (name, column(value)));
    let digest: String = write.digest.0.iter().map(|byte| format!("{byte:02x}")).collect();
    let own = [
        ("extra", record.extra_object().map(Cow::Owned)),
        ("absent", names(record.absent())),
        ("unexpected", names(record.unexpected.iter().copied())),
        ("digest", Some(format!("\"\\\\x{digest}\"").into())),
        ("deleted_at", None),
    ];
    let pairs: Vec<String> = values
        .chain(own)
        .map(|(name, value)| format!("\"{name}\":{}", value.as_deref().unwrap_or("null")))
        .collect();
    format!("{{{}}}", pairs.join(","))
}

/// A value as its column holds it.
fn column<'v>(value: &'v FieldValue<'_>) -> Option<Cow<'v, str>> {
    match value {
        FieldValue::Time(at) => {
            let at = timestamp(*at).to_rfc3339();
            // Years of five digits have a sign there, which PostgreSQL does not read.
            Some(format!("\"{}\"", at.trim_start_matches('+')).into())
        }
        FieldValue::Unexpected(_) => None,
        value => value.json(),
    }
}

/// Names as a JSON array; `None` if there are none.
fn names<'n>(names: impl Iterator<Item = &'n str>) -> Option<Cow<'static, str>> {
    let names: Vec<&str> = names.collect();
    (!names.is_empty()).then(|| serde_json::Value::from(names).to_string().into())
}
