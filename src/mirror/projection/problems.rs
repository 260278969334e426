//! What is wrong with a mapping or with its table, as far as the catalog says it.
//!
//! A problem is fatal if rows could not be written, or could not be told apart. Then the table is
//! not kept in sync. Everything else is advice: the table is kept in sync, and only `check` reports
//! it.

use super::{
    mapping::{RowRemoval, TableMapping},
    shape::{ColumnShape, RelationKind, TableName, TableShape},
};
use crate::{mirror::quote::identifier as quote, nearest::nearest};

/// Something that is wrong with a mapping or with its table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Whether the table cannot be kept in sync because of it.
    pub is_fatal: bool,
    /// What is wrong.
    pub message: String,
    /// What to do about it: a statement, or a change of the mapping.
    pub hint: String,
}

impl Problem {
    pub(super) fn fatal(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            is_fatal: true,
            message: message.into(),
            hint: hint.into(),
        }
    }

    pub(super) fn advice(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            is_fatal: false,
            ..Self::fatal(message, hint)
        }
    }

    /// There is no such table. `tables` are those that there are.
    pub(super) fn no_table(mapping: &TableMapping, tables: &[TableName]) -> Self {
        let message = "there is no such table";
        let ignoring_case = |table: &&TableName| {
            table.name.eq_ignore_ascii_case(&mapping.name) && !table.schema.eq_ignore_ascii_case(&mapping.schema)
        };
        let here = tables.iter().filter(|table| table.schema == mapping.schema);
        let names: Vec<&str> = here.map(|table| table.name.as_str()).collect();
        let similar = nearest(&mapping.name, names);
        let is_same_word = similar.is_some_and(|name| name.eq_ignore_ascii_case(&mapping.name));
        let elsewhere = tables.iter().find(ignoring_case).filter(|_| !is_same_word);
        let hint = match (elsewhere, similar) {
            (Some(TableName { schema, name }), _) => format!("set schema = {schema:?} and name = {name:?}"),
            (None, Some(name)) => format!("did you mean name = {name:?}? names are case-sensitive"),
            (None, None) => format!("create it, or set schema: {:?} has no tables", mapping.schema),
        };
        Self::fatal(message, hint)
    }
}

/// Returns what is wrong with a mapping: everything, unless the relation is not a table or columns
/// are missing.
pub(super) fn problems(mapping: &TableMapping, shape: &TableShape) -> Vec<Problem> {
    let message = match shape.kind {
        RelationKind::Table => None,
        RelationKind::View => Some("it is a view, and a view cannot be kept in sync"),
        RelationKind::Foreign => Some("it is a foreign table, and a foreign table cannot be kept in sync"),
        RelationKind::Other => Some("it is not a table"),
    };
    if let Some(message) = message {
        return vec![Problem::fatal(message, "set name to the table behind it")];
    }
    let missing = missing_columns(mapping, shape);
    if !missing.is_empty() {
        return missing;
    }
    let found = [
        generated_columns(mapping, shape),
        key_type(mapping, shape),
        key_index(mapping, shape),
        unfilled_columns(mapping, shape),
        missing_privileges(mapping, shape),
        row_security(mapping, shape),
        link_advice(mapping, shape),
        removal_advice(mapping),
    ];
    found.into_iter().flatten().collect()
}

fn missing_columns(mapping: &TableMapping, shape: &TableShape) -> Vec<Problem> {
    let named = mapping.sections().into_iter().flat_map(|(section, expressions)| {
        let place = format!("[tables.{section}]");
        expressions.keys().map(move |column| (place.clone(), column))
    });
    let named = named.chain(mapping.key.columns().iter().map(|column| ("key".to_owned(), column)));
    let named = named.chain(mapping.link.iter().map(|column| ("link".to_owned(), column)));
    let missing = named.filter(|(_, column)| shape.column(column).is_none());
    let columns = shape.columns.iter().map(|column| column.name.as_str());
    missing
        .map(|(place, column)| {
            let hint = nearest(column, columns.clone()).map_or_else(
                || "add the column".to_owned(),
                |nearest| format!("did you mean {nearest:?}?"),
            );
            Problem::fatal(format!("there is no column {column:?}, which {place} names"), hint)
        })
        .collect()
}

fn generated_columns(mapping: &TableMapping, shape: &TableShape) -> Option<Problem> {
    let named = mapping
        .sections()
        .into_iter()
        .flat_map(|(_, expressions)| expressions.keys());
    let mut generated: Vec<String> = named
        .chain(mapping.key.columns())
        .filter(|column| shape.column(column).is_some_and(|column| column.is_generated))
        .map(|column| format!("{column:?}"))
        .collect();
    generated.sort();
    generated.dedup();
    (!generated.is_empty()).then(|| {
        let columns = generated.join(", ");
        Problem::fatal(
            format!("only the database writes {columns} (generated, or an identity that always is)"),
            format!("remove {columns} from the mapping"),
        )
    })
}

fn key_type(mapping: &TableMapping, shape: &TableShape) -> Option<Problem> {
    let Some(key) = mapping.key.id_column() else {
        return key_of_values(mapping, shape);
    };
    let key = shape.column(key)?;
    let is_text = matches!(key.cast.as_str(), "text" | "character varying");
    (!is_text).then(|| {
        Problem::fatal(
            format!("the key {:?} is {}, and Clerk's ids are text", key.name, key.shown),
            "set key to a column of the type text or varchar that holds Clerk's id",
        )
    })
}

/// Columns of a key that may be `NULL`: a row would be inserted again by each sync.
fn key_of_values(mapping: &TableMapping, shape: &TableShape) -> Option<Problem> {
    let columns = mapping.key.columns().iter().filter_map(|column| shape.column(column));
    let nullable: Vec<String> = columns
        .filter(|column| !column.is_not_null)
        .map(|column| quote(&column.name))
        .collect();
    let alter: Vec<String> = nullable
        .iter()
        .map(|column| format!("ALTER COLUMN {column} SET NOT NULL"))
        .collect();
    (!nullable.is_empty()).then(|| {
        Problem::fatal(
            format!("{} may be NULL, and belongs to the key", nullable.join(", ")),
            format!("ALTER TABLE {} {};", mapping.quoted(), alter.join(", ")),
        )
    })
}

fn key_index(mapping: &TableMapping, shape: &TableShape) -> Option<Problem> {
    let key = mapping.key.columns();
    let has_index = shape
        .unique
        .iter()
        .any(|columns| columns.len() == key.len() && key.iter().all(|column| columns.contains(column)));
    let names: Vec<String> = key.iter().map(|column| format!("{column:?}")).collect();
    let columns: Vec<String> = key.iter().map(|column| quote(column)).collect();
    (!has_index).then(|| {
        Problem::fatal(
            format!("no unique index is on the key {} alone", names.join(", ")),
            format!("CREATE UNIQUE INDEX ON {} ({});", mapping.quoted(), columns.join(", ")),
        )
    })
}

/// Columns that refuse `NULL`, and that nothing fills when a row is inserted. A trigger may fill
/// them.
fn unfilled_columns(mapping: &TableMapping, shape: &TableShape) -> Option<Problem> {
    let is_filled = |column: &ColumnShape| {
        let TableMapping {
            set,
            keep,
            touch,
            insert,
            key,
            ..
        } = mapping;
        key.columns().contains(&column.name)
            || [set, keep, touch, insert]
                .iter()
                .any(|expressions| expressions.contains_key(&column.name))
    };
    let unfilled = shape
        .columns
        .iter()
        .filter(|column| column.is_not_null && !column.has_default && !column.is_generated && !is_filled(column));
    let unfilled: Vec<String> = unfilled.map(|column| format!("{:?}", column.name)).collect();
    if unfilled.is_empty() {
        return None;
    }
    let columns = unfilled.join(", ");
    let message = format!("nothing fills {columns}, which must not be NULL and has no default");
    Some(match shape.has_insert_trigger {
        true => Problem::advice(message, format!("ignore this if a trigger fills {columns}")),
        false => Problem::fatal(message, format!("add {columns} to [tables.insert] or [tables.set]")),
    })
}

/// Privileges that the role lacks. `INSERT` must be on the whole table: clerk2pg locks the table
/// against locks of the application, and privileges on columns do not allow that.
fn missing_privileges(mapping: &TableMapping, shape: &TableShape) -> Option<Problem> {
    let TableMapping {
        schema,
        key,
        link,
        set,
        keep,
        touch,
        deleted,
        ..
    } = mapping;
    let synced = || set.keys().chain(keep.keys()).chain(deleted.keys());
    let read: Vec<&String> = key.columns().iter().chain(link).chain(synced()).collect();
    let mut updated: Vec<&String> = synced().chain(touch.keys()).collect();
    if link.is_some() || updated.is_empty() {
        updated.extend(key.columns());
    }
    let lacking = |columns: Vec<&String>, may: fn(&ColumnShape) -> bool| {
        let lacking = shape
            .columns
            .iter()
            .filter(|column| columns.contains(&&column.name) && !may(column));
        let lacking: Vec<String> = lacking.map(|column| quote(&column.name)).collect();
        (!lacking.is_empty()).then(|| lacking.join(", "))
    };
    let select = lacking(read, |column| column.may_select).map(|columns| format!("SELECT ({columns})"));
    let update = lacking(updated, |column| column.may_update).map(|columns| format!("UPDATE ({columns})"));
    let insert = (!shape.may_insert).then(|| "INSERT".to_owned());
    let deletes = mapping.delete == RowRemoval::Delete;
    let delete = (deletes && !shape.may_delete).then(|| "DELETE".to_owned());
    let on_table: Vec<String> = [select, insert, update, delete].into_iter().flatten().collect();
    let on_table = (!on_table.is_empty()).then(|| format!("{} ON {}", on_table.join(", "), mapping.quoted()));
    let on_schema = (!shape.uses_schema).then(|| format!("USAGE ON SCHEMA {}", quote(schema)));
    let lacks: Vec<String> = [on_schema, on_table].into_iter().flatten().collect();
    if lacks.is_empty() {
        return None;
    }
    let TableShape { role, owner, .. } = shape;
    let grants: Vec<String> = lacks.iter().map(|lack| format!("GRANT {lack} TO {role};")).collect();
    Some(Problem::fatal(
        format!("{role} lacks {}", lacks.join("; ")),
        format!("as {owner}: {}", grants.join(" ")),
    ))
}

fn row_security(mapping: &TableMapping, shape: &TableShape) -> Option<Problem> {
    let TableShape { role, owner, .. } = shape;
    let table = mapping.quoted();
    match (shape.has_row_security, shape.has_policy) {
        (false, _) => None,
        (true, false) => Some(Problem::fatal(
            format!("row-level security hides all its rows from {role}"),
            format!("as {owner}: CREATE POLICY clerk2pg ON {table} TO {role} USING (true) WITH CHECK (true);"),
        )),
        (true, true) => Some(Problem::advice(
            format!("row-level security decides which of its rows {role} sees"),
            "ignore this if its policy shows all rows and allows all changes",
        )),
    }
}

fn link_advice(mapping: &TableMapping, shape: &TableShape) -> Option<Problem> {
    let link = mapping.link.as_ref()?;
    let key = shape.column(mapping.key.id_column()?)?;
    if key.is_not_null {
        return Some(Problem::advice(
            format!(
                "link = {link:?} has no effect: every row has a key, because {:?} must not be NULL",
                key.name
            ),
            "remove link",
        ));
    }
    (!shape.has_link_index).then(|| {
        Problem::advice(
            format!("no index helps to find rows by link = {link:?}"),
            format!(
                "CREATE INDEX ON {} (lower({})) WHERE {} IS NULL;",
                mapping.quoted(),
                quote(link),
                quote(&key.name)
            ),
        )
    })
}

/// Columns that a removal writes, and that nothing writes again if the object returns.
fn removal_advice(mapping: &TableMapping) -> Option<Problem> {
    let TableMapping { deleted, set, keep, .. } = mapping;
    let left = deleted
        .keys()
        .filter(|column| !set.contains_key(*column) && !keep.contains_key(*column));
    let left: Vec<&String> = left.collect();
    let first = left.first()?;
    let columns: Vec<String> = left.iter().map(|column| format!("{column:?}")).collect();
    Some(Problem::advice(
        format!(
            "if a user returns, {} stays as [tables.deleted] wrote it",
            columns.join(", ")
        ),
        format!("add it to [tables.set], for example {} = \"NULL\"", toml_key(first)),
    ))
}

/// Writes a column's name as TOML needs it.
fn toml_key(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    match !name.is_empty() && name.chars().all(is_bare) {
        true => name.to_owned(),
        false => format!("{name:?}"),
    }
}
