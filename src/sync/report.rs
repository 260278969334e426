//! What a sync did.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use crate::{
    failure::Failure,
    mirror::{Outcome, RowCounts},
};

/// What a sync did, or with [`Outcome::Planned`] would do. Its JSON is part of the command line's
/// contract.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// Users new to the mirror, or back in it after they were marked as deleted.
    pub created: u64,
    /// Users that changed.
    pub updated: u64,
    /// Users deleted, or marked so.
    pub deleted: u64,
    /// Users in sync.
    pub unchanged: u64,
    /// Deletions that wait for a person.
    pub held: u64,
    /// Users that could not be stored, and rows that could not be deleted.
    pub rejected: u64,
    /// What was done with the application's tables.
    #[serde(skip_serializing_if = "TableReports::is_empty")]
    pub tables: TableReports,
    /// What was done with the other resources, by their names.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub resources: BTreeMap<&'static str, Report>,
    /// Requests sent to Clerk.
    pub requests: u64,
    /// Milliseconds from start to end.
    pub duration_ms: u64,
    /// The checksum of the held deletions; in a dry run, of those that would be held, or carried
    /// out if none would be held.
    pub plan: Option<String>,
    /// Median age of the changes when they were committed, in milliseconds; `None` if nothing with
    /// a time of its own changed.
    #[serde(skip)]
    pub freshness_ms: Option<i64>,
    /// The Clerk instance.
    #[serde(skip)]
    pub instance: String,
    /// Why the sync is incomplete.
    #[serde(rename = "error", serialize_with = "joined", skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// It is the report of a dry run: nothing of it was done.
    #[serde(skip)]
    pub is_plan: bool,
    /// The sync made the mirror.
    #[serde(skip)]
    pub is_import: bool,
}

fn joined<S: Serializer>(notes: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&notes.join("; "))
}

impl Report {
    pub(super) fn new(instance: &str) -> Self {
        Self {
            outcome: Outcome::InSync,
            created: 0,
            updated: 0,
            deleted: 0,
            unchanged: 0,
            held: 0,
            rejected: 0,
            tables: TableReports::new(),
            resources: BTreeMap::new(),
            requests: 0,
            duration_ms: 0,
            plan: None,
            freshness_ms: None,
            instance: instance.to_owned(),
            notes: Vec::new(),
            is_plan: false,
            is_import: false,
        }
    }

    /// The report of a resource that could not be synced.
    pub(super) fn failed(failure: &Failure) -> Self {
        Self {
            outcome: Outcome::Failed,
            notes: vec![failure.message.clone()],
            ..Self::new("")
        }
    }

    /// Whether the sync changes anything, or holds deletions or rows of tables.
    pub fn has_changes(&self) -> bool {
        let mut tables = self.tables.values();
        self.changes_mirror()
            || tables.any(|table| table.counts.has_changes() || table.held > 0)
            || self.resources.values().any(Self::has_changes)
    }

    /// Whether the sync changes users of the mirror, or holds deletions.
    pub fn changes_mirror(&self) -> bool {
        self.writes_rows() || self.held > 0
    }

    /// Whether the sync writes users of the mirror. Deletions that stay held are none.
    pub(super) fn writes_rows(&self) -> bool {
        self.created + self.updated + self.deleted > 0
    }

    /// Whether anything waits for a person: deletions, rows of tables, or a mapping.
    pub fn has_held(&self) -> bool {
        self.held > 0 || self.tables.values().any(|table| table.held > 0) || self.resources.values().any(Self::has_held)
    }

    /// Whether anything was left undone: in the sync of users, or of another resource.
    pub fn is_incomplete(&self) -> bool {
        matches!(self.outcome, Outcome::Incomplete | Outcome::Failed)
            || self.resources.values().any(Self::is_incomplete)
    }

    /// Whether a user, or a row of a table, could not be stored or deleted.
    pub fn has_rejected(&self) -> bool {
        self.rejected > 0
            || self.tables.values().any(|table| table.counts.rejected > 0)
            || self.resources.values().any(Self::has_rejected)
    }
}

/// What a sync did with a table of the application.
#[derive(Debug, Clone, Default, Serialize)]
pub struct TableReport {
    /// Rows by what was done with them.
    #[serde(flatten)]
    pub counts: RowCounts,
    /// Rows that wait for a person: they are to go, or a new mapping changes them.
    pub held: u64,
    /// The checksum with which a person approves them.
    pub plan: Option<String>,
    /// Whether it is the mapping that waits for a person.
    #[serde(skip)]
    pub is_mapping_held: bool,
}

/// What a sync did with the application's tables, by their names.
pub type TableReports = BTreeMap<String, TableReport>;
