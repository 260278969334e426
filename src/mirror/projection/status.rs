//! What `clerk2pg status`, the status page and the metrics show of the application's tables.

use chrono::{DateTime, Utc};
use diesel::{
    prelude::*,
    sql_query,
    sql_types::{Array, BigInt, Nullable, Text, Timestamptz},
};
use diesel_async::RunQueryDsl;
use serde::Serialize;

use super::{
    app_tables::AppTables,
    departures::{HeldDepartures, mapping_checksum},
    mapping::TableMapping,
    state::{MappingState, StoredState},
};
use crate::mirror::{MirrorError, convert::unsigned};

/// How far a table of the application is in sync.
#[derive(Debug, Clone, Serialize)]
pub struct TableStatus {
    /// The table's name.
    pub table: String,
    /// How far its mapping has come.
    pub state: TableState,
    /// Why it is not kept in sync, with [`TableState::Broken`].
    pub problem: Option<String>,
    /// When a full sync last compared it with the mirror; `None` if none has.
    pub compared_at: Option<DateTime<Utc>>,
    /// Rows of the table at that time.
    pub rows: Option<u64>,
    /// Rows that differed at that time although nobody had changed them at Clerk.
    pub repaired: Option<u64>,
    /// Rows that could not be written or removed.
    pub rejected: u64,
    /// Rows that wait for a person: they are to go, or a new mapping changes them.
    pub held: u64,
    /// The checksum with which a person approves a held mapping.
    pub mapping_plan: Option<String>,
}

/// The same with what costs more to read.
#[derive(Debug, Clone, Serialize)]
pub struct TableDetails {
    /// What the status page shows, too.
    #[serde(flatten)]
    pub status: TableStatus,
    /// Rows that are to go and wait for a person.
    pub held_removals: u64,
    /// The checksum with which a person approves them.
    pub plan: Option<String>,
    /// The first rejected rows: Clerk's ids with the reasons.
    pub rejected_rows: Vec<(String, String)>,
}

/// How far the mapping of a table has come, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TableState {
    /// Each sync keeps the table in sync.
    Applied,
    /// The next full sync applies the mapping.
    Pending,
    /// The mapping waits for a person.
    Held,
    /// A person has approved the mapping. The next full sync applies it.
    Approved,
    /// The table is not kept in sync.
    Broken,
}

impl TableState {
    /// Returns the state in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Applied => "kept in sync",
            Self::Pending => "waits for the next full sync",
            Self::Held => "mapping held",
            Self::Approved => "mapping approved; waits for the next full sync",
            Self::Broken => "not kept in sync",
        }
    }

    /// Whether a person has to do something.
    pub fn needs_person(self) -> bool {
        matches!(self, Self::Held | Self::Broken)
    }
}

impl From<MappingState> for TableState {
    fn from(state: MappingState) -> Self {
        match state {
            MappingState::Applied => Self::Applied,
            MappingState::Pending => Self::Pending,
            MappingState::Held => Self::Held,
            MappingState::Approved => Self::Approved,
        }
    }
}

#[derive(QueryableByName)]
struct StatusRow {
    #[diesel(sql_type = Text)]
    table_name: String,
    #[diesel(embed)]
    stored: StoredState,
    #[diesel(sql_type = Nullable<Text>)]
    problem: Option<String>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    compared_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<BigInt>)]
    rows: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    repaired: Option<i64>,
    #[diesel(sql_type = BigInt)]
    held_changes: i64,
    #[diesel(sql_type = BigInt)]
    rejected: i64,
    #[diesel(sql_type = BigInt)]
    held: i64,
}

impl TableStatus {
    /// The status of a mapped table; `row` is what is stored about it.
    fn new(mapping: &TableMapping, row: Option<&StatusRow>) -> Self {
        let (table, digest) = (mapping.table(), mapping.digest());
        let Some(row) = row else {
            return Self {
                table,
                state: TableState::Pending,
                problem: None,
                compared_at: None,
                rows: None,
                repaired: None,
                rejected: 0,
                held: 0,
                mapping_plan: None,
            };
        };
        let state = match row.problem {
            Some(_) => TableState::Broken,
            None => row.stored.state(&digest).into(),
        };
        let is_mapping_held = state == TableState::Held;
        Self {
            state,
            problem: row.problem.clone(),
            compared_at: row.compared_at,
            rows: row.rows.map(unsigned),
            repaired: row.repaired.map(unsigned),
            rejected: unsigned(row.rejected),
            held: unsigned(if is_mapping_held { row.held_changes } else { row.held }),
            mapping_plan: is_mapping_held.then(|| mapping_checksum(&table, &digest)),
            table,
        }
    }
}

impl AppTables {
    /// Returns how far the mapped tables are in sync, in one query.
    pub async fn status(&self) -> Result<Vec<TableStatus>, MirrorError> {
        let mappings = &self.0.mappings;
        if mappings.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<String> = mappings.iter().map(TableMapping::table).collect();
        let rows: Vec<StatusRow> = sql_query(
            "SELECT p.table_name, p.mapping, p.hold, p.held_mapping, p.removes_since IS NULL AS is_first,
                    p.problem IS NOT NULL AS has_problem, p.resource, p.problem, p.compared_at, p.rows, p.repaired,
                    coalesce(p.held_changes, 0::bigint) AS held_changes,
                    (SELECT pg_catalog.count(*) FROM clerk.rejected_rows r WHERE r.table_name = p.table_name) AS rejected,
                    (SELECT pg_catalog.count(*) FROM clerk.departures d
                     WHERE d.table_name = p.table_name AND d.hold = 'held') AS held
             FROM clerk.projections p WHERE p.table_name = ANY ($1)",
        )
        .bind::<Array<Text>, _>(&names)
        .load(&mut self.0.connection().await?)
        .await?;
        let of = |mapping: &TableMapping| {
            let name = mapping.table();
            TableStatus::new(mapping, rows.iter().find(|row| row.table_name == name))
        };
        Ok(mappings.iter().map(of).collect())
    }

    /// Returns the same with the checksums of held rows that are to go, and the first `rejected` rows
    /// per table that are rejected.
    pub async fn details(&self, rejected: i64) -> Result<Vec<TableDetails>, MirrorError> {
        let mut all = Vec::new();
        for status in self.status().await? {
            let held = self.held_departures(&status.table).await?;
            all.push(TableDetails {
                held_removals: held.as_ref().map_or(0, |held| held.count),
                plan: held.map(|HeldDepartures { checksum, .. }| checksum),
                rejected_rows: self.first_rejected(&status.table, rejected).await?,
                status,
            });
        }
        Ok(all)
    }

    /// Returns the first rejected rows of a table, with the reasons.
    async fn first_rejected(&self, table: &str, limit: i64) -> Result<Vec<(String, String)>, MirrorError> {
        #[derive(QueryableByName)]
        struct RejectedReason {
            #[diesel(sql_type = Text)]
            object_id: String,
            #[diesel(sql_type = Text)]
            reason: String,
        }
        let rows: Vec<RejectedReason> = sql_query(
            "SELECT object_id, reason FROM clerk.rejected_rows WHERE table_name = $1 ORDER BY object_id LIMIT $2",
        )
        .bind::<Text, _>(table)
        .bind::<BigInt, _>(limit)
        .load(&mut self.0.connection().await?)
        .await?;
        Ok(rows.into_iter().map(|row| (row.object_id, row.reason)).collect())
    }
}
