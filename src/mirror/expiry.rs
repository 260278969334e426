//! Expiries, by the database's clock: each is stored with its time to live, so that it does not
//! last longer when the clock goes back.

/// The time to live of an expiry that an older version wrote, for a reader without one of its own.
pub(super) const UNKNOWN: &str = "interval '1 hour'";

/// A condition in SQL: an expiry lies ahead, but not further than its time to live. The extra
/// second allows for small corrections of the clock while a holder runs. NULL if `expires_at` is
/// NULL. Names nothing without its schema.
pub(super) fn lasts(expires_at: &str, ttl: &str, unknown: &str) -> String {
    format!(
        "({expires_at} OPERATOR(pg_catalog.>=) pg_catalog.clock_timestamp()
          AND {expires_at} OPERATOR(pg_catalog.<=) (pg_catalog.clock_timestamp()
              OPERATOR(pg_catalog.+) coalesce({ttl}, {unknown}) OPERATOR(pg_catalog.+) interval '1 second'))"
    )
}
