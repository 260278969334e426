//! A connection for Diesel that leaves no state at the server: each statement is sent complete and
//! without a name, in one message with its values.
//!
//! Written by hand, because diesel-async's connection prepares every statement under a name, and
//! changes settings of the session when it begins. A pooler in transaction mode (PgBouncer, and
//! what hosting services use) supports neither: the name is known to one server connection, and the
//! next message may reach another.

mod fault;
mod row;
mod statement;
mod transaction_manager;
mod transactions;

use std::sync::{
    Arc, LazyLock, Mutex, OnceLock, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use diesel::{
    ConnectionError, ConnectionResult, QueryResult,
    connection::{CacheSize, DynInstrumentation, Instrumentation},
    pg::Pg,
    query_builder::{AsQuery, QueryFragment, QueryId},
    result::Error as Diesel,
};
use diesel_async::{
    AsyncConnection, AsyncConnectionCore, SimpleAsyncConnection, TransactionManager,
    pooled_connection::PoolableConnection,
};
use futures_util::{
    FutureExt, StreamExt, TryStreamExt,
    future::{BoxFuture, join3},
    stream::{self, BoxStream},
};
use tokio::sync::{mpsc, watch};
use tokio_postgres::{AsyncMessage, Client, tls::TlsStream, types::ToSql};
use tokio_util::task::AbortOnDropHandle;

use super::schema_name;
pub(super) use fault::Fault;
use row::AnswerRow;
use statement::Statement;
pub(super) use transactions::Transactions;
use transactions::{BEGIN, COMMIT};

/// A connection to a server, or to a pooler in front of it.
pub(super) struct Session {
    wire: Wire,
    transactions: Transactions,
    is_next_alone: bool,
    instrumentation: DynInstrumentation,
    notifications: mpsc::UnboundedReceiver<String>,
    /// Stops what is under way on a connection that was dropped.
    _driver: AbortOnDropHandle<()>,
}

/// The connection's client and state.
struct Wire {
    client: Client,
    state: Arc<ConnectionState>,
}

/// What is sent around a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// Nothing: a transaction is open, or none is needed.
    None,
    /// The beginning and the end of a transaction.
    Transaction,
}

/// How many times a server was found to take no writes any more. All connections from before such a
/// moment are useless, as another server has taken its place. A process has one database, so this
/// is true of all its pools.
static FAILOVERS: LazyLock<watch::Sender<u64>> = LazyLock::new(|| watch::Sender::new(0));

/// Returns the number of failovers so far. Read it before connecting.
pub(super) fn failovers() -> u64 {
    *FAILOVERS.borrow()
}

/// Encodings that keep every character: UTF8 has all of them, and SQL_ASCII stores bytes unchanged.
const UNICODE: [&str; 2] = ["UTF8", "SQL_ASCII"];

/// What is known about a connection.
#[derive(Debug)]
struct ConnectionState {
    /// Why the connection ended.
    end: OnceLock<String>,
    /// Whether the server said that it ends the connection.
    is_spent: AtomicBool,
    last_fault: Mutex<Option<Fault>>,
    /// The number of failovers before it was opened.
    began_after: u64,
    /// Whether the database can hold every character. Also true if the encoding is not reported, as
    /// behind some poolers.
    holds_unicode: bool,
}

impl Session {
    /// Drives a connection that was opened after this number of failovers.
    pub(super) fn new<S>(
        client: Client,
        mut connection: tokio_postgres::Connection<tokio_postgres::Socket, S>,
        began_after: u64,
    ) -> Self
    where
        S: TlsStream + Unpin + Send + 'static,
    {
        let state = Arc::new(ConnectionState {
            end: OnceLock::new(),
            is_spent: AtomicBool::default(),
            last_fault: Mutex::default(),
            began_after,
            holds_unicode: connection
                .parameter("server_encoding")
                .is_none_or(|encoding| UNICODE.contains(&encoding)),
        });
        let (sender, notifications) = mpsc::unbounded_channel();
        let ending = state.clone();
        let driver = tokio::spawn(async move {
            let mut messages = futures_util::stream::poll_fn(|context| connection.poll_message(context));
            while let Some(message) = messages.next().await {
                match message {
                    Ok(AsyncMessage::Notification(notification)) => {
                        let _ = sender.send(notification.payload().to_owned());
                    }
                    Ok(_) => {}
                    Err(error) => {
                        let _ = ending.end.set(text(&error));
                        break;
                    }
                }
            }
        });
        Self {
            wire: Wire { client, state },
            transactions: Transactions::default(),
            is_next_alone: false,
            instrumentation: DynInstrumentation::none(),
            notifications,
            _driver: AbortOnDropHandle::new(driver),
        }
    }

    /// Whether the database can hold every character.
    pub(super) fn holds_unicode(&self) -> bool {
        self.wire.state.holds_unicode
    }

    /// Runs the next statement without a transaction; other single statements get one. It must only
    /// read, and every name and operator in it must have its schema.
    pub(super) fn autocommit(&mut self) -> &mut Self {
        self.is_next_alone = true;
        self
    }

    /// Returns what is sent around the next statement.
    fn framing(&mut self) -> QueryResult<Framing> {
        let is_alone = std::mem::take(&mut self.is_next_alone);
        let is_open = self.transactions.is_open()?;
        Ok(match is_open || is_alone {
            true => Framing::None,
            false => Framing::Transaction,
        })
    }

    /// Returns the last fault of this connection, for callers that get only the text from a
    /// library.
    pub(super) fn take_fault(&mut self) -> Option<Fault> {
        let last = &self.wire.state.last_fault;
        last.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Waits for the next notification, and returns its payload.
    ///
    /// # Errors
    /// The connection is lost.
    pub(super) async fn notification(&mut self) -> QueryResult<String> {
        let mut failovers = FAILOVERS.subscribe();
        let began_after = self.wire.state.began_after;
        tokio::select! {
            payload = self.notifications.recv() => payload.ok_or_else(|| {
                let why = self.wire.state.end.get().map_or("the connection has ended", String::as_str);
                lost(why.to_owned())
            }),
            // From now on, notifications are sent at the server that took its place.
            _ = failovers.wait_for(|seen| *seen > began_after) => Err(lost("the server takes no writes any more".to_owned())),
        }
    }
}

impl Wire {
    async fn send(&self, sql: &str) -> QueryResult<()> {
        let sent = self.client.batch_execute(&schema_name::in_sql(sql)).await;
        sent.map_err(|error| self.state.error(&error))
    }

    /// Runs a statement as it is, or in a transaction of its own. That costs no round trip:
    /// beginning, statement and end are sent together when this is first polled. If it is dropped,
    /// no transaction stays open.
    async fn framed<T>(
        &self,
        framing: QueryResult<Framing>,
        statement: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> QueryResult<T> {
        let failed = |error: tokio_postgres::Error| self.state.error(&error);
        if framing? == Framing::None {
            return statement.await.map_err(failed);
        }
        let begin = self.client.batch_execute(BEGIN);
        let commit = self.client.batch_execute(COMMIT);
        // In this order: each sends when it is first polled.
        let (begun, done, committed) = join3(begin, statement, commit).await;
        begun.map_err(failed)?;
        let done = done.map_err(failed)?;
        committed.map_err(failed)?;
        Ok(done)
    }

    /// Returns the rows of a statement. Independent of the query's type; otherwise all of this
    /// would be compiled for each query.
    async fn rows(
        &self,
        framing: QueryResult<Framing>,
        statement: QueryResult<Statement>,
    ) -> QueryResult<BoxStream<'static, QueryResult<AnswerRow>>> {
        let Statement { sql, values } = statement?;
        // Collected, because the end of the transaction follows them on the same connection.
        let rows = async {
            let rows = self.client.query_typed_raw(&schema_name::in_sql(&sql), values).await?;
            rows.try_collect::<Vec<_>>().await
        };
        let rows = self.framed(framing, rows).await?;
        Ok(stream::iter(rows).map(|row| Ok(AnswerRow::new(row))).boxed())
    }

    /// Returns how many rows a statement affects.
    async fn count(&self, framing: QueryResult<Framing>, statement: QueryResult<Statement>) -> QueryResult<usize> {
        let Statement { sql, values } = statement?;
        let values: Vec<_> = values
            .iter()
            .map(|(value, kind)| (value as &(dyn ToSql + Sync), kind.clone()))
            .collect();
        let sql = schema_name::in_sql(&sql);
        let rows = self.framed(framing, self.client.execute_typed(&sql, &values)).await?;
        Ok(usize::try_from(rows).unwrap_or(usize::MAX))
    }
}

impl ConnectionState {
    /// Converts an error for Diesel, and records what it says about the connection.
    fn error(&self, error: &tokio_postgres::Error) -> Diesel {
        let fault = match error.as_db_error() {
            Some(answer) => Fault::Refused(Box::new(answer.clone())),
            None => {
                let end = self.end.get().filter(|_| error.is_closed());
                Fault::Lost(end.cloned().unwrap_or_else(|| text(error)))
            }
        };
        if fault.ends_connection() {
            self.is_spent.store(true, Ordering::Relaxed);
        } else if fault.is_read_only() {
            FAILOVERS.send_if_modified(|seen| {
                // Another connection of the same time may have reported it already.
                let is_new = *seen == self.began_after;
                *seen += u64::from(is_new);
                is_new
            });
        }
        let mut last = self.last_fault.lock().unwrap_or_else(PoisonError::into_inner);
        // Later faults of a connection that has ended say less.
        if !last.as_ref().is_some_and(Fault::ends_connection) {
            *last = Some(fault.clone());
        }
        drop(last);
        fault.into()
    }

    fn is_over(&self) -> bool {
        self.is_spent.load(Ordering::Relaxed) || failovers() > self.began_after
    }
}

fn lost(why: String) -> Diesel {
    Fault::Lost(why).into()
}

/// Returns an error's text. The library's errors have the details in their source.
fn text(error: &tokio_postgres::Error) -> String {
    use std::error::Error as _;
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

impl SimpleAsyncConnection for Session {
    async fn batch_execute(&mut self, query: &str) -> QueryResult<()> {
        self.wire.send(query).await
    }
}

impl AsyncConnectionCore for Session {
    type ExecuteFuture<'conn, 'query> = BoxFuture<'conn, QueryResult<usize>>;
    type LoadFuture<'conn, 'query> = BoxFuture<'conn, QueryResult<Self::Stream<'conn, 'query>>>;
    type Stream<'conn, 'query> = BoxStream<'static, QueryResult<AnswerRow>>;
    type Row<'conn, 'query> = AnswerRow;
    type Backend = Pg;

    fn load<'conn, 'query, T>(&'conn mut self, source: T) -> Self::LoadFuture<'conn, 'query>
    where
        T: AsQuery + 'query,
        T::Query: QueryFragment<Pg> + QueryId + 'query,
    {
        let statement = Statement::new(&source.as_query());
        let framing = self.framing();
        self.wire.rows(framing, statement).boxed()
    }

    fn execute_returning_count<'conn, 'query, T>(&'conn mut self, source: T) -> Self::ExecuteFuture<'conn, 'query>
    where
        T: QueryFragment<Pg> + QueryId + 'query,
    {
        let statement = Statement::new(&source);
        let framing = self.framing();
        self.wire.count(framing, statement).boxed()
    }
}

impl AsyncConnection for Session {
    type TransactionManager = Transactions;

    async fn establish(_: &str) -> ConnectionResult<Self> {
        // The connector makes all connections for the pool.
        Err(ConnectionError::BadConnection(
            "connections are made by the connector".to_owned(),
        ))
    }

    fn transaction_state(&mut self) -> &mut Transactions {
        &mut self.transactions
    }

    fn instrumentation(&mut self) -> &mut dyn Instrumentation {
        &mut *self.instrumentation
    }

    fn set_instrumentation(&mut self, instrumentation: impl Instrumentation) {
        self.instrumentation = instrumentation.into();
    }

    fn set_prepared_statement_cache_size(&mut self, _: CacheSize) {
        // There is no cache.
    }
}

impl PoolableConnection for Session {
    fn is_broken(&mut self) -> bool {
        Transactions::is_broken_transaction_manager(self) || self.wire.client.is_closed() || self.wire.state.is_over()
    }
}
