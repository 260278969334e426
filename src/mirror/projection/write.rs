//! Writes and removes rows of one table: together, and if that fails, behind savepoints.

use std::collections::HashSet;

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{Array, Text},
};
use diesel_async::{AsyncConnection, RunQueryDsl, SimpleAsyncConnection};
use tracing::debug;

use super::{
    counts::RowCounts,
    excluded,
    mapping::{RowRemoval, TableMapping},
    plan::{KeyRow, PlanRow, PlannedRow, RowChange},
    rejected_rows::{self, RejectedRow, RowAction},
    statements::{Projection, RESTORE_PATH, RESTRICT_PATH, Scope},
};
use crate::mirror::{
    MirrorError,
    exchange::{self, ExchangeTarget},
    isolation::{self, Isolated, Refused, RowWriter},
    locks::{self, LockBudget, LockStrength, USUAL_WAIT, wait_at_most},
    session::Session,
    write_failure::WriteFailure,
};

/// What became of a set of rows.
#[derive(Debug, Default)]
pub(in crate::mirror) struct WrittenRows {
    pub(super) counts: RowCounts,
    pub(super) rejected: Vec<RejectedRow>,
}

impl WrittenRows {
    /// Collects what became of rows that were written behind savepoints.
    fn collect<W>(isolated: Isolated<W>, action: RowAction) -> Self
    where
        W: RowWriter<Job = String, Done = Self>,
    {
        let mut written = Self::default();
        for Self { counts, rejected } in isolated.done {
            written.counts.add(counts);
            written.rejected.extend(rejected);
        }
        let refused = isolated
            .refused
            .into_iter()
            .map(|Refused { job, fault }| RejectedRow::refused(job, action, fault));
        let locked = isolated.locked.into_iter().map(|id| RejectedRow::locked(id, action));
        written.rejected.extend(refused.chain(locked));
        written.counts.rejected = written.rejected.len() as u64;
        written
    }
}

impl Projection {
    /// Returns the rows in a scope of ids that are to be inserted, updated or linked.
    pub(super) async fn planned(&self, conn: &mut Session, ids: &[&str]) -> QueryResult<Vec<PlannedRow>> {
        conn.batch_execute(RESTRICT_PATH).await?;
        let rows: Vec<PlanRow> = sql_query(self.plan(Scope::Ids))
            .bind::<Array<Text>, _>(ids)
            .load(conn)
            .await?;
        conn.batch_execute(RESTORE_PATH).await?;
        Ok(rows.into_iter().map(PlannedRow::from).collect())
    }

    /// Writes rows. Rows that Postgres refuses or that the application has locked are rejected.
    pub(super) async fn write_all(&self, conn: &mut Session, ids: &[&str]) -> Result<WrittenRows, WriteFailure> {
        self.each(conn, self, RowAction::Write, ids).await
    }

    /// Removes the rows of some objects, as the mapping says. Rows that Postgres refuses to remove
    /// are rejected.
    pub(super) async fn remove_all(
        &self,
        conn: &mut Session,
        run: i64,
        ids: &[&str],
    ) -> Result<RowCounts, WriteFailure> {
        let Some(sql) = self.remove() else {
            // Rows are kept by now, so nothing is left to be done.
            rejected_rows::replace(conn, run, self, ids, &[]).await?;
            excluded::forget(conn, self, ids, &[]).await?;
            return Ok(RowCounts::default());
        };
        let remover = RowRemover { projection: self, sql };
        let WrittenRows { counts, mut rejected } = self.each(conn, &remover, RowAction::Remove, ids).await?;
        let kept: Vec<String> = rejected.iter().map(|row| row.id.clone()).collect();
        let kept: Vec<&str> = kept.iter().map(String::as_str).collect();
        excluded::forget(conn, self, ids, &kept).await?;
        if let Some(sql) = self.names().filter(|_| !rejected.is_empty()) {
            self.rename(conn, &sql, &mut rejected, &kept).await?;
        }
        rejected_rows::replace(conn, run, self, ids, &rejected).await?;
        Ok(counts)
    }

    /// Lists rows by their values. Their objects will be gone when they are tried again.
    async fn rename(
        &self,
        conn: &mut Session,
        sql: &str,
        rejected: &mut [RejectedRow],
        ids: &[&str],
    ) -> Result<(), WriteFailure> {
        #[derive(QueryableByName)]
        struct NameRow {
            #[diesel(sql_type = Text)]
            id: String,
            #[diesel(sql_type = Text)]
            name: String,
        }
        conn.batch_execute(RESTRICT_PATH).await?;
        let names: Vec<NameRow> = sql_query(sql).bind::<Array<Text>, _>(ids).load(conn).await?;
        conn.batch_execute(RESTORE_PATH).await?;
        for row in rejected {
            if let Some(named) = names.iter().find(|named| named.id == row.id) {
                row.id.clone_from(&named.name);
            }
        }
        Ok(())
    }

    /// Does something with rows: first together, and if that fails, behind savepoints.
    async fn each<W>(
        &self,
        conn: &mut Session,
        writer: &W,
        action: RowAction,
        ids: &[&str],
    ) -> Result<WrittenRows, WriteFailure>
    where
        W: RowWriter<Job = String, Done = WrittenRows>,
    {
        let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
        let together = conn.transaction(async |conn| {
            LockBudget::new().begin(conn).await?;
            conn.batch_execute(&self.lock()).await?;
            writer.write(conn, &ids).await
        });
        let written = match together.await {
            Ok(written) => written,
            Err(WriteFailure::OneRow(fault) | WriteFailure::TooLong(fault)) => {
                debug!(
                    table = self.name,
                    error = %MirrorError::from(fault),
                    "a row cannot be written; searching for it"
                );
                self.each_apart(conn, writer, action, ids).await?
            }
            Err(failure) => return Err(failure),
        };
        wait_at_most(conn, USUAL_WAIT).await?;
        Ok(written)
    }

    async fn each_apart<W>(
        &self,
        conn: &mut Session,
        writer: &W,
        action: RowAction,
        ids: Vec<String>,
    ) -> Result<WrittenRows, WriteFailure>
    where
        W: RowWriter<Job = String, Done = WrittenRows>,
    {
        LockBudget::short().begin(conn).await?;
        // A statement that fails without rows fails for another reason.
        let probed = conn.transaction(async |conn| {
            conn.batch_execute(&self.lock()).await?;
            writer.write(conn, &[]).await
        });
        match probed.await {
            Ok(_) => {}
            // The whole table is locked, or its shape has changed since the sync began.
            Err(WriteFailure::OneRow(fault) | WriteFailure::TooLong(fault)) => {
                let refused = ids.into_iter().map(|job| {
                    let fault = fault.clone();
                    Refused { job, fault }
                });
                let isolated = Isolated::<W> {
                    done: Vec::new(),
                    refused: refused.collect(),
                    locked: Vec::new(),
                };
                return Ok(WrittenRows::collect(isolated, action));
            }
            Err(failure) => return Err(failure),
        }
        let strength = self.lock_strength(conn, action).await?;
        let locked = self.keys(conn, &self.locked(strength), &ids).await?;
        let (locked, free) = ids.into_iter().partition(|id| locked.contains(id));
        let isolated = isolation::write(conn, writer, free, locked).await?;
        Ok(WrittenRows::collect(isolated, action))
    }

    /// How strongly the rows are locked. The shape is read now, because the application may have
    /// added an index since the sync began.
    async fn lock_strength(&self, conn: &mut Session, action: RowAction) -> QueryResult<LockStrength> {
        let columns: Vec<&str> = match (action, self.mapping.delete) {
            (RowAction::Remove, RowRemoval::Delete) => return Ok(LockStrength::Update),
            (RowAction::Remove, RowRemoval::Update | RowRemoval::Keep) => self
                .deleted
                .iter()
                .map(|assignment| assignment.column.as_str())
                .collect(),
            (RowAction::Write, _) => {
                let key = self.mapping.key.columns();
                let columns = self.mapping.synced_columns().filter(|column| !key.contains(column));
                columns.map(String::as_str).collect()
            }
        };
        locks::strength(conn, &self.table, &columns).await
    }

    /// Runs a statement that returns keys.
    pub(super) async fn keys(&self, conn: &mut Session, sql: &str, ids: &[String]) -> QueryResult<Vec<String>> {
        conn.batch_execute(RESTRICT_PATH).await?;
        let rows: Vec<KeyRow> = sql_query(sql).bind::<Array<Text>, _>(ids).load(conn).await?;
        conn.batch_execute(RESTORE_PATH).await?;
        Ok(rows.into_iter().map(|row| row.key).collect())
    }
}

impl RowWriter for Projection {
    type Done = WrittenRows;
    type Job = String;

    async fn write(&self, conn: &mut Session, ids: &[String]) -> Result<WrittenRows, WriteFailure> {
        let all: Vec<&str> = ids.iter().map(String::as_str).collect();
        let mut written = WrittenRows::default();
        let (mut link, mut update, mut insert) = (Vec::new(), Vec::new(), Vec::new());
        for PlannedRow { id, change } in self.planned(conn, &all).await? {
            match change {
                RowChange::Insert => insert.push(id),
                RowChange::Update(_) => update.push(id),
                RowChange::Link { .. } => link.push(id),
                // An expression that fails here fails the whole statement.
                RowChange::Fails(_) => {}
                RowChange::Ambiguous { rows, users } => {
                    written.rejected.push(RejectedRow::ambiguous(id, rows, users));
                }
            }
        }
        let mut linked = Vec::new();
        if let Some(sql) = self.link().filter(|_| !link.is_empty()) {
            linked = self.keys(conn, &sql, &link).await?;
            written.counts.linked = linked.len() as u64;
            // The other columns of the row follow.
            update.extend_from_slice(&linked);
        }
        let mut done: HashSet<String> = HashSet::new();
        // Rows that may release a unique value come first.
        if let Some(sql) = self.update().filter(|_| !update.is_empty()) {
            let updated = self.keys(conn, &sql, &update).await?;
            written.counts.updated = updated.iter().filter(|id| !linked.contains(id)).count() as u64;
            done.extend(updated);
        }
        if !insert.is_empty() {
            let inserted = self.keys(conn, &self.insert(), &insert).await?;
            written.counts.inserted = inserted.len() as u64;
            done.extend(inserted);
        }
        let tried = link.into_iter().chain(insert).chain(update);
        let skipped: Vec<String> = tried.filter(|id| !done.contains(id)).collect();
        if !skipped.is_empty() {
            // A row that is right by now was written by somebody else.
            let all: Vec<&str> = skipped.iter().map(String::as_str).collect();
            for PlannedRow { id, change } in self.planned(conn, &all).await? {
                written.rejected.push(match change {
                    // The application has inserted a row with the same address since the plan.
                    RowChange::Ambiguous { rows, users } => RejectedRow::ambiguous(id, rows, users),
                    _ => RejectedRow::skipped(id, RowAction::Write),
                });
            }
        }
        Ok(written)
    }

    fn written(done: &WrittenRows) -> usize {
        let RowCounts {
            inserted,
            updated,
            linked,
            removed,
            rejected: _,
        } = done.counts;
        usize::try_from(inserted + updated + linked + removed).unwrap_or(usize::MAX)
    }

    async fn release_values(&self, conn: &mut Session, blocked: &[Refused<String>]) -> Result<bool, WriteFailure> {
        let TableMapping { schema, name, key, .. } = &self.mapping;
        // Rows that are found by their values do not exchange them.
        let Some(key) = key.id_column() else { return Ok(false) };
        let target = ExchangeTarget {
            schema,
            table: name,
            key,
            columns: self.mapping.synced_columns().map(String::as_str).collect(),
        };
        let ids: Vec<&str> = blocked.iter().map(|blocked| blocked.job.as_str()).collect();
        exchange::release_values(conn, &target, blocked, &ids).await
    }
}

/// Removes rows of a table.
struct RowRemover<'p> {
    projection: &'p Projection,
    sql: String,
}

impl RowWriter for RowRemover<'_> {
    type Done = WrittenRows;
    type Job = String;

    async fn write(&self, conn: &mut Session, ids: &[String]) -> Result<WrittenRows, WriteFailure> {
        let removed = self.projection.keys(conn, &self.sql, ids).await?;
        let remaining = self.projection.keys(conn, &self.projection.remaining(), ids).await?;
        let mut written = WrittenRows::default();
        written.counts.removed = removed.iter().filter(|id| !remaining.contains(id)).count() as u64;
        let skipped = remaining
            .into_iter()
            .map(|id| RejectedRow::skipped(id, RowAction::Remove));
        written.rejected.extend(skipped);
        Ok(written)
    }

    fn written(done: &WrittenRows) -> usize {
        usize::try_from(done.counts.removed).unwrap_or(usize::MAX)
    }

    async fn release_values(&self, _: &mut Session, _: &[Refused<String>]) -> Result<bool, WriteFailure> {
        // A row that goes needs no values.
        Ok(false)
    }
}
