//! The table of the last syncs.

use std::fmt::{self, Write};

use super::html::{Escaped, Table};
use crate::{
    humanize::{age, number},
    mirror::LastRun,
    secret::without_personal_data,
};

const TABLE: Table<'_> = Table {
    title: "Last syncs",
    caption: "The last syncs of users that changed something, failed, or were full ones, the latest first",
    text_columns: 3,
    heads: &[
        "<span class=\"spare\">started, </span>UTC",
        "kind",
        "outcome",
        "<span class=\"spare\">created</span><span class=\"brief\">new</span>",
        "<span class=\"spare\">updated</span><span class=\"brief\">upd.</span>",
        "<span class=\"spare\">deleted</span><span class=\"brief\">del.</span>",
        "requests",
        "took",
    ],
};

/// Writes the table of the last syncs.
pub(super) fn write(out: &mut String, runs: &[LastRun]) -> fmt::Result {
    TABLE.begin(out)?;
    runs.iter().try_for_each(|run| row(out, run))?;
    if runs.is_empty() {
        TABLE.explain(out, "none yet")?;
    }
    TABLE.end(out);
    Ok(())
}

/// Writes one sync.
fn row(out: &mut String, run: &LastRun) -> fmt::Result {
    let class = match run.outcome.as_str() {
        "failed" | "incomplete" | "held" => " class=\"bad\"",
        _ => "",
    };
    let took = run
        .ended_at
        .map_or_else(|| "…".to_owned(), |at| age(at - run.started_at));
    write!(
        out,
        "<tr><th scope=\"row\"><span class=\"spare\">{} </span>{}<td>{}<td{class}>{}",
        run.started_at.format("%b %e"),
        run.started_at.format("%T"),
        Escaped(&run.kind.replace('_', " ")),
        Escaped(&run.outcome.replace('_', " ")),
    )?;
    for count in [run.created, run.updated, run.deleted, run.requests] {
        write!(out, "<td>{}", number(count.unsigned_abs()))?;
    }
    write!(out, "<td>{took}</tr>")?;
    if let Some(error) = &run.error {
        TABLE.explain(out, &without_personal_data(error))?;
    }
    Ok(())
}
