//! How clerk2pg's transactions and savepoints begin and end.

use diesel::{
    QueryResult,
    connection::{TransactionDepthChange, TransactionManagerStatus, ValidTransactionManagerStatus},
    result::Error as Diesel,
};
use diesel_async::TransactionManager;

use super::Session;

/// Begins every transaction, whether a caller asks for one or a statement stands alone.
///
/// It states the isolation level: the database or the role may have a stricter default, under which transactions of ours that run side by side
/// would fail. And it makes `pg_catalog` the first schema in which names are found. It is the first one already unless the search path names it
/// at a later place; then somebody else's function or operator could stand in front of PostgreSQL's. The rest of the path stays as it is, since
/// triggers and expressions of the application may rely on it. If the client is cut off, the server ends the transaction after a minute. Nothing
/// stays at the server connection when the transaction ends.
pub(super) const BEGIN: &str = "\
    BEGIN ISOLATION LEVEL READ COMMITTED; \
    SELECT pg_catalog.set_config('idle_in_transaction_session_timeout', '60s', true), \
        CASE WHEN s.path OPERATOR(pg_catalog.~*) 'pg_catalog' \
            THEN pg_catalog.set_config('search_path', pg_catalog.concat('pg_catalog, ', s.path), true) END \
    FROM pg_catalog.current_setting('search_path') AS s(path)";

/// Ends it. After a failed statement the server answers this by a rollback.
pub(super) const COMMIT: &str = "COMMIT";

/// Whether a connection is in a transaction, and how deep.
#[derive(Debug, Default)]
pub(in crate::mirror) struct Transactions {
    status: TransactionManagerStatus,
    /// A transaction is being begun or ended. If that is cut off, nobody knows in which state the connection is.
    is_changing: bool,
}

impl Transactions {
    /// Whether a transaction has begun.
    ///
    /// # Errors
    /// The connection's state is not known any more.
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
        // A commit that fails ends the transaction, too.
        Self::state(conn)?.change_transaction_depth(TransactionDepthChange::DecreaseDepth)?;
        committed
    }

    fn transaction_manager_status_mut(conn: &mut Session) -> &mut TransactionManagerStatus {
        &mut conn.transactions.status
    }

    fn is_broken_transaction_manager(conn: &mut Session) -> bool {
        // A connection within a transaction cannot be given to anybody else.
        !matches!(conn.transactions.is_open(), Ok(false))
    }
}
