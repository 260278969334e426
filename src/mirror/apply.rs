//! Applies a batch: users, rejections, missing ones, progress and counts in one transaction that begins by checking the lease.

use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use diesel::{
    pg::Pg,
    prelude::*,
    result::Error as Diesel,
    sql_query,
    sql_types::{Array, BigInt, Binary, Bool, Nullable, Text, Timestamptz},
};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use tracing::warn;

use super::{Checkpoint, Error, Lease, Mirror, Run, deletions, read::timestamp, runs, schema::rejected_users};
use crate::user::{
    Digest, User, Value,
    fields::{FIELDS, Kind},
};

/// Most bytes of a rejected document that are kept.
const KEPT: usize = 64 << 10;

/// A user to be written.
#[derive(Debug, Clone)]
pub struct Write<'a> {
    /// Decoded.
    pub user: &'a User<'a>,
    /// Names of the fields that changed; empty for a new user.
    pub changed: Vec<String>,
    /// Of the document.
    pub digest: Digest,
    /// As received, for the case that Postgres refuses it.
    pub document: &'a str,
}

/// A user that cannot be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Clerk's id, or what stands for it where the document has none.
    pub user_id: String,
    /// In words.
    pub reason: String,
    /// As received; none where the row, not a document, is the trouble.
    pub document: Option<String>,
}

/// What one transaction does. A value: it can be counted and printed instead.
#[derive(Debug, Default)]
pub struct Batch<'a> {
    /// Users new to the mirror.
    pub create: Vec<Write<'a>>,
    /// Users that changed.
    pub update: Vec<Write<'a>>,
    /// Rows to be brought up to date although nobody changed the user.
    pub refresh: Vec<Write<'a>>,
    /// Users of the page that are in step.
    pub unchanged: u64,
    /// Users that cannot be stored.
    pub reject: Vec<Rejected>,
    /// Ids that are listed as rejected, and go from the list unless they are rejected again.
    pub heal: Vec<String>,
    /// Ids that the walk did not meet.
    pub missing: Vec<String>,
    /// Ids that turned out to exist after all.
    pub found: Vec<String>,
    /// Where the walk stands after this batch.
    pub checkpoint: Option<Checkpoint>,
}

impl Batch<'_> {
    /// Whether applying it would change anything but progress.
    pub fn is_empty(&self) -> bool {
        self.create.is_empty()
            && self.update.is_empty()
            && self.refresh.is_empty()
            && self.reject.is_empty()
            && self.heal.is_empty()
            && self.missing.is_empty()
            && self.found.is_empty()
    }
}

/// What a batch did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Rows inserted.
    pub created: u64,
    /// Rows updated because their user changed.
    pub updated: u64,
    /// Rows updated although nobody changed the user.
    pub refreshed: u64,
    /// Everyone who could not be stored, those that Postgres refused among them.
    pub rejected: Vec<Rejected>,
}

impl Mirror {
    /// Applies a batch, all of it or nothing. A row that Postgres refuses costs its user only: the batch is applied again with each
    /// suspect behind a savepoint.
    pub async fn commit(&self, lease: &Lease, run: &Run, batch: &Batch<'_>) -> Result<Committed, Error> {
        let mut conn = self.connection().await?;
        match attempt(&mut conn, lease, run, batch, false).await {
            Err(Failure::OneRow(error)) => {
                warn!(%error, "a user cannot be stored; looking for which");
                attempt(&mut conn, lease, run, batch, true)
                    .await
                    .map_err(Failure::into_error)
            }
            result => result.map_err(Failure::into_error),
        }
    }
}

/// Why an attempt came to nothing.
pub(super) enum Failure {
    /// One row may be to blame.
    OneRow(Diesel),
    /// It is not about a row.
    Whole(Error),
}

impl Failure {
    pub(super) fn into_error(self) -> Error {
        match self {
            Failure::OneRow(error) => error.into(),
            Failure::Whole(error) => error,
        }
    }
}

impl From<Diesel> for Failure {
    fn from(error: Diesel) -> Self {
        if Error::may_be_one_rows(&error) {
            Failure::OneRow(error)
        } else {
            Failure::Whole(error.into())
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Whole(error)
    }
}

/// Opens every writing transaction: the lease is checked and its row locked, constraints speak at their statement and not at the commit,
/// and no statement of ours can block the application for long.
pub(super) async fn begin(conn: &mut AsyncPgConnection, lease: &Lease) -> Result<(), Error> {
    conn.batch_execute(
        "SET CONSTRAINTS ALL IMMEDIATE; SET LOCAL statement_timeout = '60s'; SET LOCAL lock_timeout = '30s'",
    )
    .await?;
    lease.fence(conn).await
}

async fn attempt(
    conn: &mut AsyncPgConnection,
    lease: &Lease,
    run: &Run,
    batch: &Batch<'_>,
    isolate: bool,
) -> Result<Committed, Failure> {
    conn.transaction(async |conn| {
        begin(conn, lease).await?;
        let mut done = Committed {
            rejected: batch.reject.clone(),
            ..Committed::default()
        };
        done.created = store(conn, &UPSERT, &batch.create, isolate, &mut done.rejected).await?;
        done.updated = store(conn, &UPSERT, &batch.update, isolate, &mut done.rejected).await?;
        done.refreshed = store(conn, &REFRESH, &batch.refresh, isolate, &mut done.rejected).await?;
        reject(conn, &done.rejected).await?;
        heal(conn, batch, &done.rejected).await?;
        deletions::note_missing(conn, run, &batch.missing).await?;
        // A user whose `created_at` was moved is missed at the old place and met at the new one.
        let met = batch.update.iter().map(|write| write.user.id.as_ref());
        let met: Vec<&str> = met.chain(batch.found.iter().map(String::as_str)).collect();
        deletions::forget_missing(conn, &met).await?;
        runs::progress(conn, run, batch, &done).await?;
        Ok(done)
    })
    .await
}

/// Writes users, and returns how many. With `isolate`, those that Postgres refuses are cornered by halving and added to `rejected`.
async fn store(
    conn: &mut AsyncPgConnection,
    sql: &str,
    writes: &[Write<'_>],
    isolate: bool,
    rejected: &mut Vec<Rejected>,
) -> Result<u64, Failure> {
    if writes.is_empty() {
        return Ok(0);
    }
    if !isolate {
        return Ok(upsert(conn, sql, writes).await?);
    }
    let mut stored = 0;
    let mut suspects = vec![writes];
    while let Some(part) = suspects.pop() {
        let result = conn.transaction(async |conn| upsert(conn, sql, part).await).await;
        match (result.map_err(Failure::from), part) {
            (Ok(rows), _) => stored += rows,
            (Err(Failure::OneRow(error)), [only]) => rejected.push(Rejected {
                user_id: only.user.id.to_string(),
                reason: format!("Postgres refused it: {}", Error::from(error)),
                document: Some(only.document.to_owned()),
            }),
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
         ON CONFLICT (id) DO UPDATE SET {sets}, deleted_at = NULL{on_update}",
        columns = columns.join(", "),
        values = join(&mut values.into_iter()),
        parameters = join(&mut parameters.into_iter()),
        sets = join(&mut sets.into_iter()),
    )
}

static UPSERT: LazyLock<String> = LazyLock::new(|| sql(", changed_at = now()"));
static REFRESH: LazyLock<String> = LazyLock::new(|| sql(""));

async fn upsert(conn: &mut AsyncPgConnection, sql: &str, writes: &[Write<'_>]) -> QueryResult<u64> {
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
    let rows = query
        .bind::<Array<Nullable<Text>>, _>(users().map(extra).collect::<Vec<_>>())
        .bind::<Array<Nullable<Text>>, _>(users().map(absent).collect::<Vec<_>>())
        .bind::<Array<Nullable<Text>>, _>(derived().map(|d| d.primary_email.as_deref()).collect::<Vec<_>>())
        .bind::<Array<Nullable<Bool>>, _>(derived().map(|d| d.primary_email_verified).collect::<Vec<_>>())
        .bind::<Array<Nullable<Text>>, _>(derived().map(|d| d.primary_phone.as_deref()).collect::<Vec<_>>())
        .bind::<Array<Nullable<Text>>, _>(derived().map(|d| d.full_name.as_deref()).collect::<Vec<_>>())
        .bind::<Array<Binary>, _>(writes.iter().map(|write| write.digest.0.to_vec()).collect::<Vec<_>>())
        .execute(conn)
        .await?;
    Ok(rows as u64)
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

/// Lists users as rejected.
pub(super) async fn reject(conn: &mut AsyncPgConnection, rejected: &[Rejected]) -> QueryResult<()> {
    for user in rejected {
        let document = user.document.as_deref().map(kept);
        diesel::insert_into(rejected_users::table)
            .values((
                rejected_users::user_id.eq(&user.user_id),
                rejected_users::reason.eq(&user.reason),
                rejected_users::document.eq(document),
            ))
            .on_conflict(rejected_users::user_id)
            .do_update()
            .set((
                rejected_users::reason.eq(&user.reason),
                rejected_users::document.eq(document),
                rejected_users::last_seen_at.eq(diesel::dsl::now),
            ))
            .execute(conn)
            .await?;
    }
    Ok(())
}

/// The beginning of a document, cut between characters.
fn kept(document: &str) -> &str {
    &document[..document.floor_char_boundary(KEPT)]
}

async fn heal(conn: &mut AsyncPgConnection, batch: &Batch<'_>, rejected: &[Rejected]) -> QueryResult<()> {
    let healed: Vec<&String> = batch
        .heal
        .iter()
        .filter(|id| !rejected.iter().any(|user| user.user_id == **id))
        .collect();
    if !healed.is_empty() {
        diesel::delete(rejected_users::table.filter(rejected_users::user_id.eq_any(healed)))
            .execute(conn)
            .await?;
    }
    Ok(())
}
