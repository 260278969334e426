//! Writes users into `clerk.users` as a set. The statement is generated from the table of fields.

use std::{collections::HashMap, sync::LazyLock};

use chrono::{DateTime, Utc};
use diesel::{
    pg::Pg,
    prelude::*,
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    sql_types::{Array, BigInt, Binary, Bool, Nullable, Text, Timestamptz},
};
use diesel_async::RunQueryDsl;

use super::{Write, rows::timestamp, session::Session};
use crate::resource::{
    User, Value,
    fields::{FIELDS, Field, Kind},
};

/// Inserts users, or updates existing ones as changed.
pub(super) static UPSERT: LazyLock<UpsertStatement> =
    LazyLock::new(|| UpsertStatement::new(", changed_at = pg_catalog.now()"));

/// Brings rows up to date without marking them as changed.
pub(super) static REFRESH: LazyLock<UpsertStatement> = LazyLock::new(|| UpsertStatement::new(""));

/// The SQL before and behind the arrays of the columns.
pub(super) struct UpsertStatement {
    before: String,
    behind: String,
}

/// A user that was written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stored<'w> {
    pub(super) write: &'w Write<'w>,
    /// Whether there was no row before.
    pub(super) is_new: bool,
}

impl Stored<'_> {
    /// Whether there was no user before: no row, or one that was marked as deleted.
    pub(super) fn creates(&self) -> bool {
        self.is_new || self.write.returns
    }
}

/// Columns besides Clerk's fields, with the element types of their arrays.
const OWN: [(&str, &str); 9] = [
    ("extra", "text"),
    ("absent", "text"),
    ("unexpected", "text"),
    ("primary_email", "text"),
    ("primary_email_verified", "boolean"),
    ("primary_phone", "text"),
    ("primary_phone_verified", "boolean"),
    ("full_name", "text"),
    ("digest", "bytea"),
];

impl UpsertStatement {
    /// Generates the insert, with what to do if the row exists.
    fn new(on_update: &str) -> Self {
        let names = FIELDS.iter().map(|field| field.name);
        let columns: Vec<&str> = names.chain(OWN.iter().map(|(name, _)| *name)).collect();
        let values = FIELDS
            .iter()
            .map(|field| match field.kind {
                Kind::Json => format!("t.{}::jsonb", field.name),
                _ => format!("t.{}", field.name),
            })
            .chain(OWN.iter().map(|(name, _)| match *name {
                "extra" => "t.extra::jsonb".to_owned(),
                "absent" | "unexpected" => format!("pg_catalog.string_to_array(t.{name}, ',')"),
                name => format!("t.{name}"),
            }));
        let values: Vec<String> = values.collect();
        let sets = columns.iter().filter(|name| **name != "id");
        let sets: Vec<String> = sets.map(|name| format!("{name} = excluded.{name}")).collect();
        let (columns, values, sets) = (columns.join(", "), values.join(", "), sets.join(", "));
        Self {
            before: format!("INSERT INTO clerk.users ({columns}) SELECT {values} FROM unnest("),
            behind: format!(
                ") AS t({columns}) ON CONFLICT (id) DO UPDATE SET {sets}, deleted_at = NULL{on_update} \
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
    Made(Vec<Option<String>>),
    Bool(Vec<Option<bool>>),
    Int(Vec<Option<i64>>),
    Time(Vec<Option<DateTime<Utc>>>),
    Bytes(Vec<&'w [u8]>),
}

/// The insert of some users.
struct Upsert<'w> {
    statement: &'static UpsertStatement,
    columns: Vec<(ColumnArray<'w>, &'static str)>,
}

impl<'w> Upsert<'w> {
    fn new(statement: &'static UpsertStatement, writes: &[&'w Write<'w>]) -> Self {
        let of_field = |(at, field): (usize, &Field)| {
            let values = writes.iter().map(|write| &write.user.values[at]);
            match field.kind {
                Kind::Text => (ColumnArray::Text(values.map(text).collect()), "text"),
                Kind::Json => (ColumnArray::Text(values.map(json).collect()), "text"),
                Kind::Bool => (ColumnArray::Bool(values.map(boolean).collect()), "boolean"),
                Kind::Int => (ColumnArray::Int(values.map(int).collect()), "bigint"),
                Kind::Time => (ColumnArray::Time(values.map(time).collect()), "timestamptz"),
            }
        };
        let users = || writes.iter().map(|write: &&'w Write<'w>| write.user);
        let of_own = |(name, kind): &(&str, &'static str)| {
            let derived = users().map(|user| &user.derived);
            let column = match *name {
                "extra" => ColumnArray::Made(users().map(User::extra_object).collect()),
                "absent" => ColumnArray::Made(users().map(|user| names(user.absent())).collect()),
                "unexpected" => ColumnArray::Made(users().map(|user| names(user.unexpected.iter().copied())).collect()),
                "primary_email" => ColumnArray::Text(derived.map(|derived| derived.primary_email.as_deref()).collect()),
                "primary_email_verified" => {
                    ColumnArray::Bool(derived.map(|derived| derived.primary_email_verified).collect())
                }
                "primary_phone" => ColumnArray::Text(derived.map(|derived| derived.primary_phone.as_deref()).collect()),
                "primary_phone_verified" => {
                    ColumnArray::Bool(derived.map(|derived| derived.primary_phone_verified).collect())
                }
                "full_name" => ColumnArray::Text(derived.map(|derived| derived.full_name.as_deref()).collect()),
                _ => ColumnArray::Bytes(writes.iter().map(|write| &write.digest.0[..]).collect()),
            };
            (column, *kind)
        };
        let columns = FIELDS.iter().enumerate().map(of_field).chain(OWN.iter().map(of_own));
        Self {
            statement,
            columns: columns.collect(),
        }
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
                ColumnArray::Made(values) => out.push_bind_param::<Array<Nullable<Text>>, _>(values)?,
                ColumnArray::Bool(values) => out.push_bind_param::<Array<Nullable<Bool>>, _>(values)?,
                ColumnArray::Int(values) => out.push_bind_param::<Array<Nullable<BigInt>>, _>(values)?,
                ColumnArray::Time(values) => out.push_bind_param::<Array<Nullable<Timestamptz>>, _>(values)?,
                ColumnArray::Bytes(values) => out.push_bind_param::<Array<Binary>, _>(values)?,
            }
            out.push_sql("::");
            out.push_sql(kind);
            out.push_sql("[]");
        }
        out.push_sql(&self.statement.behind);
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

/// Writes users with one statement, in this order, and returns those that were stored.
pub(super) async fn upsert<'w>(
    conn: &mut Session,
    statement: &'static UpsertStatement,
    writes: &[&'w Write<'w>],
) -> QueryResult<Vec<Stored<'w>>> {
    let rows: Vec<(String, bool)> = Upsert::new(statement, writes).load(conn).await?;
    let rows: HashMap<String, bool> = rows.into_iter().collect();
    let stored = |&write: &&'w Write<'w>| {
        Some(Stored {
            write,
            is_new: *rows.get(write.user.id.as_ref())?,
        })
    };
    Ok(writes.iter().filter_map(stored).collect())
}

/// Whether a column is written with every user, so that a value that it loses for a moment comes
/// back.
pub(super) fn is_written(column: &str) -> bool {
    FIELDS.iter().any(|field| field.name == column) || OWN.iter().any(|(name, _)| *name == column)
}

fn text<'v>(value: &'v Value<'_>) -> Option<&'v str> {
    match value {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

fn json<'v>(value: &'v Value<'_>) -> Option<&'v str> {
    match value {
        Value::Json(json) => Some(json),
        _ => None,
    }
}

fn boolean(value: &Value<'_>) -> Option<bool> {
    match value {
        Value::Bool(value) => Some(*value),
        _ => None,
    }
}

fn int(value: &Value<'_>) -> Option<i64> {
    match value {
        Value::Int(value) => Some(*value),
        _ => None,
    }
}

fn time(value: &Value<'_>) -> Option<DateTime<Utc>> {
    match value {
        Value::Time(time) => Some(timestamp(*time)),
        _ => None,
    }
}

fn names<'n>(names: impl Iterator<Item = &'n str>) -> Option<String> {
    let names: Vec<_> = names.collect();
    (!names.is_empty()).then(|| names.join(","))
}
