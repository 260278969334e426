//! `clerk.missing`: objects that a sync did not meet, Clerk's answers about them, and deletions
//! that are held.

use std::collections::HashMap;

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{Array, BigInt, Nullable, Text, Timestamptz},
};
use diesel_async::{AsyncConnection, RunQueryDsl};

use super::{
    Lease, MirrorError, Run, SyncKind, convert::unsigned, counts, pool::ConnectionPool, progress, session::Session,
    tables::missing_objects, transaction,
};
use crate::{reconcile::guard::Checksum, resource::Resource};

// Values of the columns `state` and `hold`, as far as queries below need them.
const MISSING: &str = "missing";
const ABSENT: &str = "absent";
const NO_HOLD: &str = "none";
const HELD: &str = "held";
pub(super) const APPROVED: &str = "approved";

#[derive(QueryableByName)]
struct IdRow {
    #[diesel(sql_type = Text)]
    object_id: String,
}

#[derive(QueryableByName)]
struct IdCount {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// Lists missing users. A full sync asks again for all users that it missed. Other syncs leave out
/// users that are known to be gone: those that are held, and those whose rows the application kept.
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

/// Whether a deletion was held within the last ten seconds. A time in the future was written before
/// the clock went back.
const HELD_LATELY: &str =
    "held_at BETWEEN pg_catalog.clock_timestamp() - interval '10 seconds' AND pg_catalog.clock_timestamp()";

/// Forgets ids that Clerk shows. A lagging replica may still show a user whose deletion has been
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

/// Users that a sync did not meet, and what becomes of their rows.
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
            progress::advance(conn, run.resource, 0, watermark, None).await?;
            Ok(())
        })
        .await
    }

    /// Returns the next ids that the sync missed, in order, after `after`.
    pub async fn next(&self, run: &Run, after: &str, limit: usize) -> Result<Vec<String>, MirrorError> {
        Ok(missing_objects::table
            .filter(missing_objects::resource.eq(self.0.resource.name))
            .select(missing_objects::object_id)
            .filter(
                missing_objects::walk
                    .eq(run.walk)
                    .and(missing_objects::object_id.gt(after)),
            )
            .order(missing_objects::object_id)
            .limit(limit as i64)
            .load(&mut self.0.connection().await?)
            .await?)
    }

    /// Returns whether any deletion is held or approved.
    pub async fn any_held(&self) -> Result<bool, MirrorError> {
        let held = missing_objects::table
            .filter(missing_objects::resource.eq(self.0.resource.name))
            .filter(missing_objects::hold.ne(NO_HOLD));
        Ok(diesel::select(diesel::dsl::exists(held))
            .get_result(&mut self.0.connection().await?)
            .await?)
    }

    /// Returns the number of deletions that wait for a person.
    pub async fn count_held(&self) -> Result<u64, MirrorError> {
        let count: i64 = missing_objects::table
            .filter(missing_objects::resource.eq(self.0.resource.name))
            .filter(missing_objects::hold.eq(HELD))
            .count()
            .get_result(&mut self.0.connection().await?)
            .await?;
        Ok(unsigned(count))
    }

    /// Returns those of these ids whose deletion has been held for less than ten seconds.
    pub async fn held_lately_among(&self, ids: &[&str]) -> Result<Vec<String>, MirrorError> {
        let rows: Vec<IdRow> = sql_query(format!(
            "SELECT object_id FROM clerk.missing WHERE resource = $2 AND object_id = ANY($1) AND {HELD_LATELY}"
        ))
        .bind::<Array<Text>, _>(ids)
        .bind::<Text, _>(self.0.resource.name)
        .load(&mut self.0.connection().await?)
        .await?;
        Ok(rows.into_iter().map(|row| row.object_id).collect())
    }

    /// Returns those of these ids whose deletion is held.
    pub async fn held_among(&self, ids: &[&str]) -> Result<Vec<String>, MirrorError> {
        Ok(missing_objects::table
            .filter(missing_objects::resource.eq(self.0.resource.name))
            .select(missing_objects::object_id)
            .filter(
                missing_objects::object_id
                    .eq_any(ids)
                    .and(missing_objects::hold.ne(NO_HOLD)),
            )
            .load(&mut self.0.connection().await?)
            .await?)
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

    /// Returns how many ids the guard has to judge: those that are absent and not approved. Rows
    /// that the application's constraints kept before are known to be gone, and must not hold up
    /// others.
    pub async fn count_absent(&self) -> Result<u64, MirrorError> {
        let IdCount { count } = sql_query(format!(
            "SELECT pg_catalog.count(*) AS count FROM clerk.missing m WHERE m.resource = $1 AND {JUDGED}"
        ))
        .bind::<Text, _>(self.0.resource.name)
        .get_result(&mut self.0.connection().await?)
        .await?;
        Ok(unsigned(count))
    }

    /// Returns how many rows were deleted within the last hour without a person's approval.
    pub async fn deleted_lately(&self) -> Result<u64, MirrorError> {
        let IdCount { count } = sql_query(
            "SELECT coalesce(pg_catalog.sum(objects), 0::numeric)::bigint AS count FROM clerk.recent_deletions
             WHERE resource = $1 AND deleted_at > pg_catalog.now() - interval '1 hour'",
        )
        .bind::<Text, _>(self.0.resource.name)
        .get_result(&mut self.0.connection().await?)
        .await?;
        Ok(unsigned(count))
    }

    /// Holds every absent id that is not approved. It stays held until a person approves it or
    /// Clerk shows the user again.
    pub async fn hold(&self, lease: &Lease) -> Result<(), MirrorError> {
        let mut conn = self.0.connection().await?;
        conn.transaction(async |conn| {
            transaction::begin(conn, lease).await?;
            sql_query(format!(
                "UPDATE clerk.missing m SET hold = 'held', held_at = pg_catalog.now()
                 WHERE m.resource = $1 AND m.hold = 'none' AND {JUDGED}"
            ))
            .bind::<Text, _>(self.0.resource.name)
            .execute(conn)
            .await?;
            Ok(())
        })
        .await
    }

    /// Holds those of these absent ids that are not held or approved.
    pub async fn hold_these(&self, lease: &Lease, ids: &[String]) -> Result<(), MirrorError> {
        let mut conn = self.0.connection().await?;
        conn.transaction(async |conn| {
            transaction::begin(conn, lease).await?;
            diesel::update(
                missing_objects::table
                    .filter(missing_objects::resource.eq(self.0.resource.name))
                    .filter(missing_objects::object_id.eq_any(ids))
                    .filter(missing_objects::hold.eq(NO_HOLD)),
            )
            .set((
                missing_objects::hold.eq(HELD),
                missing_objects::held_at.eq(diesel::dsl::now.into_sql::<Nullable<Timestamptz>>()),
            ))
            .execute(conn)
            .await?;
            Ok(())
        })
        .await
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

    /// Returns the ids whose deletion is held, and whether a person approved it.
    pub async fn held(&self) -> Result<HashMap<String, bool>, MirrorError> {
        let rows: Vec<(String, bool)> = missing_objects::table
            .filter(missing_objects::resource.eq(self.0.resource.name))
            .select((missing_objects::object_id, missing_objects::hold.eq(APPROVED)))
            .filter(missing_objects::hold.ne(NO_HOLD))
            .load(&mut self.0.connection().await?)
            .await?;
        Ok(rows.into_iter().collect())
    }

    /// Returns ids whose deletion a person approved and that are not deleted yet.
    pub async fn approved(&self, limit: usize) -> Result<Vec<String>, MirrorError> {
        Ok(missing_objects::table
            .filter(missing_objects::resource.eq(self.0.resource.name))
            .select(missing_objects::object_id)
            .filter(missing_objects::hold.eq(APPROVED))
            .order(missing_objects::object_id)
            .limit(limit as i64)
            .load(&mut self.0.connection().await?)
            .await?)
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

    /// Returns the checksum of the deletions that wait for a person; `None` if there are none.
    pub async fn checksum(&self) -> Result<Option<String>, MirrorError> {
        let conn = &mut self.0.connection().await?;
        checksum(conn, self.0.resource).await.map_err(MirrorError::from)
    }

    /// Approves the deletions with this checksum, once, and returns their number; `None` if the
    /// held deletions have another checksum, or none are held.
    pub async fn approve(&self, sum: &str) -> Result<Option<u64>, MirrorError> {
        let mut conn = self.0.connection().await?;
        conn.transaction(async |conn| {
            // The set must not change between the checksum and the approval.
            sql_query("LOCK TABLE clerk.missing IN SHARE ROW EXCLUSIVE MODE")
                .execute(conn)
                .await?;
            if checksum(conn, self.0.resource).await?.as_deref() != Some(sum) {
                return Ok(None);
            }
            let rows = diesel::update(
                missing_objects::table
                    .filter(missing_objects::resource.eq(self.0.resource.name))
                    .filter(missing_objects::hold.eq(HELD)),
            )
            .set((
                missing_objects::hold.eq(APPROVED),
                missing_objects::approved_at.eq(diesel::dsl::now.into_sql::<Nullable<Timestamptz>>()),
            ))
            .execute(conn)
            .await?;
            // A daemon acts at once instead of waiting for its schedule.
            sql_query("NOTIFY clerk2pg, 'full'").execute(conn).await?;
            Ok(Some(rows as u64))
        })
        .await
        .map_err(|error: diesel::result::Error| error.into())
    }
}

/// The missing users (`m`) that the guard judges.
const JUDGED: &str = "m.state = 'absent' AND m.hold <> 'approved' AND NOT EXISTS (
    SELECT FROM clerk.rejected r WHERE r.resource = m.resource AND r.object_id = m.object_id AND r.document IS NULL
      AND r.sqlstate IS DISTINCT FROM '55P03')";

/// Returns the checksum of the held deletions. Reads the ids in chunks, so that memory stays small
/// even if every deletion is held.
async fn checksum(conn: &mut Session, resource: &Resource) -> QueryResult<Option<String>> {
    let mut checksum = Checksum::default();
    let mut after = String::new();
    loop {
        let rows: Vec<IdRow> = sql_query(
            "SELECT object_id FROM clerk.missing
             WHERE resource = $2 AND hold = 'held' AND object_id COLLATE \"C\" > $1
             ORDER BY object_id COLLATE \"C\" LIMIT 10000",
        )
        .bind::<Text, _>(&after)
        .bind::<Text, _>(resource.name)
        .load(conn)
        .await?;
        let Some(last) = rows.last() else {
            return Ok(checksum.finish());
        };
        rows.iter().for_each(|row| checksum.add(&row.object_id));
        after.clone_from(&last.object_id);
    }
}
