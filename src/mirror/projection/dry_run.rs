//! What a dry run reads of the application's tables. Nothing here writes.

use std::collections::HashMap;

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{Bool, Text},
};
use diesel_async::{AsyncConnection, RunQueryDsl, SimpleAsyncConnection};

use super::{
    app_tables::AppTables,
    error::TableError,
    excluded::can_exclude,
    plan::{KeyRow, PlanRow, PlannedRow, RowChange, TableDifferences},
    records,
    state::{RunTable, RunTables},
    statements::{READ_ONLY, RESTORE_PATH, RESTRICT_PATH, Scope},
};
use crate::mirror::{MirrorError, Write, locks::LockBudget, session::Session, write_failure::WriteFailure};

impl AppTables {
    /// Reads the shapes of the mapped tables and the states of the mappings, for a dry run.
    /// `has_schema` says whether there is a mirror.
    pub async fn look_at(&self, has_schema: bool) -> Result<RunTables, MirrorError> {
        let mut conn = self.0.connection().await?;
        conn.transaction(async |conn| {
            conn.batch_execute(READ_ONLY).await?;
            let columns = (!has_schema).then(|| records::columns(self.0.resource));
            RunTables::look_at(conn, self.0.own_mappings(), columns).await
        })
        .await
    }

    /// Returns what is to be done with the rows of objects that are not written yet. If an
    /// expression fails for one of them, the others are read without it.
    pub async fn plan_records(&self, table: &RunTable, writes: &[&Write<'_>]) -> Result<TableDifferences, TableError> {
        let mut conn = self.0.connection().await?;
        let mut all = TableDifferences::default();
        let mut parts = vec![writes];
        while let Some(part) = parts.pop() {
            let read = conn.transaction(async |conn| {
                conn.batch_execute(READ_ONLY).await?;
                LockBudget::new().begin(conn).await?;
                Ok::<_, WriteFailure>(differences(conn, table, part).await?)
            });
            match (read.await, part) {
                (Ok(differences), _) => all.add(differences),
                (Err(WriteFailure::OneRow(fault)), [only]) => {
                    all.rows.push(PlannedRow {
                        id: only.record.id.to_string(),
                        change: RowChange::Fails(MirrorError::from(fault).to_string()),
                    });
                }
                (Err(WriteFailure::OneRow(_)), part) if !part.is_empty() => {
                    let (left, right) = part.split_at(part.len() / 2);
                    parts.extend([right, left]);
                }
                (Err(failure), _) => return Err(failure.into()),
            }
        }
        Ok(all)
    }

    /// Returns which of these keys have a row that would be removed with its object.
    pub async fn with_rows(&self, table: &RunTable, ids: &[String]) -> Result<Vec<String>, TableError> {
        let mut conn = self.0.connection().await?;
        conn.transaction(async |conn| {
            conn.batch_execute(READ_ONLY).await?;
            LockBudget::new().begin(conn).await?;
            Ok(table.projection.keys(conn, &table.projection.remaining(), ids).await?)
        })
        .await
    }

    /// Returns the rows of a table that were to go, and were held when the last sync ended: whether a
    /// person approved them, by their ids.
    pub async fn departure_holds(&self, table: &RunTable) -> Result<HashMap<String, bool>, MirrorError> {
        #[derive(QueryableByName)]
        struct HoldRow {
            #[diesel(sql_type = Text)]
            object_id: String,
            #[diesel(sql_type = Bool)]
            is_approved: bool,
        }
        let rows: Vec<HoldRow> = sql_query(
            "SELECT object_id, hold = 'approved' AS is_approved FROM clerk.departures
             WHERE table_name = $1 AND hold <> 'none'",
        )
        .bind::<Text, _>(table.name())
        .load(&mut self.0.connection().await?)
        .await?;
        Ok(rows.into_iter().map(|row| (row.object_id, row.is_approved)).collect())
    }
}

/// Reads the differences of objects that are not written yet.
async fn differences(conn: &mut Session, table: &RunTable, writes: &[&Write<'_>]) -> QueryResult<TableDifferences> {
    let records = records::json(writes);
    conn.batch_execute(RESTRICT_PATH).await?;
    let rows: Vec<PlanRow> = sql_query(table.projection.plan(Scope::Records))
        .bind::<Text, _>(&records)
        .load(conn)
        .await?;
    let excluded: Vec<KeyRow> = match can_exclude(&table.projection) {
        true => {
            sql_query(table.projection.excluded(Scope::Records))
                .bind::<Text, _>(&records)
                .load(conn)
                .await?
        }
        false => Vec::new(),
    };
    conn.batch_execute(RESTORE_PATH).await?;
    Ok(TableDifferences {
        rows: rows.into_iter().map(PlannedRow::from).collect(),
        excluded: excluded.into_iter().map(|row| row.key).collect(),
    })
}
