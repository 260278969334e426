//! Facts about the server, the connection and the role's privileges.
//!
//! They come from the catalogs alone, read in a transaction that cannot write. So this works for a
//! role without privileges, and next to a foreign schema.

use std::time::SystemTime;

use chrono::{DateTime, TimeDelta, Utc};
use diesel::{
    prelude::*,
    sql_query,
    sql_types::{Bool, Integer, Nullable, Text, Timestamptz},
};
use diesel_async::{AsyncConnection, RunQueryDsl, SimpleAsyncConnection};

use super::{Mirror, MirrorError, Privileges, connect::Opened, session::Session};

/// Facts about the server, the connection and the role's privileges.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// The server.
    pub server: PostgresServer,
    /// How far the server's clock is ahead of this machine's.
    pub ahead: TimeDelta,
    /// The connection.
    pub link: Link,
    /// The role's privileges.
    pub privileges: Privileges,
}

/// A server, as it describes itself.
#[derive(Debug, Clone, QueryableByName)]
pub struct PostgresServer {
    /// The version as text.
    #[diesel(sql_type = Text)]
    pub version: String,
    /// The version as a number: 150004 is 15.4.
    #[diesel(sql_type = Integer)]
    pub version_number: i32,
    /// Whether it follows another server, and takes no writes itself.
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
    /// The version of TLS, as the server sees the connection. Behind a pooler, it is that of the
    /// pooler's connection.
    #[diesel(sql_type = Nullable<Text>)]
    tls: Option<String>,
}

/// A connection, as this side sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Host, port and database.
    pub place: String,
    /// `TLSv1.3`, or `TLS` if a pooler hides the version; `None` if it is not encrypted.
    pub tls: Option<String>,
    /// Whether nothing of it leaves this machine.
    pub is_local: bool,
    /// The `sslmode` of the address.
    pub sslmode: &'static str,
    /// Whether a server without a trusted certificate is refused.
    pub checks_certificate: bool,
    /// Whether the certificate must be for the host's name.
    pub checks_name: bool,
}

impl Inspection {
    /// Connects, and reads without writing.
    pub async fn of(mirror: &Mirror) -> Result<Self, MirrorError> {
        let Opened {
            mut connection,
            place,
            is_encrypted,
            is_local,
        } = mirror.0.connector().reach().await?;
        let (server, ahead, privileges) = connection
            .transaction(async |conn| {
                conn.batch_execute("SET TRANSACTION READ ONLY").await?;
                let (server, ahead) = server(conn).await?;
                Ok::<_, MirrorError>((server, ahead, Privileges::read(conn).await?))
            })
            .await?;
        let (sslmode, checks_certificate, checks_name) = mirror.0.connector().trust();
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
            privileges,
        })
    }
}

async fn server(conn: &mut Session) -> Result<(PostgresServer, TimeDelta), MirrorError> {
    let before = DateTime::<Utc>::from(SystemTime::now());
    let server: PostgresServer = sql_query(
        "SELECT pg_catalog.current_setting('server_version') AS version, pg_catalog.current_setting('server_version_num')::int AS version_number,
                pg_catalog.pg_is_in_recovery() AS is_standby, pg_catalog.current_setting('default_transaction_read_only')::bool AS is_read_only,
                pg_catalog.current_setting('server_encoding') AS encoding, pg_catalog.clock_timestamp() AS now,
                (SELECT s.version FROM pg_catalog.pg_stat_ssl s WHERE s.pid = pg_catalog.pg_backend_pid() AND s.ssl) AS tls",
    )
    .get_result(conn)
    .await?;
    // The query and the answer take about the same time.
    let middle = before + (DateTime::<Utc>::from(SystemTime::now()) - before) / 2;
    let ahead = server.now - middle;
    Ok((server, ahead))
}

#[cfg(test)]
impl PostgresServer {
    /// A server for unit tests.
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
