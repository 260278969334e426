//! Lets objects exchange unique values: their rows lose the old values before they get the new ones.

use std::collections::BTreeSet;

use diesel::{
    prelude::*,
    result::Error as Diesel,
    sql_query,
    sql_types::{Array, Bool, Integer, Nullable, Text},
};
use diesel_async::{AsyncConnection, RunQueryDsl};

use super::{
    isolation::Refused,
    quote::{identifier, literal},
    session::{Fault, Session},
    write_failure::WriteFailure,
};

/// A column that a violated index of the application uses.
#[derive(Debug, QueryableByName)]
struct ConflictColumn {
    #[diesel(sql_type = Text)]
    name: String,
    /// The name of its type, or of the type below its domain.
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = Bool)]
    is_text: bool,
    #[diesel(sql_type = Bool)]
    is_nullable: bool,
    /// The most characters that it takes; `None` if there is no such limit.
    #[diesel(sql_type = Nullable<Integer>)]
    length: Option<i32>,
}

/// The form of a text that no other row has.
#[derive(Debug, Clone, Copy)]
enum StandInForm {
    /// It has the form of an address, as a constraint of the application may require one.
    Address,
    /// A word of small letters and digits that begins with a letter, as short as the column needs it.
    Word,
}

/// Characters of the longest word: a letter and a hash.
const WORD: i32 = 33;

impl ConflictColumn {
    /// Returns SQL that gives the column a value that no other row has. Values differ by the row's
    /// key, or are random, if the type is too small for a key.
    fn stand_in(&self, key: &str, form: StandInForm) -> Option<String> {
        let hash = format!(
            "pg_catalog.left(pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to({key}::pg_catalog.text, 'UTF8')), 'hex'), 32)"
        );
        let value = match (self.kind.as_str(), form) {
            (_, StandInForm::Address) if self.is_text => {
                format!("pg_catalog.concat({key}::pg_catalog.text, '@clerk2pg.invalid')")
            }
            (_, StandInForm::Word) if self.is_text => {
                let length = self.length.unwrap_or(WORD).min(WORD);
                format!("pg_catalog.left(pg_catalog.concat('c', {hash}), {length})")
            }
            ("uuid", _) => format!("{hash}::pg_catalog.uuid"),
            ("int2", _) => random_number(i32::from(i16::MAX)),
            ("int4" | "int8" | "numeric" | "float4" | "float8", _) => random_number(i32::MAX),
            _ if self.is_nullable => "NULL".to_owned(),
            _ => return None,
        };
        Some(format!("{} = {value}", identifier(&self.name)))
    }
}

/// Returns SQL for a number below zero, where the application's own numbers seldom are.
fn random_number(most: i32) -> String {
    format!("pg_catalog.trunc(pg_catalog.random() OPERATOR(pg_catalog.*) (-{most}))")
}

/// The table whose rows exchange values.
pub(super) struct ExchangeTarget<'t> {
    pub(super) schema: &'t str,
    pub(super) table: &'t str,
    /// The column by which a row is found.
    pub(super) key: &'t str,
    /// Columns that get their values back when the row is written, so that they can lose them for a
    /// moment.
    pub(super) columns: Vec<&'t str>,
}

impl ExchangeTarget<'_> {
    /// The table in SQL.
    fn quoted(&self) -> String {
        format!("{}.{}", identifier(self.schema), identifier(self.table))
    }
}

/// Removes conflicting values from the rows of blocked objects: sets them to `NULL`, or if the
/// application does not allow that, to a value that no other row has. Returns whether any row
/// changed. A form of value that a column does not take is followed by the next one.
pub(super) async fn release_values<J>(
    conn: &mut Session,
    target: &ExchangeTarget<'_>,
    blocked: &[Refused<J>],
    ids: &[&str],
) -> Result<bool, WriteFailure> {
    let indexes: BTreeSet<&str> = blocked
        .iter()
        .filter_map(|blocked| index(target, &blocked.fault))
        .collect();
    let indexes: Vec<&str> = indexes.into_iter().collect();
    let mut columns = columns(conn, target, &indexes).await?;
    columns.retain(|column| target.columns.contains(&column.name.as_str()));
    let to_null = columns
        .iter()
        .map(|column| format!("{} = NULL", identifier(&column.name)))
        .collect();
    let key = identifier(target.key);
    let stand_ins = |form| {
        columns
            .iter()
            .filter_map(|column| column.stand_in(&key, form))
            .collect()
    };
    let (to_addresses, to_words) = (stand_ins(StandInForm::Address), stand_ins(StandInForm::Word));
    for sets in [to_null, to_addresses, to_words] {
        match set(conn, target, sets, ids).await {
            Ok(rows) => return Ok(rows > 0),
            Err(WriteFailure::OneRow(_) | WriteFailure::TooLong(_)) => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(false)
}

/// Returns the index of the table that a fault is about.
fn index<'f>(target: &ExchangeTarget<'_>, fault: &'f Fault) -> Option<&'f str> {
    let Fault::Refused(answer) = fault else { return None };
    let is_ours = answer.schema() == Some(target.schema) && answer.table() == Some(target.table);
    answer.constraint().filter(|_| is_ours)
}

async fn set(
    conn: &mut Session,
    target: &ExchangeTarget<'_>,
    sets: Vec<String>,
    ids: &[&str],
) -> Result<usize, WriteFailure> {
    if sets.is_empty() {
        return Ok(0);
    }
    let sql = format!(
        "UPDATE {table} SET {sets} WHERE {key} = ANY($1)",
        table = target.quoted(),
        sets = sets.join(", "),
        key = identifier(target.key),
    );
    let updated = conn.transaction(async |conn| {
        let rows = sql_query(sql).bind::<Array<Text>, _>(ids).execute(conn).await?;
        Ok::<_, Diesel>(rows)
    });
    Ok(updated.await?)
}

/// Returns the columns that these indexes use: as keys, in expressions and in predicates. For a
/// generated column, these are the columns that it is computed from.
async fn columns(
    conn: &mut Session,
    target: &ExchangeTarget<'_>,
    indexes: &[&str],
) -> QueryResult<Vec<ConflictColumn>> {
    let table = literal(&target.quoted());
    sql_query(format!(
        "WITH index AS (
             SELECT i.indexrelid, i.indkey FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
             WHERE i.indrelid = {table}::pg_catalog.regclass::pg_catalog.oid AND c.relname::pg_catalog.text = ANY($1)),
         used AS (
             SELECT key::pg_catalog.int4 AS number
             FROM index, pg_catalog.unnest(index.indkey::pg_catalog.int2[]) AS key
             UNION SELECT d.refobjsubid FROM pg_catalog.pg_depend d JOIN index ON d.objid = index.indexrelid
             WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid
               AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid
               AND d.refobjid = {table}::pg_catalog.regclass::pg_catalog.oid),
         made_of AS (
             SELECT d.refobjsubid AS number FROM used
             JOIN pg_catalog.pg_attrdef e ON e.adrelid = {table}::pg_catalog.regclass::pg_catalog.oid
               AND e.adnum::pg_catalog.int4 = used.number
             JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid
               AND d.refobjid = {table}::pg_catalog.regclass::pg_catalog.oid
               AND (d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass::pg_catalog.oid AND d.objid = e.oid
                 OR d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid AND d.objid = e.adrelid AND d.objsubid = used.number))
         SELECT a.attname::pg_catalog.text AS name, coalesce(b.typname, t.typname)::pg_catalog.text AS kind,
             t.typcategory = 'S'::pg_catalog.\"char\" AS is_text, NOT (a.attnotnull OR t.typnotnull) AS is_nullable,
             -- The modifier of a text type with a length is that length plus four.
             nullif(greatest(a.atttypmod, t.typtypmod), -1) - 4 AS length
         FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
         LEFT JOIN pg_catalog.pg_type b ON b.oid = t.typbasetype
         WHERE a.attrelid = {table}::pg_catalog.regclass::pg_catalog.oid AND a.attgenerated = ''::pg_catalog.\"char\" AND a.attnum > 0
           AND a.attnum::pg_catalog.int4 IN (SELECT number FROM used UNION SELECT number FROM made_of)
         ORDER BY a.attnum",
    ))
    .bind::<Array<Text>, _>(indexes)
    .load(conn)
    .await
}
