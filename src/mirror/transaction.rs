//! How a writing transaction begins, and what its failure means.

use std::time::Duration;

use diesel::result::Error as Diesel;
use diesel_async::SimpleAsyncConnection;

use super::{Error, Lease, session::Session};

/// The least time after which a silent transaction is ended: a machine may be busy.
const LEAST_SILENCE: Duration = Duration::from_secs(5);

/// A holder that is stopped or cut off within a transaction keeps the lease's row locked. The server ends that transaction, so that others can take
/// over as if it had stopped between two.
async fn guard(conn: &mut Session, lease: &Lease) -> Result<(), Error> {
    let silence = lease.ttl().max(LEAST_SILENCE).as_millis();
    let guards = format!(
        "SET CONSTRAINTS ALL IMMEDIATE; SET LOCAL statement_timeout = '60s'; SET LOCAL lock_timeout = '30s'; \
         SET LOCAL idle_in_transaction_session_timeout = {silence}"
    );
    Ok(conn.batch_execute(&guards).await?)
}

/// Opens every writing transaction: the lease is checked and its row locked, constraints speak at their statement and not at the commit,
/// and no statement of ours can block the application for long.
pub(super) async fn begin(conn: &mut Session, lease: &Lease) -> Result<(), Error> {
    guard(conn, lease).await?;
    lease.fence(conn).await
}

/// The same for transactions of one pass that may go on side by side: the row is locked against whoever would take the lease over, but not
/// against one another, before they count what they did.
pub(super) async fn begin_beside(conn: &mut Session, lease: &Lease) -> Result<(), Error> {
    guard(conn, lease).await?;
    lease.hold(conn).await
}

/// Why an attempt came to nothing.
pub(super) enum Failure {
    /// One row may be to blame.
    OneRow(Diesel),
    /// A statement ran into its time limit.
    TooLong(Diesel),
    /// It is not about a row.
    Whole(Error),
}

impl Failure {
    pub(super) fn into_error(self) -> Error {
        match self {
            Failure::OneRow(error) | Failure::TooLong(error) => error.into(),
            Failure::Whole(error) => error,
        }
    }
}

impl From<Diesel> for Failure {
    fn from(error: Diesel) -> Self {
        if Error::may_be_one_rows(&error) {
            Failure::OneRow(error)
        } else if Error::is_time_out(&error) {
            Failure::TooLong(error)
        } else {
            Failure::Whole(error.into())
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Whole(error)
    }
}
