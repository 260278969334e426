//! The statements that compare and write a table, generated from its mapping and its shape.
//!
//! In each of them, `desired` is what the rows should be: the mapping's expressions over the rows
//! `u` of the mirror, cast to the types of the columns. Names in the expressions are found in
//! `pg_catalog` only, because the search path is restricted while the statement is parsed. `path`
//! puts the application's search path back before the first row is written: its triggers and
//! defaults may rely on it.

use super::{
    expression::MappedExpression,
    mapping::{Expressions, TableMapping},
    row_key::{RowKey, RowsOfKeys},
    shape::{ColumnShape, TableShape},
};
use crate::mirror::{
    locks::LockStrength,
    quote::{identifier as quote, literal},
};

/// Makes a transaction read only, so that not even a function in an expression can write.
pub(super) const READ_ONLY: &str = "SET TRANSACTION READ ONLY";

/// Restricts the search path for the parsing of the next statements, and remembers the old one.
/// `pg_temp` comes last, or temporary tables would come first. JIT is turned off until the end of
/// the transaction: it compiles a comparison for longer than it saves.
pub(super) const RESTRICT_PATH: &str = "\
    SELECT pg_catalog.set_config('clerk2pg.search_path', pg_catalog.current_setting('search_path'), true), \
           pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true), \
           pg_catalog.set_config('jit', 'off', true)";

/// Puts the search path back.
pub(super) const RESTORE_PATH: &str =
    "SELECT pg_catalog.set_config('search_path', pg_catalog.current_setting('clerk2pg.search_path'), true)";

/// Puts the search path back within a statement that was parsed with the restricted one.
pub(super) const PATH: &str = "path AS MATERIALIZED (\
    SELECT pg_catalog.set_config('search_path', pg_catalog.current_setting('clerk2pg.search_path'), true))";

/// Reads the keys that the statement `written` returns, after the search path is put back: also
/// triggers that run once before the statement rely on it. `OFFSET` keeps the order of the two.
pub(super) const WRITTEN_KEYS: &str =
    "SELECT w.key FROM path, LATERAL (SELECT x.key FROM written AS x WHERE path.set_config IS NOT NULL OFFSET 0) AS w";

/// Which rows of the mirror a statement is about: its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// Those with these ids: `$1 text[]`.
    Ids,
    /// Those whose ids are after `$1` and up to `$2`.
    Range,
    /// All rows. At most `$1` of them are returned.
    All,
    /// Rows as they will be, which a dry run does not write: `$1`, the text of a JSON array.
    Records,
}

impl Scope {
    pub(super) fn condition(self) -> &'static str {
        match self {
            Scope::Ids => "u.id = ANY ($1)",
            Scope::Range => "u.id > $1 AND u.id <= $2",
            Scope::All | Scope::Records => "true",
        }
    }
}

/// The rows in some blocks of the mirror: from `$1` up to, and without, `$2`, both `tid`s as text.
const BLOCKS: &str = "u.ctid >= CAST($1 AS tid) AND u.ctid < CAST($2 AS tid)";

/// Returns a condition in SQL: no letter of a text but A to Z is lower-cased. Otherwise two addresses
/// that mail is delivered to differently may become the same: many databases turn the Kelvin sign into
/// `k`.
pub(super) fn is_plain(text: &str) -> String {
    format!("pg_catalog.lower({text}) = pg_catalog.lower({text} COLLATE pg_catalog.\"C\")")
}

/// A column that a mapping writes.
#[derive(Debug, Clone)]
pub(super) struct Assignment {
    /// The column's name.
    pub(super) column: String,
    /// Its expression, cast to the column's type.
    pub(super) value: String,
    is_comparable: bool,
    /// Whether the column holds a moment or a date.
    pub(super) is_time: bool,
    is_not_null: bool,
    /// The column's type if it has a maximum length.
    length: Option<String>,
}

/// A mapping whose columns were found in the catalog.
#[derive(Debug, Clone)]
pub(in crate::mirror) struct Projection {
    /// The table's name, for people and for the bookkeeping.
    pub(super) name: String,
    pub(super) mapping: TableMapping,
    /// The mirror's table whose rows `u` are, in SQL.
    pub(super) source: &'static str,
    /// In SQL.
    pub(super) table: String,
    pub(super) key: RowKey,
    pub(super) set: Vec<Assignment>,
    pub(super) keep: Vec<Assignment>,
    touch: Vec<Assignment>,
    insert: Vec<Assignment>,
    pub(super) deleted: Vec<Assignment>,
    /// The columns of the mirror's table with their types, if a dry run works before that table
    /// exists.
    pub(super) future_columns: Option<String>,
}

impl Assignment {
    fn new(column: &ColumnShape, expression: &str) -> Self {
        Self {
            column: column.name.clone(),
            // On a line of its own: the expression may end with a comment.
            value: format!("CAST(({expression}\n) AS {})", column.cast),
            is_comparable: column.is_comparable,
            is_time: column.is_time,
            is_not_null: column.is_not_null,
            length: Some(column.shown.clone()).filter(|shown| shown.starts_with("character") && *shown != column.cast),
        }
    }

    /// Whether the row `t` differs from a value.
    pub(super) fn differs(&self, value: &str) -> String {
        let column = quote(&self.column);
        match self.is_comparable {
            true => format!("t.{column} IS DISTINCT FROM {value}"),
            false => format!("t.{column}::text IS DISTINCT FROM {value}::text"),
        }
    }
}

impl Projection {
    /// Joins a mapping with the shape of its table. Columns that the table does not have are left
    /// out: [`super::problems`] reports them before.
    pub(in crate::mirror) fn new(mapping: &TableMapping, shape: &TableShape) -> Self {
        let assignments = |expressions: &Expressions| {
            let found = expressions
                .iter()
                .filter_map(|(name, expression)| Some(Assignment::new(shape.column(name)?, expression)));
            found.collect::<Vec<_>>()
        };
        let set = assignments(&mapping.set);
        Self {
            name: mapping.table(),
            source: mapping.from.resource().table,
            table: mapping.quoted(),
            key: RowKey::new(mapping, shape, &set),
            set,
            keep: assignments(&mapping.keep),
            touch: assignments(&mapping.touch),
            insert: assignments(&mapping.insert),
            deleted: assignments(&mapping.deleted),
            future_columns: None,
            mapping: mapping.clone(),
        }
    }

    /// The same for a dry run before the mirror's table exists. `columns` are that table's columns
    /// with their types.
    pub(super) fn before_mirror(self, columns: String) -> Self {
        Self {
            future_columns: Some(columns),
            ..self
        }
    }

    /// Where the objects `u` of a scope come from.
    pub(super) fn objects(&self, scope: Scope) -> String {
        let source = self.source;
        match (scope, &self.future_columns) {
            (Scope::Ids | Scope::Range | Scope::All, _) => format!("{source} AS u"),
            // What a record leaves out is as in its row, if it has one.
            (Scope::Records, None) => format!(
                "pg_catalog.jsonb_array_elements($1::jsonb) AS r(record), \
                 LATERAL pg_catalog.jsonb_populate_record((SELECT m FROM {source} AS m WHERE m.id = r.record OPERATOR(pg_catalog.->>) 'id'::text), r.record) AS u"
            ),
            (Scope::Records, Some(columns)) => format!("pg_catalog.jsonb_to_recordset($1::jsonb) AS u({columns})"),
        }
    }

    pub(super) fn condition(&self) -> String {
        // On a line of its own: the condition may end with a comment.
        match (&self.mapping.condition, self.is_superseded()) {
            (Some(condition), Some(superseded)) => format!("(({condition}\n) AND NOT {superseded})"),
            (Some(condition), None) => format!("({condition}\n)"),
            (None, Some(superseded)) => format!("(NOT {superseded})"),
            (None, None) => "true".to_owned(),
        }
    }

    /// The columns of `desired`: `key`, and the values as `s0`, `k0` and `t0`.
    pub(super) fn desired(&self, scope: Scope) -> String {
        let values = [("s", &self.set), ("k", &self.keep), ("t", &self.touch)];
        let values = values.into_iter().flat_map(|(letter, list)| {
            list.iter()
                .enumerate()
                .map(move |(at, assignment)| format!(", {} AS {letter}{at}", assignment.value))
        });
        let values: String = values.collect();
        let address = match self.mapping.link {
            Some(_) => format!(
                ", CASE WHEN u.primary_email_verified AND {} THEN pg_catalog.lower(u.primary_email) END AS address",
                is_plain("u.primary_email")
            ),
            None => String::new(),
        };
        let materialized = match scope {
            // Many rows would be written to disk.
            Scope::All | Scope::Range => "NOT MATERIALIZED",
            Scope::Ids | Scope::Records => "MATERIALIZED",
        };
        format!(
            "desired AS {materialized} (SELECT u.id AS key{address}{values} FROM {} \
             WHERE {} AND u.deleted_at IS NULL AND {})",
            self.objects(scope),
            scope.condition(),
            self.condition()
        )
    }

    /// Updates the rows with these keys that differ, and returns the keys; `None` if no column is
    /// kept in sync. Parameter: `$1 text[]`.
    pub(super) fn update(&self) -> Option<String> {
        if self.set.is_empty() && self.keep.is_empty() {
            return None;
        }
        let set = self
            .set
            .iter()
            .enumerate()
            .filter(|(at, _)| !self.key.has_place(*at))
            .map(|(at, assignment)| format!("{} = d.s{at}", quote(&assignment.column)));
        let keep = self.keep.iter().enumerate().map(|(at, assignment)| {
            let column = quote(&assignment.column);
            format!("{column} = coalesce(d.k{at}, t.{column})")
        });
        let touch = self
            .touch
            .iter()
            .enumerate()
            .map(|(at, assignment)| format!("{} = d.t{at}", quote(&assignment.column)));
        let sets: Vec<String> = set.chain(keep).chain(touch).collect();
        if sets.is_empty() {
            return None;
        }
        Some(format!(
            "WITH {PATH}, {}, written AS (UPDATE {} AS t SET {} FROM desired AS d, path \
             WHERE {} AND ({}) RETURNING d.key) {WRITTEN_KEYS}",
            self.desired(Scope::Ids),
            self.table,
            sets.join(", "),
            self.key.is_of_desired(),
            self.differs()
        ))
    }

    /// Inserts the rows with these keys that do not exist, and returns the keys. Parameter:
    /// `$1 text[]`.
    pub(super) fn insert(&self) -> String {
        format!(
            "WITH {PATH}, {} {WRITTEN_KEYS}",
            self.insertion(Scope::Ids.condition(), true)
        )
    }

    /// Inserts the rows of some blocks of the mirror, and returns their number. Rows that exist are
    /// left out, unless the table was empty.
    pub(super) fn fill(&self, was_empty: bool) -> String {
        format!(
            "WITH {PATH}, {} SELECT pg_catalog.count(*) AS count FROM ({WRITTEN_KEYS}) AS k",
            self.insertion(BLOCKS, !was_empty)
        )
    }

    /// `written`: inserts the rows of these objects, and returns the keys. Rows that exist are skipped
    /// or refused.
    fn insertion(&self, objects: &str, skips_existing: bool) -> String {
        let all = || [&self.set, &self.keep, &self.touch, &self.insert].into_iter().flatten();
        let mut columns: Vec<String> = all().map(|assignment| quote(&assignment.column)).collect();
        let mut values: Vec<String> = all().map(|assignment| assignment.value.clone()).collect();
        if let RowKey::Id { column, cast } = &self.key
            && !columns.contains(column)
        {
            columns.push(column.clone());
            values.push(format!("CAST(u.id AS {cast})"));
        }
        // Not `NOT EXISTS`: for many objects, the server would read the whole table each time.
        let is_missing = match skips_existing {
            true => format!(
                "(SELECT true FROM {} AS o WHERE {} LIMIT 1) IS NULL",
                self.table,
                self.key.is_of_object("o")
            ),
            false => "true".to_owned(),
        };
        format!(
            "written AS (INSERT INTO {table} AS t ({columns}) SELECT {values} FROM path, {source} AS u \
             WHERE {objects} AND u.deleted_at IS NULL AND {condition} AND {is_missing} \
             RETURNING {key} AS key)",
            table = self.table,
            source = self.source,
            columns = columns.join(", "),
            values = values.join(", "),
            condition = self.condition(),
            key = self.key.of_row(),
        )
    }

    /// Gives the row without a key that has a user's address that user's key, and returns the keys.
    /// Parameter: `$1 text[]`, ids whose address exactly one row and one user have. The application
    /// may have inserted another such row since the plan: then none of them is given the key.
    pub(super) fn link(&self) -> Option<String> {
        let link = quote(self.mapping.link.as_ref()?);
        let RowKey::Id {
            column: key,
            cast: key_cast,
        } = &self.key
        else {
            return None;
        };
        let Self { table, source, .. } = self;
        let [is_plain, is_row_plain] = ["o", "t"].map(|row| is_plain(&format!("{row}.{link}::text")));
        Some(format!(
            "WITH {PATH}, free AS MATERIALIZED (SELECT pg_catalog.lower(o.{link}::text) AS address FROM {table} AS o \
                 WHERE o.{key} IS NULL AND {is_plain} AND pg_catalog.lower(o.{link}::text) IN ( \
                     SELECT pg_catalog.lower(u.primary_email) FROM {source} AS u WHERE u.id = ANY ($1)) \
                 GROUP BY 1 HAVING pg_catalog.count(*) = 1::bigint), \
             written AS (UPDATE {table} AS t SET {key} = CAST(u.id AS {key_cast}) FROM path, {source} AS u, free AS f \
             WHERE t.{key} IS NULL AND {is_row_plain} AND u.id = ANY ($1) AND u.deleted_at IS NULL AND u.primary_email_verified \
               AND f.address = pg_catalog.lower(u.primary_email) AND pg_catalog.lower(t.{link}::text) = f.address \
               AND NOT EXISTS (SELECT FROM {table} AS o WHERE o.{key} = CAST(u.id AS {key_cast})) \
             RETURNING u.id AS key) {WRITTEN_KEYS}"
        ))
    }

    /// Returns those of these keys whose rows another transaction has locked against something,
    /// without waiting for it. Parameter: `$1 text[]`.
    pub(super) fn locked(&self, against: LockStrength) -> String {
        let RowsOfKeys { items, condition, key } = self.rows_of_keys();
        format!(
            "WITH free AS MATERIALIZED (SELECT {row} AS row FROM {table} AS t{items} \
                 WHERE {condition} FOR {strength} OF t SKIP LOCKED) \
             SELECT {key} AS key FROM {table} AS t{items} WHERE {condition} \
               AND NOT EXISTS (SELECT FROM free AS f WHERE f.row = {row})",
            row = self.key.of_row(),
            table = self.table,
            strength = against.sql(),
        )
    }

    /// Counts the rows up to the first one.
    pub(super) fn count_first(&self) -> String {
        format!(
            "SELECT pg_catalog.count(*) AS count FROM (SELECT FROM {} LIMIT 1) AS t",
            self.table
        )
    }

    /// Counts the rows.
    pub(super) fn count(&self) -> String {
        format!("SELECT pg_catalog.count(*) AS count FROM {}", self.table)
    }

    /// Counts the objects that the mapping's condition includes; `None` if it has no condition.
    pub(super) fn count_included(&self) -> Option<String> {
        self.mapping.condition.as_ref()?;
        Some(format!(
            "SELECT pg_catalog.count(*) AS count FROM {} AS u WHERE u.deleted_at IS NULL AND {}",
            self.source,
            self.condition()
        ))
    }

    /// Returns 1 if no trigger and no rule of the application sees what is inserted, else 0.
    pub(super) fn count_without_reaction(&self) -> String {
        format!(
            "SELECT pg_catalog.count(*) AS count FROM pg_catalog.pg_class AS c WHERE c.oid = {table}::regclass AND NOT c.relhasrules \
             AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger AS g \
                 WHERE NOT g.tgisinternal AND g.tgenabled <> 'D' AND g.tgtype & 4::smallint <> 0::smallint \
                   AND (g.tgrelid = c.oid OR g.tgrelid IN (SELECT p.relid FROM pg_catalog.pg_partition_tree(c.oid) AS p)))",
            table = literal(&self.table)
        )
    }

    /// Locks the table against locks on the whole table.
    pub(super) fn lock(&self) -> String {
        format!("LOCK TABLE {} IN ROW EXCLUSIVE MODE", self.table)
    }

    /// Returns each expression of the mapping: the condition first.
    pub(super) fn expressions(&self) -> Vec<MappedExpression> {
        let all = format!("{} AS u WHERE u.deleted_at IS NULL", self.source);
        let condition = self.mapping.condition.as_ref().map(|_| MappedExpression {
            place: "where".to_owned(),
            is_condition: true,
            value: format!("CAST({} AS boolean)", self.condition()),
            from: all.clone(),
            is_not_null: false,
            length: None,
        });
        let from = format!("{all} AND {}", self.condition());
        let sections = [
            ("set", &self.set),
            ("keep", &self.keep),
            ("touch", &self.touch),
            ("insert", &self.insert),
            ("deleted", &self.deleted),
        ];
        let values = sections.into_iter().flat_map(|(section, assignments)| {
            let from = &from;
            assignments.iter().map(move |assignment| MappedExpression {
                place: format!("{:?} in [tables.{section}]", assignment.column),
                is_condition: false,
                value: assignment.value.clone(),
                from: from.clone(),
                is_not_null: assignment.is_not_null,
                length: assignment.length.clone(),
            })
        });
        condition.into_iter().chain(values).collect()
    }
}
