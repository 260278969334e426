//! Writes records into their table as a set. The statements are generated from the resource.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use diesel::{
    pg::Pg,
    prelude::*,
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    sql_types::{Array, BigInt, Binary, Bool, Nullable, Text, Timestamptz},
};
use diesel_async::RunQueryDsl;

use super::{Write, convert::timestamp, session::Session};
use crate::resource::{DerivedColumn, Field, FieldKind, FieldValue, Record, Resource};

/// The statements that write records of a resource.
pub(super) struct UpsertStatements {
    pub(super) resource: &'static Resource,
    /// Inserts records, or updates existing rows as changed.
    upsert: UpsertStatement,
    /// Brings rows up to date without marking them as changed.
    refresh: UpsertStatement,
    /// Writes rows without some fields.
    erase: UpsertStatement,
}

impl UpsertStatements {
    /// Generates the statements.
    pub(super) fn new(resource: &'static Resource) -> Self {
        Self {
            resource,
            upsert: UpsertStatement::new(resource, WriteKind::Change),
            refresh: UpsertStatement::new(resource, WriteKind::Refresh),
            erase: UpsertStatement::new(resource, WriteKind::Erase),
        }
    }

    fn of(&self, kind: WriteKind) -> &UpsertStatement {
        match kind {
            WriteKind::Change => &self.upsert,
            WriteKind::Refresh => &self.refresh,
            WriteKind::Erase => &self.erase,
        }
    }
}

/// What a write means for its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WriteKind {
    /// The object is new, or changed.
    Change,
    /// The row is brought up to date although the object did not change.
    Refresh,
    /// The row is written without some fields.
    Erase,
}

impl WriteKind {
    pub(super) const ALL: [Self; 3] = [WriteKind::Change, WriteKind::Refresh, WriteKind::Erase];
}

/// The SQL before and after the arrays of the columns.
struct UpsertStatement {
    before: String,
    after: String,
}

/// A record that was written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stored<'w> {
    pub(super) write: &'w Write<'w>,
    /// Whether there was no row before.
    pub(super) is_new: bool,
}

impl Stored<'_> {
    /// Whether there was no object before: no row, or one that was marked as deleted.
    pub(super) fn creates(&self) -> bool {
        self.is_new || self.write.returns
    }
}

/// Columns before the derived ones, with the element types of their arrays.
const OWN: [&str; 3] = ["extra", "absent", "unexpected"];

/// The last column.
const DIGEST: &str = "digest";

/// Returns the columns of a resource's table that are written.
pub(super) fn columns(resource: &Resource) -> impl Iterator<Item = &'static str> + Clone {
    let fields = resource.fields.iter().map(|field| field.name);
    let derived = resource.derived.columns.iter().map(|column| column.name);
    fields.chain(OWN).chain(derived).chain([DIGEST])
}

impl UpsertStatement {
    /// Generates the insert, with what to do if the row exists.
    fn new(resource: &Resource, kind: WriteKind) -> Self {
        let is_json = |name: &str| {
            let field = resource.fields.iter().find(|field| field.name == name);
            name == "extra" || field.is_some_and(|field| field.kind == FieldKind::Json)
        };
        let values = columns(resource).map(|name| match name {
            "absent" | "unexpected" => format!("pg_catalog.string_to_array(t.{name}, ',')"),
            name if is_json(name) => format!("t.{name}::jsonb"),
            name => format!("t.{name}"),
        });
        let values: Vec<String> = values.collect();
        // A stored document may lack what other columns are derived from.
        let is_kept = |name: &str| {
            let derived = resource.derived.columns.iter().find(|column| column.name == name);
            kind == WriteKind::Erase && derived.is_some_and(|column| column.from.is_empty())
        };
        let sets = columns(resource).filter(|name| *name != "id" && !is_kept(name));
        let sets = sets.map(|name| format!("{name} = excluded.{name}"));
        let own: &[&str] = match kind {
            WriteKind::Change => &["deleted_at = NULL", "changed_at = pg_catalog.now()"],
            WriteKind::Refresh => &["deleted_at = NULL"],
            WriteKind::Erase => &[],
        };
        let sets: Vec<String> = sets.chain(own.iter().map(|&set| set.to_owned())).collect();
        let columns: Vec<&str> = columns(resource).collect();
        let (columns, values, sets) = (columns.join(", "), values.join(", "), sets.join(", "));
        let table = resource.table;
        Self {
            before: format!("INSERT INTO {table} ({columns}) SELECT {values} FROM unnest("),
            after: format!(
                ") AS t({columns}) ON CONFLICT (id) DO UPDATE SET {sets} \
                 RETURNING id, xmax = 0 AS is_new"
            ),
        }
    }
}

/// A column of all rows that are written.
enum ColumnArray<'w> {
    /// `jsonb` is sent as text: JSON text needs no second encoding, and its numbers keep all
    /// digits.
    Text(Vec<Option<&'w str>>),
    OwnedText(Vec<Option<String>>),
    Bool(Vec<Option<bool>>),
    Int(Vec<Option<i64>>),
    Time(Vec<Option<DateTime<Utc>>>),
    Bytes(Vec<&'w [u8]>),
}

/// The insert of some records.
struct Upsert<'w> {
    statement: &'w UpsertStatement,
    columns: Vec<(ColumnArray<'w>, &'static str)>,
}

impl<'w> Upsert<'w> {
    fn new(statements: &'w UpsertStatements, kind: WriteKind, writes: &[&'w Write<'w>]) -> Self {
        let Resource { fields, derived, .. } = statements.resource;
        let records = || writes.iter().map(|write: &&'w Write<'w>| write.record);
        let of_field = |(at, field): (usize, &Field)| column(field.kind, records().map(|record| &record.values[at]));
        let of_derived = |(at, column_of): (usize, &DerivedColumn)| {
            column(column_of.kind, records().map(|record| &record.derived[at]))
        };
        let own = [
            records().map(Record::extra_object).collect(),
            records().map(|record| names(record.absent())).collect(),
            records()
                .map(|record| names(record.unexpected.iter().copied()))
                .collect(),
        ];
        let own = own.into_iter().map(|values| (ColumnArray::OwnedText(values), "text"));
        let digests = ColumnArray::Bytes(writes.iter().map(|write| &write.digest.0[..]).collect());
        let columns = fields.iter().enumerate().map(of_field).chain(own);
        let columns = columns.chain(derived.columns.iter().enumerate().map(of_derived));
        Self {
            statement: statements.of(kind),
            columns: columns.chain([(digests, "bytea")]).collect(),
        }
    }
}

/// Collects the values of a column, and returns them with the element type of their array.
fn column<'w>(kind: FieldKind, values: impl Iterator<Item = &'w FieldValue<'w>>) -> (ColumnArray<'w>, &'static str) {
    match kind {
        FieldKind::Text => (ColumnArray::Text(values.map(text).collect()), "text"),
        FieldKind::Json => (ColumnArray::Text(values.map(json).collect()), "text"),
        FieldKind::Bool => (ColumnArray::Bool(values.map(boolean).collect()), "boolean"),
        FieldKind::Int => (ColumnArray::Int(values.map(int).collect()), "bigint"),
        FieldKind::Time => (ColumnArray::Time(values.map(time).collect()), "timestamptz"),
    }
}

impl QueryFragment<Pg> for Upsert<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(&self.statement.before);
        for (at, (column, kind)) in self.columns.iter().enumerate() {
            if at > 0 {
                out.push_sql(", ");
            }
            match column {
                ColumnArray::Text(values) => out.push_bind_param::<Array<Nullable<Text>>, _>(values)?,
                ColumnArray::OwnedText(values) => out.push_bind_param::<Array<Nullable<Text>>, _>(values)?,
                ColumnArray::Bool(values) => out.push_bind_param::<Array<Nullable<Bool>>, _>(values)?,
                ColumnArray::Int(values) => out.push_bind_param::<Array<Nullable<BigInt>>, _>(values)?,
                ColumnArray::Time(values) => out.push_bind_param::<Array<Nullable<Timestamptz>>, _>(values)?,
                ColumnArray::Bytes(values) => out.push_bind_param::<Array<Binary>, _>(values)?,
            }
            out.push_sql("::");
            out.push_sql(kind);
            out.push_sql("[]");
        }
        out.push_sql(&self.statement.after);
        Ok(())
    }
}

impl QueryId for Upsert<'_> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for Upsert<'_> {
    // The id, and whether the row is new: an existing row was locked by this transaction before the
    // update.
    type SqlType = (Text, Bool);
}

/// Writes records with one statement, in this order, and returns those that were stored.
pub(super) async fn upsert<'w>(
    conn: &mut Session,
    statements: &UpsertStatements,
    kind: WriteKind,
    writes: &[&'w Write<'w>],
) -> QueryResult<Vec<Stored<'w>>> {
    let rows: Vec<(String, bool)> = Upsert::new(statements, kind, writes).load(conn).await?;
    let rows: HashMap<String, bool> = rows.into_iter().collect();
    let stored = |&write: &&'w Write<'w>| {
        Some(Stored {
            write,
            is_new: *rows.get(write.record.id.as_ref())?,
        })
    };
    Ok(writes.iter().filter_map(stored).collect())
}

fn text<'v>(value: &'v FieldValue<'_>) -> Option<&'v str> {
    match value {
        FieldValue::Text(text) => Some(text),
        _ => None,
    }
}

fn json<'v>(value: &'v FieldValue<'_>) -> Option<&'v str> {
    match value {
        FieldValue::Json(json) => Some(json),
        _ => None,
    }
}

fn boolean(value: &FieldValue<'_>) -> Option<bool> {
    match value {
        FieldValue::Bool(value) => Some(*value),
        _ => None,
    }
}

fn int(value: &FieldValue<'_>) -> Option<i64> {
    match value {
        FieldValue::Int(value) => Some(*value),
        _ => None,
    }
}

fn time(value: &FieldValue<'_>) -> Option<DateTime<Utc>> {
    match value {
        FieldValue::Time(time) => Some(timestamp(*time)),
        _ => None,
    }
}

fn names<'n>(names: impl Iterator<Item = &'n str>) -> Option<String> {
    let names: Vec<_> = names.collect();
    (!names.is_empty()).then(|| names.join(","))
}
