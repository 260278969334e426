//! The time, as Clerk's documents have it.

use std::time::{SystemTime, UNIX_EPOCH};

/// The current time in Unix milliseconds.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
