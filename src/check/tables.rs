//! Checks the application's tables that are kept in sync.

use std::time::Duration;

use super::{finding::Finding, time_limit::within};
use crate::{
    failure::{Cause, Failure},
    humanize,
    mirror::{AppTables, TableInspection, TableMapping},
};

const NAME: &str = "table";

/// Time limit for one table.
const TABLE_LIMIT: Duration = Duration::from_secs(10);

/// Checks each table of the configuration. With `has_mirror`, the expressions are tried on all
/// users.
pub(super) async fn check_tables(tables: &AppTables, has_mirror: bool) -> Vec<Finding> {
    let late = || {
        Failure::new(
            Cause::NeedsPerson,
            format!("no answer within {}", humanize::duration(TABLE_LIMIT)),
        )
    };
    let inspect = tables.mappings().iter().map(async |mapping| {
        match within(TABLE_LIMIT, late, tables.inspect(mapping, has_mirror)).await {
            Ok(inspection) => table(mapping, &inspection),
            Err(failure) => {
                let message = format!("{}: {}", mapping.table(), failure.message);
                Finding::failed(NAME, message).hint(
                    failure
                        .hint
                        .unwrap_or_else(|| "try again when the server is less busy".to_owned()),
                )
            }
        }
    });
    futures_util::future::join_all(inspect).await
}

/// Reports what was found about a table.
fn table(mapping: &TableMapping, inspection: &TableInspection) -> Finding {
    let name = mapping.table();
    let TableInspection { problems, tried_on } = inspection;
    // What keeps the table from being kept in sync comes first.
    let (fatal, advice): (Vec<_>, Vec<_>) = problems.iter().partition(|problem| problem.is_fatal);
    let messages: Vec<&str> = fatal
        .iter()
        .chain(&advice)
        .map(|problem| problem.message.as_str())
        .collect();
    let hints: Vec<&str> = fatal
        .iter()
        .chain(&advice)
        .map(|problem| problem.hint.as_str())
        .collect();
    let message = format!("{name}: {}", messages.join("; "));
    if !fatal.is_empty() {
        return Finding::failed(NAME, message).hint(hints.join("; "));
    }
    if !advice.is_empty() {
        return Finding::warn(NAME, message).hint(hints.join("; "));
    }
    let columns = mapping.columns().count();
    match tried_on {
        Some(users) => Finding::ok(
            NAME,
            format!(
                "{name}: {} from {}, tried on {}",
                humanize::count(columns as u64, "column"),
                mapping.from.resource().title(),
                humanize::objects(*users, mapping.from.resource())
            ),
        ),
        None => Finding::skipped(
            NAME,
            format!("{name}: the mapping fits the table; there is no mirror yet to try its expressions on"),
        ),
    }
}
