//! The pool of connections to Postgres, without libpq.

use std::{str::FromStr, time::Duration};

use diesel::ConnectionError;
use diesel_async::{
    AsyncPgConnection,
    pooled_connection::{
        AsyncDieselConnectionManager, ManagerConfig, PoolError as Connect, RecyclingMethod,
        deadpool::{Object, Pool, PoolError},
    },
};
use tokio_postgres::{NoTls, config::SslMode, error::SqlState};

use super::Error;
use crate::secret::Secret;

/// A connection of the pool.
pub(super) type Connection = Object<AsyncPgConnection>;

/// How long connecting may take where `connect_timeout` in the address does not say.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A pool, and the `connect_timeout` that the address states. Connections are made when they are asked for.
pub(super) fn pool(
    url: &Secret,
    max_connections: usize,
    application_name: &str,
) -> Result<(Pool<AsyncPgConnection>, Option<Duration>), Error> {
    let mut config = parse(url, application_name)?;
    let stated = config.get_connect_timeout().copied();
    let timeout = stated.unwrap_or(CONNECT_TIMEOUT);
    config.connect_timeout(timeout);
    let mut manager = ManagerConfig::default();
    // A connection that was closed is known to be; asking each time would be a query more than a quiet pass is allowed.
    manager.recycling_method = RecyclingMethod::Fast;
    manager.custom_setup = Box::new(move |_| {
        let config = config.clone();
        Box::pin(async move { open(&config).await })
    });
    // The manager keeps the address it is given; the real one, with its password, stays in the closure.
    Pool::builder(AsyncDieselConnectionManager::new_with_config("", manager))
        .max_size(max_connections)
        .runtime(deadpool::Runtime::Tokio1)
        .wait_timeout(Some(Duration::from_secs(60)))
        .create_timeout(Some(timeout + Duration::from_secs(1)))
        .recycle_timeout(Some(timeout))
        .build()
        .map(|pool| (pool, stated))
        .map_err(|error| Error::Database(error.to_string()))
}

/// A connection beside the pool.
pub(super) async fn single(url: &Secret) -> Result<AsyncPgConnection, Error> {
    let mut config = parse(url, "clerk2pg")?;
    let timeout = config.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT);
    config.connect_timeout(timeout);
    open(&config).await.map_err(of_connecting)
}

async fn open(config: &tokio_postgres::Config) -> Result<AsyncPgConnection, ConnectionError> {
    let (client, connection) = config.connect(NoTls).await.map_err(|error| classify(config, &error))?;
    AsyncPgConnection::try_from_client_and_connection(client, connection).await
}

fn of_connecting(error: ConnectionError) -> Error {
    match error {
        ConnectionError::InvalidConnectionUrl(why) => Error::Refused(why),
        ConnectionError::BadConnection(why) => Error::Unavailable(why),
        error => Error::Unavailable(error.to_string()),
    }
}

/// A connection out of the pool.
pub(super) async fn get(pool: &Pool<AsyncPgConnection>) -> Result<Connection, Error> {
    pool.get().await.map_err(|error| match error {
        PoolError::Backend(Connect::ConnectionError(error)) => of_connecting(error),
        PoolError::Backend(Connect::QueryError(error)) => error.into(),
        PoolError::Timeout(_) => Error::Unavailable("no connection in time".to_owned()),
        error => Error::Unavailable(error.to_string()),
    })
}

fn parse(url: &Secret, application_name: &str) -> Result<tokio_postgres::Config, Error> {
    // The library's text says which parameter is wrong; it never quotes the password.
    let mut config = tokio_postgres::Config::from_str(url.expose()).map_err(|error| {
        use std::error::Error as _;
        let cause = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        Error::Address(cause)
    })?;
    let is_split_wrong = |host: &tokio_postgres::config::Host| matches!(host, tokio_postgres::config::Host::Tcp(host) if host.contains('@'));
    if config.get_hosts().iter().any(is_split_wrong) {
        // What is taken for the host begins with the end of the password, so it is not shown.
        return Err(Error::Address(
            "there is an @ too many; one in the password is written %40".to_owned(),
        ));
    }
    if config.get_ssl_mode() == SslMode::Require {
        // Going on without TLS would send the password and every user in clear, against what was asked for.
        return Err(Error::Address(
            "sslmode=require, but this version of clerk2pg cannot speak TLS with Postgres".to_owned(),
        ));
    }
    if config.get_application_name().is_none() {
        config.application_name(application_name);
    }
    // A server that vanished without a word is noticed within half a minute.
    config.tcp_user_timeout(Duration::from_secs(30));
    config.keepalives_idle(Duration::from_secs(30));
    Ok(config)
}

fn classify(config: &tokio_postgres::Config, error: &tokio_postgres::Error) -> ConnectionError {
    use std::error::Error as _;
    let place = place(config);
    let Some(database) = error.as_db_error() else {
        let cause = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        let why = format!("{cause}, at {place}");
        return if error.to_string().contains("password missing") || error.to_string().contains("invalid configuration")
        {
            ConnectionError::InvalidConnectionUrl(why)
        } else {
            ConnectionError::BadConnection(why)
        };
    };
    let why = format!("{}, at {place}", database.message());
    let refused = [
        SqlState::INVALID_PASSWORD,
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        SqlState::INVALID_CATALOG_NAME,
        SqlState::INSUFFICIENT_PRIVILEGE,
    ];
    if refused.contains(database.code()) {
        ConnectionError::InvalidConnectionUrl(why)
    } else {
        ConnectionError::BadConnection(why)
    }
}

/// Host, port and database, for messages; no password.
fn place(config: &tokio_postgres::Config) -> String {
    let host = match config.get_hosts().first() {
        Some(tokio_postgres::config::Host::Tcp(host)) => host.clone(),
        Some(tokio_postgres::config::Host::Unix(path)) => path.display().to_string(),
        None => "no host".to_owned(),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    format!("{host}:{port}/{}", config.get_dbname().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unescaped_at_sign_shows_nothing_of_the_password() {
        let error = parse(&Secret::from("postgres://u:first@second@host/db".to_owned()), "test").unwrap_err();
        assert!(matches!(error, Error::Address(_)), "{error:?}");
        let told = format!("{error} {}", error.hint());
        assert!(
            told.contains("%40") && !told.contains("first") && !told.contains("second"),
            "{told}"
        );
    }
}
