//! How a writing transaction begins, and what its failure means.

use diesel::result::Error as Diesel;
use diesel_async::SimpleAsyncConnection;

use super::{Error, Lease, session::Session};

const GUARDS: &str =
    "SET CONSTRAINTS ALL IMMEDIATE; SET LOCAL statement_timeout = '60s'; SET LOCAL lock_timeout = '30s'";

/// Opens every writing transaction: the lease is checked and its row locked, constraints speak at their statement and not at the commit,
/// and no statement of ours can block the application for long.
pub(super) async fn begin(conn: &mut Session, lease: &Lease) -> Result<(), Error> {
    conn.batch_execute(GUARDS).await?;
    lease.fence(conn).await
}

/// The same for transactions of one pass that may go on side by side: the row is locked against whoever would take the lease over, but not
/// against one another, before they count what they did.
pub(super) async fn begin_beside(conn: &mut Session, lease: &Lease) -> Result<(), Error> {
    conn.batch_execute(GUARDS).await?;
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
