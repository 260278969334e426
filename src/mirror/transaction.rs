//! How a writing transaction begins, and what its failure means.

use std::time::Duration;

use diesel::result::Error as Diesel;
use diesel_async::SimpleAsyncConnection;

use super::{
    Error, Lease,
    locks::USUAL_WAIT,
    session::{Fault, Session},
    sqlstate::{LOCK_NOT_AVAILABLE, QUERY_CANCELED, is_global},
};

/// How long a statement may take, as a rule.
pub(super) const MOST_TIME: &str = "SET LOCAL statement_timeout = '60s'";

/// The least time after which a silent transaction is ended: a machine may be busy.
pub(super) const LEAST_SILENCE: Duration = Duration::from_secs(5);

/// A holder that is stopped or cut off within a transaction keeps the lease's row locked. The server ends that transaction, so that others can take
/// over as if it had stopped between two.
async fn guard(conn: &mut Session, lease: &Lease, first: &str) -> Result<(), Error> {
    let silence = lease.ttl().max(LEAST_SILENCE).as_millis();
    let guards = format!(
        "SET CONSTRAINTS ALL IMMEDIATE; {MOST_TIME}; SET LOCAL lock_timeout = {usual}; \
         SET LOCAL idle_in_transaction_session_timeout = {silence}; {first}",
        usual = USUAL_WAIT.as_millis()
    );
    Ok(conn.batch_execute(&guards).await?)
}

/// Opens every writing transaction: the lease is checked and its row locked, constraints speak at their statement and not at the commit,
/// and no statement of ours can block the application for long.
pub(super) async fn begin(conn: &mut Session, lease: &Lease) -> Result<(), Error> {
    guard(conn, lease, "").await?;
    lease.fence(conn).await
}

/// Locks the table against what would lock it as a whole. Comes before the lease's row is locked, so that the lease can be renewed
/// meanwhile. From then on, waiting for a lock is about a row.
const LOCK_USERS: &str = "LOCK TABLE clerk.users IN ROW EXCLUSIVE MODE";

/// Opens a transaction as [`begin`] does. With `users`, it writes users. With `beside`, several of one sync may go on side by side: the lease's
/// row is locked against a takeover, but not against one another, before they count what they did.
pub(super) async fn begin_for(conn: &mut Session, lease: &Lease, users: bool, beside: bool) -> Result<(), Error> {
    guard(conn, lease, if users { LOCK_USERS } else { "" }).await?;
    if beside {
        lease.hold(conn).await
    } else {
        lease.fence(conn).await
    }
}

/// Why an attempt came to nothing.
pub(super) enum WriteFailure {
    /// One row may be to blame.
    OneRow(Fault),
    /// A statement ran into its time limit, or waited too long for a lock.
    TooLong(Fault),
    /// It is not about a row.
    Whole(Error),
}

impl WriteFailure {
    pub(super) fn into_error(self) -> Error {
        match self {
            WriteFailure::OneRow(fault) | WriteFailure::TooLong(fault) => fault.into(),
            WriteFailure::Whole(error) => error,
        }
    }
}

impl From<Fault> for WriteFailure {
    fn from(fault: Fault) -> Self {
        match fault.sqlstate() {
            Some(QUERY_CANCELED | LOCK_NOT_AVAILABLE) => WriteFailure::TooLong(fault),
            Some(code) if !fault.ends_connection() && !is_global(code) => WriteFailure::OneRow(fault),
            _ => WriteFailure::Whole(fault.into()),
        }
    }
}

impl From<Diesel> for WriteFailure {
    fn from(error: Diesel) -> Self {
        match Fault::of(error) {
            Ok(fault) => fault.into(),
            Err(other) => WriteFailure::Whole(other.into()),
        }
    }
}

impl From<Error> for WriteFailure {
    fn from(error: Error) -> Self {
        WriteFailure::Whole(error)
    }
}
