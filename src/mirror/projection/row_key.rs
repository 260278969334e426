//! How the row of an object is found: by a column with Clerk's id, or by columns that `set` fills.
//!
//! A table of members often has no column for Clerk's id, but an organization and a user, of which
//! there is one row each. Such a row is known by its values: as a JSON array, they take the place of
//! Clerk's id where the mirror has no object for the row.

use super::{
    mapping::TableMapping,
    shape::TableShape,
    statements::{Assignment, Projection, Scope},
};
use crate::mirror::quote::identifier as quote;

/// How the row of an object is found.
#[derive(Debug, Clone)]
pub(super) enum RowKey {
    /// By a column with Clerk's id.
    Id {
        /// Its name in SQL.
        column: String,
        /// The type that an id is cast to.
        cast: String,
    },
    /// By columns that `set` fills.
    Values(Vec<KeyColumn>),
}

/// A column of a key.
#[derive(Debug, Clone)]
pub(super) struct KeyColumn {
    /// Its name in SQL.
    column: String,
    /// Its expression over `u`, cast to its type.
    value: String,
    /// Its type.
    cast: String,
    /// Its place in `set`.
    place: usize,
}

impl RowKey {
    /// Joins the key of a mapping with the shape of its table.
    pub(super) fn new(mapping: &TableMapping, shape: &TableShape, set: &[Assignment]) -> Self {
        let cast = |column: &str| {
            let shape = shape.column(column);
            shape.map_or_else(|| "text".to_owned(), |column| column.cast.clone())
        };
        if let Some(column) = mapping.key.id_column() {
            return Self::Id {
                column: quote(column),
                cast: cast(column),
            };
        }
        let columns = mapping.key.columns().iter().filter_map(|column| {
            let place = set.iter().position(|assignment| assignment.column == *column)?;
            Some(KeyColumn {
                column: quote(column),
                value: set[place].value.clone(),
                cast: cast(column),
                place,
            })
        });
        Self::Values(columns.collect())
    }

    /// Whether a row `t` has a key. Rows without one belong to the application.
    pub(super) fn is_set(&self) -> String {
        self.all(
            |column| format!("t.{column} IS NOT NULL"),
            |column| format!("t.{} IS NOT NULL", column.column),
        )
    }

    /// The key of a row `t`, as text.
    pub(super) fn of_row(&self) -> String {
        match self {
            Self::Id { column, .. } => format!("t.{column}::text"),
            Self::Values(columns) => array(columns.iter().map(|column| format!("t.{}", column.column))),
        }
    }

    /// The key that the row of an object `u` has, as text.
    fn of_object(&self) -> String {
        match self {
            Self::Id { .. } => "u.id".to_owned(),
            Self::Values(columns) => array(columns.iter().map(|column| column.value.clone())),
        }
    }

    /// Whether `t` is the row of `desired`.
    pub(super) fn is_of_desired(&self) -> String {
        self.all(
            |column| format!("t.{column} = CAST(d.key AS {})", self.cast()),
            |KeyColumn { column, place, .. }| format!("t.{column} = d.s{place}"),
        )
    }

    /// Whether a row `o` is that of an object `u`.
    pub(super) fn is_of_object(&self) -> String {
        self.all(
            |column| format!("o.{column} = CAST(u.id AS {})", self.cast()),
            |KeyColumn { column, value, .. }| format!("o.{column} = {value}"),
        )
    }

    /// The values of the key for an object `u`, as further columns: `c0` and so on.
    fn values(&self) -> String {
        match self {
            Self::Id { .. } => String::new(),
            Self::Values(columns) => {
                let values = columns.iter().enumerate();
                values
                    .map(|(at, column)| format!(", {} AS c{at}", column.value))
                    .collect()
            }
        }
    }

    /// Whether `t` is the row with the key of an item `e`: its `key`, or the columns of
    /// [`Self::values`].
    pub(super) fn is_of_item(&self, item: &str) -> String {
        match self {
            Self::Id { column, cast } => format!("t.{column} = CAST({item}.key AS {cast})"),
            Self::Values(columns) => {
                let columns = columns.iter().enumerate();
                conjunction(columns.map(|(at, column)| format!("t.{} = {item}.c{at}", column.column)))
            }
        }
    }

    /// Whether the column at this place of `set` belongs to the key, so that it never changes.
    pub(super) fn has_place(&self, place: usize) -> bool {
        match self {
            Self::Id { .. } => false,
            Self::Values(columns) => columns.iter().any(|column| column.place == place),
        }
    }

    fn cast(&self) -> &str {
        match self {
            Self::Id { cast, .. } => cast,
            Self::Values(_) => "text",
        }
    }

    fn all(&self, id: impl Fn(&str) -> String, value: impl Fn(&KeyColumn) -> String) -> String {
        match self {
            Self::Id { column, .. } => id(column),
            Self::Values(columns) => conjunction(columns.iter().map(value)),
        }
    }
}

fn conjunction(conditions: impl Iterator<Item = String>) -> String {
    let conditions: Vec<String> = conditions.collect();
    format!("({})", conditions.join(" AND "))
}

fn array(values: impl Iterator<Item = String>) -> String {
    let values: Vec<String> = values.collect();
    format!("pg_catalog.jsonb_build_array({})::text", values.join(", "))
}

/// Rows `t` with some keys: what a statement reads besides the table, and which rows it selects.
pub(super) struct RowsOfKeys {
    /// Further items of the `FROM` list, each behind a comma.
    pub(super) items: String,
    pub(super) condition: String,
    /// The key, as it was given.
    pub(super) key: String,
}

impl Projection {
    /// The rows with the keys `$1 text[]`. A key is Clerk's id, or the values of a row as text.
    pub(super) fn rows_of_keys(&self) -> RowsOfKeys {
        match &self.key {
            RowKey::Id { column, cast } => RowsOfKeys {
                items: String::new(),
                condition: format!("t.{column} = ANY (CAST($1::text[] AS {cast}[]))"),
                key: format!("t.{column}::text"),
            },
            RowKey::Values(columns) => {
                let given = columns.iter().enumerate().map(|(at, column)| {
                    format!(
                        ", CAST(j.document OPERATOR(pg_catalog.->>) {at} AS {}) AS c{at}",
                        column.cast
                    )
                });
                RowsOfKeys {
                    items: format!(
                        ", (SELECT u.id AS key{values} FROM {source} AS u WHERE u.id = ANY ($1::text[]) AND NOT {rival} \
                            UNION ALL SELECT j.key{given} FROM (SELECT i.id AS key, CASE WHEN pg_catalog.starts_with(i.id, '[') \
                                THEN CAST(i.id AS jsonb) END AS document FROM pg_catalog.unnest($1::text[]) AS i(id)) AS j \
                            WHERE j.document IS NOT NULL) AS w",
                        values = self.key.values(),
                        source = self.source,
                        rival = rival(self.source, "r.id <> ALL ($1::text[])"),
                        given = given.collect::<String>(),
                    ),
                    condition: self.key.is_of_item("w"),
                    key: "w.key".to_owned(),
                }
            }
        }
    }

    /// Whether another object takes the place of `u` in the table: somebody who left an organization and
    /// came back has two memberships until Clerk has confirmed that the first one is gone.
    pub(super) fn is_superseded(&self) -> Option<String> {
        match (&self.key, &self.future_columns) {
            (RowKey::Id { .. }, _) | (_, Some(_)) => None,
            (RowKey::Values(_), None) => Some(rival(self.source, "(r.created_at, r.id) > (u.created_at, u.id)")),
        }
    }

    /// Returns the keys of rows whose objects the condition excludes.
    pub(super) fn excluded(&self, scope: Scope) -> String {
        let has_rival = match (&self.key, &self.future_columns) {
            (RowKey::Id { .. }, _) | (_, Some(_)) => "false".to_owned(),
            (RowKey::Values(_), None) => rival(self.source, "r.id <> u.id"),
        };
        format!(
            "SELECT e.key FROM (SELECT u.id AS key{values} FROM {objects} \
                 WHERE {scope} AND u.deleted_at IS NULL AND {condition} IS NOT TRUE AND NOT {has_rival}) AS e \
             JOIN {table} AS t ON {is_row}{object} WHERE NOT {removed}",
            values = self.key.values(),
            objects = self.objects(scope),
            scope = scope.condition(),
            condition = self.condition(),
            table = self.table,
            is_row = self.key.is_of_item("e"),
            object = self.with_lone_object(),
            removed = self.is_removed(),
        )
    }

    /// Whether the mirror has the object of the row `t`.
    pub(super) fn is_known(&self) -> String {
        match (&self.key, &self.future_columns) {
            (_, Some(_)) => "false".to_owned(),
            (RowKey::Id { column, .. }, None) => self.has_object(&format!("t.{column}")),
            (RowKey::Values(_), None) => self.has_object(&self.key.of_row()),
        }
    }

    /// Whether the mirror has an object with a key.
    pub(super) fn has_object(&self, key: &str) -> String {
        format!(
            "EXISTS (SELECT FROM {} AS u WHERE u.deleted_at IS NULL AND {} = {key})",
            self.source,
            self.key.of_object()
        )
    }

    /// Known objects that the condition excludes, to be joined with rows `t` that no object of `desired`
    /// has; `None` if all rows that are known by their values have one.
    pub(super) fn excluded_objects(&self) -> Option<String> {
        match (&self.key, &self.future_columns, &self.mapping.condition) {
            (RowKey::Values(_), None, Some(_)) => Some(format!(
                "(SELECT {row} AS row, pg_catalog.min(u.id) AS key FROM {source} AS u WHERE u.deleted_at IS NULL GROUP BY 1)",
                row = self.key.of_object(),
                source = self.source,
            )),
            _ => None,
        }
    }

    /// Returns those of these keys whose rows are to stay, because an object has them. Parameter:
    /// `$1 text[]`.
    pub(super) fn belonging(&self) -> String {
        let of_object = format!(
            "SELECT u.id AS key FROM {} AS u WHERE u.id = ANY ($1) AND u.deleted_at IS NULL AND {}",
            self.source,
            self.condition()
        );
        match &self.key {
            RowKey::Id { .. } => of_object,
            RowKey::Values(_) => format!(
                "{of_object} UNION ALL SELECT o.row FROM (SELECT {row} AS row FROM {source} AS u \
                     WHERE u.deleted_at IS NULL AND {condition}) AS o WHERE o.row = ANY ($1)",
                row = self.key.of_object(),
                source = self.source,
                condition = self.condition(),
            ),
        }
    }
}

/// Whether there is another object of the same organization and user as `u`.
fn rival(source: &str, which: &str) -> String {
    format!(
        "EXISTS (SELECT FROM {source} AS r WHERE r.organization_id = u.organization_id AND r.user_id = u.user_id \
             AND r.deleted_at IS NULL AND {which})"
    )
}
