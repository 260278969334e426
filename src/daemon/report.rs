//! Reports a sync to the probes, metrics and status page.

use std::time::Duration;

use crate::{
    sync::{Outcome, Report},
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
