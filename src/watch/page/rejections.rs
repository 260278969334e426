//! The table of reasons for which objects and rows are rejected.

use std::fmt::{self, Write};

use super::html::{Escaped, Table};
use crate::{humanize::number, mirror::RejectionReason, resource::RESOURCES};

/// Reasons that are listed.
const MAX_LISTED: usize = 10;

const TABLE: Table<'_> = Table {
    title: "Rejected, by reason",
    caption: "Why objects and rows are rejected, without their ids, and how many for each reason",
    text_columns: 2,
    heads: &["of", "reason", "rejected"],
};

/// Writes a line for each reason, if there are any.
pub(super) fn write(out: &mut String, reasons: &[RejectionReason]) -> fmt::Result {
    if reasons.is_empty() {
        return Ok(());
    }
    TABLE.begin(out)?;
    let (listed, others) = reasons.split_at(reasons.len().min(MAX_LISTED));
    for RejectionReason { source, reason, count } in listed {
        let resource = RESOURCES.iter().find(|resource| resource.name == source);
        let source = resource.map_or_else(|| source.clone(), |resource| resource.title());
        row(out, &source, reason, *count)?;
    }
    if !others.is_empty() {
        row(
            out,
            "all",
            "other reasons",
            others.iter().map(|other| other.count).sum(),
        )?;
    }
    TABLE.end(out);
    Ok(())
}

fn row(out: &mut String, source: &str, reason: &str, count: u64) -> fmt::Result {
    write!(
        out,
        "<tr><th scope=\"row\">{}<td class=\"long\">{}<td>{}</tr>",
        Escaped(source),
        Escaped(reason),
        number(count)
    )
}
