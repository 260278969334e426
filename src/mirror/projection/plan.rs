//! What is to be done with rows of a table, as values.

use diesel::{
    prelude::*,
    sql_types::{Array, BigInt, Nullable, Text},
};

/// What is to be done with a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowChange {
    /// It is inserted.
    Insert,
    /// These columns are updated.
    Update(Vec<String>),
    /// A row without a key is given this one.
    Link,
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

/// A row that differs from what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedRow {
    /// Clerk's id.
    pub id: String,
    /// What is to be done.
    pub change: RowChange,
}

#[derive(QueryableByName)]
pub(super) struct PlanRow {
    #[diesel(sql_type = Text)]
    key: String,
    #[diesel(sql_type = Nullable<Array<Text>>)]
    columns: Option<Vec<String>>,
    #[diesel(sql_type = BigInt)]
    rows: i64,
    #[diesel(sql_type = BigInt)]
    rivals: i64,
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
            PlanRow { rows: 1, rivals: 1, .. } => RowChange::Link,
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
