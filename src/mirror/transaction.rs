//! How a writing transaction begins.

use diesel_async::SimpleAsyncConnection;

use super::{Lease, MirrorError, lease::LEAST_SILENCE, locks::USUAL_WAIT, session::Session};
use crate::resource::Resource;

/// How long a statement may usually take.
pub(super) const MOST_TIME: &str = "SET LOCAL statement_timeout = '60s'";

/// Sets the timeouts of a writing transaction, and runs `first`.
///
/// A holder that is stopped or cut off within a transaction keeps the lease's row locked. The
/// server ends such a transaction, so that others can take over.
async fn guard(conn: &mut Session, lease: &Lease, first: &str) -> Result<(), MirrorError> {
    let silence = lease.ttl().max(LEAST_SILENCE).as_millis();
    let guards = format!(
        "SET CONSTRAINTS ALL IMMEDIATE; {MOST_TIME}; SET LOCAL lock_timeout = {usual}; \
         SET LOCAL idle_in_transaction_session_timeout = {silence}; {first}",
        usual = USUAL_WAIT.as_millis()
    );
    Ok(conn.batch_execute(&guards).await?)
}

/// Begins a writing transaction. The lease is checked and its row locked, constraints are checked
/// at their statement and not at the commit, and no statement can block the application for long.
pub(super) async fn begin(conn: &mut Session, lease: &Lease) -> Result<(), MirrorError> {
    guard(conn, lease, "").await?;
    lease.fence(conn).await
}

/// Begins a transaction as [`begin`] does. With `writes`, it writes rows of that resource's table.
/// With `beside`, several transactions of one sync may run side by side until they count what they
/// did: the lease's row is locked against a takeover, but not against each other.
pub(super) async fn begin_for(
    conn: &mut Session,
    lease: &Lease,
    writes: Option<&Resource>,
    beside: bool,
) -> Result<(), MirrorError> {
    // Against locks on the whole table. This comes before the lock on the lease's row, so that the
    // lease can be renewed meanwhile. From then on, every wait for a lock is about a row.
    let lock = writes.map(|resource| format!("LOCK TABLE {} IN ROW EXCLUSIVE MODE", resource.table));
    guard(conn, lease, lock.as_deref().unwrap_or_default()).await?;
    if beside {
        lease.hold(conn).await
    } else {
        lease.fence(conn).await
    }
}
