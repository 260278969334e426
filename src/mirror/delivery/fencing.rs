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

/// Begins a transaction that writes what the leader has done.
///
/// A leader that is suspended or cut off within it keeps the endpoint's row locked. The server ends
/// such a transaction, so that the next leader can go on. All endpoints share a connection: waiting
/// longer than `lock_wait` for a lock would delay the others.
pub(super) async fn begin(conn: &mut Session, lock_wait: Option<Duration>) -> Result<(), MirrorError> {
    let silence = LEAST_SILENCE.as_millis();
    let lock_wait = lock_wait.unwrap_or_default().as_millis();
    let guards =
        format!("SET LOCAL idle_in_transaction_session_timeout = {silence}; SET LOCAL lock_timeout = {lock_wait}");
    Ok(conn.batch_execute(&guards).await?)
}

/// Checks that a daemon leads.
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
