//! The report of a sync and the plan of a dry run.

use std::{
    io::{self, Write},
    time::Duration,
};

use super::{
    json,
    style::{BOLD, GREEN, RED, YELLOW},
};
use crate::{
    cli::Format,
    failure::Failure,
    humanize::{are, deletions, duration, number, rejected_users, requests, rows, users},
    mirror::{RowCounts, schema},
    printable::{Printable, printable},
    sync::{Outcome, PlanLine, Report, TableReport},
};

/// Prints the report of a sync, or the totals of a dry run after its lines.
pub fn report(format: Format, report: &Report) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    match format {
        Format::Json => json(&mut out, report),
        Format::Human if report.is_plan => plan_totals(&mut out, report),
        Format::Human => sync_totals(&mut out, report),
    }
}

/// Prints a failed sync for programs; for people, `main` prints it on stderr.
pub fn failure(format: Format, failure: &Failure) -> io::Result<()> {
    if format == Format::Human {
        return Ok(());
    }
    let object = serde_json::json!({
        "outcome": "failed", "created": 0, "updated": 0, "deleted": 0, "unchanged": 0, "held": 0, "rejected": 0,
        "requests": 0, "duration_ms": 0, "plan": null, "error": failure.message, "hint": failure.hint,
    });
    json(&mut io::stdout(), &object)
}

/// How many users or rows to create are listed. What would be changed or removed is listed in full.
const SHOWN_CREATIONS: u64 = 20;

/// Prints the lines of a plan, in the form that infrastructure tools use.
#[derive(Debug, Default)]
pub struct PlanLines {
    has_lines: bool,
    /// Users or rows to create, in the part that is being printed.
    created: u64,
}

impl PlanLines {
    /// Prints the next line.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn print(&mut self, line: PlanLine<'_>) -> io::Result<()> {
        if matches!(line, PlanLine::Resource(_) | PlanLine::Table(_)) {
            self.end_part()?;
        }
        let space = if self.has_lines { "\n" } else { "" };
        self.has_lines = true;
        let mut out = anstream::stdout().lock();
        let shown = Printable::<&str>;
        match line {
            PlanLine::Create(id) => {
                self.created += 1;
                match self.created <= SHOWN_CREATIONS {
                    true => writeln!(out, "{GREEN}+{GREEN:#} {}", shown(id)),
                    false => Ok(()),
                }
            }
            PlanLine::Update(id, fields) => {
                writeln!(out, "{YELLOW}~{YELLOW:#} {} {}", shown(id), shown(&fields.join(", ")))
            }
            PlanLine::Delete(id) => writeln!(out, "{RED}-{RED:#} {}", shown(id)),
            PlanLine::Hold(id) => writeln!(out, "{RED}-{RED:#} {} (held)", shown(id)),
            PlanLine::Resource(name) => writeln!(out, "{space}{BOLD}{}{BOLD:#}", name.replace('_', " ")),
            PlanLine::Table(name) => writeln!(out, "{space}{BOLD}{}{BOLD:#}", shown(name)),
            PlanLine::Link(id) => writeln!(out, "{GREEN}={GREEN:#} {}", shown(id)),
            PlanLine::Reject(id, reason) => {
                writeln!(out, "{YELLOW}!{YELLOW:#} {} {}", shown(id), shown(reason))
            }
            PlanLine::Remove { key, why, is_held } => {
                let held = if is_held { "(held) " } else { "" };
                writeln!(out, "{RED}-{RED:#} {} {held}{why}", shown(key))
            }
        }
    }

    /// Says how many more there are to create, at the end of a part of the plan.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn end_part(&mut self) -> io::Result<()> {
        match std::mem::take(&mut self.created).saturating_sub(SHOWN_CREATIONS) {
            0 => Ok(()),
            more => writeln!(anstream::stdout().lock(), "{GREEN}+{GREEN:#} {} more", number(more)),
        }
    }
}

fn plan_totals(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let instance = printable(&report.instance);
    if report.changes_mirror() {
        writeln!(
            out,
            "\n{BOLD}{}.users:{BOLD:#} {} to create, {} to update, {} to delete, {} unchanged.",
            schema(),
            number(report.created),
            number(report.updated),
            number(report.deleted + report.held),
            number(report.unchanged),
        )?;
        if report.rejected > 0 {
            writeln!(out, "{} cannot be stored or deleted.", users(report.rejected))?;
        }
    } else if report.rejected > 0 {
        writeln!(
            out,
            "{BOLD}No changes{BOLD:#}, but {YELLOW}{} cannot be stored or deleted{YELLOW:#}. All others are in sync with {instance} ({}).",
            users(report.rejected),
            users(report.unchanged)
        )?;
    } else if report.resources.values().any(Report::changes_mirror) || tables(report).any(|(_, table)| has_lines(table))
    {
        writeln!(
            out,
            "\n{BOLD}No changes to users{BOLD:#} of {instance} ({}).",
            users(report.unchanged)
        )?;
    } else {
        writeln!(
            out,
            "{BOLD}No changes.{BOLD:#} The mirror is in sync with {instance} ({}).",
            users(report.unchanged)
        )?;
    }
    if let Some(plan) = &report.plan {
        writeln!(out, "Checksum of the deletions: {plan}")?;
    }
    for (name, resource) in &report.resources {
        resource_totals(out, name, resource)?;
    }
    for (name, table) in tables(report) {
        table_plan(out, name, table)?;
    }
    for note in &report.notes {
        writeln!(out, "{RED}Incomplete:{RED:#} {}", printable(note))?;
    }
    held(out, report)
}

fn sync_totals(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let instance = printable(&report.instance);
    let but = match report.rejected {
        0 => String::new(),
        rejected => format!(", but {YELLOW}{}{YELLOW:#}", rejected_users(rejected)),
    };
    let headline = match report.outcome {
        Outcome::InSync | Outcome::Changed | Outcome::Planned => {
            format!("{GREEN}In sync{GREEN:#} with {instance}{but}")
        }
        Outcome::Held => format!(
            "{YELLOW}{} are held{YELLOW:#}, otherwise in sync with {instance}{but}",
            if report.held > 0 { "Deletions" } else { "Rows of tables" },
        ),
        Outcome::Incomplete | Outcome::Failed => {
            format!("{RED}Incomplete{RED:#}: not in sync with {instance}")
        }
    };
    writeln!(out, "{headline}")?;
    writeln!(
        out,
        "  {} created, {} updated, {} deleted, {} unchanged",
        number(report.created),
        number(report.updated),
        number(report.deleted),
        number(report.unchanged),
    )?;
    if report.rejected > 0 {
        writeln!(
            out,
            "  {} rejected: see `clerk2pg status` or the table {}.rejected_users",
            number(report.rejected),
            schema()
        )?;
    }
    for (name, resource) in &report.resources {
        resource_totals(out, name, resource)?;
    }
    for (name, table) in tables(report) {
        table_totals(out, name, table)?;
    }
    for note in &report.notes {
        writeln!(out, "  {}", printable(note))?;
    }
    writeln!(
        out,
        "  {} in {}",
        requests(report.requests),
        duration(Duration::from_millis(report.duration_ms))
    )?;
    held(out, report)?;
    match report.is_import && !report.is_incomplete() {
        true => next(out),
        false => Ok(()),
    }
}

/// Says what comes after the first sync.
fn next(out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "\nNext:")?;
    let query = format!("SELECT id, primary_email, display_name FROM {}.users LIMIT 5", schema());
    let psql = format!("psql \"$DATABASE_URL\" -c '{query}'");
    for (what, command) in [
        ("see the users", psql.as_str()),
        ("keep them in sync", "clerk2pg"),
        ("see how that goes", "clerk2pg status --watch"),
    ] {
        writeln!(out, "  {what:17}  {BOLD}{command}{BOLD:#}")?;
    }
    Ok(())
}

/// Prints what a sync did with a resource other than users, if there is any of it.
fn resource_totals(out: &mut impl Write, name: &str, report: &Report) -> io::Result<()> {
    let all = report.created + report.updated + report.deleted + report.unchanged + report.held + report.rejected;
    if all == 0 && report.notes.is_empty() {
        return Ok(());
    }
    let words = match report.is_plan {
        true => ["to create", "to update", "to delete"],
        false => ["created", "updated", "deleted"],
    };
    write!(
        out,
        "  {}: {} {}, {} {}, {} {}, {} unchanged",
        name.replace('_', " "),
        number(report.created),
        words[0],
        number(report.updated),
        words[1],
        number(report.deleted),
        words[2],
        number(report.unchanged),
    )?;
    for (count, what) in [(report.held, "held"), (report.rejected, "rejected")] {
        if count > 0 {
            write!(out, ", {} {what}", number(count))?;
        }
    }
    writeln!(out)?;
    for note in &report.notes {
        writeln!(out, "    {}", printable(note))?;
    }
    if let Some(plan) = report.plan.as_ref().filter(|_| report.held > 0) {
        writeln!(out, "    if that is correct, run: clerk2pg approve {plan}")?;
    }
    Ok(())
}

/// The tables of the application that are kept in sync, from any resource.
fn tables(report: &Report) -> impl Iterator<Item = (&String, &TableReport)> {
    let others = report.resources.values().flat_map(|resource| &resource.tables);
    report.tables.iter().chain(others)
}

/// Whether a dry run has printed lines about rows of a table.
fn has_lines(table: &TableReport) -> bool {
    table.counts.has_changes() || table.held + table.counts.rejected > 0
}

/// Prints how many rows of a table a dry run would change.
fn table_plan(out: &mut impl Write, name: &str, table: &TableReport) -> io::Result<()> {
    let name = printable(name);
    let RowCounts {
        inserted,
        updated,
        linked,
        removed,
        rejected,
    } = table.counts;
    if !has_lines(table) {
        return writeln!(out, "{BOLD}{name}:{BOLD:#} no changes.");
    }
    let to_go = match table.is_mapping_held {
        true => removed,
        false => removed + table.held,
    };
    writeln!(
        out,
        "{BOLD}{name}:{BOLD:#} {} to insert, {} to update, {} to link, {} to remove.",
        number(inserted),
        number(updated),
        number(linked),
        number(to_go),
    )?;
    match rejected {
        0 => Ok(()),
        rejected => writeln!(out, "{YELLOW}{} cannot be written.{YELLOW:#}", rows(rejected)),
    }
}

/// Prints what a sync did with a table of the application.
fn table_totals(out: &mut impl Write, name: &str, table: &TableReport) -> io::Result<()> {
    let name = printable(name);
    let RowCounts {
        inserted,
        updated,
        linked,
        removed,
        rejected,
    } = table.counts;
    writeln!(
        out,
        "  {name}: {} inserted, {} updated, {} linked, {} removed",
        number(inserted),
        number(updated),
        number(linked),
        number(removed),
    )?;
    if rejected > 0 {
        writeln!(
            out,
            "    {YELLOW}{} rejected{YELLOW:#}: see `clerk2pg status` or the table {}.rejected_rows",
            rows(rejected),
            schema()
        )?;
    }
    Ok(())
}

/// Prints held deletions, rows and mappings, and how to approve them.
fn held(out: &mut impl Write, report: &Report) -> io::Result<()> {
    held_deletions(out, report)?;
    tables(report).try_for_each(|(name, table)| held_rows(out, name, table, report.is_plan))
}

/// Prints what waits for a person in a table, and how to approve it. Only a sync can hold it.
fn held_rows(out: &mut impl Write, name: &str, table: &TableReport, is_plan: bool) -> io::Result<()> {
    let Some(plan) = table.plan.as_ref().filter(|_| table.held > 0) else {
        return Ok(());
    };
    let (name, held) = (printable(name), rows(table.held));
    match table.is_mapping_held {
        true => writeln!(
            out,
            "{YELLOW}The mapping of {name} is held{YELLOW:#}: it changes {held}, more than max_change_percent allows."
        )?,
        false => writeln!(
            out,
            "{YELLOW}Removals from {name} are held{YELLOW:#}: {held}, more than [deletes] allows, or the first ones from this table."
        )?,
    }
    match is_plan {
        true => writeln!(
            out,
            "If that is correct, run after the next sync: clerk2pg approve {plan}"
        ),
        false => writeln!(out, "If that is correct, run: clerk2pg approve {plan}"),
    }
}

/// Prints held deletions and how to approve them.
fn held_deletions(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let Some(plan) = report.plan.as_ref().filter(|_| report.held > 0) else {
        return Ok(());
    };
    writeln!(
        out,
        "{YELLOW}{} {} held{YELLOW:#}: more than [deletes] allows, or Clerk lists no users at all.\n\
         If that is correct, run: clerk2pg approve {plan}",
        deletions(report.held),
        are(report.held)
    )
}
