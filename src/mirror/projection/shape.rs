//! What the catalog says about a table of the application.

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{Array, Bool, Oid, Text},
};
use diesel_async::RunQueryDsl;

use super::TableMapping;
use crate::mirror::session::Session;

/// A table of the application, as the catalog describes it.
#[derive(Debug, Clone)]
pub(in crate::mirror) struct TableShape {
    /// What kind of relation it is.
    pub(super) kind: RelationKind,
    pub(super) columns: Vec<ColumnShape>,
    /// The columns of each unique index that covers all rows, or all rows with these columns.
    pub(super) unique: Vec<Vec<String>>,
    /// Whether an index finds rows without a key by the mapping's `link`.
    pub(super) has_link_index: bool,
    /// Whether a trigger may change a row before it is inserted.
    pub(super) has_insert_trigger: bool,
    /// Whether row-level security decides which rows this role sees.
    pub(super) has_row_security: bool,
    /// Whether a policy is for this role; without one, it sees no rows.
    pub(super) has_policy: bool,
    /// This role, quoted as SQL needs it.
    pub(super) role: String,
    /// The table's owner, quoted as SQL needs it.
    pub(super) owner: String,
    /// This role's privileges on the schema and on the whole table.
    pub(super) uses_schema: bool,
    pub(super) may_insert: bool,
    pub(super) may_delete: bool,
}

/// The name of a table.
#[derive(Debug, Clone, QueryableByName)]
pub(super) struct TableName {
    #[diesel(sql_type = Text)]
    pub(super) schema: String,
    #[diesel(sql_type = Text)]
    pub(super) name: String,
}

/// What kind of relation a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mirror) enum RelationKind {
    Table,
    View,
    Foreign,
    Other,
}

/// A column.
#[derive(Debug, Clone, QueryableByName)]
pub(in crate::mirror) struct ColumnShape {
    #[diesel(sql_type = Text)]
    pub(super) name: String,
    /// The type that a value is cast to. Without a maximum length: a cast would cut a longer value
    /// off, which has to be an error.
    #[diesel(sql_type = Text)]
    pub(super) cast: String,
    /// The type, for people.
    #[diesel(sql_type = Text)]
    pub(super) shown: String,
    /// Whether PostgreSQL compares its values itself. Others are compared as text.
    #[diesel(sql_type = Bool)]
    pub(super) is_comparable: bool,
    /// Whether it holds a moment or a date.
    #[diesel(sql_type = Bool)]
    pub(super) is_time: bool,
    #[diesel(sql_type = Bool)]
    pub(super) is_not_null: bool,
    /// Whether the database fills it in if an insert leaves it out.
    #[diesel(sql_type = Bool)]
    pub(super) has_default: bool,
    /// Whether only the database writes it: a generated column, or an identity that always is.
    #[diesel(sql_type = Bool)]
    pub(super) is_generated: bool,
    #[diesel(sql_type = Bool)]
    pub(super) may_select: bool,
    #[diesel(sql_type = Bool)]
    pub(super) may_update: bool,
}

#[derive(QueryableByName)]
struct Relation {
    #[diesel(sql_type = Oid)]
    oid: u32,
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = Bool)]
    has_insert_trigger: bool,
    #[diesel(sql_type = Bool)]
    has_row_security: bool,
    #[diesel(sql_type = Bool)]
    has_policy: bool,
    #[diesel(sql_type = Text)]
    role: String,
    #[diesel(sql_type = Text)]
    owner: String,
    #[diesel(sql_type = Bool)]
    uses_schema: bool,
    #[diesel(sql_type = Bool)]
    may_insert: bool,
    #[diesel(sql_type = Bool)]
    may_delete: bool,
}

#[derive(QueryableByName)]
struct UniqueIndex {
    #[diesel(sql_type = Array<Text>)]
    columns: Vec<String>,
}

impl TableShape {
    /// Reads the shape of a mapping's table; `None` if there is no such table. The search path must
    /// be restricted.
    pub(super) async fn load(conn: &mut Session, mapping: &TableMapping) -> QueryResult<Option<Self>> {
        let relation: Option<Relation> = sql_query(
            "SELECT c.oid, c.relkind::text AS kind,
                    EXISTS (SELECT FROM pg_catalog.pg_trigger t
                            WHERE t.tgrelid = c.oid AND t.tgenabled <> 'D' AND (t.tgtype & 7) = 7) AS has_insert_trigger,
                    pg_catalog.row_security_active(c.oid) AS has_row_security,
                    EXISTS (SELECT FROM pg_catalog.pg_policy p, pg_catalog.unnest(p.polroles) AS allowed
                            WHERE p.polrelid = c.oid AND (allowed = 0::oid OR pg_catalog.pg_has_role(allowed, 'USAGE'))) AS has_policy,
                    pg_catalog.quote_ident(current_user) AS role,
                    pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(c.relowner)) AS owner,
                    pg_catalog.has_schema_privilege(n.oid, 'USAGE') AS uses_schema,
                    pg_catalog.has_table_privilege(c.oid, 'INSERT') AS may_insert,
                    pg_catalog.has_table_privilege(c.oid, 'DELETE') AS may_delete
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = $1 AND c.relname = $2",
        )
        .bind::<Text, _>(&mapping.schema)
        .bind::<Text, _>(&mapping.name)
        .get_result(conn)
        .await
        .optional()?;
        let Some(relation) = relation else { return Ok(None) };
        Ok(Some(Self {
            kind: match relation.kind.as_str() {
                "r" | "p" => RelationKind::Table,
                "v" | "m" => RelationKind::View,
                "f" => RelationKind::Foreign,
                _ => RelationKind::Other,
            },
            columns: columns(conn, relation.oid).await?,
            unique: unique_indexes(conn, relation.oid).await?,
            has_link_index: has_link_index(conn, relation.oid, mapping).await?,
            has_insert_trigger: relation.has_insert_trigger,
            has_row_security: relation.has_row_security,
            has_policy: relation.has_policy,
            role: relation.role,
            owner: relation.owner,
            uses_schema: relation.uses_schema,
            may_insert: relation.may_insert,
            may_delete: relation.may_delete,
        }))
    }

    pub(super) fn column(&self, name: &str) -> Option<&ColumnShape> {
        self.columns.iter().find(|column| column.name == name)
    }
}

impl TableName {
    /// Returns the names of all tables of the application.
    pub(super) async fn all(conn: &mut Session) -> QueryResult<Vec<Self>> {
        sql_query(
            "SELECT n.nspname::pg_catalog.text AS schema, c.relname::pg_catalog.text AS name
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
             WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
               AND NOT n.nspname = 'clerk'
             ORDER BY n.nspname, c.relname",
        )
        .load(conn)
        .await
    }
}

async fn columns(conn: &mut Session, table: u32) -> QueryResult<Vec<ColumnShape>> {
    sql_query(
        "SELECT a.attname::text AS name,
                pg_catalog.format_type(
                    CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE a.atttypid END,
                    CASE WHEN b.typcategory IN ('S', 'V') THEN -1 WHEN t.typtype = 'd' THEN t.typtypmod ELSE a.atttypmod END
                ) AS cast,
                pg_catalog.format_type(a.atttypid, a.atttypmod) AS shown,
                b.typtype IN ('e', 'r', 'm') OR EXISTS (
                    SELECT FROM pg_catalog.pg_opclass o
                    JOIN pg_catalog.pg_am m ON m.oid = o.opcmethod AND m.amname = 'btree'
                    WHERE o.opcdefault AND o.opcnamespace = 'pg_catalog'::regnamespace
                      AND (o.opcintype = b.oid OR EXISTS (
                          SELECT FROM pg_catalog.pg_cast k WHERE k.castsource = b.oid AND k.casttarget = o.opcintype
                            AND k.castmethod = 'b' AND k.castcontext = 'i'))) AS is_comparable,
                b.typcategory = 'D' AS is_time,
                a.attnotnull OR t.typnotnull AS is_not_null,
                a.atthasdef OR a.attidentity <> '' OR t.typdefault IS NOT NULL AS has_default,
                a.attgenerated <> '' OR a.attidentity = 'a' AS is_generated,
                pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'SELECT') AS may_select,
                pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'UPDATE') AS may_update
         FROM pg_catalog.pg_attribute a
         JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
         JOIN pg_catalog.pg_type b ON b.oid = CASE
             WHEN t.typtype = 'd' THEN t.typbasetype
             WHEN t.typcategory = 'A' THEN t.typelem
             ELSE t.oid END
         WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
         ORDER BY a.attnum",
    )
    .bind::<Oid, _>(table)
    .load(conn)
    .await
}

/// Returns the columns of each unique index that a key may rely on. The search path must be restricted.
pub(super) async fn unique_indexes(conn: &mut Session, table: u32) -> QueryResult<Vec<Vec<String>>> {
    // A predicate is accepted if it excludes NULL alone: rows without a key are not ours.
    let rows: Vec<UniqueIndex> = sql_query(
        "SELECT ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS k(number, place)
                      JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
                      WHERE k.place <= i.indnkeyatts ORDER BY k.place) AS columns
         FROM pg_catalog.pg_index i
         WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indexprs IS NULL
           AND (i.indpred IS NULL OR i.indnkeyatts = 1 AND pg_catalog.pg_get_expr(i.indpred, i.indrelid) = pg_catalog.format(
               '(%I IS NOT NULL)', (SELECT a.attname FROM pg_catalog.pg_attribute a
                                    WHERE a.attrelid = i.indrelid AND a.attnum = i.indkey[0])))",
    )
    .bind::<Oid, _>(table)
    .load(conn)
    .await?;
    Ok(rows.into_iter().map(|row| row.columns).collect())
}

async fn has_link_index(conn: &mut Session, table: u32, mapping: &TableMapping) -> QueryResult<bool> {
    #[derive(QueryableByName)]
    struct HasIndex {
        #[diesel(sql_type = Bool)]
        has_index: bool,
    }
    let (Some(link), Some(key)) = (&mapping.link, mapping.key.id_column()) else {
        return Ok(false);
    };
    let row: HasIndex = sql_query(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_index i
             WHERE i.indrelid = $1 AND i.indisvalid
               AND pg_catalog.pg_get_indexdef(i.indexrelid, 1, true) IN (
                   pg_catalog.concat('lower', pg_catalog.format('(%I)', $2)),
                   pg_catalog.concat('lower', pg_catalog.format('(%I::text)', $2)))
               AND (i.indpred IS NULL
                    OR pg_catalog.pg_get_expr(i.indpred, i.indrelid) = pg_catalog.format('(%I IS NULL)', $3))) AS has_index",
    )
    .bind::<Oid, _>(table)
    .bind::<Text, _>(link)
    .bind::<Text, _>(key)
    .get_result(conn)
    .await?;
    Ok(row.has_index)
}
