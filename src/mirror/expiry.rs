//! Expiries, by the database's clock: each is stored beside its time to live, so that a clock that
//! goes back prolongs nothing.

/// The time to live of an expiry that an older version wrote, for a reader without one of its own.
pub(super) const UNKNOWN: &str = "interval '1 hour'";

/// A condition in SQL: an expiry lies ahead, but not further than its time to live. The second more
/// is for clocks that are set by a little while a holder lives. NULL if `expires_at` is NULL.
pub(super) fn lasts(expires_at: &str, ttl: &str, unknown: &str) -> String {
    format!(
        "({expires_at} BETWEEN pg_catalog.clock_timestamp()
             AND pg_catalog.clock_timestamp() + coalesce({ttl}, {unknown}) + interval '1 second')"
    )
}
