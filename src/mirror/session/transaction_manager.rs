//! How transactions and savepoints begin and end.

use diesel::{
    QueryResult,
    connection::{TransactionDepthChange, TransactionManagerStatus, ValidTransactionManagerStatus},
    result::Error as Diesel,
};
use diesel_async::TransactionManager;

use super::{
    Session,
    transactions::{BEGIN, COMMIT, Transactions},
};

impl Transactions {
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
