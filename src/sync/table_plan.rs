//! What a dry run says about the application's tables: the same procedure as that of a sync, without
//! writing.
//!
//! Rows of users that the dry run would write are planned with their pages. What follows here is the
//! rest: users that stay as they are, and rows that are to go.

use std::collections::{BTreeSet, HashMap};

use super::{
    SyncContext,
    by_id::BATCH,
    dry_run::DryRun,
    planned_rows::{PlannedDepartures, TablePlan},
    tables::TableFailure,
};
use crate::{
    failure::Failure,
    mirror::{MappingState, RunTable, departures_checksum, mapping_checksum},
    resource::MAX_IDS,
};

/// Keys of a table that are read at a time.
const KEYS: usize = 5_000;

impl SyncContext<'_> {
    /// Prints what a full sync would do with each table.
    pub(super) async fn plan_tables(&mut self, tables: &[RunTable]) -> Result<(), Failure> {
        // Nothing is printed before Clerk has been asked for all tables: each user that it shows
        // belongs into all of them.
        let mut readable = Vec::new();
        for table in tables {
            let asked = self.ask_for_unknown(table).await;
            if self.unless_unusable(table, asked)?.is_some() {
                readable.push(table);
            }
        }
        let mut planned = Vec::new();
        for table in readable {
            let compared = self.plan_table(table).await;
            if self.unless_unusable(table, compared)?.is_some() {
                planned.push(table);
            }
        }
        for table in planned {
            let closed = self.close_plan(table).await;
            self.unless_unusable(table, closed)?;
        }
        Ok(())
    }

    async fn plan_table(&mut self, table: &RunTable) -> Result<(), TableFailure> {
        self.compare_with_mirror(table).await?;
        match table.removes() {
            true => self.judge_departures(table).await,
            false => Ok(()),
        }
    }

    /// Changes the plan of a table.
    fn with_plan(&mut self, table: &RunTable, change: impl FnOnce(&mut TablePlan)) {
        if let Some(dry_run) = &mut self.dry_run {
            change(dry_run.tables.entry(table.name().to_owned()).or_default());
        }
    }

    /// Asks Clerk for the keys of a table that the mirror does not have.
    async fn ask_for_unknown(&mut self, table: &RunTable) -> Result<(), TableFailure> {
        if !table.removes() {
            return Ok(());
        }
        let tables = self.app_tables();
        let mut after = String::new();
        loop {
            let mut keys = tables.unknown(table, &after, KEYS).await?;
            let Some(last) = keys.last() else { return Ok(()) };
            after.clone_from(last);
            keys.retain(|key| self.dry_run.as_ref().is_some_and(|dry_run| !dry_run.has_planned(key)));
            for keys in keys.chunks(BATCH) {
                let absent = self.ask_for(keys).await?;
                self.with_plan(table, |plan| plan.departures.unknown.extend(absent));
            }
        }
    }

    /// Compares a table with the users of the mirror that stay as they are.
    async fn compare_with_mirror(&mut self, table: &RunTable) -> Result<(), TableFailure> {
        if !self.mode.has_schema() {
            return Ok(());
        }
        let tables = self.app_tables();
        let mut comparison = tables.compare(table).await?;
        while let Some(mut found) = tables.next(table, &mut comparison).await? {
            if let Some(dry_run) = &mut self.dry_run {
                found.rows.retain(|row| dry_run.stays(&row.id));
                found.excluded.retain(|id| dry_run.stays(id));
                dry_run.tables.entry(table.name().to_owned()).or_default().add(found);
            }
        }
        Ok(())
    }

    /// Judges which rows of a table that are to go would be removed, and which would be held.
    async fn judge_departures(&mut self, table: &RunTable) -> Result<(), TableFailure> {
        let tables = self.app_tables();
        let Some(dry_run) = &mut self.dry_run else {
            return Ok(());
        };
        let plan = dry_run.tables.entry(table.name().to_owned()).or_default();
        let excluded = std::mem::take(&mut plan.excluded);
        let mut unknown = std::mem::take(&mut plan.departures.unknown);
        // Deleting a user removes its rows, if the mapping is applied by then.
        let mut removed = BTreeSet::new();
        let with_rows = tables.with_rows(table, &dry_run.deleted).await?;
        match table.state {
            MappingState::Applied => removed.extend(with_rows),
            _ => unknown.extend(with_rows),
        }
        let holds = match self.mode.has_schema() {
            true => tables.departure_holds(table).await?,
            false => HashMap::new(),
        };
        let is_new = |id: &&String| !holds.contains_key(*id) && !table.is_first;
        let new = excluded.union(&unknown).filter(is_new).count() as u64;
        let mut holds_new = false;
        if new > 0 {
            let lately = match self.mode.has_schema() {
                true => tables.removed_lately(table).await?,
                false => 0,
            };
            let rows = tables.count_rows(table).await? + lately;
            holds_new = self.witnesses.is_empty() || self.syncer.options.limits.hold(new + lately, rows);
        }
        let is_held = |id: &String| match holds.get(id) {
            Some(is_approved) => !is_approved,
            None => table.is_first || holds_new,
        };
        let held: BTreeSet<String> = excluded.union(&unknown).filter(|id| is_held(id)).cloned().collect();
        removed.extend(excluded.difference(&held).cloned());
        let to_confirm: Vec<String> = unknown.difference(&held).cloned().collect();
        for ids in to_confirm.chunks(MAX_IDS) {
            let confirmed = self.confirm(ids).await?;
            removed.extend(confirmed.gone);
            if confirmed.is_unclear {
                break;
            }
        }
        self.with_plan(table, |plan| {
            plan.excluded = excluded;
            plan.departures = PlannedDepartures { unknown, removed, held };
        });
        Ok(())
    }

    /// Prints the plan of a table, and adds it to the report.
    async fn close_plan(&mut self, table: &RunTable) -> Result<(), TableFailure> {
        let name = table.name();
        let Some(dry_run) = &mut self.dry_run else {
            return Ok(());
        };
        let mut plan = dry_run.tables.remove(name).unwrap_or_default();
        if let Some(error) = plan.problem.take() {
            return Err(TableFailure::Unusable(error));
        }
        let changes = plan.changes();
        let is_new = matches!(table.state, MappingState::Pending | MappingState::Held);
        let is_mapping_held =
            is_new && changes > 0 && self.must_hold_mapping(table, changes, self.app_tables().count_rows(table).await?);
        let mut counts = plan.counts();
        if is_mapping_held {
            // Without the mapping, nothing is removed either.
            let removed = std::mem::take(&mut plan.departures.removed);
            plan.departures.held.extend(removed);
            counts.removed = plan.departures.held.len() as u64;
        }
        if let Some(DryRun { print, .. }) = &mut self.dry_run {
            plan.print(name, &mut **print);
        }
        let departures = &plan.departures.held;
        let report = self.table_report(name);
        report.counts = counts;
        report.is_mapping_held = is_mapping_held;
        (report.held, report.plan) = match is_mapping_held {
            true => (changes, Some(mapping_checksum(name, &table.mapping_digest()))),
            false => (departures.len() as u64, departures_checksum(name, departures)),
        };
        Ok(())
    }
}
