//! Keeps the application's tables in sync: compares them with the mirror, and tries rejected rows
//! again.
//!
//! Each batch of a sync writes the rows of its users in its own transaction. What follows here is
//! the rest: new mappings, and what the application changed itself.

use std::{
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use tracing::{debug, info, warn};

use super::{SyncContext, report::TableReport};
use crate::{
    failure::Failure,
    mirror::{
        AppTables, MappingState, MirrorError, RowChange, RowCounts, Run, RunTable, SyncKind, TableComparison,
        TableCounts, TableError, mapping_checksum,
    },
    reconcile::guard::DeleteLimits,
};

/// Rows that one transaction writes.
const ROWS: usize = 5_000;

/// Blocks of the mirror whose rows are inserted in one transaction into a table that lacks many: of
/// usual users, about 10,000.
const FILLED_BLOCKS: usize = 2_000;

/// Transactions that do so side by side.
const FILLERS: usize = 2;

/// Rejected rows that are tried again at a time.
const MAX_RETRIED: usize = 500;

/// Why a table could not be brought in sync.
pub(super) enum TableFailure {
    /// It is about this table.
    Unusable(MirrorError),
    /// The whole sync fails.
    Failed(Failure),
}

/// A table that was compared with the mirror.
struct PreparedTable {
    comparison: TableComparison,
    /// What was done with its rows so far.
    done: RowCounts,
    /// How long that took.
    took: Duration,
}

impl From<TableError> for TableFailure {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Unusable(error) => TableFailure::Unusable(error),
            TableError::Whole(error) => TableFailure::Failed(error.into()),
        }
    }
}

impl From<MirrorError> for TableFailure {
    fn from(error: MirrorError) -> Self {
        TableFailure::Failed(error.into())
    }
}

impl From<Failure> for TableFailure {
    fn from(failure: Failure) -> Self {
        TableFailure::Failed(failure)
    }
}

/// Says that a table is not kept in sync, and why.
pub(super) fn not_in_sync(table: &str, problem: &str) -> String {
    format!("{table} is not kept in sync: {problem}")
}

impl SyncContext<'_> {
    pub(super) fn app_tables(&self) -> AppTables {
        self.syncer.mirror.app_tables()
    }

    pub(super) fn table_report(&mut self, table: &str) -> &mut TableReport {
        self.report.tables.entry(table.to_owned()).or_default()
    }

    /// Adds what was done with rows of tables to the report.
    pub(super) fn record_tables(&mut self, tables: &TableCounts) {
        for (table, counts) in tables.iter() {
            self.table_report(table).counts.add(counts);
        }
    }

    /// At the end of a full sync: compares each table with the mirror, and applies new mappings.
    pub(super) async fn sync_tables(&mut self) -> Result<(), Failure> {
        let Some(run) = self.mode.run() else { return Ok(()) };
        for (table, problem) in run.broken_tables() {
            self.note(not_in_sync(table, problem));
        }
        // Clerk is asked for all tables first: each user that it shows belongs into all of them.
        let (mut ready, mut shown) = (Vec::new(), Vec::new());
        for table in run.tables() {
            let prepared = self.prepare_table(run, table, &mut shown).await;
            if let Some(Some(prepared)) = self.unless_unusable(table, prepared)? {
                ready.push((table, prepared));
            }
        }
        for (table, prepared) in ready {
            let synced = self.sync_table(run, table, prepared, &shown).await;
            self.unless_unusable(table, synced)?;
        }
        Ok(())
    }

    /// Compares a table with the mirror, and asks Clerk for its unknown keys. Adds those that Clerk
    /// may have shown to `shown`. Returns `None` if the table's mapping may not be applied.
    async fn prepare_table(
        &mut self,
        run: &Run,
        table: &RunTable,
        shown: &mut Vec<String>,
    ) -> Result<Option<PreparedTable>, TableFailure> {
        let tables = self.app_tables();
        let began = Instant::now();
        let mut comparison = tables.compare(table).await?;
        let mut took = began.elapsed();
        if !self.may_apply(run, table, &comparison).await? {
            return Ok(None);
        }
        if table.state != MappingState::Applied {
            tables.note_applying(run, table).await?;
        }
        tables.release_removed(run, table).await?;
        let mut done = RowCounts::default();
        let is_empty = comparison.has_many && tables.is_empty(table).await?;
        // The others are linked before any row is inserted.
        if comparison.has_many && (is_empty || !table.links()) {
            let began = Instant::now();
            self.fill_table(run, table, is_empty, &mut done).await?;
            // Rows that the application inserted meanwhile may have to be linked.
            let may_skip = is_empty && !table.links();
            comparison = match may_skip && tables.is_filled(table, done.inserted).await? {
                true => TableComparison::without_differences(),
                false => tables.compare(table).await?,
            };
            took += began.elapsed();
        }
        if table.removes() {
            tables.release_known(run, table).await?;
            if comparison.may_have_unknown {
                shown.extend(self.find_unknown(run, table).await?);
            }
        }
        Ok(Some(PreparedTable { comparison, done, took }))
    }

    /// Inserts the rows that a table lacks, as far as they can be inserted without looking at each.
    async fn fill_table(
        &self,
        run: &Run,
        table: &RunTable,
        was_empty: bool,
        done: &mut RowCounts,
    ) -> Result<(), TableFailure> {
        let tables = &self.app_tables();
        let starts = (0..tables.count_mirror_blocks().await?).step_by(FILLED_BLOCKS);
        let takes_long = &AtomicBool::new(false);
        let filled = stream::iter(starts).map(async |start| {
            self.syncer.unless_stopped().map_err(Failure::from)?;
            // What is under way is waited for, so that it does not get in the way of what follows.
            if takes_long.load(Ordering::Relaxed) {
                return Ok::<_, TableFailure>(0);
            }
            let blocks = start..start + FILLED_BLOCKS as u64;
            let inserted = tables.fill(run, table, was_empty, blocks).await?;
            takes_long.fetch_or(inserted.is_none(), Ordering::Relaxed);
            Ok(inserted.unwrap_or(0))
        });
        let mut filled = pin!(filled.buffer_unordered(FILLERS));
        while let Some(rows) = filled.try_next().await? {
            done.inserted += rows;
        }
        Ok(())
    }

    /// Notes that a table could not be used; other tables go on. Returns `None` then.
    pub(super) fn unless_unusable<T>(
        &mut self,
        table: &RunTable,
        result: Result<T, TableFailure>,
    ) -> Result<Option<T>, Failure> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(TableFailure::Unusable(error)) => {
                self.note(format!(
                    "{} could not be compared with the mirror: {error}",
                    table.name()
                ));
                Ok(None)
            }
            Err(TableFailure::Failed(failure)) => Err(failure),
        }
    }

    /// Whether a table's mapping may be applied. A new one that would change too many rows is held
    /// for a person.
    async fn may_apply(
        &mut self,
        run: &Run,
        table: &RunTable,
        comparison: &TableComparison,
    ) -> Result<bool, TableFailure> {
        match table.state {
            MappingState::Applied | MappingState::Approved => return Ok(true),
            MappingState::Pending | MappingState::Held => {}
        }
        let tables = self.app_tables();
        let rows = tables.count_rows(table).await?;
        let changes = match comparison.differences() {
            Some(differences) => differences.count_changes(),
            None if rows == 0 => 0,
            None => self.count_changes(table).await?,
        };
        if !self.must_hold_mapping(table, changes, rows) {
            return Ok(true);
        }
        tables.hold_mapping(run, table, changes).await?;
        let plan = mapping_checksum(table.name(), &table.mapping_digest());
        if self.carryover.is_new_hold(table.name(), &plan) {
            warn!(
                table = table.name(),
                rows = changes,
                of = rows,
                plan,
                "a new mapping would change many rows, and is held; see them with `clerk2pg --dry-run`, approve it with `clerk2pg approve`"
            );
        }
        let report = self.table_report(table.name());
        report.held = changes;
        report.plan = Some(plan);
        report.is_mapping_held = true;
        Ok(false)
    }

    /// Whether a new mapping that changes this many of a table's rows must wait for a person.
    pub(super) fn must_hold_mapping(&self, table: &RunTable, changes: u64, rows: u64) -> bool {
        let limits = DeleteLimits {
            max_count: u64::MAX,
            max_percent: table.max_change_percent(),
            ..self.syncer.options.limits
        };
        limits.hold(changes, rows)
    }

    /// How many existing rows of a table its mapping would change.
    async fn count_changes(&self, table: &RunTable) -> Result<u64, TableFailure> {
        let tables = self.app_tables();
        let (mut changes, mut all) = (0, TableComparison::by_chunks());
        while let Some(differences) = tables.next(table, &mut all).await? {
            changes += differences.count_changes();
        }
        Ok(changes)
    }

    /// Makes a table equal to the mirror, and settles the rows that are to go.
    async fn sync_table(
        &mut self,
        run: &Run,
        table: &RunTable,
        prepared: PreparedTable,
        shown: &[String],
    ) -> Result<(), TableFailure> {
        let PreparedTable {
            mut comparison,
            mut done,
            took,
        } = prepared;
        let tables = self.app_tables();
        let began = Instant::now();
        if table.removes() {
            tables.release_included(run, table).await?;
        }
        while let Some(differences) = tables.next(table, &mut comparison).await? {
            tables.note_excluded(run, table, &differences.excluded).await?;
            // Rows that may release a unique value come first.
            let (updates, others): (Vec<_>, Vec<_>) = differences
                .rows
                .iter()
                .partition(|row| matches!(row.change, RowChange::Update(_)));
            let ids: Vec<&str> = updates.into_iter().chain(others).map(|row| row.id.as_str()).collect();
            for ids in ids.chunks(ROWS) {
                self.syncer.unless_stopped().map_err(Failure::from)?;
                done.add(tables.write(run, table, ids).await?);
            }
        }
        let shown: Vec<&str> = shown.iter().map(String::as_str).collect();
        for ids in shown.chunks(ROWS) {
            done.add(tables.write(run, table, ids).await?);
        }
        debug!(
            table = table.name(),
            changed = done.changed(),
            seconds = (took + began.elapsed()).as_secs_f64(),
            "compared the table with the mirror"
        );
        self.table_report(table.name()).counts.add(done);
        if table.removes() {
            self.settle_departures(run, table).await?;
            self.remove_unknown(run, table).await?;
            self.report_held(table).await?;
        }
        self.retry_rows_of(run, table, false).await?;
        let repaired = match table.state {
            MappingState::Applied => done.changed(),
            _ => 0,
        };
        tables.note_compared(run, table, repaired).await?;
        if table.state != MappingState::Applied {
            info!(
                table = table.name(),
                "the mapping is applied; from now on, each sync keeps the table in sync"
            );
        }
        Ok(())
    }

    /// At the end of other syncs: settles the rows that the batches noted, and tries rejected rows
    /// again. A full sync does so for each table by itself.
    pub(super) async fn settle_tables(&mut self) -> Result<(), Failure> {
        let Some(run) = self.mode.run().filter(|run| run.kind != SyncKind::Full) else {
            return Ok(());
        };
        let applied = run.tables().iter().filter(|table| table.state == MappingState::Applied);
        for table in applied {
            let settled = self.settle_table(run, table).await;
            self.unless_unusable(table, settled)?;
        }
        Ok(())
    }

    async fn settle_table(&mut self, run: &Run, table: &RunTable) -> Result<(), TableFailure> {
        // Rows that are held already are reported by full syncs.
        if table.removes() && self.app_tables().count_departures(table).await? > 0 {
            self.settle_departures(run, table).await?;
            self.report_held(table).await?;
        }
        let has_news = self.report.has_changes() || self.carryover.retries_rows;
        self.retry_rows_of(run, table, !has_news).await
    }

    /// Tries rejected rows of a table again; with `locked`, only those that the application had
    /// locked.
    async fn retry_rows_of(&mut self, run: &Run, table: &RunTable, locked: bool) -> Result<(), TableFailure> {
        let tables = self.app_tables();
        let mut done = RowCounts::default();
        loop {
            let (write, remove) = tables.rejected(table, locked, MAX_RETRIED).await?;
            let mut round = RowCounts::default();
            if !remove.is_empty() {
                round.add(tables.remove(run, table, &remove).await?);
            }
            if !write.is_empty() {
                let ids: Vec<&str> = write.iter().map(String::as_str).collect();
                round.add(tables.write(run, table, &ids).await?);
            }
            done.add(round);
            // What made all of these possible may have done so for the next ones.
            if write.len() + remove.len() < MAX_RETRIED || round.changed() == 0 {
                break;
            }
        }
        let rejected = tables.count_rejected(table).await?;
        let report = self.table_report(table.name());
        report.counts.add(done);
        report.counts.rejected = rejected;
        Ok(())
    }
}
