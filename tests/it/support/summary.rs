//! What a sync did, as a value that tests compare, and the program's exit codes.
//!
//! `fixture.once().await.assert(Exit::Held, held(15).created(2).unchanged(44))` names all that is not
//! zero. Where another number is found, the message names its field.

use serde::Deserialize;

/// The program's exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Ok = 0,
    Failed = 1,
    Usage = 2,
    Held = 3,
    /// A dry run with `--exit-code` that plans changes.
    Differences = 4,
    /// With `--exit-code`: users could not be stored.
    Rejected = 5,
}

/// The outcome of a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    InSync,
    Changed,
    Held,
    Incomplete,
    Failed,
    Planned,
}

/// What became of users, as `--format json` reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Summary {
    pub outcome: Outcome,
    pub created: usize,
    pub updated: usize,
    pub deleted: usize,
    pub unchanged: usize,
    pub held: usize,
    pub rejected: usize,
}

pub fn in_sync() -> Summary {
    Summary::new(Outcome::InSync)
}

pub fn changed() -> Summary {
    Summary::new(Outcome::Changed)
}

/// `count` deletions wait for an approval.
pub fn held(count: usize) -> Summary {
    Summary::new(Outcome::Held).held(count)
}

pub fn incomplete() -> Summary {
    Summary::new(Outcome::Incomplete)
}

pub fn failed() -> Summary {
    Summary::new(Outcome::Failed)
}

pub fn planned() -> Summary {
    Summary::new(Outcome::Planned)
}

impl Summary {
    fn new(outcome: Outcome) -> Self {
        Self {
            outcome,
            created: 0,
            updated: 0,
            deleted: 0,
            unchanged: 0,
            held: 0,
            rejected: 0,
        }
    }

    pub fn created(mut self, count: usize) -> Self {
        self.created = count;
        self
    }

    pub fn updated(mut self, count: usize) -> Self {
        self.updated = count;
        self
    }

    pub fn deleted(mut self, count: usize) -> Self {
        self.deleted = count;
        self
    }

    pub fn unchanged(mut self, count: usize) -> Self {
        self.unchanged = count;
        self
    }

    pub fn held(mut self, count: usize) -> Self {
        self.held = count;
        self
    }

    pub fn rejected(mut self, count: usize) -> Self {
        self.rejected = count;
        self
    }

    /// Lists the fields in which this differs from what a test expects, a line each.
    pub fn differences(&self, expected: &Self) -> Vec<String> {
        let counts = |summary: &Self| {
            [
                ("created", summary.created),
                ("updated", summary.updated),
                ("deleted", summary.deleted),
                ("unchanged", summary.unchanged),
                ("held", summary.held),
                ("rejected", summary.rejected),
            ]
        };
        let mut lines = Vec::new();
        if self.outcome != expected.outcome {
            lines.push(format!("outcome: {:?}, expected {:?}", self.outcome, expected.outcome));
        }
        for ((field, found), (_, expected)) in counts(self).into_iter().zip(counts(expected)) {
            if found != expected {
                lines.push(format!("{field}: {found}, expected {expected}"));
            }
        }
        lines
    }
}

/// What all incremental syncs of a daemon did together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IncrementalTotals {
    pub created: i64,
    pub updated: i64,
    pub deleted: i64,
    pub rejected: i64,
    /// Syncs with another outcome than `changed`.
    pub others: i64,
}
