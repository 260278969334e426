//! What a dry run would do with the rows of a table of the application, as a value.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::{
    mirror::{MirrorError, PlannedRow, RowChange, RowCounts, TableDifferences},
    resource::{Digest, DigestKey},
};

/// What would be done with the rows of a table. Only rows that differ are in memory.
#[derive(Default)]
pub(super) struct TablePlan {
    /// In order, so that they are printed in order.
    pub(super) rows: BTreeMap<String, RowChange>,
    /// Users that have a row although the mapping's condition excludes them.
    pub(super) excluded: BTreeSet<String>,
    /// The addresses by which rows are linked, with their users.
    addresses: HashMap<Digest, String>,
    pub(super) departures: PlannedDepartures,
    /// Why the table could not be read for some users.
    pub(super) problem: Option<MirrorError>,
}

/// Rows that are to go.
#[derive(Default)]
pub(super) struct PlannedDepartures {
    /// Keys that neither the mirror nor Clerk knows.
    pub(super) unknown: BTreeSet<String>,
    /// Rows that a sync would remove.
    pub(super) removed: BTreeSet<String>,
    /// Rows that wait for a person.
    pub(super) held: BTreeSet<String>,
}

impl TablePlan {
    /// Adds what is to be done with other rows.
    pub(super) fn add(&mut self, differences: TableDifferences) {
        let TableDifferences { rows, excluded } = differences;
        for PlannedRow { id, mut change } in rows {
            if let RowChange::Link { address } = &change {
                let address = Digest::of(&DigestKey::default(), address.as_bytes());
                let first = self.addresses.entry(address).or_insert_with(|| id.clone());
                if *first != id {
                    // Each statement sees the users of one page.
                    let both = RowChange::Ambiguous { rows: 1, users: 2 };
                    self.rows.insert(first.clone(), both.clone());
                    change = both;
                }
            }
            self.rows.insert(id, change);
        }
        self.excluded.extend(excluded);
    }

    /// How many existing rows the mapping would change.
    pub(super) fn changes(&self) -> u64 {
        let changes = self.rows.values().filter(|change| change.is_to_existing_row());
        changes.count() as u64
    }

    pub(super) fn counts(&self) -> RowCounts {
        let mut counts = RowCounts {
            removed: self.departures.removed.len() as u64,
            ..RowCounts::default()
        };
        for change in self.rows.values() {
            match change {
                RowChange::Insert => counts.inserted += 1,
                RowChange::Update(_) => counts.updated += 1,
                RowChange::Link { .. } => counts.linked += 1,
                RowChange::Ambiguous { .. } | RowChange::Fails(_) => counts.rejected += 1,
            }
        }
        counts
    }
}
