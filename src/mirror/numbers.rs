//! Counts, which are `bigint` in Postgres.

/// Converts a count from Postgres. A count is never negative.
pub(super) fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or_default()
}

/// Converts a count for Postgres. No count comes near the limit.
pub(super) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
