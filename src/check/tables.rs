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
                let hint = failure.hint;
                vec![
                    Finding::failed(NAME, message)
                        .hint(hint.as_deref().unwrap_or("try again when the server is less busy")),
                ]
            }
        }
    });
    futures_util::future::join_all(inspect)
        .await
        .into_iter()
        .flatten()
        .collect()
}

/// Reports what was found about a table, what keeps it from being kept in sync first.
fn table(mapping: &TableMapping, inspection: &TableInspection) -> Vec<Finding> {
    let name = mapping.table();
    let TableInspection { problems, tried_on } = inspection;
    let (fatal, advice): (Vec<_>, Vec<_>) = problems.iter().partition(|problem| problem.is_fatal);
    let findings = fatal.iter().chain(&advice).map(|problem| {
        let message = format!("{name}: {}", problem.message);
        let finding = match problem.is_fatal {
            true => Finding::failed(NAME, message),
            false => Finding::warn(NAME, message),
        };
        finding.hint(&problem.hint)
    });
    if !problems.is_empty() {
        return findings.collect();
    }
    let columns = mapping.columns().count();
    vec![match tried_on {
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
    }]
}
