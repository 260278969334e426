//! What `init` has found and proposes.

use std::io::{self, Write};

use serde::Serialize;

use super::{
    commands::print_findings,
    json,
    style::{BOLD, YELLOW},
};
use crate::{
    check::{CheckStatus, Finding},
    cli::Format,
    printable::printable,
};

/// The result of `init`.
#[derive(Debug, Serialize)]
pub struct Initialized {
    /// What was checked.
    pub checks: Vec<Finding>,
    /// Whether there is a mirror.
    pub has_mirror: bool,
    /// The tables that a mapping was asked for.
    pub tables: Vec<ProposedTable>,
    /// Tables that seem to hold Clerk's users or organizations.
    pub candidates: Vec<String>,
    /// The configuration file.
    pub file: String,
    /// Whether it was written. It is not if it exists already; `None` if it cannot be written.
    pub is_written: Option<bool>,
}

/// A mapping that is proposed for a table.
#[derive(Debug, Serialize)]
pub struct ProposedTable {
    /// The table.
    pub table: String,
    /// The entry of `[[tables]]`.
    pub entry: String,
    /// What is wrong with it, each with a hint.
    pub problems: Vec<(String, String)>,
    /// Whether there is a mirror.
    pub has_mirror: bool,
    /// The columns that it writes.
    pub columns: Vec<String>,
    /// Their values for some users.
    pub rows: Vec<Vec<Option<String>>>,
}

/// Prints the result of `init`.
pub fn initialized(format: Format, result: &Initialized) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    if format == Format::Json {
        return json(&mut out, result);
    }
    print_findings(&mut out, &result.checks)?;
    result
        .tables
        .iter()
        .try_for_each(|table| print_table(&mut out, table))?;
    let others = result
        .candidates
        .iter()
        .filter(|name| !result.tables.iter().any(|table| table.table == **name));
    let others: Vec<&String> = others.collect();
    if !others.is_empty() {
        writeln!(
            out,
            "\nThese tables seem to hold Clerk's ids. To keep one in sync, run:"
        )?;
        for name in others {
            let name = quoted(name);
            writeln!(out, "  {BOLD}clerk2pg init --table {}{BOLD:#}", printable(&name))?;
        }
    }
    let file = &result.file;
    match (result.is_written, result.tables.is_empty()) {
        // The error follows.
        (None, _) => return Ok(()),
        (Some(true), _) => writeln!(out, "\n{file} is written, with all settings as comments."),
        (Some(false), true) => writeln!(out, "\n{file} exists, and is not changed."),
        (Some(false), false) => writeln!(
            out,
            "\n{file} exists, and is not changed: add the lines above at its end."
        ),
    }?;
    let has_failed = result.checks.iter().any(|check| check.status == CheckStatus::Failed);
    match (has_failed, result.has_mirror && result.tables.is_empty()) {
        (true, _) => writeln!(out, "Next: correct what is marked ✗, then {BOLD}clerk2pg check{BOLD:#}"),
        (false, true) => writeln!(out, "Next: {BOLD}clerk2pg{BOLD:#} keeps the mirror in sync"),
        (false, false) => writeln!(
            out,
            "Next: {BOLD}clerk2pg --dry-run{BOLD:#} shows what a sync would do, {BOLD}clerk2pg --once{BOLD:#} does it"
        ),
    }
}

fn print_table(out: &mut impl Write, table: &ProposedTable) -> io::Result<()> {
    writeln!(out, "\n{BOLD}{}{BOLD:#}\n", printable(&table.table))?;
    let mut lines = table.entry.lines();
    lines.try_for_each(|line| writeln!(out, "{}", printable(line)))?;
    writeln!(out)?;
    for (message, hint) in &table.problems {
        writeln!(out, "{YELLOW}!{YELLOW:#} {}", printable(message))?;
        writeln!(out, "  hint: {}", printable(hint))?;
    }
    if !table.has_mirror {
        return writeln!(
            out,
            "After the first sync, this command shows what rows the mapping makes."
        );
    }
    if table.rows.is_empty() {
        return Ok(());
    }
    writeln!(out, "Some rows that it makes:")?;
    let width = table
        .columns
        .iter()
        .map(|column| column.chars().count())
        .max()
        .unwrap_or_default();
    for row in &table.rows {
        writeln!(out)?;
        for (column, value) in table.columns.iter().zip(row) {
            let (column, value) = (printable(column), printable(value.as_deref().unwrap_or("NULL")));
            writeln!(out, "  {column:width$}  {value}")?;
        }
    }
    Ok(())
}

/// Quotes a name for a shell.
fn quoted(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    match name.chars().all(is_plain) {
        true => name.to_owned(),
        false => format!("'{}'", name.replace('\'', r"'\''")),
    }
}
