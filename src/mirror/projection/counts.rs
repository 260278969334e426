//! What was done with rows of the application's tables, in numbers.

use std::collections::BTreeMap;

use serde::Serialize;

/// What was done with the rows of each table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct TableCounts(BTreeMap<String, RowCounts>);

impl TableCounts {
    /// Adds what was done with rows of a table.
    pub fn add(&mut self, table: &str, counts: RowCounts) {
        self.0.entry(table.to_owned()).or_default().add(counts);
    }

    /// Adds what was done with rows of several tables.
    pub fn merge(&mut self, other: Self) {
        for (table, counts) in other.0 {
            self.0.entry(table).or_default().add(counts);
        }
    }

    /// The tables, in order, with what was done with their rows.
    pub fn iter(&self) -> impl Iterator<Item = (&str, RowCounts)> {
        self.0.iter().map(|(table, counts)| (table.as_str(), *counts))
    }
}

/// What a mapping did with the rows of a table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct RowCounts {
    /// Rows that were inserted.
    pub inserted: u64,
    /// Rows that were updated.
    pub updated: u64,
    /// Rows without a key that were given one.
    pub linked: u64,
    /// Rows that were deleted, or updated as the mapping says for removed rows.
    pub removed: u64,
    /// Rows that could not be written or removed.
    pub rejected: u64,
}

impl RowCounts {
    /// Whether any row was written or removed.
    pub fn has_changes(&self) -> bool {
        self.changed() + self.removed > 0
    }

    /// Rows that were written.
    pub fn changed(&self) -> u64 {
        self.inserted + self.updated + self.linked
    }

    /// Adds other counts.
    pub fn add(&mut self, other: Self) {
        self.inserted += other.inserted;
        self.updated += other.updated;
        self.linked += other.linked;
        self.removed += other.removed;
        self.rejected += other.rejected;
    }
}
