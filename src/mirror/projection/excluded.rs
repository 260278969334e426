//! Notes which rows are to go because the mapping's condition excludes their objects.

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{Array, Text},
};
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};

use super::{
    mapping::RowRemoval,
    rejected_rows::RejectedRow,
    statements::{Projection, RESTORE_PATH, RESTRICT_PATH, Scope},
};
use crate::mirror::session::Session;

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
