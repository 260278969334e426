//! Writes users into `clerk.users` as a set. The statement follows from the table of fields.

use std::{collections::HashMap, sync::LazyLock};

use chrono::{DateTime, Utc};
use diesel::{
    pg::Pg,
    prelude::*,
    sql_query,
    sql_types::{Array, BigInt, Binary, Bool, Nullable, Text, Timestamptz},
};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};

use super::{Error, Rejected, Write, read::timestamp, transaction::Failure};
use crate::user::{
    User, Value,
    fields::{FIELDS, Kind},
};

/// Inserts users, or updates those that are there as changed.
pub(super) static UPSERT: LazyLock<String> = LazyLock::new(|| sql(", changed_at = now()"));

/// Brings rows up to date without calling them changed.
pub(super) static REFRESH: LazyLock<String> = LazyLock::new(|| sql(""));

/// A user that was written.
pub(super) struct Stored<'w> {
    pub(super) write: &'w Write<'w>,
    /// There was no row before.
    pub(super) is_new: bool,
}

/// Writes users, and returns those that were stored. Those that Postgres refuses, with `isolate`, and those that a trigger of the application
/// left out are added to `rejected`.
pub(super) async fn store<'w>(
    conn: &mut AsyncPgConnection,
    sql: &str,
    writes: &'w [Write<'_>],
    isolate: bool,
    rejected: &mut Vec<Rejected>,
) -> Result<Vec<Stored<'w>>, Failure> {
    if writes.is_empty() {
        return Ok(Vec::new());
    }
    let refused = rejected.len();
    let stored = if isolate {
        store_apart(conn, sql, writes, rejected).await?
    } else {
        upsert(conn, sql, writes).await?
    };
    let is_told = |write: &Write<'_>| {
        let id = write.user.id.as_ref();
        rejected[refused..].iter().any(|user| user.user_id == id)
            || stored.iter().any(|stored| std::ptr::eq(stored.write, write))
    };
    if stored.len() + rejected.len() - refused < writes.len() {
        let left_out: Vec<_> = writes.iter().filter(|write| !is_told(write)).collect();
        rejected.extend(left_out.into_iter().map(|write| {
            let reason = "a trigger of the application left it out, without an error".to_owned();
            write.rejected(reason)
        }));
    }
    Ok(stored)
}

/// Writes users behind savepoints, and corners those that Postgres refuses by halving.
async fn store_apart<'w>(
    conn: &mut AsyncPgConnection,
    sql: &str,
    writes: &'w [Write<'_>],
    rejected: &mut Vec<Rejected>,
) -> Result<Vec<Stored<'w>>, Failure> {
    let mut stored = Vec::new();
    let mut suspects = vec![writes];
    while let Some(part) = suspects.pop() {
        let result = conn.transaction(async |conn| upsert(conn, sql, part).await).await;
        match (result.map_err(Failure::from), part) {
            (Ok(rows), _) => stored.extend(rows),
            (Err(Failure::OneRow(error)), [only]) => {
                rejected.push(only.rejected(format!("Postgres refused it: {}", Error::from(error))));
            }
            (Err(Failure::OneRow(_)), part) => {
                let (left, right) = part.split_at(part.len() / 2);
                suspects.extend([right, left]);
            }
            (Err(error), _) => return Err(error),
        }
    }
    Ok(stored)
}

/// The insert as a set, with what to do where the row is there already.
fn sql(on_update: &str) -> String {
    let names = || FIELDS.iter().map(|field| field.name);
    let own = [
        "extra",
        "absent",
        "primary_email",
        "primary_email_verified",
        "primary_phone",
        "full_name",
        "digest",
    ];
    let columns: Vec<&str> = names().chain(own).collect();
    let values = FIELDS
        .iter()
        .map(|field| match field.kind {
            Kind::Json => format!("t.{}::jsonb", field.name),
            _ => format!("t.{}", field.name),
        })
        .chain(own.iter().map(|name| match *name {
            "extra" => "t.extra::jsonb".to_owned(),
            "absent" => "string_to_array(t.absent, ',')".to_owned(),
            name => format!("t.{name}"),
        }));
    let types = FIELDS
        .iter()
        .map(|field| match field.kind {
            // jsonb travels as text: a JSON text needs no second encoding, and its numbers keep all their digits.
            Kind::Text | Kind::Json => "text",
            Kind::Bool => "boolean",
            Kind::Int => "bigint",
            Kind::Time => "timestamptz",
        })
        .chain(["text", "text", "text", "boolean", "text", "text", "bytea"]);
    let parameters = types.enumerate().map(|(n, kind)| format!("${}::{kind}[]", n + 1));
    let sets = columns
        .iter()
        .filter(|name| **name != "id")
        .map(|name| format!("{name} = excluded.{name}"));
    let join = |parts: &mut dyn Iterator<Item = String>| parts.collect::<Vec<_>>().join(", ");
    format!(
        "INSERT INTO clerk.users ({columns}) SELECT {values} FROM unnest({parameters}) AS t({columns}) \
         ON CONFLICT (id) DO UPDATE SET {sets}, deleted_at = NULL{on_update} \
         RETURNING id, xmax = 0 AS is_new",
        columns = columns.join(", "),
        values = join(&mut values.into_iter()),
        parameters = join(&mut parameters.into_iter()),
        sets = join(&mut sets.into_iter()),
    )
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    id: String,
    /// A row that was there has been locked by this transaction before it was updated.
    #[diesel(sql_type = Bool)]
    is_new: bool,
}

async fn upsert<'w>(conn: &mut AsyncPgConnection, sql: &str, writes: &'w [Write<'_>]) -> QueryResult<Vec<Stored<'w>>> {
    let mut query = sql_query(sql).into_boxed::<Pg>();
    for (at, field) in FIELDS.iter().enumerate() {
        let column = writes.iter().map(|write| &write.user.values[at]);
        query = match field.kind {
            Kind::Text => query.bind::<Array<Nullable<Text>>, _>(column.map(text).collect::<Vec<_>>()),
            Kind::Json => query.bind::<Array<Nullable<Text>>, _>(column.map(json).collect::<Vec<_>>()),
            Kind::Bool => query.bind::<Array<Nullable<Bool>>, _>(column.map(boolean).collect::<Vec<_>>()),
            Kind::Int => query.bind::<Array<Nullable<BigInt>>, _>(column.map(int).collect::<Vec<_>>()),
            Kind::Time => query.bind::<Array<Nullable<Timestamptz>>, _>(column.map(time).collect::<Vec<_>>()),
        };
    }
    let users = || writes.iter().map(|write| write.user);
    let derived = || users().map(|user| &user.derived);
    let rows: Vec<Row> = query
        .bind::<Array<Nullable<Text>>, _>(users().map(extra).collect::<Vec<_>>())
        .bind::<Array<Nullable<Text>>, _>(users().map(absent).collect::<Vec<_>>())
        .bind::<Array<Nullable<Text>>, _>(derived().map(|d| d.primary_email.as_deref()).collect::<Vec<_>>())
        .bind::<Array<Nullable<Bool>>, _>(derived().map(|d| d.primary_email_verified).collect::<Vec<_>>())
        .bind::<Array<Nullable<Text>>, _>(derived().map(|d| d.primary_phone.as_deref()).collect::<Vec<_>>())
        .bind::<Array<Nullable<Text>>, _>(derived().map(|d| d.full_name.as_deref()).collect::<Vec<_>>())
        .bind::<Array<Binary>, _>(writes.iter().map(|write| write.digest.0.to_vec()).collect::<Vec<_>>())
        .load(conn)
        .await?;
    let rows: HashMap<String, bool> = rows.into_iter().map(|row| (row.id, row.is_new)).collect();
    let stored = |write: &'w Write<'w>| {
        Some(Stored {
            write,
            is_new: *rows.get(write.user.id.as_ref())?,
        })
    };
    Ok(writes.iter().filter_map(stored).collect())
}

fn text<'v>(value: &'v Value<'_>) -> Option<&'v str> {
    match value {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

fn json<'v>(value: &'v Value<'_>) -> Option<&'v str> {
    match value {
        Value::Json(json) => Some(json.get()),
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

fn extra(user: &User<'_>) -> Option<String> {
    if user.extra.is_empty() {
        return None;
    }
    let pairs: Vec<String> = user
        .extra
        .iter()
        .map(|(key, value)| format!("{}:{}", serde_json::Value::from(key.as_ref()), value.get()))
        .collect();
    Some(format!("{{{}}}", pairs.join(",")))
}

fn absent(user: &User<'_>) -> Option<String> {
    let names: Vec<_> = user.absent().collect();
    (!names.is_empty()).then(|| names.join(","))
}
