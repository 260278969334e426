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

/// What became of the rows that the objects of a chunk lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilledChunk {
    /// This many were inserted.
    Inserted(u64),
    /// None was inserted, because one of them cannot be.
    Refused,
    /// None was inserted, because a lock or a trigger takes long.
    TooLong,
}

impl AppTables {
    /// Inserts the rows that the objects of a chunk lack: all or none of them. A comparison finds
    /// those that are still missing.
    pub async fn fill(&self, run: &Run, table: &RunTable, chunk: &Chunk) -> Result<FilledChunk, TableError> {
        match self.fill_chunk(run, table, chunk).await {
            Ok(rows) => Ok(FilledChunk::Inserted(rows)),
            Err(WriteFailure::OneRow(_)) => Ok(FilledChunk::Refused),
            Err(WriteFailure::TooLong(_)) => Ok(FilledChunk::TooLong),
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
