//! What is to be done with rows of a table, as values.

use diesel::{
    prelude::*,
    sql_types::{Array, BigInt, Bool, Nullable, Text},
};

use crate::humanize;

/// What is to be done with a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowChange {
    /// It is inserted.
    Insert,
    /// These columns are updated.
    Update(Vec<String>),
    /// A row without a key is given this one.
    Link {
        /// The address that the row and the user share.
        address: String,
    },
    /// Several rows without a key, or several users, have the address.
    Ambiguous {
        /// Rows without a key with this address.
        rows: u64,
        /// Users with this verified address.
        users: u64,
    },
    /// An expression of the mapping fails for the object, for this reason.
    Fails(String),
}

impl RowChange {
    /// Whether an existing row is changed.
    pub fn is_to_existing_row(&self) -> bool {
        matches!(self, RowChange::Update(_) | RowChange::Link { .. })
    }

    /// Says why a row cannot be linked, and what to do.
    pub fn ambiguity(rows: u64, users: u64) -> String {
        let have = if rows == 1 { "has" } else { "have" };
        format!(
            "{} without a key {have} the address, and {}: set the key of the right row by hand",
            humanize::rows(rows),
            humanize::users(users)
        )
    }
}

/// A row that differs from what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedRow {
    /// Clerk's id.
    pub id: String,
    /// What is to be done.
    pub change: RowChange,
}

/// How rows of a table differ from what they should be.
#[derive(Debug, Default)]
pub struct TableDifferences {
    /// Rows that differ.
    pub rows: Vec<PlannedRow>,
    /// Ids of objects that have a row although the mapping's condition excludes them.
    pub excluded: Vec<String>,
}

impl TableDifferences {
    /// Adds those of other objects.
    pub fn add(&mut self, other: Self) {
        self.rows.extend(other.rows);
        self.excluded.extend(other.excluded);
    }

    /// How many existing rows would be changed.
    pub fn count_changes(&self) -> u64 {
        let changes = self.rows.iter().filter(|row| row.change.is_to_existing_row());
        changes.count() as u64
    }
}

#[derive(QueryableByName)]
pub(super) struct PlanRow {
    #[diesel(sql_type = Text)]
    pub(super) key: String,
    #[diesel(sql_type = Nullable<Array<Text>>)]
    columns: Option<Vec<String>>,
    #[diesel(sql_type = Nullable<Text>)]
    address: Option<String>,
    #[diesel(sql_type = BigInt)]
    rows: i64,
    #[diesel(sql_type = BigInt)]
    rivals: i64,
    /// Whether the mirror has the object of a row that is to go; `None` for all other rows.
    #[diesel(sql_type = Nullable<Bool>)]
    pub(super) is_known: Option<bool>,
}

#[derive(QueryableByName)]
pub(super) struct KeyRow {
    #[diesel(sql_type = Text)]
    pub(super) key: String,
}

impl From<PlanRow> for PlannedRow {
    fn from(row: PlanRow) -> Self {
        let change = match row {
            PlanRow {
                columns: Some(columns), ..
            } => RowChange::Update(columns),
            PlanRow { rows: 0, .. } => RowChange::Insert,
            PlanRow {
                rows: 1,
                rivals: 1,
                address: Some(address),
                ..
            } => RowChange::Link { address },
            PlanRow { rows, rivals, .. } => RowChange::Ambiguous {
                rows: rows.unsigned_abs(),
                users: rivals.unsigned_abs(),
            },
        };
        Self { id: row.key, change }
    }
}

#[derive(QueryableByName)]
pub(super) struct CountRow {
    #[diesel(sql_type = BigInt)]
    pub(super) count: i64,
}
