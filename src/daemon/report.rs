//! Reports a sync in the log, and to the probes, metrics and status page.

use std::time::Duration;

use tracing::{info, warn};

use crate::{
    mirror::RowCounts,
    sync::{Outcome, Report, TableReport},
    watch::{CompletedSync, HeldKind},
};

/// Returns what the probes, metrics and the status page need of a report.
pub(super) fn completed(report: &Report) -> CompletedSync {
    CompletedSync {
        outcome: report.outcome,
        took: Duration::from_millis(report.duration_ms),
        incomplete: (report.outcome == Outcome::Incomplete).then(|| report.notes.join("; ")),
        holds: match report.held {
            0 => report.has_held().then_some(HeldKind::Rows),
            _ => Some(HeldKind::Deletions),
        },
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
    for (table, TableReport { counts, held, .. }) in &report.tables {
        let RowCounts {
            inserted,
            updated,
            linked,
            removed,
            rejected,
        } = counts;
        if counts.has_changes() || *held + *rejected > 0 {
            info!(table, inserted, updated, linked, removed, rejected, held, "{sync}");
        }
    }
}
