//! What there is to know of the server, the way there and the role's rights, out of the catalogs alone and in a transaction that cannot
//! write: that works for a role that may do nothing, and beside a schema that is not ours.

use std::time::SystemTime;

use chrono::{DateTime, TimeDelta, Utc};
use diesel::{
    prelude::*,
    sql_query,
    sql_types::{Bool, Integer, Nullable, Text, Timestamptz},
};
use diesel_async::{AsyncConnection, RunQueryDsl, SimpleAsyncConnection};

use super::{Error, Mirror, Rights, connect::Opened, session::Session};

/// What the catalogs say.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// The server.
    pub server: PostgresServer,
    /// How far the server's clock is ahead of this machine's.
    pub ahead: TimeDelta,
    /// The way there.
    pub link: Link,
    /// What the role may do.
    pub rights: Rights,
}

/// A server, as it tells of itself.
#[derive(Debug, Clone, QueryableByName)]
pub struct PostgresServer {
    /// In words.
    #[diesel(sql_type = Text)]
    pub version: String,
    /// As a number: 150004 is 15.4.
    #[diesel(sql_type = Integer)]
    pub version_number: i32,
    /// Whether it follows another one, and takes no writes itself.
    #[diesel(sql_type = Bool)]
    pub is_standby: bool,
    /// Whether transactions of this role in this database take no writes.
    #[diesel(sql_type = Bool)]
    pub is_read_only: bool,
    /// The database's encoding.
    #[diesel(sql_type = Text)]
    pub encoding: String,
    #[diesel(sql_type = Timestamptz)]
    now: DateTime<Utc>,
    /// The version of TLS on the connection that the server has; behind a pooler, that is the pooler's.
    #[diesel(sql_type = Nullable<Text>)]
    tls: Option<String>,
}

/// A connection, seen from this side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Host, port and database.
    pub place: String,
    /// `TLSv1.3`, or `TLS` where a pooler on the way hides the version; none in clear.
    pub tls: Option<String>,
    /// Nothing of it leaves this machine.
    pub is_local: bool,
    /// What the address asks for.
    pub sslmode: &'static str,
    /// A server without a trusted certificate is refused.
    pub checks_certificate: bool,
    /// The certificate must be for the host's name.
    pub checks_name: bool,
}

impl Inspection {
    /// Connects, and looks without touching.
    pub async fn of(mirror: &Mirror) -> Result<Self, Error> {
        let Opened {
            mut connection,
            place,
            is_encrypted,
            is_local,
        } = mirror.connector.reach().await?;
        let (server, ahead, rights) = connection
            .transaction(async |conn| {
                conn.batch_execute("SET TRANSACTION READ ONLY").await?;
                let (server, ahead) = server(conn).await?;
                Ok::<_, Error>((server, ahead, Rights::read(conn).await?))
            })
            .await?;
        let (sslmode, checks_certificate, checks_name) = mirror.connector.trust();
        let tls = is_encrypted.then(|| server.tls.clone().unwrap_or_else(|| "TLS".to_owned()));
        Ok(Self {
            server,
            ahead,
            link: Link {
                place,
                tls,
                is_local,
                sslmode,
                checks_certificate,
                checks_name,
            },
            rights,
        })
    }
}

async fn server(conn: &mut Session) -> Result<(PostgresServer, TimeDelta), Error> {
    let before = DateTime::<Utc>::from(SystemTime::now());
    let server: PostgresServer = sql_query(
        "SELECT pg_catalog.current_setting('server_version') AS version, pg_catalog.current_setting('server_version_num')::int AS version_number,
                pg_catalog.pg_is_in_recovery() AS is_standby, pg_catalog.current_setting('default_transaction_read_only')::bool AS is_read_only,
                pg_catalog.current_setting('server_encoding') AS encoding, pg_catalog.clock_timestamp() AS now,
                (SELECT s.version FROM pg_catalog.pg_stat_ssl s WHERE s.pid = pg_catalog.pg_backend_pid() AND s.ssl) AS tls",
    )
    .get_result(conn)
    .await?;
    // The question and the answer take about the same time.
    let middle = before + (DateTime::<Utc>::from(SystemTime::now()) - before) / 2;
    let ahead = server.now - middle;
    Ok((server, ahead))
}

#[cfg(test)]
impl PostgresServer {
    /// For tests of what is made of it.
    pub(crate) fn of_test(version: &str, version_number: i32, is_standby: bool, is_read_only: bool) -> Self {
        Self {
            version: version.to_owned(),
            version_number,
            is_standby,
            is_read_only,
            encoding: "UTF8".to_owned(),
            now: DateTime::default(),
            tls: None,
        }
    }
}
