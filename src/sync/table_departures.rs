//! Rows of the application's tables that are to go: those whose users the mapping's condition
//! excludes, and those whose users neither the mirror nor Clerk knows.

use tracing::warn;

use super::{SyncContext, by_id::BATCH, tables::TableFailure};
use crate::{
    failure::Failure,
    mirror::{DepartureReason, Run, RunTable},
    resource::MAX_IDS,
};

/// Rows without Clerk's id that are read at a time: each time, the whole table is read.
const NAMED_ROWS: usize = 10_000;

/// Rows removed in one transaction.
const REMOVALS: usize = 500;

impl SyncContext<'_> {
    /// Asks Clerk for the keys that the mirror does not have, and notes those that Clerk does not
    /// have either. Returns the others.
    pub(super) async fn find_unknown(&mut self, run: &Run, table: &RunTable) -> Result<Vec<String>, TableFailure> {
        let tables = self.app_tables();
        let mut shown = Vec::new();
        let mut after = String::new();
        loop {
            let most = if table.has_ids() { BATCH } else { NAMED_ROWS };
            let mut keys = tables.unknown(table, &after, most).await?;
            let Some(last) = keys.last() else { return Ok(shown) };
            after.clone_from(last);
            let absent = self.ask_for(&keys).await?;
            tables.note_unknown(run, table, &absent).await?;
            keys.retain(|key| !absent.contains(key));
            shown.append(&mut keys);
        }
    }

    /// Holds the rows that are to go for a person if there are too many, or removes those of users
    /// that the mapping's condition excludes. The first time, all of them are held: they are the
    /// application's own, and the table may have come from the database of another instance.
    pub(super) async fn settle_departures(&mut self, run: &Run, table: &RunTable) -> Result<(), TableFailure> {
        let tables = self.app_tables();
        if table.is_first {
            tables.hold_departures(run, table).await?;
        }
        let new = tables.count_departures(table).await?;
        if new > 0 {
            let lately = tables.removed_lately(table).await?;
            let rows = tables.count_rows(table).await? + lately;
            if self.witnesses.is_empty() || self.syncer.options.limits.hold(new + lately, rows) {
                tables.hold_departures(run, table).await?;
            }
        }
        self.remove_excluded(run, table).await
    }

    /// Reports the rows of a table that wait for a person.
    pub(super) async fn report_held(&mut self, table: &RunTable) -> Result<(), TableFailure> {
        let Some(held) = self.app_tables().held_departures(table.name()).await? else {
            self.carryover.forget_hold(table.name());
            return Ok(());
        };
        if self.carryover.is_new_hold(table.name(), &held.checksum) {
            warn!(
                table = table.name(),
                held = held.count,
                plan = held.checksum,
                "rows that are to go are held; see them with `clerk2pg --dry-run`, approve them with `clerk2pg approve`"
            );
        }
        let report = self.table_report(table.name());
        report.held = held.count;
        report.plan = Some(held.checksum);
        Ok(())
    }

    /// Removes the rows of users that the mapping's condition excludes.
    async fn remove_excluded(&mut self, run: &Run, table: &RunTable) -> Result<(), TableFailure> {
        let tables = self.app_tables();
        let mut after = String::new();
        loop {
            let ids = tables
                .departing(table, DepartureReason::Excluded, &after, REMOVALS)
                .await?;
            let Some(last) = ids.last() else { return Ok(()) };
            after.clone_from(last);
            let counts = tables.remove(run, table, &ids).await?;
            self.table_report(table.name()).counts.add(counts);
        }
    }

    /// Removes the rows whose users Clerk says are gone.
    pub(super) async fn remove_unknown(&mut self, run: &Run, table: &RunTable) -> Result<(), TableFailure> {
        let tables = self.app_tables();
        let mut after = String::new();
        loop {
            let ids = tables
                .departing(table, DepartureReason::Unknown, &after, MAX_IDS)
                .await?;
            let Some(last) = ids.last() else { return Ok(()) };
            after.clone_from(last);
            let syncer = self.syncer;
            let (instance, confirmed) = tokio::join!(syncer.ask_instance_once(), self.confirm(&ids));
            let confirmed = confirmed?;
            if !confirmed.gone.is_empty() {
                if !self.is_mirrored_instance(instance.map_err(Failure::from)?).await? {
                    return Ok(());
                }
                let counts = tables.remove(run, table, &confirmed.gone).await?;
                self.table_report(table.name()).counts.add(counts);
            }
            if confirmed.is_unclear {
                return Ok(());
            }
        }
    }
}
