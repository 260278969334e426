//! Makes a mapping from what the catalog says about a table.

use std::collections::BTreeMap;

use super::{
    key::{id_column, is_sure, is_text, pair, source},
    values::{EMAIL, Value, value},
};
use crate::mirror::{
    ColumnFacts, Expressions, RowRemoval, Source, TableFacts, TableKey, TableMapping, quote::identifier,
};

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
    /// Whether no column is named after Clerk's ids, so that the key is a guess.
    pub is_key_guessed: bool,
}

/// Why no mapping can be proposed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoProposal {
    /// What is missing.
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// Proposes a mapping for a table. `all` has the tables that it may refer to. If the table `has_rows`, the
/// mapping neither removes rows nor replaces values in them, except users' addresses.
///
/// # Errors
/// No column can hold Clerk's id, or none gets a value.
pub fn propose(table: &TableFacts, has_rows: bool, all: &[TableFacts]) -> Result<Proposal, NoProposal> {
    let from = source(table);
    let pair = pair(table).filter(|_| from == Source::OrganizationMemberships);
    let id = id_column(table, from).filter(|_| pair.is_none());
    let key = match (pair, id) {
        (Some(pair), _) => TableKey::Values(pair.iter().map(|column| column.name.clone()).collect()),
        (None, Some(column)) => TableKey::Id(column.name.clone()),
        (None, None) => return Err(no_key(table)),
    };
    if let Some(reason) = id.and_then(|column| other_id(table, column, from, all)) {
        return Err(reason);
    }
    let mut mapping = TableMapping {
        key,
        ..TableMapping::of(&table.schema, &table.name, from)
    };
    let (mut open, mut remarks, mut left_alone) = (Vec::new(), BTreeMap::new(), Vec::new());
    let mut conditions = Vec::new();
    if let Some([organization, user]) = pair {
        for (column, id, from) in [
            (organization, "u.organization_id", Source::Organizations),
            (user, "u.user_id", Source::Users),
        ] {
            let (expression, condition) = reference(table, column, id, from, all)?;
            mapping.set.insert(column.name.clone(), expression);
            conditions.extend(condition.filter(|_| from == Source::Users));
        }
    }
    if from == Source::Users && id.is_some_and(|column| !column.is_not_null) {
        let mut texts = table.columns.iter().filter(|column| is_text(column));
        let email = texts
            .find(|column| matches!(value(column, from), Value::Required(value) | Value::Own(value) if value == EMAIL));
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
            Value::Insert(expression) => write(&mut mapping.insert, column, expression),
            Value::Touch(expression) => write(&mut mapping.touch, column, expression),
            Value::Guess(expression, remark) => {
                write(&mut mapping.insert, column, expression);
                remarks.insert(column.name.clone(), remark);
            }
            Value::Required(expression) => {
                conditions.push(format!("{expression} IS NOT NULL"));
                match has_rows && expression != EMAIL {
                    true => for_new_rows(&mut mapping, &mut remarks, column, expression),
                    false => write(&mut mapping.set, column, expression),
                }
            }
            Value::Own(expression) | Value::Decided(expression) if !has_rows => {
                write(&mut mapping.set, column, expression);
            }
            Value::Own(expression) if expression == EMAIL => write(&mut mapping.keep, column, expression),
            Value::Own(expression) => for_new_rows(&mut mapping, &mut remarks, column, expression),
            Value::Decided(expression) if column.is_not_null && !column.has_default => {
                write(&mut mapping.insert, column, expression);
            }
            Value::Decided(_) => left_alone.push(column.name.clone()),
            Value::Deleted if has_rows => left_alone.push(column.name.clone()),
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
            Value::LeftAlone => left_alone.push(column.name.clone()),
            Value::Open => open.push((column.name.clone(), column.shown.clone())),
        }
    }
    // The next user may have the address of one who is gone.
    for column in table.columns.iter().filter(|column| table.is_unique(&column.name)) {
        let is_address = mapping.set.get(&column.name).is_some_and(|value| value == EMAIL);
        if is_address && mapping.delete == RowRemoval::Update {
            mapping
                .deleted
                .insert(column.name.clone(), "u.id || '@invalid'".to_owned());
        }
    }
    mapping.condition = (!conditions.is_empty()).then(|| conditions.join(" AND "));
    if has_rows {
        mapping.delete = RowRemoval::Keep;
    }
    if [&mapping.set, &mapping.keep, &mapping.insert]
        .iter()
        .all(|columns| columns.is_empty())
    {
        return Err(NoProposal {
            message: format!("nothing of Clerk's belongs in the columns of {}", table.shown()),
            hint: "write the entry by hand: docs/tables.md describes it".to_owned(),
        });
    }
    Ok(Proposal {
        mapping,
        open,
        remarks,
        left_alone,
        needs_index: id.is_some_and(|column| !table.is_unique(&column.name)),
        is_key_guessed: id.is_some_and(|column| !is_sure(column)),
    })
}

/// Writes a value that may be the application's own in the rows that are there.
fn for_new_rows(
    mapping: &mut TableMapping,
    remarks: &mut BTreeMap<String, String>,
    column: &ColumnFacts,
    expression: String,
) {
    mapping.insert.insert(column.name.clone(), expression);
    let remark = "for new rows only; [tables.set] keeps it in sync".to_owned();
    remarks.insert(column.name.clone(), remark);
}

fn no_key(table: &TableFacts) -> NoProposal {
    NoProposal {
        message: format!("{} has no column for Clerk's id", table.shown()),
        hint: format!("ALTER TABLE {} ADD COLUMN clerk_id text UNIQUE", table.quoted()),
    }
}

/// Returns the table and the column that a column of a table refers to.
pub fn target<'t>(table: &'t TableFacts, column: &str, all: &'t [TableFacts]) -> Option<(&'t TableFacts, &'t str)> {
    let [schema, name, target] = table.column(column)?.refers_to.as_slice() else {
        return None;
    };
    let table = all
        .iter()
        .find(|table| table.schema == *schema && table.name == *name)?;
    Some((table, target))
}

/// Returns why a column that refers to another table does not hold Clerk's id: that table has another column
/// for it.
fn other_id(owner: &TableFacts, column: &ColumnFacts, from: Source, all: &[TableFacts]) -> Option<NoProposal> {
    let (table, target) = target(owner, &column.name, all)?;
    let is_clerks = id_column(table, from).is_some_and(|id| id.name == target);
    (!is_clerks).then(|| NoProposal {
        message: format!(
            "{} refers to {target} of {}, which is not Clerk's id",
            column.name,
            table.shown()
        ),
        hint: "add a column for Clerk's id, for example clerk_id text UNIQUE".to_owned(),
    })
}

/// Returns the value of a column that refers to an organization or a user, and the condition under which
/// there is one. The other table has Clerk's id itself, or an id of its own.
fn reference(
    owner: &TableFacts,
    column: &ColumnFacts,
    id: &str,
    from: Source,
    all: &[TableFacts],
) -> Result<(String, Option<String>), NoProposal> {
    let Some((table, target)) = target(owner, &column.name, all) else {
        return match is_text(column) {
            true => Ok((id.to_owned(), None)),
            false => Err(NoProposal {
                message: format!("{} is no text, and refers to no other table", column.name),
                hint: "add a foreign key, or write the entry by hand: docs/tables.md describes it".to_owned(),
            }),
        };
    };
    let Some(key) = id_column(table, from) else {
        return Err(no_key(table));
    };
    let rows = format!("FROM {} AS t WHERE t.{} = {id}", table.quoted(), identifier(&key.name));
    let expression = match key.name == target {
        true => id.to_owned(),
        false => format!("(SELECT t.{} {rows})", identifier(target)),
    };
    Ok((expression, Some(format!("EXISTS (SELECT {rows})"))))
}
