//! Inserts the rows that a table lacks, if it lacks many.

use std::ops::Range;

use diesel::{sql_query, sql_types::Text};
use diesel_async::{AsyncConnection, RunQueryDsl, SimpleAsyncConnection};

use super::{
    app_tables::AppTables,
    error::TableError,
    plan::CountRow,
    state::RunTable,
    statements::{RESTORE_PATH, RESTRICT_PATH},
};
use crate::mirror::{
    Counts, MirrorError, Run, convert::unsigned, locks::LockBudget, transaction, write_failure::WriteFailure,
};

impl AppTables {
    /// Returns the size of the mirror's table in blocks.
    pub async fn count_mirror_blocks(&self) -> Result<u64, MirrorError> {
        let CountRow { count } = sql_query(
            "SELECT pg_catalog.pg_relation_size(CAST($1 AS pg_catalog.regclass))
                 OPERATOR(pg_catalog./) CAST(pg_catalog.current_setting('block_size') AS bigint) AS count",
        )
        .bind::<Text, _>(self.0.resource.table)
        .get_result(&mut self.0.connection().await?)
        .await?;
        Ok(unsigned(count))
    }

    /// Inserts the rows that the objects in these blocks of the mirror's table lack: all of them, or
    /// none if one is refused, and returns their number. `None` if a lock or a trigger takes long. If
    /// the table `was_empty`, a row that exists by now is refused. A comparison finds those that are
    /// still missing.
    pub async fn fill(
        &self,
        run: &Run,
        table: &RunTable,
        was_empty: bool,
        blocks: Range<u64>,
    ) -> Result<Option<u64>, TableError> {
        match self.fill_blocks(run, table, was_empty, blocks).await {
            Ok(rows) => Ok(Some(rows)),
            Err(WriteFailure::OneRow(_)) => Ok(Some(0)),
            Err(WriteFailure::TooLong(_)) => Ok(None),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Whether a table that was empty needs no comparison after `inserted` rows: the mirror has as
    /// many objects for it, so none moved between two blocks that were read one after the other, and
    /// nothing of the application can have changed what was inserted.
    pub async fn is_filled(&self, table: &RunTable, inserted: u64) -> Result<bool, TableError> {
        if self.count(table.projection.count_without_reaction()).await? == 0 {
            return Ok(false);
        }
        let Some(included) = table.projection.count_included() else {
            return Ok(Counts(self.0.clone()).objects().await? == inserted);
        };
        match self.count(included).await {
            // The condition fails for an object.
            Err(TableError::Unusable(_)) => Ok(false),
            objects => Ok(objects? == inserted),
        }
    }

    async fn fill_blocks(
        &self,
        run: &Run,
        table: &RunTable,
        was_empty: bool,
        blocks: Range<u64>,
    ) -> Result<u64, WriteFailure> {
        let mut conn = self.0.connection().await?;
        conn.transaction(async |conn| {
            transaction::begin_for(conn, run.lease(), Some(run.resource), true).await?;
            LockBudget::new().begin(conn).await?;
            conn.batch_execute(&table.projection.lock()).await?;
            conn.batch_execute(RESTRICT_PATH).await?;
            let rows: CountRow = sql_query(table.projection.fill(was_empty))
                .bind::<Text, _>(format!("({},0)", blocks.start))
                .bind::<Text, _>(format!("({},0)", blocks.end))
                .get_result(conn)
                .await?;
            conn.batch_execute(RESTORE_PATH).await?;
            Ok(unsigned(rows.count))
        })
        .await
    }
}
