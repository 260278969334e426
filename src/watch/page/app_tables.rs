//! The table of the application's tables.

use std::fmt::{self, Write};

use super::html::{Escaped, NONE, Table, ago};
use crate::{
    humanize::number,
    mirror::{Summary, TableStatus},
    secret::without_personal_data,
};

const TABLE: Table<'_> = Table {
    title: "Tables of the application",
    caption: "How far each table of the application is in sync, and when a full sync last compared it",
    text_columns: 3,
    heads: &["table", "state", "compared", "rows", "repaired", "rejected", "held"],
};

/// Writes a line for each table of the application, if there are any.
pub(super) fn write(out: &mut String, summary: &Summary, tables: &[TableStatus]) -> fmt::Result {
    if tables.is_empty() {
        return Ok(());
    }
    TABLE.begin(out)?;
    for table in tables {
        let class = if table.state.needs_person() {
            " class=\"bad\""
        } else {
            ""
        };
        let count = |count: Option<u64>| count.map_or_else(|| NONE.to_owned(), number);
        write!(
            out,
            "<tr><th scope=\"row\">{}<td{class}>{}<td>{}<td>{}<td>{}<td>{}<td>{}</tr>",
            Escaped(&table.table),
            table.state.words(),
            ago(summary.now, table.compared_at),
            count(table.rows),
            count(table.repaired),
            number(table.rejected),
            number(table.held),
        )?;
        if let Some(problem) = &table.problem {
            TABLE.explain(out, &without_personal_data(problem))?;
        }
    }
    TABLE.end(out);
    Ok(())
}
