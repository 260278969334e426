//! What is wrong with a mapping, as far as the catalog says it.

use super::{
    mapping::TableMapping,
    shape::{RelationKind, TableShape},
};

/// Why a mapping cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The name stands for a view.
    #[error("it is a view, and views are not supported: name the table behind it")]
    View,
    /// The name stands for something else.
    #[error("it is not a table")]
    NotATable,
    /// A column does not exist.
    #[error("there is no column {0:?}")]
    NoColumn(String),
}

impl Problem {
    /// Whether the table cannot be kept in sync because of it.
    pub fn is_fatal(&self) -> bool {
        true
    }
}

/// Returns what is wrong with a mapping.
pub(super) fn problems(mapping: &TableMapping, shape: &TableShape) -> Vec<Problem> {
    match shape.kind {
        RelationKind::Table => {}
        RelationKind::View => return vec![Problem::View],
        RelationKind::Other => return vec![Problem::NotATable],
    }
    let named = [
        &mapping.set,
        &mapping.keep,
        &mapping.touch,
        &mapping.insert,
        &mapping.deleted,
    ];
    let named = named.into_iter().flat_map(|expressions| expressions.keys());
    let named = named.chain([&mapping.key]).chain(&mapping.link);
    named
        .filter(|column| shape.column(column).is_none())
        .map(|column| Problem::NoColumn(column.clone()))
        .collect()
}
