//! Only the leader delivers.

use std::time::Duration;

use diesel::{sql_query, sql_types::Text};
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};

use super::Deliveries;
use crate::mirror::{MirrorError, lease::LEAST_SILENCE, session::Session};

impl Deliveries {
    /// Checks that a daemon leads.
    ///
    /// # Errors
    /// [`MirrorError::LeaseLost`] if it does not.
    pub async fn require_leader(&self, holder: &str) -> Result<(), MirrorError> {
        require_leader(&mut *self.0.connection().await?, holder).await
    }
}

/// How long a statement may take that writes a row for each event or object.
pub(super) const MOST_TIME_FOR_ALL: Duration = Duration::from_mins(10);

/// Begins a transaction that writes what the leader has done.
///
/// A leader that is suspended or cut off within it keeps the endpoint's row locked. The server ends
/// such a transaction, so that the next leader can go on. No statement waits longer than `lock_wait`
/// for a lock, or takes longer than `most_time`, whatever limits the role has.
pub(super) async fn begin(conn: &mut Session, lock_wait: Duration, most_time: Duration) -> Result<(), MirrorError> {
    let [silence, lock_wait, most_time] = [LEAST_SILENCE, lock_wait, most_time].map(|time| time.as_millis());
    let guards = format!(
        "SET LOCAL idle_in_transaction_session_timeout = {silence}; SET LOCAL lock_timeout = {lock_wait}; \
         SET LOCAL statement_timeout = {most_time}"
    );
    Ok(conn.batch_execute(&guards).await?)
}

/// Checks that a daemon leads.
///
/// A transaction that writes does this after the endpoint's row is locked: a statement that waits for a
/// lock has looked at everything else before it waited, and the lead may have changed meanwhile.
///
/// # Errors
/// [`MirrorError::LeaseLost`] if it does not.
pub(super) async fn require_leader(conn: &mut Session, holder: &str) -> Result<(), MirrorError> {
    let rows = sql_query("SELECT FROM clerk.leader WHERE holder = $1")
        .bind::<Text, _>(holder)
        .execute(conn)
        .await?;
    match rows {
        0 => Err(MirrorError::LeaseLost),
        _ => Ok(()),
    }
}
