//! What the catalog says about any table, to propose a mapping for it, and what rows a mapping would make.

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{Array, Bool, Integer, Nullable, Oid, Text},
};
use diesel_async::{AsyncConnection, RunQueryDsl, SimpleAsyncConnection};

use super::{
    app_tables::AppTables,
    mapping::{Expressions, Source, TableMapping},
    shape::{TableName, unique_indexes},
    statements::{READ_ONLY, RESTORE_PATH, RESTRICT_PATH},
    trial::join,
};
use crate::mirror::{MirrorError, quote, session::Session};

/// Time limit for a statement that reads a table of the application, which may be locked.
const LIMIT_MS: u32 = 8_000;

/// A table of the application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableFacts {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Its columns, in order.
    pub columns: Vec<ColumnFacts>,
    /// The columns of each unique index that covers all rows, or all rows with its column.
    pub unique: Vec<Vec<String>>,
    /// Whether this role may read it, and sees all of its rows.
    is_readable: bool,
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct ColumnFacts {
    /// Its name.
    #[diesel(sql_type = Text)]
    pub name: String,
    /// Its type, as SQL writes it.
    #[diesel(sql_type = Text)]
    pub shown: String,
    /// The name of its base type, for example `timestamptz`.
    #[diesel(sql_type = Text)]
    pub base: String,
    /// PostgreSQL's category of its type, for example `S` for strings.
    #[diesel(sql_type = Text)]
    pub category: String,
    /// The maximum number of characters.
    #[diesel(sql_type = Nullable<Integer>)]
    pub max_length: Option<i32>,
    /// Whether it must not be `NULL`.
    #[diesel(sql_type = Bool)]
    pub is_not_null: bool,
    /// Whether the database fills it in if an insert leaves it out.
    #[diesel(sql_type = Bool)]
    pub has_default: bool,
    /// Whether only the database writes it.
    #[diesel(sql_type = Bool)]
    pub is_generated: bool,
    /// The labels of its enum type.
    #[diesel(sql_type = Array<Text>)]
    pub labels: Vec<String>,
    /// Its CHECK constraints.
    #[diesel(sql_type = Array<Text>)]
    pub checks: Vec<String>,
    /// The schema, table and column that it refers to; empty if it refers to none.
    #[diesel(sql_type = Array<Text>)]
    pub refers_to: Vec<String>,
}

#[derive(QueryableByName)]
struct Relation {
    #[diesel(sql_type = Oid)]
    oid: u32,
    #[diesel(sql_type = Bool)]
    is_readable: bool,
}

#[derive(QueryableByName)]
struct Values {
    #[diesel(sql_type = Array<Nullable<Text>>)]
    values: Vec<Option<String>>,
}

#[derive(QueryableByName)]
struct Answer {
    #[diesel(sql_type = Bool)]
    is_so: bool,
}

impl AppTables {
    /// Describes all tables of the application.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn all_facts(&self) -> Result<Vec<TableFacts>, MirrorError> {
        let mut conn = self.0.connection().await?;
        conn.transaction(async |conn| {
            conn.batch_execute(READ_ONLY).await?;
            let names = TableName::all(conn).await?;
            conn.batch_execute(RESTRICT_PATH).await?;
            let mut all = Vec::new();
            for TableName { schema, name } in names {
                all.extend(facts(conn, schema, name).await?);
            }
            conn.batch_execute(RESTORE_PATH).await?;
            Ok(all)
        })
        .await
    }

    /// Whether a table has rows, or may have some that this role cannot see.
    ///
    /// # Errors
    /// The database does not answer in time.
    pub async fn has_rows(&self, table: &TableFacts) -> Result<bool, MirrorError> {
        let name = table.quoted();
        Ok(!table.is_readable
            || self
                .answer(format!("SELECT EXISTS (SELECT FROM {name}) AS is_so"))
                .await?)
    }

    /// Whether a column of a table has values, and none of them begins like Clerk's ids of a resource.
    ///
    /// # Errors
    /// The database does not answer in time.
    pub async fn has_other_ids(&self, table: &TableFacts, column: &str, prefix: &str) -> Result<bool, MirrorError> {
        let (name, column, prefix) = (table.quoted(), quote::identifier(column), quote::literal(prefix));
        let sql = format!(
            "SELECT EXISTS (SELECT FROM {name} WHERE {column} IS NOT NULL)
                AND NOT EXISTS (SELECT FROM {name} WHERE pg_catalog.starts_with({column}, {prefix})) AS is_so"
        );
        Ok(table.is_readable && self.answer(sql).await?)
    }

    /// Answers a question about a table of the application.
    async fn answer(&self, sql: String) -> Result<bool, MirrorError> {
        let mut conn = self.0.connection().await?;
        conn.transaction(async |conn| {
            begin(conn).await?;
            conn.batch_execute(RESTRICT_PATH).await?;
            let answer: Answer = sql_query(sql).get_result(conn).await?;
            conn.batch_execute(RESTORE_PATH).await?;
            Ok(answer.is_so)
        })
        .await
    }

    /// Returns the values that a mapping makes of some objects of the mirror for new rows, with the names of
    /// the columns. Empty if the mapping cannot be used.
    ///
    /// # Errors
    /// The database does not answer, or an expression fails.
    pub async fn preview(
        &self,
        mapping: &TableMapping,
        objects: u32,
    ) -> Result<(Vec<String>, Vec<Vec<Option<String>>>), MirrorError> {
        let shown = TableMapping {
            deleted: Expressions::new(),
            ..mapping.clone()
        };
        let mut conn = self.0.connection().await?;
        conn.transaction(async |conn| {
            begin(conn).await?;
            let Some(projection) = join(conn, &shown).await?.projection else {
                return Ok((Vec::new(), Vec::new()));
            };
            let expressions = projection.expressions();
            let values = expressions.iter().filter(|expression| !expression.is_condition);
            let values: Vec<String> = values
                .map(|expression| format!(", ({})::text", expression.value))
                .collect();
            let Some(last) = expressions.last() else {
                return Ok((Vec::new(), Vec::new()));
            };
            let sql = format!(
                "SELECT ARRAY[u.id{}]::text[] AS values FROM {} ORDER BY u.created_at, u.id LIMIT {objects}",
                values.concat(),
                last.from
            );
            conn.batch_execute(RESTRICT_PATH).await?;
            let rows: Vec<Values> = sql_query(sql).load(conn).await?;
            conn.batch_execute(RESTORE_PATH).await?;
            let written = [&shown.set, &shown.keep, &shown.touch, &shown.insert];
            let written: Vec<(&String, &String)> = written.into_iter().flatten().collect();
            let id = mapping.key.id_column().unwrap_or("(membership)").to_owned();
            let columns = written.iter().map(|(column, _)| (*column).clone());
            let columns = [id].into_iter().chain(columns).collect();
            // Nobody asked to see it.
            let is_private = |at: usize| at > 0 && written[at - 1].1.contains("private_metadata");
            let hide = |(at, value): (usize, Option<String>)| match is_private(at) {
                true => value.map(|_| "…".to_owned()),
                false => value,
            };
            let rows = rows
                .into_iter()
                .map(|row| row.values.into_iter().enumerate().map(hide).collect());
            Ok((columns, rows.collect()))
        })
        .await
    }
}

impl TableFacts {
    /// Returns a column.
    pub fn column(&self, name: &str) -> Option<&ColumnFacts> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Whether a unique index consists of this column alone.
    pub fn is_unique(&self, name: &str) -> bool {
        self.unique
            .iter()
            .any(|columns| columns.len() == 1 && columns[0] == name)
    }

    /// Its name for people: `public."User"`.
    pub fn shown(&self) -> String {
        TableMapping::of(&self.schema, &self.name, Source::Users).table()
    }

    /// Whether somebody who writes this name means the table: with or without its schema, and with or
    /// without quotes.
    pub fn is_called(&self, name: &str) -> bool {
        let plain = name.replace('"', "");
        let full = format!("{}.{}", self.schema, self.name);
        plain == self.name && self.schema == "public" || plain == full
    }

    /// Its name in SQL: `"public"."User"`.
    pub fn quoted(&self) -> String {
        format!("{}.{}", quote::identifier(&self.schema), quote::identifier(&self.name))
    }
}

/// Begins to read tables of the application.
async fn begin(conn: &mut Session) -> QueryResult<()> {
    conn.batch_execute(READ_ONLY).await?;
    conn.batch_execute(&format!("SET LOCAL statement_timeout = {LIMIT_MS}"))
        .await
}

/// Describes a table; `None` if it is a partition. The search path must be restricted.
async fn facts(conn: &mut Session, schema: String, name: String) -> QueryResult<Option<TableFacts>> {
    let relation: Option<Relation> = sql_query(
        "SELECT c.oid, pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT')
                    AND NOT pg_catalog.row_security_active(c.oid) AS is_readable
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = $1 AND c.relname = $2 AND NOT c.relispartition",
    )
    .bind::<Text, _>(&schema)
    .bind::<Text, _>(&name)
    .get_result(conn)
    .await
    .optional()?;
    let Some(Relation { oid, is_readable }) = relation else {
        return Ok(None);
    };
    Ok(Some(TableFacts {
        schema,
        name,
        columns: columns(conn, oid).await?,
        unique: unique_indexes(conn, oid).await?,
        is_readable,
    }))
}

async fn columns(conn: &mut Session, table: u32) -> QueryResult<Vec<ColumnFacts>> {
    sql_query(
        "SELECT a.attname::text AS name, pg_catalog.format_type(a.atttypid, a.atttypmod) AS shown, b.typname::text AS base,
                b.typcategory::text AS category,
                CASE WHEN b.typname IN ('varchar', 'bpchar') AND greatest(a.atttypmod, t.typtypmod) > 4
                     THEN greatest(a.atttypmod, t.typtypmod) - 4 END AS max_length,
                a.attnotnull OR t.typnotnull AS is_not_null,
                a.atthasdef OR a.attidentity <> '' OR t.typdefault IS NOT NULL AS has_default,
                a.attgenerated <> '' OR a.attidentity = 'a' AS is_generated,
                ARRAY(SELECT e.enumlabel::text FROM pg_catalog.pg_enum e WHERE e.enumtypid = b.oid ORDER BY e.enumsortorder) AS labels,
                ARRAY(SELECT pg_catalog.pg_get_constraintdef(k.oid) FROM pg_catalog.pg_constraint k
                      WHERE k.conrelid = a.attrelid AND k.contype = 'c' AND k.conkey = ARRAY[a.attnum] ORDER BY k.conname) AS checks,
                ARRAY(SELECT pg_catalog.unnest(ARRAY[n2.nspname, c2.relname, a2.attname])::text
                      FROM pg_catalog.pg_constraint k
                      JOIN pg_catalog.pg_class c2 ON c2.oid = k.confrelid
                      JOIN pg_catalog.pg_namespace n2 ON n2.oid = c2.relnamespace
                      JOIN pg_catalog.pg_attribute a2 ON a2.attrelid = c2.oid AND a2.attnum = k.confkey[1]
                      WHERE k.oid = (SELECT o.oid FROM pg_catalog.pg_constraint o WHERE o.conrelid = a.attrelid
                                     AND o.contype = 'f' AND o.conkey = ARRAY[a.attnum] ORDER BY o.conname LIMIT 1)) AS refers_to
         FROM pg_catalog.pg_attribute a
         JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
         JOIN pg_catalog.pg_type b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
         WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
         ORDER BY a.attnum",
    )
    .bind::<Oid, _>(table)
    .load(conn)
    .await
}
