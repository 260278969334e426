//! The results of commands: `check`, `approve`, `repin`, `health` and `migrate`.

use std::io::{self, Write};

use anstyle::Style;
use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{
    json,
    style::{GREEN, RED, YELLOW},
};
use crate::{
    check::{CheckStatus, Finding, is_ok},
    cli::Format,
    humanize::{are, deletions, rows},
    mirror::schema,
    printable::printable,
    resource::{Resource, USERS},
    sync::Repinned,
};

/// Prints the findings of `check`.
pub fn findings(format: Format, findings: &[Finding]) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    if format == Format::Json {
        #[derive(Serialize)]
        struct CheckReport<'a> {
            ok: bool,
            checks: &'a [Finding],
        }
        let report = CheckReport {
            ok: is_ok(findings),
            checks: findings,
        };
        return json(&mut out, &report);
    }
    print_findings(&mut out, findings)
}

/// Prints findings for people.
pub(super) fn print_findings(out: &mut impl Write, findings: &[Finding]) -> io::Result<()> {
    let width = findings
        .iter()
        .map(|finding| finding.name.len())
        .max()
        .unwrap_or_default();
    for Finding {
        name,
        status,
        message,
        hint,
    } in findings
    {
        let (style, mark) = match status {
            CheckStatus::Ok => (GREEN, "✓"),
            CheckStatus::Warn => (YELLOW, "!"),
            CheckStatus::Failed => (RED, "✗"),
            CheckStatus::Skipped => (Style::new(), "-"),
        };
        let skipped = if *status == CheckStatus::Skipped {
            "not tried: "
        } else {
            ""
        };
        let message = printable(message);
        writeln!(out, "{style}{mark}{style:#} {name:width$}  {skipped}{message}")?;
        if let Some(hint) = hint {
            writeln!(out, "  {:width$}  hint: {}", "", printable(hint))?;
        }
    }
    Ok(())
}

/// Prints how many deletions `approve` has approved.
pub fn approved(format: Format, resource: &Resource, count: u64, at: DateTime<Utc>) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    let of_what = match resource.name == USERS.name {
        true => String::new(),
        false => format!(" of {}", resource.title()),
    };
    match format {
        Format::Json => {
            let object = serde_json::json!({"approved": count, "resource": resource.name, "at": at});
            json(&mut out, &object)
        }
        Format::Human => writeln!(
            out,
            "{}{of_what} {} approved. The next full sync asks Clerk for each id again before it deletes; a running daemon starts it at once.",
            deletions(count),
            are(count)
        ),
    }
}

/// Prints how many rows of a table `approve` has approved to be changed or removed.
pub fn approved_rows(format: Format, table: &str, changed: u64, at: DateTime<Utc>) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    match format {
        Format::Json => json(
            &mut out,
            &serde_json::json!({"approved": changed, "table": table, "at": at}),
        ),
        Format::Human => writeln!(
            out,
            "Changes of {} of {} are approved. The next full sync carries them out; a running daemon starts it at once.",
            rows(changed),
            printable(table)
        ),
    }
}

/// Prints which instance `repin` has chosen.
pub fn repinned(format: Format, repinned: &Repinned) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    let Repinned { before, after, held } = repinned;
    match format {
        Format::Json => {
            let object = serde_json::json!({"before": before, "after": after, "held": held});
            json(&mut out, &object)
        }
        Format::Human if before.as_ref() == Some(after) => {
            writeln!(
                out,
                "This database already mirrors {}; nothing changed.",
                printable(after)
            )
        }
        Format::Human => writeln!(
            out,
            "This database now mirrors {}. {} {} held until a full sync finds the users there;\n\
             the others stay held until you approve their deletion.",
            printable(after),
            rows(*held),
            are(*held)
        ),
    }
}

/// Prints the answer of `health`. For people, `main` prints a daemon that is not ready on stderr.
pub fn health(format: Format, is_ready: bool, reason: &str) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    match format {
        Format::Json => {
            let object = serde_json::json!({"ready": is_ready, "reason": reason});
            json(&mut out, &object)
        }
        Format::Human if is_ready => writeln!(out, "{}", printable(reason)),
        Format::Human => Ok(()),
    }
}

/// Prints which migrations `migrate` has applied.
pub fn migrated(format: Format, versions: &[String]) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    match (format, versions) {
        (Format::Json, versions) => json(&mut out, &serde_json::json!({"applied": versions})),
        (Format::Human, []) => writeln!(out, "The schema \"{}\" is up to date.", schema()),
        (Format::Human, versions) => {
            versions
                .iter()
                .try_for_each(|version| writeln!(out, "applied {version}"))?;
            writeln!(out, "The schema \"{}\" is up to date now.", schema())
        }
    }
}
