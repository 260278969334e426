//! Reports a sync in the log, and to the probes, metrics and status page.

use std::time::Duration;

use tracing::{info, warn};

use crate::{
    sync::{Outcome, Report},
    watch::CompletedSync,
};

/// Returns what the probes, metrics and the status page need of a report.
pub(super) fn completed(report: &Report) -> CompletedSync {
    CompletedSync {
        outcome: report.outcome,
        took: Duration::from_millis(report.duration_ms),
        incomplete: (report.outcome == Outcome::Incomplete).then(|| report.notes.join("; ")),
        holds: report.held > 0,
    }
}

/// Logs a report. `sync` is the kind of sync, in words.
pub(super) fn log_report(sync: &'static str, report: &Report) {
    let Report {
        outcome,
        created,
        updated,
        deleted,
        unchanged,
        held,
        rejected,
        requests,
        duration_ms,
        freshness_ms,
        ..
    } = report;
    let outcome_name = outcome.name();
    if *outcome == Outcome::Incomplete {
        let why = report.notes.join("; ");
        warn!(
            outcome = outcome_name,
            why, created, updated, deleted, unchanged, rejected, requests, duration_ms, "{sync}"
        );
    } else {
        info!(
            outcome = outcome_name,
            created, updated, deleted, unchanged, held, rejected, requests, duration_ms, freshness_ms, "{sync}"
        );
    }
}
