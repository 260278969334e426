//! Counts objects: how many rows the mirror has, and how many objects it expects at Clerk.

use chrono::{DateTime, Utc};
use diesel::{
    prelude::*,
    sql_query,
    sql_types::{BigInt, Nullable, Text, Timestamptz},
};
use diesel_async::{AsyncConnection, RunQueryDsl};

use super::{
    Lease, MirrorError, Runs,
    convert::{signed, timestamp, unsigned},
    expected_minus_rows::expected_minus_rows,
    pool::ConnectionPool,
    session::Session,
    tables::resource_state,
    transaction,
};
use crate::{reconcile::range::Range, resource::Resource};

/// The rows whose `created_at` is from `$1` to before `$2`; NULL is no bound.
pub(super) const IN_RANGE: &str =
    "created_at >= coalesce($1, '-infinity'::timestamptz) AND created_at < coalesce($2, 'infinity'::timestamptz)";

#[derive(QueryableByName)]
struct CreatedAt {
    #[diesel(sql_type = Timestamptz)]
    created_at: DateTime<Utc>,
}

#[derive(QueryableByName)]
struct NumberRow {
    #[diesel(sql_type = BigInt)]
    number: i64,
}

/// Counts the rows, stores the number of those that are not marked as deleted, and returns the
/// number of the others.
pub(super) async fn recount(conn: &mut Session, resource: &Resource) -> QueryResult<i64> {
    // A batch that is being committed counts itself first.
    sql_query("SELECT FROM clerk.resource_state WHERE resource = $1 FOR UPDATE")
        .bind::<Text, _>(resource.name)
        .execute(conn)
        .await?;
    let NumberRow { number } = sql_query(format!(
        "WITH counted AS (
             SELECT pg_catalog.count(*) AS rows, pg_catalog.count(*) FILTER (WHERE deleted_at IS NULL) AS live FROM {table})
         UPDATE clerk.resource_state SET objects = counted.live FROM counted WHERE resource = $1
         RETURNING counted.rows - counted.live AS number",
        table = resource.table
    ))
    .bind::<Text, _>(resource.name)
    .get_result(conn)
    .await?;
    Ok(number)
}

/// Counts objects: how many the mirror has, and how many it expects at Clerk.
#[derive(Debug, Clone)]
pub struct Counts(pub(super) ConnectionPool);

impl Counts {
    /// Returns the number of objects in the mirror, without those marked as deleted.
    pub async fn objects(&self) -> Result<u64, MirrorError> {
        let count: i64 = resource_state::table
            .find(self.0.resource.name)
            .select(resource_state::objects)
            .first(&mut self.0.connection().await?)
            .await?;
        Ok(unsigned(count))
    }

    /// Counts the rows again, stores their number, and returns how many objects are expected at
    /// Clerk.
    pub async fn recount(&self, lease: &Lease) -> Result<i64, MirrorError> {
        let mut conn = self.0.connection().await?;
        conn.transaction(async |conn| {
            transaction::begin(conn, lease).await?;
            recount(conn, self.0.resource).await?;
            Ok::<_, MirrorError>(())
        })
        .await?;
        drop(conn);
        Ok(Runs(self.0.clone()).state().await?.expected)
    }

    /// Returns how many objects are expected at Clerk in a range of `created_at`.
    pub async fn expected(&self, range: Range) -> Result<i64, MirrorError> {
        let table = self.0.resource.table;
        let rows = format!("(SELECT pg_catalog.count(*) FROM {table} WHERE deleted_at IS NULL AND {IN_RANGE})");
        self.expected_with(range, &rows).await
    }

    /// As [`Self::expected`], with the number of rows as SQL.
    async fn expected_with(&self, range: Range, rows: &str) -> Result<i64, MirrorError> {
        let rejected = format!("r.{}", IN_RANGE.replace("AND created", "AND r.created"));
        let sql = format!(
            "SELECT {rows} OPERATOR(pg_catalog.+) {difference} AS number",
            difference = expected_minus_rows(self.0.resource, &rejected, IN_RANGE)
        );
        let NumberRow { number } = sql_query(sql)
            .bind::<Nullable<Timestamptz>, _>(range.from.map(timestamp))
            .bind::<Nullable<Timestamptz>, _>(range.before.map(timestamp))
            .get_result(&mut self.0.connection().await?)
            .await?;
        Ok(number)
    }

    /// Returns a moment with about half of a range's `objects` before it, in Unix milliseconds, and
    /// how many objects are expected at Clerk before it; `None` if there is no such moment.
    ///
    /// If possible, no object is within a millisecond of it. Then it does not matter whether a bound
    /// includes its own moment.
    pub async fn halve(&self, range: Range, objects: i64) -> Result<Option<(i64, i64)>, MirrorError> {
        let skipped = (objects / 2 - 1).max(0);
        let sql = format!(
            "SELECT created_at FROM {table} WHERE deleted_at IS NULL AND {IN_RANGE} ORDER BY created_at, id OFFSET $3 LIMIT 2",
            table = self.0.resource.table
        );
        let rows: Vec<CreatedAt> = sql_query(sql)
            .bind::<Nullable<Timestamptz>, _>(range.from.map(timestamp))
            .bind::<Nullable<Timestamptz>, _>(range.before.map(timestamp))
            .bind::<BigInt, _>(skipped)
            .load(&mut self.0.connection().await?)
            .await?;
        let [before, after] = rows.as_slice() else {
            return Ok(None);
        };
        let (before, after) = (
            before.created_at.timestamp_millis(),
            after.created_at.timestamp_millis(),
        );
        let at = match after - before {
            3.. => before + 2,
            _ if range.from == Some(after) => after + 1,
            _ => after,
        };
        let half = Range {
            before: Some(at),
            ..range
        };
        // If no other object has this moment, the query above has counted the rows before it.
        let expected = if before < at && at <= after {
            self.expected_with(half, &(skipped + 1).to_string()).await?
        } else {
            self.expected(half).await?
        };
        Ok(Some((at, expected)))
    }

    /// Returns the moments that divide the mirror's `objects` into `parts` of about equal size, in
    /// Unix milliseconds.
    pub async fn bounds(&self, objects: u64, parts: usize) -> Result<Vec<i64>, MirrorError> {
        let rows = (objects / parts.max(1) as u64).max(1);
        let mut bounds: Vec<DateTime<Utc>> = Vec::new();
        while bounds.len() + 1 < parts {
            // One part at a time, so that each query is short.
            let last = bounds.last().copied();
            match self.skip(last, rows).await? {
                // More objects than a part should have share this moment: they and those up to the
                // next moment become one part.
                Some(at) if last == Some(at) => match self.after(at).await? {
                    Some(after) => bounds.push(after),
                    None => break,
                },
                Some(at) => bounds.push(at),
                None => break,
            }
        }
        Ok(bounds.into_iter().map(|at| at.timestamp_millis()).collect())
    }

    /// Returns the `created_at` of the row that comes `rows` rows behind the first one at or after
    /// `from`. Rows that are marked as deleted hardly matter, and count.
    async fn skip(&self, from: Option<DateTime<Utc>>, rows: u64) -> Result<Option<DateTime<Utc>>, MirrorError> {
        let sql = format!(
            "SELECT created_at FROM {table} WHERE created_at >= coalesce($1, '-infinity'::timestamptz)
             ORDER BY created_at, id OFFSET $2 LIMIT 1",
            table = self.0.resource.table
        );
        let row: Option<CreatedAt> = sql_query(sql)
            .bind::<Nullable<Timestamptz>, _>(from)
            .bind::<BigInt, _>(signed(rows))
            .get_result(&mut self.0.connection().await?)
            .await
            .optional()?;
        Ok(row.map(|row| row.created_at))
    }

    /// Returns the first `created_at` after a moment.
    async fn after(&self, at: DateTime<Utc>) -> Result<Option<DateTime<Utc>>, MirrorError> {
        let sql = format!(
            "SELECT created_at FROM {table} WHERE created_at > $1 ORDER BY created_at LIMIT 1",
            table = self.0.resource.table
        );
        let row: Option<CreatedAt> = sql_query(sql)
            .bind::<Timestamptz, _>(at)
            .get_result(&mut self.0.connection().await?)
            .await
            .optional()?;
        Ok(row.map(|row| row.created_at))
    }
}
