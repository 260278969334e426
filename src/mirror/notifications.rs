//! Hearing what is asked for by `NOTIFY clerk2pg`, on a connection of its own.

use std::time::Duration;

use diesel::{QueryResult, QueryableByName, sql_query, sql_types::Integer};
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};

use super::{Error, Mirror, session::Session};

/// The channel that is listened to.
const CHANNEL: &str = "clerk2pg";

/// How long the answer to a notification of our own may take.
const ECHO: Duration = Duration::from_secs(10);

/// How often two connections are compared.
const TRIES: usize = 3;

/// A connection that hears.
pub struct NotificationStream {
    conn: Session,
    /// What is heard of it is our own echo.
    token: String,
}

/// Why nothing will be heard.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Worth another try.
    #[error(transparent)]
    Unavailable(Error),
    /// LISTEN is refused, or accepted and without effect, as by a pooler that gives out connections for a transaction at a time.
    #[error("{0}")]
    Unsupported(String),
}

impl NotificationStream {
    /// Listens, and makes sure that what is notified through the pool is heard.
    pub async fn open(mirror: &Mirror) -> Result<Self, ListenError> {
        let unavailable = |error: Error| ListenError::Unavailable(error);
        let mut conn = mirror.connector.open().await.map_err(unavailable)?;
        if is_shared(mirror, &mut conn).await.map_err(unavailable)? {
            return Err(ListenError::Unsupported(
                "a pooler gives one server connection to many".to_owned(),
            ));
        }
        match conn
            .batch_execute(&format!("LISTEN {CHANNEL}"))
            .await
            .map_err(Error::from)
        {
            Ok(()) => {}
            Err(error @ (Error::Unavailable(_) | Error::ReadOnly(_))) => return Err(unavailable(error)),
            Err(error) => return Err(ListenError::Unsupported(error.to_string())),
        }
        let token = format!("echo {:016x}", fastrand::u64(..));
        let mut stream = Self { conn, token };
        let mut other = mirror.connection().await.map_err(unavailable)?;
        sql_query(format!("SELECT pg_catalog.pg_notify('{CHANNEL}', '{}')", stream.token))
            .execute(&mut other)
            .await
            .map_err(|error| unavailable(error.into()))?;
        drop(other);
        match tokio::time::timeout(ECHO, stream.echo()).await {
            Ok(heard) => heard.map_err(unavailable)?,
            Err(_) => {
                // A pooler may have it on a server connection that goes to somebody else next; most likely to us.
                let _ = stream.conn.batch_execute(&format!("UNLISTEN {CHANNEL}")).await;
                return Err(ListenError::Unsupported("what is notified does not arrive".to_owned()));
            }
        }
        Ok(stream)
    }

    async fn echo(&mut self) -> Result<(), Error> {
        while self.next().await? != self.token {}
        Ok(())
    }

    /// The payload of the next notification.
    ///
    /// # Errors
    /// The connection is lost.
    pub async fn next(&mut self) -> Result<String, Error> {
        Ok(self.conn.notification().await?)
    }

    /// Whether a payload is a daemon's trial of its own ears.
    pub fn is_echo(payload: &str) -> bool {
        payload.starts_with("echo ")
    }
}

/// Whether a connection of the pool has the same server process behind it: what is listened to would stay with that process when it
/// goes to other clients. A pooler hands out what was given back last, so that a few tries tell.
async fn is_shared(mirror: &Mirror, conn: &mut Session) -> Result<bool, Error> {
    let mut other = mirror.connection().await?;
    for _ in 0..TRIES {
        if process(conn).await? == process(&mut other).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The server process behind a connection at this moment.
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
