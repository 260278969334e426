//! What the catalog says about any table, to propose a mapping for it, and what rows a mapping would make.

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{Array, Bool, Integer, Nullable, Text},
};
use diesel_async::{AsyncConnection, RunQueryDsl, SimpleAsyncConnection};

use super::{
    app_tables::AppTables,
    mapping::{Expressions, Source, TableMapping},
    shape::TableName,
    statements::{READ_ONLY, RESTORE_PATH, RESTRICT_PATH},
    trial::join,
};
use crate::mirror::{MirrorError, quote, session::Session};

/// Time limit for the rows that are shown.
const PREVIEW_LIMIT_MS: u32 = 8_000;

/// A table of the application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableFacts {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Its columns, in order.
    pub columns: Vec<ColumnFacts>,
    /// The columns of each unique index that covers all rows, or all rows with its column; the primary
    /// key comes first.
    pub unique: Vec<Vec<String>>,
    /// Whether it has rows, or may have some that this role cannot see.
    pub has_rows: bool,
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
struct UniqueColumns {
    #[diesel(sql_type = Array<Text>)]
    columns: Vec<String>,
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
    /// Describes a table; `None` if there is no such table.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn facts(&self, schema: &str, name: &str) -> Result<Option<TableFacts>, MirrorError> {
        let mut conn = self.0.connection().await?;
        conn.transaction(async |conn| {
            conn.batch_execute(READ_ONLY).await?;
            conn.batch_execute(RESTRICT_PATH).await?;
            let columns = columns(conn, schema, name).await?;
            let unique = unique(conn, schema, name).await?;
            let mut facts = TableFacts {
                schema: schema.to_owned(),
                name: name.to_owned(),
                columns,
                unique,
                has_rows: true,
            };
            if facts.columns.is_empty() {
                return Ok(None);
            }
            if readable(conn, &facts).await? {
                let sql = format!("SELECT EXISTS (SELECT FROM {}) AS is_so", facts.quoted());
                facts.has_rows = sql_query(sql).get_result::<Answer>(conn).await?.is_so;
            }
            conn.batch_execute(RESTORE_PATH).await?;
            Ok(Some(facts))
        })
        .await
    }

    /// Whether a column of a table has values, and none of them begins like Clerk's ids of a resource.
    ///
    /// # Errors
    /// The database does not answer, or does not let this role read the table.
    pub async fn has_other_ids(&self, table: &TableFacts, column: &str, prefix: &str) -> Result<bool, MirrorError> {
        let mut conn = self.0.connection().await?;
        conn.transaction(async |conn| {
            conn.batch_execute(READ_ONLY).await?;
            conn.batch_execute(RESTRICT_PATH).await?;
            let mut is_so = false;
            if readable(conn, table).await? {
                let (column, table) = (quote::identifier(column), table.quoted());
                let sql = format!(
                    "SELECT EXISTS (SELECT FROM {table} WHERE {column} IS NOT NULL)
                        AND NOT EXISTS (SELECT FROM {table} WHERE pg_catalog.starts_with({column}, $1)) AS is_so"
                );
                let query = sql_query(sql).bind::<Text, _>(prefix);
                is_so = query.get_result::<Answer>(conn).await?.is_so;
            }
            conn.batch_execute(RESTORE_PATH).await?;
            Ok(is_so)
        })
        .await
    }

    /// Describes all tables of the application.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn all_facts(&self) -> Result<Vec<TableFacts>, MirrorError> {
        let names = TableName::all(&mut *self.0.connection().await?).await?;
        let mut all = Vec::new();
        for TableName { schema, name } in names {
            all.extend(self.facts(&schema, &name).await?);
        }
        Ok(all)
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
            conn.batch_execute(READ_ONLY).await?;
            conn.batch_execute(&format!("SET LOCAL statement_timeout = {PREVIEW_LIMIT_MS}"))
                .await?;
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

/// Whether this role may read the whole table, and sees all of its rows.
async fn readable(conn: &mut Session, table: &TableFacts) -> QueryResult<bool> {
    let answer: Answer = sql_query(
        "SELECT coalesce((SELECT pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT')
                              AND NOT pg_catalog.row_security_active(c.oid)
                          FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                          WHERE n.nspname = $1 AND c.relname = $2), false) AS is_so",
    )
    .bind::<Text, _>(&table.schema)
    .bind::<Text, _>(&table.name)
    .get_result(conn)
    .await?;
    Ok(answer.is_so)
}

async fn columns(conn: &mut Session, schema: &str, name: &str) -> QueryResult<Vec<ColumnFacts>> {
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
                      WHERE k.conrelid = c.oid AND k.contype = 'c' AND k.conkey = ARRAY[a.attnum] ORDER BY k.conname) AS checks,
                ARRAY(SELECT pg_catalog.unnest(ARRAY[n2.nspname, c2.relname, a2.attname])::text
                      FROM pg_catalog.pg_constraint k
                      JOIN pg_catalog.pg_class c2 ON c2.oid = k.confrelid
                      JOIN pg_catalog.pg_namespace n2 ON n2.oid = c2.relnamespace
                      JOIN pg_catalog.pg_attribute a2 ON a2.attrelid = c2.oid AND a2.attnum = k.confkey[1]
                      WHERE k.oid = (SELECT o.oid FROM pg_catalog.pg_constraint o WHERE o.conrelid = c.oid
                                     AND o.contype = 'f' AND o.conkey = ARRAY[a.attnum] ORDER BY o.conname LIMIT 1)) AS refers_to
         FROM pg_catalog.pg_attribute a
         JOIN pg_catalog.pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p') AND NOT c.relispartition
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
         JOIN pg_catalog.pg_type b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
         WHERE n.nspname = $1 AND c.relname = $2 AND a.attnum > 0 AND NOT a.attisdropped
         ORDER BY a.attnum",
    )
    .bind::<Text, _>(schema)
    .bind::<Text, _>(name)
    .load(conn)
    .await
}

async fn unique(conn: &mut Session, schema: &str, name: &str) -> QueryResult<Vec<Vec<String>>> {
    let rows: Vec<UniqueColumns> = sql_query(
        "SELECT ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS k(number, place)
                      JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
                      WHERE k.place <= i.indnkeyatts ORDER BY k.place) AS columns
         FROM pg_catalog.pg_index i
         JOIN pg_catalog.pg_class c ON c.oid = i.indrelid
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = $1 AND c.relname = $2 AND i.indisunique AND i.indisvalid AND i.indexprs IS NULL
           AND (i.indpred IS NULL OR i.indnkeyatts = 1 AND pg_catalog.pg_get_expr(i.indpred, i.indrelid) = pg_catalog.format(
               '(%I IS NOT NULL)', (SELECT a.attname FROM pg_catalog.pg_attribute a
                                    WHERE a.attrelid = i.indrelid AND a.attnum = i.indkey[0])))
         ORDER BY i.indisprimary DESC, i.indexrelid",
    )
    .bind::<Text, _>(schema)
    .bind::<Text, _>(name)
    .load(conn)
    .await?;
    Ok(rows.into_iter().map(|row| row.columns).collect())
}
