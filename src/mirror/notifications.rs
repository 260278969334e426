//! Receives what is sent by `NOTIFY clerk2pg`, on a connection of its own.

use std::time::Duration;

use diesel::{QueryResult, QueryableByName, sql_query, sql_types::Integer};
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};

use super::{Mirror, MirrorError, session::Session};

/// The channel.
const CHANNEL: &str = "clerk2pg";

/// How long a notification of our own may take to arrive.
const ECHO: Duration = Duration::from_secs(10);

/// How often two connections are compared. Other clients of a pooler may make them look like two of
/// their own for a while.
const TRIES: usize = 8;

/// A connection that receives notifications.
pub struct NotificationStream {
    conn: Session,
    /// The payload of our own notification.
    token: String,
}

/// Why no notifications can be received.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The server cannot be reached, or takes no writes. Worth another attempt.
    #[error(transparent)]
    Unavailable(MirrorError),
    /// LISTEN is refused, or accepted without effect, as by a pooler in transaction mode.
    #[error("{0}")]
    Unsupported(String),
}

impl NotificationStream {
    /// Listens, and verifies that a notification that is sent through the pool arrives.
    ///
    /// # Errors
    /// No notifications can be received.
    pub async fn open(mirror: &Mirror) -> Result<Self, ListenError> {
        let unavailable = |error: MirrorError| ListenError::Unavailable(error);
        let mut conn = mirror.0.connector().open().await.map_err(unavailable)?;
        if is_shared(mirror, &mut conn).await.map_err(unavailable)? {
            return Err(ListenError::Unsupported(
                "a pooler shares one server connection among its clients".to_owned(),
            ));
        }
        match conn
            .batch_execute(&format!("LISTEN {CHANNEL}"))
            .await
            .map_err(MirrorError::from)
        {
            Ok(()) => {}
            Err(error @ (MirrorError::Unavailable(_) | MirrorError::ReadOnly(_))) => return Err(unavailable(error)),
            Err(error) => return Err(ListenError::Unsupported(error.to_string())),
        }
        let token = format!("echo {:016x}", fastrand::u64(..));
        let mut stream = Self { conn, token };
        let mut other = mirror.0.connection().await.map_err(unavailable)?;
        sql_query(format!("SELECT pg_catalog.pg_notify('{CHANNEL}', '{}')", stream.token))
            .execute(&mut other)
            .await
            .map_err(|error| unavailable(error.into()))?;
        drop(other);
        match tokio::time::timeout(ECHO, stream.echo()).await {
            Ok(arrived) => arrived.map_err(unavailable)?,
            Err(_) => {
                // A pooler may have registered it on a server connection that it gives to another
                // client next; most likely to us.
                let _ = stream.conn.batch_execute(&format!("UNLISTEN {CHANNEL}")).await;
                return Err(ListenError::Unsupported("notifications do not arrive".to_owned()));
            }
        }
        Ok(stream)
    }

    async fn echo(&mut self) -> Result<(), MirrorError> {
        while self.next().await? != self.token {}
        Ok(())
    }

    /// Waits for the next notification, and returns its payload.
    ///
    /// # Errors
    /// The connection is lost.
    pub async fn next(&mut self) -> Result<String, MirrorError> {
        Ok(self.conn.notification().await?)
    }

    /// Whether a payload is a daemon's own test notification.
    pub fn is_echo(payload: &str) -> bool {
        payload.starts_with("echo ")
    }
}

/// Whether a connection has another server process behind it than before, or the same as one of the
/// pool. LISTEN would then stay with that process when the pooler gives it to other clients. A pooler
/// gives out the connection that was returned last, so a few comparisons are enough.
async fn is_shared(mirror: &Mirror, conn: &mut Session) -> Result<bool, MirrorError> {
    let mut other = mirror.0.connection().await?;
    let first = process(conn).await?;
    for _ in 0..TRIES {
        if process(&mut other).await? == first || process(conn).await? != first {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns the server process behind a connection at this moment.
async fn process(conn: &mut Session) -> QueryResult<i32> {
    #[derive(QueryableByName)]
    struct Process {
        #[diesel(sql_type = Integer)]
        pid: i32,
    }
    let Process { pid } = sql_query("SELECT pg_catalog.pg_backend_pid() AS pid")
        .get_result(conn)
        .await?;
    Ok(pid)
}
