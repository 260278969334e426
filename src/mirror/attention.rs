//! What the status page shows of everything that waits for a person.

use std::cmp::Reverse;

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{BigInt, Bool, Text},
};
use diesel_async::RunQueryDsl;

use super::{AppTables, Holds, MirrorError, Overview, convert::unsigned, sqlstate::RAISE_EXCEPTION};
use crate::{
    resource::{RESOURCES, Resource},
    secret::without_personal_data,
};

/// Held deletions of a resource, or held rows of a table, of which the checksum is computed. It reads
/// each id.
const MAX_SUMMED: u64 = 100_000;

/// Rejected objects, and rejected rows, whose reasons are counted.
const MAX_REJECTIONS: i64 = 10_000;

/// Reasons that are read at most.
const MAX_REASONS: i64 = 200;

/// What a person has to approve.
#[derive(Debug, Clone)]
pub struct HeldSet {
    /// What is held.
    pub item: HeldItem,
    /// How many deletions or rows.
    pub count: u64,
    /// The checksum that approves them; `None` if there are too many to compute it here.
    pub plan: Option<String>,
}

/// What can be held until a person approves it.
#[derive(Debug, Clone)]
pub enum HeldItem {
    /// Deletions of a resource.
    Deletions(&'static Resource),
    /// Removals from a table of the application.
    Removals(String),
}

/// How many objects or rows are rejected for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectionReason {
    /// The resource, or the table of the application.
    pub source: String,
    /// The reason, without ids and addresses.
    pub reason: String,
    /// How many.
    pub count: u64,
}

#[derive(QueryableByName)]
struct CountRow {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = BigInt)]
    count: i64,
}

#[derive(QueryableByName)]
struct ReasonRow {
    #[diesel(sql_type = Text)]
    source: String,
    #[diesel(sql_type = Text)]
    reason: String,
    #[diesel(sql_type = Bool)]
    is_raised: bool,
    #[diesel(sql_type = BigInt)]
    count: i64,
}

impl Overview {
    /// Returns the deletions and removals that wait for a person, with their checksums. A held mapping
    /// is part of [`TableStatus`](super::TableStatus).
    pub async fn held(&self) -> Result<Vec<HeldSet>, MirrorError> {
        let mut sets = Vec::new();
        let by_resource = self
            .count("SELECT resource AS name, pg_catalog.count(*) AS count FROM clerk.missing WHERE hold = 'held' GROUP BY resource")
            .await?;
        for resource in RESOURCES {
            let Some(count) = count_of(&by_resource, resource.name) else {
                continue;
            };
            let plan = match count <= MAX_SUMMED {
                true => Holds(self.0.of(resource)).checksum().await?,
                false => None,
            };
            let item = HeldItem::Deletions(resource);
            sets.push(HeldSet { item, count, plan });
        }
        let by_table = self
            .count("SELECT table_name AS name, pg_catalog.count(*) AS count FROM clerk.departures WHERE hold = 'held' GROUP BY table_name")
            .await?;
        for mapping in self.0.mappings.iter() {
            let table = mapping.table();
            let Some(count) = count_of(&by_table, &table) else {
                continue;
            };
            let held = match count <= MAX_SUMMED {
                true => AppTables(self.0.clone()).held_departures(&table).await?,
                false => None,
            };
            sets.push(HeldSet {
                item: HeldItem::Removals(table),
                count,
                plan: held.map(|held| held.checksum),
            });
        }
        Ok(sets)
    }

    async fn count(&self, sql: &'static str) -> Result<Vec<CountRow>, MirrorError> {
        Ok(sql_query(sql).load(&mut self.0.connection().await?).await?)
    }

    /// Returns why objects and rows are rejected, the most frequent reason first. If there are very
    /// many, some of them count.
    pub async fn rejections(&self) -> Result<Vec<RejectionReason>, MirrorError> {
        let rows: Vec<ReasonRow> = sql_query(
            "SELECT source, reason, sqlstate IS NOT DISTINCT FROM $3 AS is_raised, pg_catalog.count(*) AS count
             FROM ((SELECT resource AS source, reason, sqlstate FROM clerk.rejected LIMIT $1)
                   UNION ALL (SELECT table_name, reason, sqlstate FROM clerk.rejected_rows LIMIT $1)) AS rejected
             GROUP BY source, reason, is_raised ORDER BY count DESC, source, reason LIMIT $2",
        )
        .bind::<BigInt, _>(MAX_REJECTIONS)
        .bind::<BigInt, _>(MAX_REASONS)
        .bind::<Text, _>(RAISE_EXCEPTION)
        .load(&mut self.0.connection().await?)
        .await?;
        Ok(merged(rows))
    }
}

fn count_of(counts: &[CountRow], name: &str) -> Option<u64> {
    let row = counts.iter().find(|row| row.name == name)?;
    Some(unsigned(row.count)).filter(|count| *count > 0)
}

/// Adds up reasons that differ in ids and addresses alone, the most frequent one first. A trigger of
/// the application can put anything into its message, so the message is left out.
fn merged(rows: Vec<ReasonRow>) -> Vec<RejectionReason> {
    let mut reasons: Vec<RejectionReason> = Vec::new();
    for row in rows {
        let reason = match row.is_raised {
            true => "a trigger or function of the application raised an exception".to_owned(),
            false => without_personal_data(&row.reason),
        };
        let count = unsigned(row.count);
        let same = |other: &&mut RejectionReason| other.source == row.source && other.reason == reason;
        match reasons.iter_mut().find(same) {
            Some(other) => other.count += count,
            None => reasons.push(RejectionReason {
                source: row.source,
                reason,
                count,
            }),
        }
    }
    reasons.sort_by_key(|reason| Reverse(reason.count));
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_without_ids_and_messages_of_triggers_are_added_up() {
        let row = |source: &str, reason: &str, is_raised, count| ReasonRow {
            source: source.to_owned(),
            reason: reason.to_owned(),
            is_raised,
            count,
        };
        let reasons = merged(vec![
            row("users", "id is missing", false, 3),
            row("users", "no row for user_2abcdefghijklmnopqr", false, 2),
            row("users", "no row for user_2zzzzzzzzzzzzzzzzzz", false, 2),
            row("users", "Postgres refused it: Ann Smith", true, 1),
            row("organizations", "id is missing", false, 1),
        ]);
        let shown: Vec<_> = reasons.iter().map(|of| (&*of.source, &*of.reason, of.count)).collect();
        assert_eq!(
            shown,
            [
                ("users", "no row for user_…", 4),
                ("users", "id is missing", 3),
                (
                    "users",
                    "a trigger or function of the application raised an exception",
                    1
                ),
                ("organizations", "id is missing", 1),
            ]
        );
    }
}
