//! How many users the mirror expects at Clerk: its rows, less those known to be gone, and those that could not be stored.

use chrono::{DateTime, Utc};
use diesel::{
    prelude::*,
    sql_query,
    sql_types::{BigInt, Bool, Nullable, Text, Timestamptz},
};
use diesel_async::{AsyncConnection, RunQueryDsl};

use super::{Error, Lease, Mirror, lease, read::timestamp, schema::users, session::Session, signed, transaction};
use crate::reconcile::walk::Range;

/// What an incremental sync begins with, in one query.
#[derive(Debug, Clone, QueryableByName)]
pub struct State {
    /// The pinned Clerk instance.
    #[diesel(sql_type = Nullable<Text>)]
    pub instance_id: Option<String>,
    /// Whether a full sync was ever done.
    #[diesel(sql_type = Bool)]
    pub is_imported: bool,
    /// Everybody who was updated at Clerk before it, less the overlap, is in the mirror.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub watermark: Option<DateTime<Utc>>,
    /// How many users the mirror expects at Clerk, by what is kept of its number of rows.
    #[diesel(sql_type = BigInt)]
    pub expected: i64,
    /// Whether there are users to store again, because the application had locked their rows.
    #[diesel(sql_type = Bool)]
    pub has_put_off_users: bool,
    /// Whether there are rows to delete again, because the application had locked them, that need no approval.
    #[diesel(sql_type = Bool)]
    pub has_put_off_deletions: bool,
    /// Who has the lease at this moment.
    #[diesel(sql_type = Nullable<Text>)]
    pub lease_holder: Option<String>,
    /// Grows with every lease: whoever takes one at this epoch knows that nobody wrote since.
    #[diesel(sql_type = BigInt)]
    pub lease_epoch: i64,
}

/// By how much the users at Clerk differ from the mirror's rows in the stretch from `$1` to `$2`: whose deletion is held is gone, but whoever a
/// sync that was cut off left behind as absent is a question still. The tables read are small; the rows of users
/// are looked up one by one, whatever the planner thinks of their number. Names nothing without its schema.
const DIFFERENCE: &str = "
    (SELECT pg_catalog.count(*) FROM clerk.rejected_users r
     WHERE r.document IS NOT NULL AND {rejected}
       AND coalesce((SELECT u.deleted_at IS NOT NULL FROM clerk.users u WHERE u.id OPERATOR(pg_catalog.=) r.user_id), true))
  OPERATOR(pg_catalog.-) (SELECT pg_catalog.count(*) FROM (
         SELECT user_id FROM clerk.missing_users WHERE absent AND held_at IS NOT NULL
         UNION SELECT user_id FROM clerk.rejected_users WHERE document IS NULL) AS gone
     WHERE (SELECT u.deleted_at IS NULL AND {gone} FROM clerk.users u WHERE u.id OPERATOR(pg_catalog.=) gone.user_id))";

fn difference(rejected: &str, gone: &str) -> String {
    DIFFERENCE.replace("{rejected}", rejected).replace("{gone}", gone)
}

const STRETCH: &str =
    "created_at >= coalesce($1, '-infinity'::timestamptz) AND created_at < coalesce($2, 'infinity'::timestamptz)";

#[derive(QueryableByName)]
struct At {
    #[diesel(sql_type = Timestamptz)]
    created_at: DateTime<Utc>,
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    number: i64,
}

/// Counts the rows, and keeps the number of those that are not marked as deleted. Returns the number of the others.
pub(super) async fn recount(conn: &mut Session) -> QueryResult<i64> {
    let Number { number } = sql_query(
        "WITH counted AS (
             SELECT pg_catalog.count(*) AS rows, pg_catalog.count(*) FILTER (WHERE deleted_at IS NULL) AS live FROM clerk.users)
         UPDATE clerk.sync_state SET users = counted.live FROM counted RETURNING counted.rows - counted.live AS number",
    )
    .get_result(conn)
    .await?;
    Ok(number)
}

impl Mirror {
    /// What an incremental sync begins with.
    pub async fn state(&self) -> Result<State, Error> {
        let sql = format!(
            "SELECT instance_id, imported_at IS NOT NULL AS is_imported, users OPERATOR(pg_catalog.+) {difference} AS expected,
                    watermark, lease_epoch,
                    EXISTS (SELECT FROM clerk.rejected_users
                            WHERE sqlstate OPERATOR(pg_catalog.=) '55P03' AND document IS NOT NULL) AS has_put_off_users,
                    EXISTS (SELECT FROM clerk.rejected_users r
                            WHERE r.sqlstate OPERATOR(pg_catalog.=) '55P03' AND r.document IS NULL AND NOT EXISTS (
                                SELECT FROM clerk.missing_users m WHERE m.user_id OPERATOR(pg_catalog.=) r.user_id
                                    AND m.held_at IS NOT NULL AND m.approved_at IS NULL)) AS has_put_off_deletions,
                    CASE WHEN {held} THEN lease_holder END AS lease_holder
             FROM clerk.sync_state",
            difference = difference("true", "true"),
            held = lease::held(),
        );
        let mut conn = self.connection().await?;
        Ok(sql_query(sql).get_result(conn.autocommit()).await?)
    }

    /// Counts the rows anew, whatever is kept of their number, and returns how many users are expected at Clerk.
    pub async fn recount(&self, lease: &Lease) -> Result<i64, Error> {
        let mut conn = self.connection().await?;
        conn.transaction(async |conn| {
            transaction::begin(conn, lease).await?;
            recount(conn).await?;
            Ok::<_, Error>(())
        })
        .await?;
        drop(conn);
        Ok(self.state().await?.expected)
    }

    /// How many users are expected at Clerk in a stretch of `created_at`.
    pub async fn expected(&self, stretch: Range) -> Result<i64, Error> {
        let rows = format!("(SELECT pg_catalog.count(*) FROM clerk.users WHERE deleted_at IS NULL AND {STRETCH})");
        self.expected_with(stretch, &rows).await
    }

    /// The same, with the number of rows as SQL.
    async fn expected_with(&self, stretch: Range, rows: &str) -> Result<i64, Error> {
        let rejected = format!("r.{}", STRETCH.replace("AND created", "AND r.created"));
        let sql = format!(
            "SELECT {rows} OPERATOR(pg_catalog.+) {difference} AS number",
            difference = difference(&rejected, STRETCH)
        );
        let Number { number } = sql_query(sql)
            .bind::<Nullable<Timestamptz>, _>(stretch.from.map(timestamp))
            .bind::<Nullable<Timestamptz>, _>(stretch.before.map(timestamp))
            .get_result(&mut self.connection().await?)
            .await?;
        Ok(number)
    }

    /// A moment with about half of a stretch's `users` before it, in Unix milliseconds, and how many are expected at Clerk before it; none where
    /// there is no such moment. Nobody is within a millisecond of it, if that can be had: then it is the same whether bounds include their
    /// moment or not.
    pub async fn halve(&self, stretch: Range, users: i64) -> Result<Option<(i64, i64)>, Error> {
        let skipped = (users / 2 - 1).max(0);
        let sql = format!(
            "SELECT created_at FROM clerk.users WHERE deleted_at IS NULL AND {STRETCH} ORDER BY created_at, id OFFSET $3 LIMIT 2"
        );
        let rows: Vec<At> = sql_query(sql)
            .bind::<Nullable<Timestamptz>, _>(stretch.from.map(timestamp))
            .bind::<Nullable<Timestamptz>, _>(stretch.before.map(timestamp))
            .bind::<BigInt, _>(skipped)
            .load(&mut self.connection().await?)
            .await?;
        let [before, behind] = rows.as_slice() else {
            return Ok(None);
        };
        let (before, behind) = (
            before.created_at.timestamp_millis(),
            behind.created_at.timestamp_millis(),
        );
        let at = match behind - before {
            3.. => before + 2,
            _ if stretch.from == Some(behind) => behind + 1,
            _ => behind,
        };
        let half = Range {
            before: Some(at),
            ..stretch
        };
        // Where nobody shares the moment, the rows before it were counted on the way.
        let expected = if before < at && at <= behind {
            self.expected_with(half, &(skipped + 1).to_string()).await?
        } else {
            self.expected(half).await?
        };
        Ok(Some((at, expected)))
    }

    /// The moments that part the mirror, with its `users`, into stretches with about as many rows each, in Unix milliseconds.
    pub async fn bounds(&self, users: u64, parts: usize) -> Result<Vec<i64>, Error> {
        let rows = (users / parts.max(1) as u64).max(1);
        let mut bounds: Vec<DateTime<Utc>> = Vec::new();
        while bounds.len() + 1 < parts {
            // A stretch at a time, so that each query is short. Rows that are marked as deleted make no difference that matters.
            let mut next = users::table
                .select(users::created_at)
                .order((users::created_at, users::id))
                .offset(signed(rows))
                .limit(1)
                .into_boxed();
            if let Some(last) = bounds.last() {
                next = next.filter(users::created_at.ge(*last));
            }
            match next.first(&mut self.connection().await?).await.optional()? {
                // More than a part's users share a moment: it is one part with whatever follows.
                Some(at) if bounds.last() == Some(&at) => {
                    let behind = users::table
                        .filter(users::created_at.gt(at))
                        .select(diesel::dsl::min(users::created_at));
                    match behind.first(&mut self.connection().await?).await? {
                        Some(behind) => bounds.push(behind),
                        None => break,
                    }
                }
                Some(at) => bounds.push(at),
                None => break,
            }
        }
        Ok(bounds.into_iter().map(|at| at.timestamp_millis()).collect())
    }

    /// Ids of the users that were created last, except `ids`.
    pub async fn newest_ids_except(&self, ids: &[String], limit: usize) -> Result<Vec<String>, Error> {
        Ok(users::table
            .select(users::id)
            .filter(users::deleted_at.is_null().and(users::id.ne_all(ids)))
            .order((users::created_at.desc(), users::id.desc()))
            .limit(limit as i64)
            .load(&mut self.connection().await?)
            .await?)
    }

    /// The newest `created_at`, in Unix milliseconds.
    pub async fn newest(&self) -> Result<Option<i64>, Error> {
        let newest: Option<DateTime<Utc>> = users::table
            .filter(users::deleted_at.is_null())
            .select(diesel::dsl::max(users::created_at))
            .first(&mut self.connection().await?)
            .await?;
        Ok(newest.map(|at| at.timestamp_millis()))
    }
}
