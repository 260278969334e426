//! Expiries, by the database's clock. Each is stored with its time to live, so that it does not
//! last longer when the clock goes back.

/// The time to live of an expiry that an older version wrote, for a reader without a time to live
/// of its own.
pub(super) const UNKNOWN: &str = "interval '1 hour'";

/// Returns a condition in SQL: an expiry is in the future, but not further than its time to live.
/// NULL if `expires_at` is NULL.
///
/// The extra second allows for small corrections of the clock while a holder runs. Every name and
/// operator has its schema, as the statement may run without a transaction.
pub(super) fn lasts(expires_at: &str, ttl: &str, unknown: &str) -> String {
    format!(
        "({expires_at} OPERATOR(pg_catalog.>=) pg_catalog.clock_timestamp()
          AND {expires_at} OPERATOR(pg_catalog.<=) (pg_catalog.clock_timestamp()
              OPERATOR(pg_catalog.+) coalesce({ttl}, {unknown}) OPERATOR(pg_catalog.+) interval '1 second'))"
    )
}
