//! The statements about rows that are to go.
//!
//! Expressions of `[tables.deleted]` know the id of the object only, in every statement: later syncs
//! compare the row with them, when the mirror does not have the object any more.

use super::{
    mapping::RowRemoval,
    row_key::{RowKey, RowsOfKeys},
    statements::{PATH, Projection, WRITTEN_KEYS},
};
use crate::mirror::quote::identifier as quote;

impl Projection {
    /// Whether the row `t` already is what a removed row becomes, with `u` for the object. A time
    /// only has to be set, because most of them are the moment of the removal.
    pub(super) fn is_removed(&self) -> String {
        match self.mapping.delete {
            RowRemoval::Delete => "false".to_owned(),
            RowRemoval::Keep => "true".to_owned(),
            RowRemoval::Update => {
                let columns = self.deleted.iter().map(|assignment| match assignment.is_time {
                    true => format!("t.{} IS NOT NULL", quote(&assignment.column)),
                    false => format!("NOT ({})", assignment.differs(&assignment.value)),
                });
                let columns: Vec<String> = columns.collect();
                match columns.is_empty() {
                    true => "true".to_owned(),
                    false => format!("({})", columns.join(" AND ")),
                }
            }
        }
    }

    /// An object of which only the id of the row `t` is known, if an expression needs one.
    pub(super) fn lone_object(&self, alias: &str) -> Option<String> {
        let object = format!("pg_catalog.jsonb_build_object('id', {})", self.key.of_row());
        match (self.mapping.delete, &self.future_columns) {
            (RowRemoval::Update, None) => Some(format!(
                "pg_catalog.jsonb_populate_record(NULL::{}, {object}) AS {alias}",
                self.source
            )),
            (RowRemoval::Update, Some(columns)) => {
                Some(format!("pg_catalog.jsonb_to_record({object}) AS {alias}({columns})"))
            }
            (RowRemoval::Delete | RowRemoval::Keep, _) => None,
        }
    }

    /// The same as a further item `u` of a `FROM` list that ends with `t`.
    pub(super) fn with_lone_object(&self) -> String {
        let object = self.lone_object("u");
        object.map_or_else(String::new, |object| format!(", LATERAL {object}"))
    }

    /// Returns the next keys, in order, that the mirror does not have. Parameters: the key before
    /// (`$1 text`) and their number (`$2 bigint`).
    pub(super) fn unknown(&self) -> String {
        let (after, row) = match &self.key {
            // Clerk cannot be asked about these keys: a path goes up at dots. They stay, as an empty one does.
            RowKey::Id { column, cast } => (
                format!("t.{column} > CAST($1 AS {cast}) AND t.{column}::text <> ALL (ARRAY['.'::text, '..'::text])"),
                format!("t.{column}"),
            ),
            RowKey::Values(_) => {
                let row = format!("({}) COLLATE \"C\"", self.key.of_row());
                (format!("{} AND {row} > $1", self.key.is_set()), row)
            }
        };
        format!(
            "SELECT {key} AS key FROM {table} AS t{object} WHERE {after} AND NOT {removed} AND NOT {is_known} \
             ORDER BY {row} LIMIT $2",
            key = self.key.of_row(),
            table = self.table,
            object = self.with_lone_object(),
            removed = self.is_removed(),
            is_known = self.is_known(),
        )
    }

    /// Removes the rows with these keys as the mapping says, and returns the keys; `None` if rows
    /// are kept. Parameter: `$1 text[]`.
    pub(super) fn remove(&self) -> Option<String> {
        let Self { table, source, .. } = self;
        let RowsOfKeys { items, condition, key } = self.rows_of_keys();
        match self.mapping.delete {
            RowRemoval::Keep => None,
            RowRemoval::Delete => Some(format!(
                "WITH {PATH}, written AS (DELETE FROM {table} AS t USING path{items} \
                 WHERE {condition} RETURNING {key} AS key) {WRITTEN_KEYS}"
            )),
            RowRemoval::Update => {
                let sets: Vec<String> = self
                    .deleted
                    .iter()
                    .map(|assignment| format!("{} = {}", quote(&assignment.column), assignment.value))
                    .collect();
                // Of each object, only the id is known.
                let objects = match &self.key {
                    RowKey::Id { .. } => "pg_catalog.unnest($1::text[]) AS w(key)".to_owned(),
                    RowKey::Values(_) => items.trim_start_matches(", ").to_owned(),
                };
                let condition = match &self.key {
                    RowKey::Id { .. } => self.key.is_of_item("w"),
                    RowKey::Values(_) => condition,
                };
                Some(format!(
                    "WITH {PATH}, objects AS MATERIALIZED (SELECT w.* FROM {objects}), \
                     written AS (UPDATE {table} AS t SET {} FROM objects AS w, \
                         LATERAL pg_catalog.jsonb_populate_record(NULL::{source}, pg_catalog.jsonb_build_object('id', w.key)) AS u, path \
                     WHERE {condition} AND NOT {} RETURNING w.key) {WRITTEN_KEYS}",
                    sets.join(", "),
                    self.is_removed()
                ))
            }
        }
    }

    /// Returns which of these keys have a row that is not removed. Parameter: `$1 text[]`.
    pub(super) fn remaining(&self) -> String {
        let RowsOfKeys { items, condition, key } = self.rows_of_keys();
        format!(
            "SELECT {key} AS key FROM {table} AS t{items}{object} WHERE {condition} AND NOT {removed}",
            table = self.table,
            object = self.with_lone_object(),
            removed = self.is_removed(),
        )
    }
}
