//! The statements about rows that are to go.
//!
//! Expressions of `[tables.deleted]` know the id of the object only, in every statement: later syncs
//! compare the row with them, when the mirror does not have the object any more.

use super::{
    mapping::RowRemoval,
    statements::{PATH, Projection, Scope, WRITTEN_KEYS},
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
        let object = format!("pg_catalog.jsonb_build_object('id', t.{}::text)", self.key);
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
    fn with_lone_object(&self) -> String {
        let object = self.lone_object("u");
        object.map_or_else(String::new, |object| format!(", LATERAL {object}"))
    }

    /// Whether the mirror has the object of the row `t`.
    pub(super) fn is_known(&self) -> String {
        match self.future_columns {
            Some(_) => "false".to_owned(),
            None => format!(
                "EXISTS (SELECT FROM {} AS m WHERE m.id = t.{} AND m.deleted_at IS NULL)",
                self.source, self.key
            ),
        }
    }

    /// Returns the keys of rows whose objects the condition excludes.
    pub(super) fn excluded(&self, scope: Scope) -> String {
        format!(
            "SELECT e.key FROM (SELECT u.id AS key FROM {objects} \
                 WHERE {scope} AND u.deleted_at IS NULL AND {condition} IS NOT TRUE) AS e \
             JOIN {table} AS t ON t.{key} = CAST(e.key AS {cast}){object} WHERE NOT {removed}",
            objects = self.objects(scope),
            scope = scope.condition(),
            condition = self.condition(),
            table = self.table,
            key = self.key,
            cast = self.key_cast,
            object = self.with_lone_object(),
            removed = self.is_removed(),
        )
    }

    /// Returns those of these objects that are to have a row. Parameter: `$1 text[]`.
    pub(super) fn belonging(&self) -> String {
        format!(
            "SELECT u.id AS key FROM {} AS u WHERE u.id = ANY ($1) AND u.deleted_at IS NULL AND {}",
            self.source,
            self.condition()
        )
    }

    /// Returns the next keys, in order, that the mirror does not have. Parameters: the key before
    /// (`$1 text`) and their number (`$2 bigint`).
    pub(super) fn unknown(&self) -> String {
        format!(
            "SELECT t.{key}::text AS key FROM {table} AS t{object} \
             WHERE t.{key} > CAST($1 AS {cast}) AND NOT {removed} AND NOT {is_known} \
             ORDER BY t.{key} LIMIT $2",
            key = self.key,
            table = self.table,
            cast = self.key_cast,
            object = self.with_lone_object(),
            removed = self.is_removed(),
            is_known = self.is_known(),
        )
    }

    /// Removes the rows with these keys as the mapping says, and returns the keys; `None` if rows
    /// are kept. Parameter: `$1 text[]`.
    pub(super) fn remove(&self) -> Option<String> {
        let Self {
            table,
            source,
            key,
            key_cast,
            ..
        } = self;
        match self.mapping.delete {
            RowRemoval::Keep => None,
            RowRemoval::Delete => Some(format!(
                "WITH {PATH}, written AS (DELETE FROM {table} AS t USING path \
                 WHERE t.{key} = ANY (CAST($1::text[] AS {key_cast}[])) RETURNING t.{key}::text AS key) {WRITTEN_KEYS}"
            )),
            RowRemoval::Update => {
                let sets: Vec<String> = self
                    .deleted
                    .iter()
                    .map(|assignment| format!("{} = {}", quote(&assignment.column), assignment.value))
                    .collect();
                Some(format!(
                    "WITH {PATH}, objects AS MATERIALIZED (SELECT o.* FROM pg_catalog.unnest($1::text[]) AS i(id), \
                         LATERAL pg_catalog.jsonb_populate_record(NULL::{source}, pg_catalog.jsonb_build_object('id', i.id)) AS o), \
                     written AS (UPDATE {table} AS t SET {} FROM objects AS u, path \
                     WHERE t.{key} = CAST(u.id AS {key_cast}) AND NOT {} RETURNING u.id AS key) {WRITTEN_KEYS}",
                    sets.join(", "),
                    self.is_removed()
                ))
            }
        }
    }

    /// Returns which of these keys have a row that is not removed. Parameter: `$1 text[]`.
    pub(super) fn remaining(&self) -> String {
        format!(
            "SELECT t.{key}::text AS key FROM {table} AS t{object} \
             WHERE t.{key} = ANY (CAST($1::text[] AS {cast}[])) AND NOT {removed}",
            key = self.key,
            table = self.table,
            cast = self.key_cast,
            object = self.with_lone_object(),
            removed = self.is_removed(),
        )
    }
}
