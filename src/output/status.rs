//! The status.

use std::io::{self, Write};

use anstyle::Style;
use chrono::TimeDelta;

use super::style::{BOLD, RED, YELLOW};
use crate::{
    cli::Format,
    humanize::{age, number, users},
    mirror::{Details, Freshness, LastRun},
};

/// Prints the status.
pub fn status(format: Format, status: &Details) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    if format == Format::Json {
        return writeln!(out, "{}", serde_json::to_string(status)?);
    }
    match &status.summary.instance_id {
        Some(id) => writeln!(
            out,
            "{BOLD}{}{BOLD:#} users of {id} ({})",
            number(status.summary.users.unsigned_abs()),
            status.summary.environment_type.as_deref().unwrap_or("unknown")
        )?,
        None => writeln!(out, "No Clerk instance yet: no sync has run.")?,
    }
    match status.recent.last_full_at {
        Some(at) => writeln!(
            out,
            "Last successful full sync {} ago ({})",
            age(status.summary.now - at),
            at.format("%F %T UTC")
        )?,
        None => writeln!(out, "No full sync has succeeded yet")?,
    }
    replicas(&mut out, status)?;
    if let Some(at) = status.last_seen_at {
        writeln!(
            out,
            "A daemon is connected; it last used this database {} ago",
            age(status.summary.now - at)
        )?;
    }
    if let Some(Freshness {
        p50_ms,
        p99_ms,
        changes,
    }) = status.recent.freshness
    {
        writeln!(
            out,
            "Changes of the last hour were {} old at the median and {} at the 99th percentile, over {} changes",
            age(TimeDelta::milliseconds(p50_ms)),
            age(TimeDelta::milliseconds(p99_ms)),
            number(changes.unsigned_abs()),
        )?;
    }
    if let Some(holder) = &status.summary.lease_holder {
        writeln!(out, "{holder} is syncing now")?;
    }
    if let Some(plan) = &status.plan {
        writeln!(
            out,
            "{YELLOW}{} deletions are held{YELLOW:#}; if they are correct, run: clerk2pg approve {plan}",
            number(status.summary.held.unsigned_abs())
        )?;
    }
    if status.summary.approved > 0 {
        writeln!(
            out,
            "{} deletions are approved; the next full sync carries them out",
            number(status.summary.approved.unsigned_abs())
        )?;
    }
    if status.summary.rejected > 0 {
        writeln!(
            out,
            "\n{YELLOW}{} rejected{YELLOW:#}",
            users(status.summary.rejected.unsigned_abs())
        )?;
        for (id, reason) in &status.rejected_users {
            writeln!(out, "  {id}  {reason}")?;
        }
        let more = status
            .summary
            .rejected
            .unsigned_abs()
            .saturating_sub(status.rejected_users.len() as u64);
        if more > 0 {
            writeln!(out, "  … and {} more in clerk.rejected_users", number(more))?;
        }
    }
    if !status.unexpected_values.is_empty() {
        let of_field = |(field, count): (&String, &i64)| format!("{field} of {}", users(count.unsigned_abs()));
        let fields: Vec<_> = status.unexpected_values.iter().map(of_field).collect();
        writeln!(
            out,
            "\nValues of an unexpected type, kept in extra: {}",
            fields.join(", ")
        )?;
    }
    if !status.recent.runs.is_empty() {
        writeln!(
            out,
            "\n{BOLD}{:<20} {:<11} {:<10} {:>9} {:>9} {:>9} {:>10} {:>9}{BOLD:#}",
            "started (UTC)", "kind", "outcome", "created", "updated", "deleted", "unchanged", "took"
        )?;
        for run in &status.recent.runs {
            status_run(&mut out, run)?;
        }
    }
    Ok(())
}

/// Prints which daemon leads and which stand by.
fn replicas(out: &mut impl Write, status: &Details) -> io::Result<()> {
    match &status.summary.leader {
        Some(leader) if status.last_seen_at.is_some() || !status.summary.standbys.is_empty() => {
            write!(out, "{leader} leads")?
        }
        Some(leader) => write!(out, "{leader} led last; no daemon is connected")?,
        None if status.summary.standbys.is_empty() => return Ok(()),
        None => write!(out, "No daemon leads now")?,
    }
    match status.summary.standbys.as_slice() {
        [] => writeln!(out),
        [standby] => writeln!(out, "; {standby} stands by"),
        standbys => writeln!(out, "; {} stand by", standbys.join(", ")),
    }
}

/// Prints one line of the table of syncs.
fn status_run(out: &mut impl Write, run: &LastRun) -> io::Result<()> {
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
        run.kind,
        run.outcome,
        run.created,
        run.updated,
        run.deleted,
        run.unchanged,
    )?;
    if let Some(error) = &run.error {
        writeln!(out, "  {style}{error}{style:#}")?;
    }
    Ok(())
}
