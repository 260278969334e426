//! Reports a sync in the log.

use tracing::{info, warn};

use super::{Outcome, Report, TableReport};
use crate::mirror::RowCounts;

impl Report {
    /// Logs what a sync did. `sync` is its kind, in words; `resource` is its resource if that is not
    /// users. `goes_on` says that the next sync continues the walk.
    pub(crate) fn log(&self, sync: &str, resource: Option<&str>, goes_on: bool) {
        let Self {
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
        } = self;
        let outcome_name = outcome.name();
        let why = self.notes.join("; ");
        if *outcome == Outcome::Incomplete && !goes_on {
            warn!(
                resource,
                outcome = outcome_name,
                why,
                created,
                updated,
                deleted,
                unchanged,
                rejected,
                requests,
                duration_ms,
                "{sync}"
            );
        } else {
            info!(
                resource,
                outcome = outcome_name,
                why = goes_on.then_some(why),
                created,
                updated,
                deleted,
                unchanged,
                held,
                rejected,
                requests,
                duration_ms,
                freshness_ms,
                "{sync}"
            );
        }
        for (table, TableReport { counts, held, .. }) in &self.tables {
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
}
