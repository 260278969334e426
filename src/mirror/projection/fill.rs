//! Inserts the rows that a table lacks, if it lacks many.

use diesel::{sql_query, sql_types::Text};
use diesel_async::{AsyncConnection, RunQueryDsl, SimpleAsyncConnection};

use super::{
    compare::AppTables,
    error::TableError,
    plan::CountRow,
    scan::Chunk,
    state::RunTable,
    statements::{RESTORE_PATH, RESTRICT_PATH},
};
use crate::mirror::{Run, convert::unsigned, locks::LockBudget, transaction, write_failure::WriteFailure};

impl AppTables {
    /// Whether the rows that a table lacks can be inserted without a plan: none of them is linked.
    pub async fn can_fill(&self, table: &RunTable) -> Result<bool, TableError> {
        Ok(table.projection.mapping.link.is_none() || self.is_empty(table).await?)
    }

    /// Inserts the rows that the objects of a chunk lack, and returns their number. If one cannot be
    /// inserted, none is: a comparison finds them. `None` means that a lock or a trigger takes long.
    pub async fn fill(&self, run: &Run, table: &RunTable, chunk: &Chunk) -> Result<Option<u64>, TableError> {
        match self.fill_chunk(run, table, chunk).await {
            Ok(rows) => Ok(Some(rows)),
            Err(WriteFailure::OneRow(_)) => Ok(Some(0)),
            Err(WriteFailure::TooLong(_)) => Ok(None),
            Err(failure) => Err(failure.into()),
        }
    }

    async fn fill_chunk(&self, run: &Run, table: &RunTable, chunk: &Chunk) -> Result<u64, WriteFailure> {
        let mut conn = self.0.connection().await?;
        conn.transaction(async |conn| {
            transaction::begin_for(conn, run.lease(), Some(run.resource), true).await?;
            LockBudget::new().begin(conn).await?;
            conn.batch_execute(&table.projection.lock()).await?;
            conn.batch_execute(RESTRICT_PATH).await?;
            let rows: CountRow = sql_query(table.projection.fill())
                .bind::<Text, _>(&chunk.after)
                .bind::<Text, _>(&chunk.through)
                .get_result(conn)
                .await?;
            conn.batch_execute(RESTORE_PATH).await?;
            Ok(unsigned(rows.count))
        })
        .await
    }
}
