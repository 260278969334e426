//! How a sync ended.

use serde::{Serialize, Serializer};

/// How a sync ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing had to change.
    InSync,
    /// Something changed, and now the mirror is in sync.
    Changed,
    /// Done, but deletions wait for a person.
    Held,
    /// Some of Clerk's objects could not be seen or judged.
    Incomplete,
    /// A dry run, which is not stored.
    Planned,
    /// It failed.
    Failed,
}

impl Outcome {
    /// Outcomes after which the mirror is in sync, except for held deletions.
    pub(super) const SUCCESSFUL: [Self; 3] = [Outcome::InSync, Outcome::Changed, Outcome::Held];

    /// As in the report and in `clerk.sync_runs`.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::InSync => "in_sync",
            Outcome::Changed => "changed",
            Outcome::Held => "held",
            Outcome::Incomplete => "incomplete",
            Outcome::Planned => "planned",
            Outcome::Failed => "failed",
        }
    }
}

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}
