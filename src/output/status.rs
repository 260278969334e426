//! The status.

use std::io::{self, IsTerminal, Write};

use anstyle::Style;
use chrono::{DateTime, TimeDelta, Utc};

use super::{
    endpoints::print_endpoint,
    json,
    style::{BOLD, RED, YELLOW},
};
use crate::{
    cli::Format,
    deliver::EndpointState,
    failure::Failure,
    humanize::{age, are, count, deletions, held_removals, number, rows, users},
    mirror::{Details, Freshness, LastRun, ResourceStatus, TableDetails, schema},
    printable::{Printable, printable},
};

/// Prints the status.
pub fn status(format: Format, status: &Details) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    if format == Format::Json {
        return json(&mut out, status);
    }
    print_mirror(&mut out, status)?;
    print_replicas(&mut out, status)?;
    print_activity(&mut out, status)?;
    print_deletions(&mut out, status)?;
    print_rejected(&mut out, status)?;
    print_unexpected(&mut out, status)?;
    status
        .resources
        .iter()
        .try_for_each(|resource| print_resource(&mut out, resource))?;
    status
        .tables
        .iter()
        .try_for_each(|table| print_table(&mut out, table, status.summary.now))?;
    print_endpoints(&mut out, status)?;
    print_runs(&mut out, &status.recent.runs)
}

/// Prints the status in place of the one before, if stdout is a terminal.
pub fn status_again(format: Format, details: &Details) -> io::Result<()> {
    clear(format)?;
    status(format, details)
}

/// Prints in place of the status why there is none now.
pub fn status_failed(format: Format, failure: &Failure) -> io::Result<()> {
    clear(format)?;
    let mut out = anstream::stdout().lock();
    match format {
        Format::Json => json(&mut out, &serde_json::json!({"error": failure.message})),
        Format::Human => {
            writeln!(out, "{RED}error:{RED:#} {}", printable(&failure.message))?;
            let mut hints = failure.hint.iter();
            hints.try_for_each(|hint| writeln!(out, "hint: {}", printable(hint)))
        }
    }
}

fn clear(format: Format) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if format == Format::Human && out.is_terminal() {
        // To the corner, and everything after it is erased.
        out.write_all(b"\x1b[H\x1b[J")?;
    }
    Ok(())
}

/// Prints which instance is mirrored, and when it was last in sync.
fn print_mirror(out: &mut impl Write, status: &Details) -> io::Result<()> {
    let summary = &status.summary;
    match &summary.instance_id {
        Some(id) => writeln!(
            out,
            "{BOLD}{}{BOLD:#} of {} ({})",
            users(summary.users.unsigned_abs()),
            printable(id),
            printable(summary.environment_type.as_deref().unwrap_or("unknown"))
        )?,
        None => writeln!(out, "No Clerk instance yet: no sync has run.")?,
    }
    match status.recent.last_full_at {
        Some(at) => writeln!(
            out,
            "Last successful full sync {} ago ({})",
            age(summary.now - at),
            at.format("%F %T UTC")
        ),
        None => writeln!(out, "No full sync has succeeded yet"),
    }
}

/// Prints which daemon leads and which stand by.
fn print_replicas(out: &mut impl Write, status: &Details) -> io::Result<()> {
    let summary = &status.summary;
    match summary.leader.as_ref().map(Printable) {
        Some(leader) if status.last_seen_at.is_some() || !summary.standbys.is_empty() => write!(out, "{leader} leads")?,
        Some(leader) => write!(out, "{leader} led last; no daemon is connected")?,
        None if summary.standbys.is_empty() => return Ok(()),
        None => write!(out, "No daemon leads now")?,
    }
    match summary.standbys.as_slice() {
        [] => writeln!(out),
        [standby] => writeln!(out, "; {} stands by", printable(standby)),
        standbys => writeln!(out, "; {} stand by", printable(&standbys.join(", "))),
    }
}

/// Prints what the daemon did lately and does now.
fn print_activity(out: &mut impl Write, status: &Details) -> io::Result<()> {
    if let Some(at) = status.last_seen_at {
        let ago = age(status.summary.now - at);
        writeln!(out, "A daemon is connected; it last used this database {ago} ago")?;
    }
    if let Some(Freshness {
        p50_ms,
        p99_ms,
        changes,
    }) = status.recent.freshness
    {
        writeln!(
            out,
            "Changes of the last hour were {} old at the median and {} at the 99th percentile, over {}",
            age(TimeDelta::milliseconds(p50_ms)),
            age(TimeDelta::milliseconds(p99_ms)),
            count(changes.unsigned_abs(), "change"),
        )?;
    }
    match &status.summary.lease_holder {
        Some(holder) => writeln!(out, "{} is syncing now", printable(holder)),
        None => Ok(()),
    }
}

/// Prints held and approved deletions.
fn print_deletions(out: &mut impl Write, status: &Details) -> io::Result<()> {
    let [held, approved] = [status.summary.held, status.summary.approved].map(i64::unsigned_abs);
    if let Some(plan) = &status.plan {
        writeln!(
            out,
            "{YELLOW}{} {} held{YELLOW:#}; if that is correct, run: clerk2pg approve {plan}",
            deletions(held),
            are(held)
        )?;
    }
    if approved > 0 {
        writeln!(out, "{}", approved_deletions(approved))?;
    }
    Ok(())
}

/// Says what happens to approved deletions.
fn approved_deletions(n: u64) -> String {
    format!(
        "{} {} approved; the next full sync asks Clerk again before it deletes",
        deletions(n),
        are(n)
    )
}

/// Prints users that could not be stored, with their reasons.
fn print_rejected(out: &mut impl Write, status: &Details) -> io::Result<()> {
    let rejected = status.summary.rejected.unsigned_abs();
    if rejected == 0 {
        return Ok(());
    }
    writeln!(out, "\n{YELLOW}{} rejected{YELLOW:#}", users(rejected))?;
    for (id, reason) in &status.rejected_users {
        writeln!(out, "  {}  {}", printable(id), printable(reason))?;
    }
    match rejected.saturating_sub(status.rejected_users.len() as u64) {
        0 => Ok(()),
        more => writeln!(out, "  … and {} more in {}.rejected_users", number(more), schema()),
    }
}

/// Prints the fields with values of an unexpected type.
fn print_unexpected(out: &mut impl Write, status: &Details) -> io::Result<()> {
    if status.unexpected_values.is_empty() {
        return Ok(());
    }
    let of_field = |(field, count): (&String, &i64)| format!("{field} of {}", users(count.unsigned_abs()));
    let fields: Vec<_> = status.unexpected_values.iter().map(of_field).collect();
    let fields = fields.join(", ");
    writeln!(
        out,
        "\nValues of an unexpected type, kept in extra: {}",
        printable(&fields)
    )
}

/// Prints the state of a resource other than users, if there is any of it.
fn print_resource(out: &mut impl Write, status: &ResourceStatus) -> io::Result<()> {
    let ResourceStatus {
        objects,
        held,
        approved,
        rejected,
        error,
        plan,
        ..
    } = status;
    if [objects, held, approved, rejected].iter().all(|count| **count == 0) && error.is_none() {
        return Ok(());
    }
    let title = status.resource.replace('_', " ");
    let objects = count(objects.unsigned_abs(), title.trim_end_matches('s'));
    writeln!(out, "{BOLD}{objects}{BOLD:#}")?;
    if let Some(plan) = plan {
        writeln!(
            out,
            "  {YELLOW}{} {} held{YELLOW:#}; if that is correct, run: clerk2pg approve {plan}",
            deletions(held.unsigned_abs()),
            are(held.unsigned_abs())
        )?;
    }
    if *approved > 0 {
        let approved = approved.unsigned_abs();
        writeln!(out, "  {}", approved_deletions(approved))?;
    }
    if *rejected > 0 {
        writeln!(
            out,
            "  {YELLOW}{} rejected{YELLOW:#}; see the table {}.rejected",
            number(rejected.unsigned_abs()),
            schema()
        )?;
    }
    match error {
        Some(error) => writeln!(out, "  {RED}{}{RED:#}", printable(error)),
        None => Ok(()),
    }
}

/// Prints how far a table of the application is in sync.
fn print_table(out: &mut impl Write, table: &TableDetails, now: DateTime<Utc>) -> io::Result<()> {
    let TableDetails {
        status,
        held_removals: removals,
        plan,
        rejected_rows,
    } = table;
    let style = if status.state.needs_person() {
        YELLOW
    } else {
        Style::new()
    };
    let (name, state) = (printable(&status.table), status.state.words());
    write!(out, "\n{BOLD}{name}{BOLD:#}: {style}{state}{style:#}")?;
    match &status.problem {
        Some(problem) => writeln!(out, ": {}", printable(problem))?,
        None => writeln!(out)?,
    }
    if let Some(at) = status.compared_at {
        writeln!(
            out,
            "  {}, {} of them repaired, when last compared {} ago ({})",
            rows(status.rows.unwrap_or_default()),
            number(status.repaired.unwrap_or_default()),
            age(now - at),
            at.format("%F %T UTC")
        )?;
    }
    if let Some(plan) = &status.mapping_plan {
        writeln!(
            out,
            "  the mapping changes {}; if that is correct, run: clerk2pg approve {plan}",
            rows(status.held)
        )?;
    }
    if let Some(plan) = plan {
        writeln!(
            out,
            "  {YELLOW}{}{YELLOW:#}; if that is correct, run: clerk2pg approve {plan}",
            held_removals(*removals)
        )?;
    }
    if status.rejected > 0 {
        writeln!(out, "  {YELLOW}{} rejected{YELLOW:#}", rows(status.rejected))?;
    }
    for (id, reason) in rejected_rows {
        writeln!(out, "    {}  {}", printable(id), printable(reason))?;
    }
    match status.rejected.saturating_sub(rejected_rows.len() as u64) {
        0 => Ok(()),
        more => writeln!(out, "    … and {} more in {}.rejected_rows", number(more), schema()),
    }
}

/// Prints how far events are delivered to each endpoint.
fn print_endpoints(out: &mut impl Write, status: &Details) -> io::Result<()> {
    if !status.endpoints.is_empty() {
        writeln!(out)?;
    }
    status.endpoints.iter().try_for_each(|endpoint| {
        let state = EndpointState::of(endpoint, None);
        print_endpoint(out, endpoint, state)
    })
}

/// Prints the table of the last syncs.
fn print_runs(out: &mut impl Write, runs: &[LastRun]) -> io::Result<()> {
    if runs.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "\n{BOLD}{:<20} {:<11} {:<10} {:>9} {:>9} {:>9} {:>10} {:>9}{BOLD:#}",
        "started (UTC)", "kind", "outcome", "created", "updated", "deleted", "unchanged", "took"
    )?;
    runs.iter().try_for_each(|run| print_run(out, run))
}

/// Prints one line of the table of syncs.
fn print_run(out: &mut impl Write, run: &LastRun) -> io::Result<()> {
    let style = match run.outcome.as_str() {
        "failed" | "incomplete" => RED,
        "held" => YELLOW,
        _ => Style::new(),
    };
    let took = run.ended_at.map_or_else(String::new, |at| age(at - run.started_at));
    writeln!(
        out,
        "{:<20} {:<11} {style}{:<10}{style:#} {:>9} {:>9} {:>9} {:>10} {took:>9}",
        run.started_at.format("%F %T"),
        printable(&run.kind),
        printable(&run.outcome),
        number(run.created.unsigned_abs()),
        number(run.updated.unsigned_abs()),
        number(run.deleted.unsigned_abs()),
        number(run.unchanged.unsigned_abs()),
    )?;
    if let Some(error) = &run.error {
        writeln!(out, "  {style}{}{style:#}", printable(error))?;
    }
    Ok(())
}
