//! How transactions and savepoints begin and end.

use diesel::{
    QueryResult,
    connection::{TransactionDepthChange, TransactionManagerStatus, ValidTransactionManagerStatus},
    result::Error as Diesel,
};
use diesel_async::TransactionManager;

use super::Session;

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
    status: TransactionManagerStatus,
    /// Whether a transaction is just being begun or ended. If that is cut off, the state of the
    /// connection is unknown.
    is_changing: bool,
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

    fn state(conn: &mut Session) -> QueryResult<&mut ValidTransactionManagerStatus> {
        conn.transactions.status.transaction_state()
    }

    fn depth(conn: &mut Session) -> QueryResult<u32> {
        Ok(Self::state(conn)?.transaction_depth().map_or(0, u32::from))
    }

    async fn change(conn: &mut Session, sql: &str) -> QueryResult<()> {
        conn.transactions.is_changing = true;
        let changed = conn.wire.send(sql).await;
        conn.transactions.is_changing = false;
        changed
    }
}

impl TransactionManager<Session> for Transactions {
    type TransactionStateData = Self;

    async fn begin_transaction(conn: &mut Session) -> QueryResult<()> {
        match Self::depth(conn)? {
            0 => Self::change(conn, BEGIN).await?,
            depth => Self::change(conn, &format!("SAVEPOINT clerk2pg_{depth}")).await?,
        }
        Self::state(conn)?.change_transaction_depth(TransactionDepthChange::IncreaseDepth)
    }

    async fn rollback_transaction(conn: &mut Session) -> QueryResult<()> {
        let rolled_back = match Self::depth(conn)? {
            0 => return Err(Diesel::NotInTransaction),
            1 => Self::change(conn, "ROLLBACK").await,
            depth => {
                let savepoint = format!("clerk2pg_{}", depth - 1);
                let sql = format!("ROLLBACK TO SAVEPOINT {savepoint}; RELEASE SAVEPOINT {savepoint}");
                Self::change(conn, &sql).await
            }
        };
        if let Err(error) = rolled_back {
            conn.transactions.status.set_in_error();
            return Err(error);
        }
        Self::state(conn)?.change_transaction_depth(TransactionDepthChange::DecreaseDepth)
    }

    async fn commit_transaction(conn: &mut Session) -> QueryResult<()> {
        let committed = match Self::depth(conn)? {
            0 => return Err(Diesel::NotInTransaction),
            1 => Self::change(conn, COMMIT).await,
            depth => Self::change(conn, &format!("RELEASE SAVEPOINT clerk2pg_{}", depth - 1)).await,
        };
        // A failed commit ends the transaction, too.
        Self::state(conn)?.change_transaction_depth(TransactionDepthChange::DecreaseDepth)?;
        committed
    }

    fn transaction_manager_status_mut(conn: &mut Session) -> &mut TransactionManagerStatus {
        &mut conn.transactions.status
    }

    fn is_broken_transaction_manager(conn: &mut Session) -> bool {
        // A connection within a transaction cannot be given to other callers.
        !matches!(conn.transactions.is_open(), Ok(false))
    }
}
