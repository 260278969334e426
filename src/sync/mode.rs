//! Whether a sync writes to the mirror, or is a dry run.

use std::time::Instant;

use chrono::{DateTime, Utc};

use crate::mirror::{Run, RunTable};

/// What a sync does with the differences that it finds.
#[derive(Clone, Copy)]
pub(super) enum SyncMode<'a> {
    /// It writes them to the mirror.
    Apply {
        run: &'a Run,
        /// When the run began, by the database's clock and by this process's.
        began: (DateTime<Utc>, Instant),
    },
    /// It prints them.
    DryRun {
        /// Whether there is a mirror to compare with.
        has_schema: bool,
        /// The application's tables whose mappings can be carried out.
        tables: &'a [RunTable],
    },
}

impl<'a> SyncMode<'a> {
    /// The run that writes; `None` in a dry run.
    pub(super) fn run(self) -> Option<&'a Run> {
        match self {
            SyncMode::Apply { run, .. } => Some(run),
            SyncMode::DryRun { .. } => None,
        }
    }

    /// Whether there is a mirror to compare with.
    pub(super) fn has_schema(self) -> bool {
        match self {
            SyncMode::Apply { .. } => true,
            SyncMode::DryRun { has_schema, .. } => has_schema,
        }
    }

    /// The time by the database's clock; `None` in a dry run.
    pub(super) fn now(self) -> Option<DateTime<Utc>> {
        match self {
            SyncMode::Apply { began: (now, then), .. } => Some(now + then.elapsed()),
            SyncMode::DryRun { .. } => None,
        }
    }
}
