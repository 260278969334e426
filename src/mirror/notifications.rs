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
pub struct Listener {
    conn: Session,
    /// What is heard of it is our own echo.
    token: String,
}

/// Why nothing will be heard.
#[derive(Debug, thiserror::Error)]
pub enum NotHeard {
    /// Worth another try.
    #[error(transparent)]
    Away(Error),
    /// LISTEN is refused, or accepted and without effect, as by a pooler that gives out connections for a transaction at a time.
    #[error("{0}")]
    Deaf(String),
}

impl Mirror {
    /// Listens, and makes sure that what is notified through the pool is heard.
    pub async fn listen(&self) -> Result<Listener, NotHeard> {
        let away = |error: Error| NotHeard::Away(error);
        let mut conn = self.connector.open().await.map_err(away)?;
        if self.is_shared(&mut conn).await.map_err(away)? {
            return Err(NotHeard::Deaf(
                "a pooler gives one server connection to many".to_owned(),
            ));
        }
        match conn
            .batch_execute(&format!("LISTEN {CHANNEL}"))
            .await
            .map_err(Error::from)
        {
            Ok(()) => {}
            Err(error @ (Error::Unavailable(_) | Error::ReadOnly(_))) => return Err(away(error)),
            Err(error) => return Err(NotHeard::Deaf(error.to_string())),
        }
        let token = format!("echo {:016x}", fastrand::u64(..));
        let mut listener = Listener { conn, token };
        let mut other = self.connection().await.map_err(away)?;
        sql_query(format!(
            "SELECT pg_catalog.pg_notify('{CHANNEL}', '{}')",
            listener.token
        ))
        .execute(&mut other)
        .await
        .map_err(|error| away(error.into()))?;
        drop(other);
        match tokio::time::timeout(ECHO, listener.echo()).await {
            Ok(heard) => heard.map_err(away)?,
            Err(_) => {
                // A pooler may have it on a server connection that goes to somebody else next; most likely to us.
                let _ = listener.conn.batch_execute(&format!("UNLISTEN {CHANNEL}")).await;
                return Err(NotHeard::Deaf("what is notified does not arrive".to_owned()));
            }
        }
        Ok(listener)
    }

    /// Whether a connection of the pool has the same server process behind it: what is listened to would stay with that process when it
    /// goes to other clients. A pooler hands out what was given back last, so that a few tries tell.
    async fn is_shared(&self, conn: &mut Session) -> Result<bool, Error> {
        let mut other = self.connection().await?;
        for _ in 0..TRIES {
            if process(conn).await? == process(&mut other).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Listener {
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
