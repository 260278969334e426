//! What is printed on stdout: reports, plans and the status, for people and for programs.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use crate::{
    check::{Finding, Status as Tried, is_ok},
    cli::Format,
    failure::Failure,
    mirror::{Details, Freshness, LastRun},
    sync::{Line, Outcome, Repinned, Report},
};

const GREEN: Style = AnsiColor::Green.on_default();
const YELLOW: Style = AnsiColor::Yellow.on_default();
const RED: Style = AnsiColor::Red.on_default();
const BOLD: Style = Style::new().bold();

/// Prints the report of a sync, or of a dry run behind its lines.
pub fn report(format: Format, report: &Report) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    match format {
        Format::Json => writeln!(out, "{}", serde_json::to_string(report)?),
        Format::Human if report.is_plan => plan_totals(&mut out, report),
        Format::Human => sync_totals(&mut out, report),
    }
}

/// Prints a failed sync for programs; people are told on stderr.
pub fn failure(format: Format, failure: &Failure) -> io::Result<()> {
    if format == Format::Human {
        return Ok(());
    }
    let object = serde_json::json!({
        "outcome": "failed", "created": 0, "updated": 0, "deleted": 0, "unchanged": 0, "held": 0, "rejected": 0,
        "requests": 0, "duration_ms": 0, "plan": null, "error": failure.message, "hint": failure.hint,
    });
    writeln!(io::stdout(), "{object}")
}

/// Prints a line of a plan, as people know it from infrastructure tools.
pub fn plan_line(line: Line<'_>) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    match line {
        Line::Create(id) => writeln!(out, "{GREEN}+{GREEN:#} {id}"),
        Line::Update(id, fields) => writeln!(out, "{YELLOW}~{YELLOW:#} {id} {}", fields.join(", ")),
        Line::Delete(id) => writeln!(out, "{RED}-{RED:#} {id}"),
        Line::Hold(id) => writeln!(out, "{RED}-{RED:#} {id} (held)"),
        Line::Reject(id, reason) => writeln!(out, "{YELLOW}!{YELLOW:#} {id} {reason}"),
    }
}

fn plan_totals(out: &mut impl Write, report: &Report) -> io::Result<()> {
    if report.has_changes() {
        writeln!(
            out,
            "\n{BOLD}Plan:{BOLD:#} {} to create, {} to update, {} to delete, {} unchanged.",
            number(report.created),
            number(report.updated),
            number(report.deleted + report.held),
            number(report.unchanged),
        )?;
        if report.rejected > 0 {
            writeln!(out, "{} cannot be stored.", users(report.rejected))?;
        }
    } else if report.rejected > 0 {
        writeln!(
            out,
            "{BOLD}No changes{BOLD:#}, but {YELLOW}{} cannot be stored{YELLOW:#}. All others are in sync with {} ({}).",
            users(report.rejected),
            report.instance,
            users(report.unchanged)
        )?;
    } else {
        writeln!(
            out,
            "{BOLD}No changes.{BOLD:#} The mirror is in sync with {} ({}).",
            report.instance,
            users(report.unchanged)
        )?;
    }
    if let Some(plan) = &report.plan {
        writeln!(out, "Checksum of the deletions: {plan}")?;
    }
    for note in &report.notes {
        writeln!(out, "{RED}Incomplete:{RED:#} {note}")?;
    }
    held(out, report)
}

fn sync_totals(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let but = match report.rejected {
        0 => String::new(),
        rejected => format!(", but {YELLOW}{}{YELLOW:#}", are_rejected(rejected)),
    };
    let headline = match report.outcome {
        Outcome::InSync | Outcome::Changed | Outcome::Planned => {
            format!("{GREEN}In sync{GREEN:#} with {}{but}", report.instance)
        }
        Outcome::Held => format!(
            "{YELLOW}Deletions are held{YELLOW:#}, otherwise in sync with {}{but}",
            report.instance
        ),
        Outcome::Incomplete | Outcome::Failed => {
            format!("{RED}Incomplete{RED:#}: not in sync with {}", report.instance)
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
            "  {} rejected: see `clerk2pg status` or the table clerk.rejected_users",
            number(report.rejected)
        )?;
    }
    for note in &report.notes {
        writeln!(out, "  {note}")?;
    }
    writeln!(
        out,
        "  {} requests in {:.1} s",
        number(report.requests),
        report.duration_ms as f64 / 1000.0
    )?;
    held(out, report)
}

fn held(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let Some(plan) = report.plan.as_ref().filter(|_| report.held > 0) else {
        return Ok(());
    };
    writeln!(
        out,
        "{YELLOW}{} deletions are held{YELLOW:#}, as there are more than [deletes] allows or Clerk shows nobody at all.\n\
         If they are right: clerk2pg approve {plan}",
        number(report.held)
    )
}

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
        None => writeln!(out, "No Clerk instance yet: the first sync is still to come.")?,
    }
    match status.recent.last_full_at {
        Some(at) => writeln!(
            out,
            "Last successful full sync {} ago ({})",
            age(status.summary.now - at),
            at.format("%F %T UTC")
        )?,
        None => writeln!(out, "No full sync in sync so far")?,
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
        writeln!(out, "{holder} is syncing at this moment")?;
    }
    if let Some(plan) = &status.plan {
        writeln!(
            out,
            "{YELLOW}{} deletions are held{YELLOW:#}; if they are right: clerk2pg approve {plan}",
            number(status.summary.held.unsigned_abs())
        )?;
    }
    if status.summary.approved > 0 {
        writeln!(
            out,
            "{} deletions are approved and due with the next sync",
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

fn replicas(out: &mut impl Write, status: &Details) -> io::Result<()> {
    match &status.summary.leader {
        Some(leader) if status.last_seen_at.is_some() || !status.summary.standbys.is_empty() => {
            write!(out, "{leader} leads")?
        }
        Some(leader) => write!(out, "{leader} led last; no daemon is connected")?,
        None if status.summary.standbys.is_empty() => return Ok(()),
        None => write!(out, "No daemon leads at this moment")?,
    }
    match status.summary.standbys.as_slice() {
        [] => writeln!(out),
        [standby] => writeln!(out, "; {standby} stands by"),
        standbys => writeln!(out, "; {} stand by", standbys.join(", ")),
    }
}

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

fn users(count: u64) -> String {
    match count {
        1 => "1 user".to_owned(),
        count => format!("{} users", number(count)),
    }
}

/// Says how many users are rejected.
pub(crate) fn are_rejected(count: u64) -> String {
    let are = if count == 1 { "is" } else { "are" };
    format!("{} {are} rejected", users(count))
}

/// With thousands set apart.
pub(crate) fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A span of time, as people tell it.
pub(crate) fn age(delta: TimeDelta) -> String {
    let seconds = delta.num_milliseconds().max(0) as f64 / 1000.0;
    match seconds {
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3600.0),
        s => format!("{:.0} days", s / 86_400.0),
    }
}

/// Prints what `check` found.
pub fn findings(format: Format, findings: &[Finding]) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    if format == Format::Json {
        #[derive(Serialize)]
        struct Object<'a> {
            ok: bool,
            checks: &'a [Finding],
        }
        let object = Object {
            ok: is_ok(findings),
            checks: findings,
        };
        return writeln!(out, "{}", serde_json::to_string(&object)?);
    }
    let width = findings
        .iter()
        .map(|finding| finding.name.len())
        .max()
        .unwrap_or_default();
    for Finding {
        name,
        status,
        says,
        hint,
    } in findings
    {
        let (style, mark) = match status {
            Tried::Ok => (GREEN, "✓"),
            Tried::Warn => (YELLOW, "!"),
            Tried::Failed => (RED, "✗"),
            Tried::Skipped => (Style::new(), "-"),
        };
        let skipped = if *status == Tried::Skipped { "not tried: " } else { "" };
        writeln!(out, "{style}{mark}{style:#} {name:width$}  {skipped}{says}")?;
        if let Some(hint) = hint {
            writeln!(out, "  {:width$}  hint: {hint}", "")?;
        }
    }
    Ok(())
}

/// Prints what `approve` did.
pub fn approved(format: Format, count: u64, at: DateTime<Utc>) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    match format {
        Format::Json => writeln!(out, "{}", serde_json::json!({"approved": count, "at": at})),
        Format::Human => writeln!(
            out,
            "{} deletions are approved. The next full sync, at once where a daemon runs, asks Clerk for each once more and carries them out.",
            number(count)
        ),
    }
}

/// Prints which instance is mirrored from now on.
pub fn repinned(format: Format, repinned: &Repinned) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    let Repinned { before, after, held } = repinned;
    match format {
        Format::Json => {
            let object = serde_json::json!({"before": before, "after": after, "held": held});
            writeln!(out, "{object}")
        }
        Format::Human if before.as_ref() == Some(after) => {
            writeln!(out, "This database mirrors {after} already; nothing changed.")
        }
        Format::Human => writeln!(
            out,
            "This database mirrors {after} from now on. {} rows are held until a full sync finds their users there;\n\
             the others stay held until you approve their deletion.",
            number(*held)
        ),
    }
}

/// Prints what `health` learnt, for programs in any case; who is not ready is told to people on stderr.
pub fn health(format: Format, is_ready: bool, reason: &str) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    match format {
        Format::Json => {
            let object = serde_json::json!({"ready": is_ready, "reason": reason});
            writeln!(out, "{object}")
        }
        Format::Human if is_ready => writeln!(out, "{reason}"),
        Format::Human => Ok(()),
    }
}

/// Prints what `migrate` did.
pub fn migrated(format: Format, versions: &[String]) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    match (format, versions) {
        (Format::Json, versions) => writeln!(out, "{}", serde_json::json!({"applied": versions})),
        (Format::Human, []) => writeln!(out, "The schema \"clerk\" is up to date."),
        (Format::Human, versions) => {
            versions
                .iter()
                .try_for_each(|version| writeln!(out, "applied {version}"))?;
            writeln!(out, "The schema \"clerk\" is up to date now.")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_ages_are_for_people() {
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(number),
            ["0", "999", "1,000", "1,234,567"]
        );
        let ages = [0, 9_900, 61_000, 600_000, 86_400_000, 864_000_000];
        let ages = ages.map(|ms| age(TimeDelta::milliseconds(ms)));
        assert_eq!(ages, ["0.0 s", "9.9 s", "61 s", "10 min", "24 h", "10 days"]);
    }
}
