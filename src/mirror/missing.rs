//! `clerk.missing`: objects that a sync did not meet, and Clerk's answers about them.

use diesel::{
    dsl::{exists, not},
    prelude::*,
    sql_query,
    sql_types::{Array, BigInt, Text},
};
use diesel_async::{AsyncConnection, RunQueryDsl};

use super::{
    Lease, MirrorError, Run, SyncKind, bookkeeping,
    convert::unsigned,
    counts,
    holds::{HELD, HELD_LATELY, NO_HOLD},
    pool::ConnectionPool,
    session::Session,
    tables::{missing_objects, rejected_objects},
    transaction,
};
use crate::resource::Resource;

// Values of the column `state`, as far as queries below need them.
const MISSING: &str = "missing";
const ABSENT: &str = "absent";

/// Lists missing objects. A full sync asks again for all objects that it missed. Other syncs leave
/// out objects that are known to be gone: those that are held, and those whose rows the application
/// kept.
pub(super) async fn note_missing(conn: &mut Session, run: &Run, ids: &[String]) -> QueryResult<()> {
    if !ids.is_empty() {
        let (unless_kept, unless_held) = match run.kind {
            SyncKind::Full => ("", ""),
            SyncKind::Incremental | SyncKind::OnDemand => (
                "WHERE NOT EXISTS (SELECT FROM clerk.rejected r WHERE r.resource = $3 AND r.object_id = id
                     AND r.document IS NULL AND r.sqlstate IS DISTINCT FROM '55P03')",
                "WHERE NOT (missing.state = 'absent' AND missing.hold = 'held')",
            ),
        };
        sql_query(format!(
            "INSERT INTO clerk.missing (resource, object_id, walk) SELECT $3, id, $2 FROM pg_catalog.unnest($1) AS id {unless_kept}
             ON CONFLICT (resource, object_id) DO UPDATE SET walk = excluded.walk, state = 'missing' {unless_held}"
        ))
        .bind::<Array<Text>, _>(ids)
        .bind::<BigInt, _>(run.walk)
        .bind::<Text, _>(run.resource.name)
        .execute(conn)
        .await?;
    }
    Ok(())
}

pub(super) async fn forget_missing(conn: &mut Session, resource: &Resource, ids: &[&str]) -> QueryResult<()> {
    if !ids.is_empty() {
        diesel::delete(
            missing_objects::table
                .filter(missing_objects::resource.eq(resource.name))
                .filter(missing_objects::object_id.eq_any(ids)),
        )
        .execute(conn)
        .await?;
    }
    Ok(())
}

/// Forgets ids that Clerk shows. A lagging replica may still show an object whose deletion has been
/// held for less than ten seconds.
pub(super) async fn release(conn: &mut Session, resource: &Resource, ids: &[&str]) -> QueryResult<()> {
    if !ids.is_empty() {
        sql_query(format!(
            "DELETE FROM clerk.missing WHERE resource = $2 AND object_id = ANY($1) AND ({HELD_LATELY}) IS NOT TRUE"
        ))
        .bind::<Array<Text>, _>(ids)
        .bind::<Text, _>(resource.name)
        .execute(conn)
        .await?;
    }
    Ok(())
}

/// Objects that a sync did not meet, and what becomes of their rows.
#[derive(Debug, Clone)]
pub struct Missing(pub(super) ConnectionPool);

impl Missing {
    /// Closes a walk over the whole list.
    ///
    /// Every missing id is asked for again, whatever an interrupted run had learned. Ids that only
    /// earlier walks missed are forgotten, except those whose deletion is held or approved: only
    /// Clerk's answer about the id itself releases them. With `with_marked`, rows that are marked
    /// as deleted are missing too. `watermark` is the newest `updated_at` at Clerk when the walk
    /// began, in Unix milliseconds.
    pub async fn close_walk(&self, run: &Run, watermark: Option<i64>, with_marked: bool) -> Result<(), MirrorError> {
        let mut conn = self.0.connection().await?;
        conn.transaction(async |conn| {
            transaction::begin(conn, run.lease()).await?;
            // An id without a row has nothing left to delete.
            sql_query(format!(
                "DELETE FROM clerk.missing m
                 WHERE m.resource = $2 AND ((m.walk <> $1 AND m.hold = 'none')
                    OR NOT EXISTS (SELECT FROM {table} u WHERE u.id = m.object_id))",
                table = run.resource.table
            ))
            .bind::<BigInt, _>(run.walk)
            .bind::<Text, _>(run.resource.name)
            .execute(conn)
            .await?;
            let is_old = missing_objects::walk.ne(run.walk).or(missing_objects::state.eq(ABSENT));
            diesel::update(
                missing_objects::table
                    .filter(missing_objects::resource.eq(run.resource.name))
                    .filter(is_old),
            )
            .set((missing_objects::walk.eq(run.walk), missing_objects::state.eq(MISSING)))
            .execute(conn)
            .await?;
            let marked = counts::recount(conn, run.resource).await?;
            if with_marked && marked > 0 {
                sql_query(format!(
                    "INSERT INTO clerk.missing (resource, object_id, walk)
                     SELECT $2, id, $1 FROM {table} WHERE deleted_at IS NOT NULL
                     ON CONFLICT (resource, object_id) DO NOTHING",
                    table = run.resource.table
                ))
                .bind::<BigInt, _>(run.walk)
                .bind::<Text, _>(run.resource.name)
                .execute(conn)
                .await?;
            }
            bookkeeping::advance(conn, run.resource, 0, watermark, None).await?;
            Ok(())
        })
        .await
    }

    /// Returns the next ids that the sync missed and did not find absent yet, in order, after `after`.
    pub async fn next(&self, run: &Run, after: &str, limit: usize) -> Result<Vec<String>, MirrorError> {
        Ok(missing_objects::table
            .filter(missing_objects::resource.eq(self.0.resource.name))
            .select(missing_objects::object_id)
            .filter(
                missing_objects::walk
                    .eq(run.walk)
                    .and(missing_objects::state.eq(MISSING))
                    .and(missing_objects::object_id.gt(after)),
            )
            .order(missing_objects::object_id)
            .limit(limit as i64)
            .load(&mut self.0.connection().await?)
            .await?)
    }

    /// Returns how many ids the sync has missed and not settled yet, without those whose rows are
    /// expected to stay.
    pub async fn count_open(&self, run: &Run) -> Result<u64, MirrorError> {
        let is_kept = exists(
            rejected_objects::table
                .filter(rejected_objects::resource.eq(missing_objects::resource))
                .filter(rejected_objects::object_id.eq(missing_objects::object_id))
                .filter(rejected_objects::document.is_null()),
        );
        let count: i64 = missing_objects::table
            .filter(missing_objects::resource.eq(self.0.resource.name))
            .filter(missing_objects::walk.eq(run.walk))
            .filter(missing_objects::hold.ne(HELD))
            .filter(not(is_kept))
            .count()
            .get_result(&mut self.0.connection().await?)
            .await?;
        Ok(unsigned(count))
    }

    /// Returns those of these ids that are not settled: neither is their deletion held, nor did the
    /// application keep their rows.
    pub async fn unsettled_among(&self, ids: &[String]) -> Result<Vec<String>, MirrorError> {
        #[derive(QueryableByName)]
        struct UnsettledRow {
            #[diesel(sql_type = Text)]
            id: String,
        }
        let rows: Vec<UnsettledRow> = sql_query(
            "SELECT id FROM pg_catalog.unnest($1) AS id
             WHERE NOT EXISTS (SELECT FROM clerk.missing m WHERE m.resource = $2 AND m.object_id = id
                                 AND m.state = 'absent' AND m.hold = 'held')
               AND NOT EXISTS (SELECT FROM clerk.rejected r WHERE r.resource = $2 AND r.object_id = id
                                 AND r.document IS NULL AND r.sqlstate IS DISTINCT FROM '55P03')",
        )
        .bind::<Array<Text>, _>(ids)
        .bind::<Text, _>(self.0.resource.name)
        .load(&mut self.0.connection().await?)
        .await?;
        Ok(rows.into_iter().map(|row| row.id).collect())
    }

    /// Records that Clerk left these ids out of its answer.
    pub async fn note_absent(&self, lease: &Lease, ids: &[String]) -> Result<(), MirrorError> {
        let mut conn = self.0.connection().await?;
        conn.transaction(async |conn| {
            transaction::begin(conn, lease).await?;
            diesel::update(
                missing_objects::table
                    .filter(missing_objects::resource.eq(self.0.resource.name))
                    .filter(missing_objects::object_id.eq_any(ids)),
            )
            .set(missing_objects::state.eq(ABSENT))
            .execute(conn)
            .await?;
            Ok(())
        })
        .await
    }

    /// Returns how many rows were deleted within the last hour without a person's approval.
    pub async fn deleted_lately(&self) -> Result<u64, MirrorError> {
        #[derive(QueryableByName)]
        struct DeletionCount {
            #[diesel(sql_type = BigInt)]
            count: i64,
        }
        let DeletionCount { count } = sql_query(
            "SELECT coalesce(pg_catalog.sum(objects), 0::numeric)::bigint AS count FROM clerk.recent_deletions
             WHERE resource = $1 AND deleted_at > pg_catalog.now() - interval '1 hour'",
        )
        .bind::<Text, _>(self.0.resource.name)
        .get_result(&mut self.0.connection().await?)
        .await?;
        Ok(unsigned(count))
    }

    /// Forgets the ids of this sync that are still undecided; the next sync asks again. Held and
    /// approved deletions stay.
    pub async fn forget_open(&self, run: &Run) -> Result<(), MirrorError> {
        let mut conn = self.0.connection().await?;
        conn.transaction(async |conn| {
            transaction::begin(conn, run.lease()).await?;
            let is_open = missing_objects::walk
                .eq(run.walk)
                .and(missing_objects::hold.eq(NO_HOLD));
            diesel::delete(
                missing_objects::table
                    .filter(missing_objects::resource.eq(self.0.resource.name))
                    .filter(is_open),
            )
            .execute(conn)
            .await?;
            Ok(())
        })
        .await
    }

    /// Returns the next absent ids that this sync may delete, in order, after `after`: those that
    /// are approved, and those that are not held.
    pub async fn deletable(&self, run: &Run, after: &str, limit: usize) -> Result<Vec<String>, MirrorError> {
        Ok(missing_objects::table
            .filter(missing_objects::resource.eq(self.0.resource.name))
            .select(missing_objects::object_id)
            .filter(missing_objects::walk.eq(run.walk))
            .filter(missing_objects::state.eq(ABSENT))
            .filter(missing_objects::object_id.gt(after))
            .filter(missing_objects::hold.ne(HELD))
            .order(missing_objects::object_id)
            .limit(limit as i64)
            .load(&mut self.0.connection().await?)
            .await?)
    }
}
