//! `clerk.departures`: rows of the application's tables that are to go although the mirror still
//! has their objects, or never had them. The guard judges them like deletions.

use std::collections::HashSet;

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{Array, BigInt, Bool, Nullable, Text},
};
use diesel_async::{AsyncConnection, RunQueryDsl, SimpleAsyncConnection};

use super::{
    app_tables::AppTables,
    counts::RowCounts,
    error::TableError,
    excluded,
    plan::{CountRow, KeyRow},
    rejected_rows,
    state::RunTable,
    statements::{Projection, RESTORE_PATH, RESTRICT_PATH},
};
use crate::{
    mirror::{
        MirrorError, Run,
        convert::{signed, unsigned},
        session::Session,
        transaction,
    },
    reconcile::guard::Checksum,
};

/// Counts those of these departures that a person has approved.
async fn count_approved(conn: &mut Session, projection: &Projection, ids: &[&str]) -> QueryResult<u64> {
    let row: CountRow = sql_query(
        "SELECT pg_catalog.count(*) AS count FROM clerk.departures
         WHERE table_name = $1 AND object_id = ANY ($2) AND hold = 'approved'",
    )
    .bind::<Text, _>(&projection.name)
    .bind::<Array<Text>, _>(ids)
    .get_result(conn)
    .await?;
    Ok(unsigned(row.count))
}

/// Counts rows that were removed without approval: the guard judges those of the last hour together
/// with new ones.
async fn count_removals(conn: &mut Session, projection: &Projection, rows: u64) -> QueryResult<()> {
    if rows > 0 {
        sql_query("INSERT INTO clerk.recent_deletions (resource, objects) VALUES ($1, $2)")
            .bind::<Text, _>(&projection.name)
            .bind::<BigInt, _>(signed(rows))
            .execute(conn)
            .await?;
    }
    Ok(())
}

/// Notes that the rows of deleted objects are to go from these tables, if they have any. The
/// deletions were confirmed by answers that Clerk gave long enough after the objects were seen.
pub(super) async fn note_deleted(conn: &mut Session, tables: &[&str], ids: &[&str]) -> QueryResult<()> {
    if !tables.is_empty() {
        sql_query(
            "INSERT INTO clerk.departures (table_name, object_id, reason, found_at)
             SELECT t.name, o.id, 'unknown', pg_catalog.now() - interval '11 seconds'
             FROM pg_catalog.unnest($1) AS t(name), pg_catalog.unnest($2) AS o(id)
             ON CONFLICT (table_name, object_id) DO NOTHING",
        )
        .bind::<Array<Text>, _>(tables)
        .bind::<Array<Text>, _>(ids)
        .execute(conn)
        .await?;
    }
    Ok(())
}

/// Why the row of an object is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DepartureReason {
    /// Neither the mirror nor Clerk knows the id.
    Unknown,
    /// The mapping's condition excludes the object.
    Excluded,
}

impl DepartureReason {
    fn name(self) -> &'static str {
        match self {
            DepartureReason::Unknown => "unknown",
            DepartureReason::Excluded => "excluded",
        }
    }
}

/// How rows of a table that are to go are held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldDepartures {
    /// How many rows wait for a person.
    pub count: u64,
    /// Their checksum.
    pub checksum: String,
}

impl AppTables {
    /// Removes the rows of these objects, as the mapping says, and lists those that cannot be
    /// removed. Objects that are to have a row by now keep it.
    pub async fn remove(&self, run: &Run, table: &RunTable, ids: &[String]) -> Result<RowCounts, TableError> {
        let projection = &table.projection;
        let mut conn = self.0.connection().await?;
        conn.transaction(async |conn| {
            transaction::begin_for(conn, run.lease(), Some(run.resource), false).await?;
            let belonging = projection.keys(conn, &projection.belonging(ids), ids).await?;
            let (kept, ids): (Vec<&str>, Vec<&str>) = ids
                .iter()
                .map(String::as_str)
                .partition(|id| belonging.iter().any(|kept| kept == id));
            excluded::forget(conn, projection, &kept, &[]).await?;
            rejected_rows::replace(conn, run.id, projection, &kept, &[]).await?;
            let approved = count_approved(conn, projection, &ids).await?;
            let counts = projection.remove_all(conn, run.id, &ids).await?;
            count_removals(conn, projection, counts.removed.saturating_sub(approved)).await?;
            Ok(counts)
        })
        .await
    }

    /// Notes rows whose ids neither the mirror nor Clerk knows.
    pub async fn note_unknown(&self, run: &Run, table: &RunTable, ids: &[String]) -> Result<(), MirrorError> {
        let mut conn = self.0.connection().await?;
        conn.transaction(async |conn| {
            transaction::begin(conn, run.lease()).await?;
            sql_query(
                "INSERT INTO clerk.departures AS d (table_name, object_id, reason)
                 SELECT $1, id, 'unknown' FROM pg_catalog.unnest($2) AS id
                 ON CONFLICT (table_name, object_id) DO UPDATE SET reason = 'unknown' WHERE d.reason <> 'unknown'",
            )
            .bind::<Text, _>(table.name())
            .bind::<Array<Text>, _>(ids)
            .execute(conn)
            .await?;
            Ok(())
        })
        .await
    }

    /// Releases the unknown rows whose objects are in the mirror by now.
    pub async fn release_known(&self, run: &Run, table: &RunTable) -> Result<(), TableError> {
        let sql = format!(
            "DELETE FROM clerk.departures AS g WHERE g.table_name = $1 AND g.object_id IN ({})",
            table.projection.known_departures()
        );
        let mut conn = self.0.connection().await?;
        conn.transaction(async |conn| {
            transaction::begin(conn, run.lease()).await?;
            conn.batch_execute(RESTRICT_PATH).await?;
            sql_query(sql).bind::<Text, _>(table.name()).execute(conn).await?;
            Ok(conn.batch_execute(RESTORE_PATH).await?)
        })
        .await
    }

    /// Releases the rows that are not there any more, or already are what a removed row becomes: the
    /// application removed them itself.
    pub async fn release_removed(&self, run: &Run, table: &RunTable) -> Result<(), TableError> {
        let mut after = String::new();
        loop {
            let rows: Vec<KeyRow> = sql_query(
                "SELECT object_id AS key FROM clerk.departures WHERE table_name = $1 AND object_id > $2
                 ORDER BY object_id LIMIT 10000",
            )
            .bind::<Text, _>(table.name())
            .bind::<Text, _>(&after)
            .load(&mut self.0.connection().await?)
            .await?;
            let ids: Vec<String> = rows.into_iter().map(|row| row.key).collect();
            let Some(last) = ids.last() else { return Ok(()) };
            after.clone_from(last);
            let remaining: HashSet<String> = self.with_rows(table, &ids).await?.into_iter().collect();
            let removed: Vec<&str> = ids
                .iter()
                .map(String::as_str)
                .filter(|id| !remaining.contains(*id))
                .collect();
            let mut conn = self.0.connection().await?;
            conn.transaction(async |conn| {
                transaction::begin(conn, run.lease()).await?;
                Ok::<_, TableError>(excluded::forget(conn, &table.projection, &removed, &[]).await?)
            })
            .await?;
        }
    }

    /// Returns how many rows of a table are to go, and are neither held nor approved.
    pub async fn count_departures(&self, table: &RunTable) -> Result<u64, MirrorError> {
        let row: CountRow = sql_query(
            "SELECT pg_catalog.count(*) AS count FROM clerk.departures WHERE table_name = $1 AND hold = 'none'",
        )
        .bind::<Text, _>(table.name())
        .get_result(&mut self.0.connection().await?)
        .await?;
        Ok(unsigned(row.count))
    }

    /// Returns how many rows of a table were removed within the last hour without approval.
    pub async fn removed_lately(&self, table: &RunTable) -> Result<u64, MirrorError> {
        let row: CountRow = sql_query(
            "SELECT coalesce(pg_catalog.sum(objects), 0::numeric)::bigint AS count FROM clerk.recent_deletions
             WHERE resource = $1 AND deleted_at > pg_catalog.now() - interval '1 hour'",
        )
        .bind::<Text, _>(table.name())
        .get_result(&mut self.0.connection().await?)
        .await?;
        Ok(unsigned(row.count))
    }

    /// Holds the rows that are to go and are not approved.
    pub async fn hold_departures(&self, run: &Run, table: &RunTable) -> Result<(), MirrorError> {
        let mut conn = self.0.connection().await?;
        conn.transaction(async |conn| {
            transaction::begin(conn, run.lease()).await?;
            sql_query(
                "UPDATE clerk.departures SET hold = 'held', held_at = pg_catalog.now()
                 WHERE table_name = $1 AND hold = 'none'",
            )
            .bind::<Text, _>(table.name())
            .execute(conn)
            .await?;
            Ok(())
        })
        .await
    }

    /// Returns the next rows of a table, in order, after `after`, that may go: those that are
    /// approved, and those that are not held.
    ///
    /// A row with an unknown id must have been found ten seconds ago: the application may have
    /// made it for a user that a lagging replica at Clerk does not know yet. A time in the future
    /// was written before the clock went back.
    pub async fn departing(
        &self,
        table: &RunTable,
        reason: DepartureReason,
        after: &str,
        limit: usize,
    ) -> Result<Vec<String>, MirrorError> {
        let rows: Vec<KeyRow> = sql_query(
            "SELECT object_id AS key FROM clerk.departures
             WHERE table_name = $1 AND reason = $2 AND hold <> 'held' AND object_id > $3
               AND (reason <> 'unknown' OR found_at NOT BETWEEN pg_catalog.now() - interval '10 seconds' AND pg_catalog.now())
             ORDER BY object_id LIMIT $4",
        )
        .bind::<Text, _>(table.name())
        .bind::<Text, _>(reason.name())
        .bind::<Text, _>(after)
        .bind::<BigInt, _>(limit as i64)
        .load(&mut self.0.connection().await?)
        .await?;
        Ok(rows.into_iter().map(|row| row.key).collect())
    }

    /// Returns the rows of a table that wait for a person; `None` if there are none.
    pub async fn held_departures(&self, table: &str) -> Result<Option<HeldDepartures>, MirrorError> {
        let mut conn = self.0.connection().await?;
        Ok(held(&mut conn, table).await?)
    }

    /// Approves what is held of the application's tables and has this checksum: rows that are to
    /// go, or a mapping. Returns the table and the number of rows; `None` if nothing held has it.
    pub async fn approve(&self, sum: &str) -> Result<Option<(String, u64)>, MirrorError> {
        let mut conn = self.0.connection().await?;
        conn.transaction(async |conn| {
            sql_query("LOCK TABLE clerk.departures, clerk.projections IN SHARE ROW EXCLUSIVE MODE")
                .execute(conn)
                .await?;
            let tables: Vec<HeldTable> = sql_query(
                "SELECT table_name, held_mapping, coalesce(held_changes, 0::bigint) AS held_changes, hold = 'held' AS is_held
                 FROM clerk.projections",
            )
            .load(conn)
            .await?;
            for table in tables {
                let name = &table.table_name;
                let mapping = table.held_mapping.as_deref().filter(|_| table.is_held);
                if mapping.is_some_and(|digest| mapping_checksum(name, digest) == sum) {
                    sql_query(
                        "UPDATE clerk.projections SET hold = 'approved', approved_at = pg_catalog.now() WHERE table_name = $1",
                    )
                    .bind::<Text, _>(name)
                    .execute(conn)
                    .await?;
                    wake(conn).await?;
                    return Ok(Some((name.clone(), unsigned(table.held_changes))));
                }
                let Some(rows) = held(conn, name).await?.filter(|held| held.checksum == sum) else {
                    continue;
                };
                sql_query(
                    "UPDATE clerk.departures SET hold = 'approved', approved_at = pg_catalog.now()
                     WHERE table_name = $1 AND hold = 'held'",
                )
                .bind::<Text, _>(name)
                .execute(conn)
                .await?;
                wake(conn).await?;
                return Ok(Some((name.clone(), rows.count)));
            }
            Ok(None)
        })
        .await
        .map_err(|error: diesel::result::Error| error.into())
    }
}

#[derive(QueryableByName)]
struct HeldTable {
    #[diesel(sql_type = Text)]
    table_name: String,
    #[diesel(sql_type = Nullable<Text>)]
    held_mapping: Option<String>,
    #[diesel(sql_type = BigInt)]
    held_changes: i64,
    #[diesel(sql_type = Bool)]
    is_held: bool,
}

/// Lets a daemon act at once instead of waiting for its schedule.
async fn wake(conn: &mut Session) -> QueryResult<()> {
    sql_query("NOTIFY clerk2pg, 'full'").execute(conn).await?;
    Ok(())
}

/// The checksum with which a person approves a mapping.
pub fn mapping_checksum(table: &str, digest: &str) -> String {
    let mut checksum = Checksum::default();
    checksum.add(table);
    checksum.add(digest);
    checksum.finish().unwrap_or_default()
}

/// The checksum with which a person approves rows of a table that are to go; `None` if there are
/// none. The ids are in byte order.
pub fn departures_checksum<'i>(table: &str, ids: impl IntoIterator<Item = &'i String>) -> Option<String> {
    let mut checksum = Checksum::default();
    checksum.add(table);
    let mut any = false;
    for id in ids {
        checksum.add(id);
        any = true;
    }
    checksum.finish().filter(|_| any)
}

/// Returns the rows of a table that wait for a person. Reads the ids in chunks, so that memory
/// stays small even if every row is held.
async fn held(conn: &mut Session, table: &str) -> QueryResult<Option<HeldDepartures>> {
    let mut checksum = Checksum::default();
    checksum.add(table);
    let mut after = String::new();
    let mut count = 0;
    loop {
        let rows: Vec<KeyRow> = sql_query(
            "SELECT object_id AS key FROM clerk.departures
             WHERE table_name = $1 AND hold = 'held' AND object_id COLLATE \"C\" > $2
             ORDER BY object_id COLLATE \"C\" LIMIT 10000",
        )
        .bind::<Text, _>(table)
        .bind::<Text, _>(&after)
        .load(conn)
        .await?;
        let Some(last) = rows.last() else { break };
        rows.iter().for_each(|row| checksum.add(&row.key));
        count += rows.len() as u64;
        after.clone_from(&last.key);
    }
    let checksum = checksum.finish().filter(|_| count > 0);
    Ok(checksum.map(|checksum| HeldDepartures { count, checksum }))
}
