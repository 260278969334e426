//! How a daemon is doing, as a value: what the probes answer and the headline of the page says.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::{humanize::duration, mirror::SyncKind};

/// The answer to a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeResult {
    /// Whether the probe passed.
    pub is_ok: bool,
    /// Why, in words.
    pub message: String,
}

impl ProbeResult {
    /// The probe passed.
    pub fn ok(message: impl Into<String>) -> Self {
        Self {
            is_ok: true,
            message: message.into(),
        }
    }

    /// The probe failed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self {
            is_ok: false,
            message: message.into(),
        }
    }
}

/// What waits for approval. Deletions come last: they are named if both wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HeldKind {
    /// Rows of the application's tables, or a mapping.
    Rows,
    /// Deletions of users.
    Deletions,
}

/// How a daemon is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// The loop had no heartbeat for this time.
    Stuck(Duration),
    /// Syncs fail, or the election does.
    Failing {
        /// Why.
        why: String,
        /// Since when.
        since: DateTime<Utc>,
    },
    /// Another clerk2pg syncs, as this says.
    StandingBy(String),
    /// No full sync has ended since the start.
    FirstSync,
    /// The last full sync was incomplete, for this reason.
    Incomplete(String),
    /// The schedule expects a sync that has not succeeded.
    Late {
        /// The kind of that sync.
        kind: SyncKind,
        /// How long ago one succeeded.
        without_success: Duration,
    },
    /// The mirror is in sync. Something may wait for approval.
    InSync(Option<HeldKind>),
}

impl Condition {
    /// Returns what a probe answers. [`Condition::Stuck`] is about `/livez`, all others about `/readyz`.
    pub fn probe(&self) -> ProbeResult {
        match self {
            Self::Stuck(silence) => {
                ProbeResult::failed(format!("no heartbeat of the sync loop for {}", duration(*silence)))
            }
            Self::Failing { why, since } => {
                ProbeResult::failed(format!("{why}; failing since {}", since.format("%F %T UTC")))
            }
            Self::StandingBy(why) => ProbeResult::ok(format!("standing by: {why}")),
            Self::FirstSync => ProbeResult::failed("first full sync still running"),
            Self::Incomplete(why) => ProbeResult::failed(format!("the last full sync was incomplete: {why}")),
            Self::Late { kind, without_success } => ProbeResult::failed(format!(
                "no {} sync has succeeded for {}, longer than the schedule allows",
                kind.name(),
                duration(*without_success)
            )),
            Self::InSync(holds) => ProbeResult::ok(match holds {
                Some(HeldKind::Deletions) => "in sync, but deletions are held: see `clerk2pg status`",
                Some(HeldKind::Rows) => "in sync, but rows of tables are held: see `clerk2pg status`",
                None => "in sync",
            }),
        }
    }
}
