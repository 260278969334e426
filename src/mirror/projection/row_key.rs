//! How the row of an object is found: by a column with Clerk's id, or by columns that `set` fills.
//!
//! A table of members often has no column for Clerk's id, but an organization and a user, of which
//! there is one row each. Where the mirror has no object for such a row, its values as a JSON array name
//! it in place of Clerk's id. Rows and objects are compared as the types of the columns compare.

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

    /// Whether `t` is the row of `desired`.
    pub(super) fn is_of_desired(&self) -> String {
        self.all(
            |column| format!("t.{column} = CAST(d.key AS {})", self.cast()),
            |KeyColumn { column, place, .. }| format!("t.{column} = d.s{place}"),
        )
    }

    /// Whether a row with this alias is that of an object `u`.
    pub(super) fn is_of_object(&self, row: &str) -> String {
        self.all(
            |column| format!("{row}.{column} = CAST(u.id AS {})", self.cast()),
            |KeyColumn { column, value, .. }| format!("{row}.{column} = {value}"),
        )
    }

    /// Whether an object `u` has the values of an item `w`: the columns of [`Self::values`].
    fn has_values(columns: &[KeyColumn]) -> String {
        let columns = columns.iter().enumerate();
        conjunction(columns.map(|(at, column)| format!("w.c{at} = {}", column.value)))
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

/// The rows that are named by their values among some keys, with the values as `c0` and so on. `keys` is
/// a query of keys `id`.
fn named_rows(columns: &[KeyColumn], keys: &str) -> String {
    let values = columns.iter().enumerate().map(|(at, column)| {
        let cast = &column.cast;
        format!(", CAST(j.document OPERATOR(pg_catalog.->>) {at} AS {cast}) AS c{at}")
    });
    format!(
        "SELECT j.key{values} FROM (SELECT i.id AS key, CASE WHEN pg_catalog.starts_with(i.id, '[') \
             THEN CAST(i.id AS jsonb) END AS document FROM ({keys}) AS i) AS j WHERE j.document IS NOT NULL",
        values = values.collect::<String>(),
    )
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
            RowKey::Values(columns) => RowsOfKeys {
                items: format!(
                    ", (SELECT e.key{names} FROM ({objects}) AS e WHERE NOT {has_heir} UNION ALL {named}) AS w",
                    names = (0..columns.len()).map(|at| format!(", e.c{at}")).collect::<String>(),
                    objects = self.keyed_objects(&format!("{} AS u", self.source), "u.id = ANY ($1::text[])"),
                    has_heir = self.has_heir("u.id <> ALL ($1::text[])"),
                    named = named_rows(columns, "SELECT k.id FROM pg_catalog.unnest($1::text[]) AS k(id)"),
                ),
                condition: self.key.is_of_item("w"),
                key: "w.key".to_owned(),
            },
        }
    }

    /// Returns the names of rows with the keys `$1 text[]`: `id`, as it was given, and `name`, the values of
    /// the row; `None` if the rows have Clerk's id.
    pub(super) fn names(&self) -> Option<String> {
        let RowsOfKeys { items, condition, key } = self.rows_of_keys();
        matches!(self.key, RowKey::Values(_)).then(|| {
            format!(
                "SELECT {key} AS id, {name} AS name FROM {table} AS t{items} WHERE {condition}",
                name = self.key.of_row(),
                table = self.table,
            )
        })
    }

    /// Objects `u` with their keys, the values of these, and whose they are.
    fn keyed_objects(&self, objects: &str, condition: &str) -> String {
        let owner = match self.key {
            RowKey::Id { .. } => "",
            RowKey::Values(_) => ", u.organization_id, u.user_id",
        };
        let values = self.key.values();
        format!("SELECT u.id AS key{values}{owner} FROM {objects} WHERE {condition}")
    }

    /// Whether the row of an object `e` belongs to another one: somebody who left an organization and came
    /// back has two memberships until Clerk has confirmed that the first one is gone.
    fn has_heir(&self, which: &str) -> String {
        match (&self.key, &self.future_columns) {
            (RowKey::Id { .. }, _) | (_, Some(_)) => "false".to_owned(),
            (RowKey::Values(_), None) => format!(
                "EXISTS (SELECT FROM {} AS u WHERE u.organization_id = e.organization_id AND u.user_id = e.user_id \
                     AND u.deleted_at IS NULL AND {} AND {which})",
                self.source,
                self.condition()
            ),
        }
    }

    /// Whether a newer object decides about the row of `u`.
    pub(super) fn is_superseded(&self) -> Option<String> {
        match (&self.key, &self.future_columns) {
            (RowKey::Id { .. }, _) | (_, Some(_)) => None,
            (RowKey::Values(_), None) => Some(format!(
                "EXISTS (SELECT FROM {} AS r WHERE r.organization_id = u.organization_id AND r.user_id = u.user_id \
                     AND r.deleted_at IS NULL AND (r.created_at, r.id) > (u.created_at, u.id))",
                self.source
            )),
        }
    }

    /// Returns the keys of rows whose objects the condition excludes.
    pub(super) fn excluded(&self, scope: Scope) -> String {
        let excluded = format!(
            "{} AND u.deleted_at IS NULL AND {} IS NOT TRUE",
            scope.condition(),
            self.condition()
        );
        format!(
            "SELECT e.key FROM ({objects}) AS e JOIN {table} AS t ON {is_row}{object} WHERE NOT {removed} AND NOT {has_heir}",
            objects = self.keyed_objects(&self.objects(scope), &excluded),
            table = self.table,
            is_row = self.key.is_of_item("e"),
            object = self.with_lone_object(),
            removed = self.is_removed(),
            has_heir = self.has_heir("u.id <> e.key"),
        )
    }

    /// Whether the mirror has the object of the row `t`.
    pub(super) fn is_known(&self) -> String {
        match (&self.key, &self.future_columns) {
            (_, Some(_)) => "false".to_owned(),
            (RowKey::Id { column, .. }, None) => format!(
                "EXISTS (SELECT FROM {} AS m WHERE m.id = t.{column} AND m.deleted_at IS NULL)",
                self.source
            ),
            (RowKey::Values(_), None) => format!(
                "EXISTS (SELECT FROM {} AS u WHERE u.deleted_at IS NULL AND {})",
                self.source,
                self.key.is_of_object("t")
            ),
        }
    }

    /// The keys of unknown departures whose objects are in the mirror by now. Parameter: the table's name.
    pub(super) fn known_departures(&self) -> String {
        let source = self.source;
        let unknown =
            "SELECT d.object_id AS id FROM clerk.departures AS d WHERE d.table_name = $1 AND d.reason = 'unknown'";
        match &self.key {
            RowKey::Id { .. } => format!(
                "{unknown} AND EXISTS (SELECT FROM {source} AS u WHERE u.id = d.object_id AND u.deleted_at IS NULL)"
            ),
            RowKey::Values(columns) => format!(
                "SELECT w.key FROM ({}) AS w WHERE EXISTS (SELECT FROM {source} AS u WHERE u.deleted_at IS NULL AND {})",
                named_rows(columns, unknown),
                RowKey::has_values(columns)
            ),
        }
    }

    /// Joins rows `t` that no object of `desired` has with excluded objects `x`; `None` if all rows that are
    /// known by their values have one.
    pub(super) fn excluded_objects(&self) -> Option<String> {
        match (&self.key, &self.future_columns, &self.mapping.condition) {
            (RowKey::Values(columns), None, Some(_)) => {
                let groups: Vec<String> = (2..columns.len() + 2).map(|at| at.to_string()).collect();
                Some(format!(
                    " LEFT JOIN (SELECT pg_catalog.min(u.id) AS key{values} FROM {source} AS u \
                         WHERE u.deleted_at IS NULL GROUP BY {groups}) AS x ON d.key IS NULL AND {is_row}",
                    values = self.key.values(),
                    source = self.source,
                    groups = groups.join(", "),
                    is_row = self.key.is_of_item("x"),
                ))
            }
            _ => None,
        }
    }

    /// Returns those of these keys whose rows are to stay, because an object has them. Parameter:
    /// `$1 text[]`.
    pub(super) fn belonging(&self, keys: &[String]) -> String {
        let of_object = format!(
            "SELECT u.id AS key FROM {} AS u WHERE u.id = ANY ($1) AND u.deleted_at IS NULL AND {}",
            self.source,
            self.condition()
        );
        match &self.key {
            RowKey::Id { .. } => of_object,
            RowKey::Values(_) if !keys.iter().any(|key| is_name(key)) => of_object,
            RowKey::Values(columns) => format!(
                "{of_object} UNION ALL SELECT w.key FROM ({named}) AS w \
                     WHERE EXISTS (SELECT FROM {source} AS u WHERE u.deleted_at IS NULL AND {condition} AND {has_values})",
                named = named_rows(columns, "SELECT k.id FROM pg_catalog.unnest($1::text[]) AS k(id)"),
                source = self.source,
                condition = self.condition(),
                has_values = RowKey::has_values(columns),
            ),
        }
    }
}

/// Whether a key names a row by its values.
fn is_name(key: &str) -> bool {
    key.starts_with('[')
}
