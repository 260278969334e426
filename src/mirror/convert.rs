//! Converts values to and from the types of Postgres.

use chrono::{DateTime, Utc};

/// Converts a count from Postgres. A count is never negative.
pub(super) fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or_default()
}

/// Converts a count for Postgres. No count comes near the limit.
pub(super) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Converts Unix milliseconds. Values out of range, which the decoder rejects, become the latest
/// time.
pub(super) fn timestamp(milliseconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(milliseconds).unwrap_or(DateTime::<Utc>::MAX_UTC)
}
