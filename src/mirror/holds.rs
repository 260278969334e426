//! Deletions that are held in `clerk.missing` until a person approves them.

use std::collections::HashMap;

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{Array, BigInt, Nullable, Text, Timestamptz},
};
use diesel_async::{AsyncConnection, RunQueryDsl};

use super::{
    Lease, MirrorError, convert::unsigned, pool::ConnectionPool, session::Session, tables::missing_objects, transaction,
};
use crate::{reconcile::guard::Checksum, resource::Resource};

// Values of the column `hold`.
pub(super) const NO_HOLD: &str = "none";
pub(super) const HELD: &str = "held";
pub(super) const APPROVED: &str = "approved";

/// Whether a deletion was held within the last ten seconds. A time in the future was written before
/// the clock went back.
pub(super) const HELD_LATELY: &str =
    "held_at BETWEEN pg_catalog.clock_timestamp() - interval '10 seconds' AND pg_catalog.clock_timestamp()";

/// The missing objects (`m`) that the guard judges.
const JUDGED: &str = "m.state = 'absent' AND m.hold <> 'approved' AND NOT EXISTS (
    SELECT FROM clerk.rejected r WHERE r.resource = m.resource AND r.object_id = m.object_id AND r.document IS NULL
      AND r.sqlstate IS DISTINCT FROM '55P03')";

#[derive(QueryableByName)]
struct HeldId {
    #[diesel(sql_type = Text)]
    object_id: String,
}

/// Deletions that are held until a person approves them.
#[derive(Debug, Clone)]
pub struct Holds(pub(super) ConnectionPool);

impl Holds {
    /// Returns whether any deletion is held or approved.
    pub async fn any(&self) -> Result<bool, MirrorError> {
        let held = missing_objects::table
            .filter(missing_objects::resource.eq(self.0.resource.name))
            .filter(missing_objects::hold.ne(NO_HOLD));
        Ok(diesel::select(diesel::dsl::exists(held))
            .get_result(&mut self.0.connection().await?)
            .await?)
    }

    /// Returns the number of deletions that wait for a person.
    pub async fn count(&self) -> Result<u64, MirrorError> {
        let count: i64 = missing_objects::table
            .filter(missing_objects::resource.eq(self.0.resource.name))
            .filter(missing_objects::hold.eq(HELD))
            .count()
            .get_result(&mut self.0.connection().await?)
            .await?;
        Ok(unsigned(count))
    }

    /// Returns those of these ids whose deletion has been held for less than ten seconds.
    pub async fn lately_among(&self, ids: &[&str]) -> Result<Vec<String>, MirrorError> {
        let rows: Vec<HeldId> = sql_query(format!(
            "SELECT object_id FROM clerk.missing WHERE resource = $2 AND object_id = ANY($1) AND {HELD_LATELY}"
        ))
        .bind::<Array<Text>, _>(ids)
        .bind::<Text, _>(self.0.resource.name)
        .load(&mut self.0.connection().await?)
        .await?;
        Ok(rows.into_iter().map(|row| row.object_id).collect())
    }

    /// Returns those of these ids whose deletion is held and not approved.
    pub async fn held_among(&self, ids: &[String]) -> Result<Vec<String>, MirrorError> {
        Ok(missing_objects::table
            .filter(missing_objects::resource.eq(self.0.resource.name))
            .filter(missing_objects::object_id.eq_any(ids))
            .filter(missing_objects::hold.eq(HELD))
            .select(missing_objects::object_id)
            .load(&mut self.0.connection().await?)
            .await?)
    }

    /// Returns those of these ids whose deletion is held.
    pub async fn among(&self, ids: &[&str]) -> Result<Vec<String>, MirrorError> {
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

    /// Returns the ids whose deletion is held, and whether a person approved it.
    pub async fn all(&self) -> Result<HashMap<String, bool>, MirrorError> {
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

    /// Returns how many ids the guard has to judge: those that are absent and not approved. Rows
    /// that the application's constraints kept before are known to be gone, and must not hold up
    /// others.
    pub async fn count_judged(&self) -> Result<u64, MirrorError> {
        #[derive(QueryableByName)]
        struct JudgedCount {
            #[diesel(sql_type = BigInt)]
            count: i64,
        }
        let JudgedCount { count } = sql_query(format!(
            "SELECT pg_catalog.count(*) AS count FROM clerk.missing m WHERE m.resource = $1 AND {JUDGED}"
        ))
        .bind::<Text, _>(self.0.resource.name)
        .get_result(&mut self.0.connection().await?)
        .await?;
        Ok(unsigned(count))
    }

    /// Holds every absent id that is not approved. It stays held until a person approves it or
    /// Clerk shows the object again.
    pub async fn hold_judged(&self, lease: &Lease) -> Result<(), MirrorError> {
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
    pub async fn hold(&self, lease: &Lease, ids: &[String]) -> Result<(), MirrorError> {
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

    /// Leaves the missing objects of the organizations to which these ids belong to the deletion of those:
    /// with one that is held, all are held; the others are forgotten.
    pub async fn leave_to_organizations(&self, lease: &Lease, ids: &[String]) -> Result<(), MirrorError> {
        let table = self.0.resource.table;
        let of_these = format!(
            "m.resource = $1 AND m.object_id = t.id
             AND t.organization_id IN (SELECT x.organization_id FROM {table} AS x WHERE x.id = ANY ($2))"
        );
        let hold = format!(
            "UPDATE clerk.missing AS m SET state = 'absent', hold = 'held', held_at = coalesce(m.held_at, pg_catalog.now())
             FROM {table} AS t JOIN clerk.missing AS o ON o.resource = 'organizations' AND o.object_id = t.organization_id
             WHERE {of_these} AND m.hold <> 'approved' AND o.hold = 'held' AND NOT (m.state = 'absent' AND m.hold = 'held')"
        );
        let forget = format!("DELETE FROM clerk.missing AS m USING {table} AS t WHERE {of_these} AND m.hold = 'none'");
        let mut conn = self.0.connection().await?;
        conn.transaction(async |conn| {
            transaction::begin(conn, lease).await?;
            for sql in [hold, forget] {
                sql_query(sql)
                    .bind::<Text, _>(self.0.resource.name)
                    .bind::<Array<Text>, _>(ids)
                    .execute(conn)
                    .await?;
            }
            Ok(())
        })
        .await
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

/// Returns the checksum of the held deletions. Reads the ids in chunks, so that memory stays small
/// even if every deletion is held.
async fn checksum(conn: &mut Session, resource: &Resource) -> QueryResult<Option<String>> {
    let mut checksum = Checksum::default();
    let mut after = String::new();
    loop {
        let rows: Vec<HeldId> = sql_query(
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
