//! Notes which rows are to go because the mapping's condition excludes their objects.

use std::collections::HashSet;

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{Array, BigInt, Text},
};
use diesel_async::{AsyncConnection, RunQueryDsl, SimpleAsyncConnection};

use super::{
    app_tables::AppTables,
    error::TableError,
    mapping::RowRemoval,
    plan::KeyRow,
    rejected_rows::RejectedRow,
    scan::scan_ids,
    state::RunTable,
    statements::{Projection, RESTORE_PATH, RESTRICT_PATH, Scope},
};
use crate::mirror::{MirrorError, Run, session::Session, transaction};

/// Departures that are looked at in one statement.
const RELEASED: i64 = 5_000;

/// Whether the mapping's condition can exclude an object whose row is then to go.
pub(super) fn can_exclude(projection: &Projection) -> bool {
    projection.mapping.condition.is_some() && projection.mapping.delete != RowRemoval::Keep
}

/// Notes which of these objects the mapping's condition excludes although they have a row, and
/// releases those that it does not exclude any more.
///
/// Objects whose rows are rejected are left as they are: the condition may fail for them.
pub(super) async fn note(
    conn: &mut Session,
    projection: &Projection,
    ids: &[&str],
    rejected: &[RejectedRow],
) -> QueryResult<()> {
    let mut ids = ids.to_vec();
    ids.retain(|id| !rejected.iter().any(|row| row.id == **id));
    if ids.is_empty() || !can_exclude(projection) {
        return Ok(());
    }
    conn.batch_execute(RESTRICT_PATH).await?;
    let sql = format!(
        "WITH excluded AS MATERIALIZED ({}),
         released AS (DELETE FROM clerk.departures AS d
             WHERE d.table_name = $2 AND d.object_id = ANY ($1) AND NOT EXISTS (SELECT FROM excluded AS e WHERE e.key = d.object_id))
         INSERT INTO clerk.departures (table_name, object_id, reason) SELECT $2, e.key, 'excluded' FROM excluded AS e
         ON CONFLICT (table_name, object_id) DO NOTHING",
        projection.excluded(Scope::Ids)
    );
    sql_query(sql)
        .bind::<Array<Text>, _>(ids)
        .bind::<Text, _>(&projection.name)
        .execute(conn)
        .await?;
    conn.batch_execute(RESTORE_PATH).await
}

/// Forgets departures that are settled: all of `ids` but those in `kept`.
pub(super) async fn forget(
    conn: &mut Session,
    projection: &Projection,
    ids: &[&str],
    kept: &[&str],
) -> QueryResult<()> {
    sql_query("DELETE FROM clerk.departures WHERE table_name = $1 AND object_id = ANY ($2) AND object_id <> ALL ($3)")
        .bind::<Text, _>(&projection.name)
        .bind::<Array<Text>, _>(ids)
        .bind::<Array<Text>, _>(kept)
        .execute(conn)
        .await?;
    Ok(())
}

impl AppTables {
    /// Notes that the rows of these objects are to go because the mapping's condition excludes them.
    pub async fn note_excluded(&self, run: &Run, table: &RunTable, ids: &[String]) -> Result<(), MirrorError> {
        if ids.is_empty() {
            return Ok(());
        }
        let mut conn = self.0.connection().await?;
        conn.transaction(async |conn| {
            transaction::begin(conn, run.lease()).await?;
            sql_query(
                "INSERT INTO clerk.departures (table_name, object_id, reason)
                 SELECT $1, id, 'excluded' FROM pg_catalog.unnest($2) AS id
                 ON CONFLICT (table_name, object_id) DO NOTHING",
            )
            .bind::<Text, _>(table.name())
            .bind::<Array<Text>, _>(ids)
            .execute(conn)
            .await?;
            Ok(())
        })
        .await
    }

    /// Releases the rows that were to go, and that the mapping's condition does not exclude any more.
    pub async fn release_included(&self, run: &Run, table: &RunTable) -> Result<(), TableError> {
        let mut conn = self.0.connection().await?;
        let mut after = String::new();
        loop {
            let noted: Vec<KeyRow> = sql_query(
                "SELECT object_id AS key FROM clerk.departures
                 WHERE table_name = $1 AND reason = 'excluded' AND object_id > $2 ORDER BY object_id LIMIT $3",
            )
            .bind::<Text, _>(table.name())
            .bind::<Text, _>(&after)
            .bind::<BigInt, _>(RELEASED)
            .load(&mut conn)
            .await?;
            let noted: Vec<String> = noted.into_iter().map(|row| row.key).collect();
            let Some(last) = noted.last() else { return Ok(()) };
            after.clone_from(last);
            let excluded = scan_ids::<KeyRow>(&mut conn, noted.clone(), &table.projection.excluded(Scope::Ids)).await?;
            let excluded: HashSet<String> = excluded.rows.into_iter().map(|row| row.key).collect();
            let included: Vec<&str> = noted
                .iter()
                .map(String::as_str)
                .filter(|id| !excluded.contains(*id))
                .collect();
            if !included.is_empty() {
                conn.transaction(async |conn| {
                    transaction::begin(conn, run.lease()).await?;
                    Ok::<_, MirrorError>(forget(conn, &table.projection, &included, &[]).await?)
                })
                .await?;
            }
        }
    }
}
