//! The state of a transaction, and the SQL that begins and ends it.

use diesel::{QueryResult, connection::TransactionManagerStatus, result::Error as Diesel};

/// Begins every transaction, whether a caller asks for one or a statement stands alone.
///
/// It sets the isolation level: the database or the role may have a stricter default, under which
/// our transactions that run side by side would fail.
///
/// It makes `pg_catalog` the first schema that is searched. Usually it is first, unless the search
/// path lists it at a later place. Then another role's function or operator could come before
/// PostgreSQL's. The rest of the path stays as it is, since triggers and expressions of the
/// application may rely on it.
///
/// If the client is cut off, the server ends the transaction after a minute. No setting outlives
/// the transaction.
pub(super) const BEGIN: &str = "\
    BEGIN ISOLATION LEVEL READ COMMITTED; \
    SELECT pg_catalog.set_config('idle_in_transaction_session_timeout', '60s', true), \
        CASE WHEN s.path OPERATOR(pg_catalog.~*) 'pg_catalog' \
            THEN pg_catalog.set_config('search_path', pg_catalog.concat('pg_catalog, ', s.path), true) END \
    FROM pg_catalog.current_setting('search_path') AS s(path)";

/// Ends a transaction. After a failed statement, the server rolls back instead.
pub(super) const COMMIT: &str = "COMMIT";

/// Whether a connection is in a transaction, and how deep.
#[derive(Debug, Default)]
pub(in crate::mirror) struct Transactions {
    pub(super) status: TransactionManagerStatus,
    /// Whether a transaction is just being begun or ended. If that is cut off, the state of the
    /// connection is unknown.
    pub(super) is_changing: bool,
}

impl Transactions {
    /// Whether a transaction has begun.
    ///
    /// # Errors
    /// The state of the connection is unknown.
    pub(super) fn is_open(&self) -> QueryResult<bool> {
        if self.is_changing {
            return Err(Diesel::BrokenTransactionManager);
        }
        Ok(self.status.transaction_depth()?.is_some())
    }
}
