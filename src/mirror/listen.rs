//! Hearing what is asked for by `NOTIFY clerk2pg`, on a connection of its own.

use std::time::Duration;

use diesel::sql_query;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::StreamExt;

use super::{Error, Mirror};

/// The channel that is listened to.
const CHANNEL: &str = "clerk2pg";

/// How long the answer to a notification of our own may take.
const ECHO: Duration = Duration::from_secs(10);

/// A connection that hears.
pub struct Listener {
    conn: AsyncPgConnection,
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
        match sql_query(format!("LISTEN {CHANNEL}"))
            .execute(&mut conn)
            .await
            .map_err(Error::from)
        {
            Ok(_) => {}
            Err(error @ Error::Unavailable(_)) => return Err(away(error)),
            Err(error) => return Err(NotHeard::Deaf(error.to_string())),
        }
        let token = format!("echo {:016x}", fastrand::u64(..));
        let mut listener = Listener { conn, token };
        let mut other = self.connection().await.map_err(away)?;
        sql_query(format!("SELECT pg_notify('{CHANNEL}', '{}')", listener.token))
            .execute(&mut other)
            .await
            .map_err(|error| away(error.into()))?;
        drop(other);
        match tokio::time::timeout(ECHO, listener.echo()).await {
            Ok(heard) => heard.map_err(away)?,
            Err(_) => return Err(NotHeard::Deaf("what is notified does not arrive".to_owned())),
        }
        Ok(listener)
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
        let mut stream = std::pin::pin!(self.conn.notifications_stream());
        match stream.next().await {
            Some(notification) => Ok(notification?.payload),
            None => Err(Error::Unavailable("the listening connection has ended".to_owned())),
        }
    }

    /// Whether a payload is a daemon's trial of its own ears.
    pub fn is_echo(payload: &str) -> bool {
        payload.starts_with("echo ")
    }
}
