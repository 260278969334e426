//! Makes a mapping from what the catalog says about a table.

use std::collections::BTreeMap;

use super::{
    key::{id_column, is_text, pair, plain, source},
    values::{Value, value},
};
use crate::mirror::{ColumnFacts, Expressions, RowRemoval, Source, TableFacts, TableKey, TableMapping};

/// A mapping that somebody should look at.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    /// The mapping.
    pub mapping: TableMapping,
    /// Columns that must not be NULL, and about which nothing is known, with their types.
    pub open: Vec<(String, String)>,
    /// What to look at, by the column.
    pub remarks: BTreeMap<String, String>,
    /// Columns that the mapping does not write.
    pub left_alone: Vec<String>,
    /// Whether no unique index covers the key.
    pub needs_index: bool,
    /// Whether the key is the primary key only because no column is called after Clerk's ids.
    pub is_key_guessed: bool,
}

/// Proposes a mapping for a table. `all` has the tables that it may refer to. `None` if no column can hold
/// Clerk's id.
pub fn propose(table: &TableFacts, all: &[TableFacts]) -> Option<Proposal> {
    let from = source(table);
    let pair = pair(table).filter(|_| from == Source::OrganizationMemberships);
    let id = id_column(table, from).filter(|_| pair.is_none());
    let key = match (pair, id) {
        (Some(pair), _) => TableKey::Values(pair.iter().map(|column| column.name.clone()).collect()),
        (None, Some(column)) => TableKey::Id(column.name.clone()),
        (None, None) => return None,
    };
    let mut mapping = TableMapping {
        key,
        ..TableMapping::of(&table.schema, &table.name, from)
    };
    let mut proposal = Proposal {
        open: Vec::new(),
        remarks: BTreeMap::new(),
        left_alone: Vec::new(),
        needs_index: id.is_some_and(|column| !table.is_unique(&column.name)),
        is_key_guessed: id.is_some_and(|column| plain(&column.name) == "id"),
        mapping: mapping.clone(),
    };
    let mut conditions = Vec::new();
    if let Some([organization, user]) = pair {
        for (column, id, from) in [
            (organization, "u.organization_id", Source::Organizations),
            (user, "u.user_id", Source::Users),
        ] {
            let (expression, condition) = reference(column, id, from, all);
            mapping.set.insert(column.name.clone(), expression);
            conditions.extend(condition.filter(|_| from == Source::Users));
        }
    }
    if from == Source::Users && id.is_some_and(|column| !column.is_not_null) {
        let mut texts = table.columns.iter().filter(|column| is_text(column));
        let email = texts.find(|column| matches!(value(column, from), Value::Required(value) | Value::Set(value) if value == "u.primary_email"));
        mapping.link = email.map(|column| column.name.clone());
    }
    let write = |section: &mut Expressions, column: &ColumnFacts, expression: String| {
        section.insert(column.name.clone(), expression);
    };
    for column in &table.columns {
        if mapping.key.columns().contains(&column.name) {
            continue;
        }
        match value(column, from) {
            Value::Set(expression) => write(&mut mapping.set, column, expression),
            Value::Keep(expression) => write(&mut mapping.keep, column, expression),
            Value::Insert(expression) => write(&mut mapping.insert, column, expression),
            Value::Touch(expression) => write(&mut mapping.touch, column, expression),
            Value::Guess(expression, remark) => {
                write(&mut mapping.insert, column, expression);
                proposal.remarks.insert(column.name.clone(), remark);
            }
            Value::Required(expression) => {
                conditions.push(format!("{expression} IS NOT NULL"));
                write(&mut mapping.set, column, expression);
            }
            Value::Deleted => {
                mapping.delete = RowRemoval::Update;
                let now = if column.base == "timestamp" {
                    "now() AT TIME ZONE 'UTC'"
                } else {
                    "now()"
                };
                write(&mut mapping.set, column, "NULL".to_owned());
                write(&mut mapping.deleted, column, now.to_owned());
            }
            Value::LeftAlone => proposal.left_alone.push(column.name.clone()),
            Value::Open => proposal.open.push((column.name.clone(), column.shown.clone())),
        }
    }
    // The next user may have the address of one who is gone.
    for column in table.columns.iter().filter(|column| table.is_unique(&column.name)) {
        let is_address = mapping
            .set
            .get(&column.name)
            .is_some_and(|value| value == "u.primary_email");
        if is_address && mapping.delete == RowRemoval::Update {
            mapping
                .deleted
                .insert(column.name.clone(), "'deleted-' || u.id".to_owned());
        }
    }
    mapping.condition = (!conditions.is_empty()).then(|| conditions.join(" AND "));
    Some(Proposal { mapping, ..proposal })
}

/// Returns the value of a column that refers to an organization or a user, and the condition under which
/// there is one. The other table has Clerk's id itself, or an id of its own.
fn reference(column: &ColumnFacts, id: &str, from: Source, all: &[TableFacts]) -> (String, Option<String>) {
    let [schema, name, target] = column.refers_to.as_slice() else {
        return (id.to_owned(), None);
    };
    let table = all.iter().find(|table| table.schema == *schema && table.name == *name);
    let Some((table, key)) = table.and_then(|table| Some((table, id_column(table, from)?))) else {
        return (id.to_owned(), None);
    };
    let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let rows = format!("FROM {} AS t WHERE t.{} = {id}", table.quoted(), quote(&key.name));
    let expression = match key.name == *target {
        true => id.to_owned(),
        false => format!("(SELECT t.{} {rows})", quote(target)),
    };
    (expression, Some(format!("EXISTS (SELECT {rows})")))
}
