//! How far a walk has come.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::reconcile::partition::Partition;

/// How far a walk has come. Everything before it is committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The run that began the walk.
    pub walk: i64,
    /// When the walk began, by the database's clock.
    pub started_at: DateTime<Utc>,
    /// When this was written, by the database's clock as far as the daemon knows it.
    pub written_at: DateTime<Utc>,
    /// Whether the walk looks for missing objects.
    pub judged: bool,
    /// The newest `updated_at` at Clerk when the walk began, in Unix milliseconds; `None` if the
    /// server does not say.
    #[serde(default)]
    pub watermark: Option<i64>,
    /// Where to continue: the partitions of the list, which are walked side by side.
    pub parts: Vec<Partition>,
}

/// How far the walk over one partition has come.
#[derive(Debug)]
pub struct Mark {
    /// The position of the partition in the checkpoint.
    pub number: usize,
    /// The state of the partition.
    pub part: Partition,
    /// Whether its walk is completed. That is written even if nothing changed.
    pub is_end: bool,
    /// When this is written, by the database's clock as far as the daemon knows it.
    pub written_at: DateTime<Utc>,
}
