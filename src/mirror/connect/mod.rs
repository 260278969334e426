//! Connections to Postgres: the pool, and connections outside of it. Without libpq, but with its
//! meanings.
//!
//! Written by hand, because tokio-postgres knows neither libpq's variables nor most of its
//! parameters for TLS.

mod address;
mod failed;
mod foreign;
mod params;
mod passfile;
mod string;
mod tls;
mod verifier;

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use diesel::{ConnectionError, result::Error as Diesel};
use diesel_async::pooled_connection::{
    AsyncDieselConnectionManager, ManagerConfig, PoolError as Connect, RecyclingMethod,
    deadpool::{Object, Pool, PoolError},
};
use tokio_postgres::{Config, NoTls, config::SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;
use tracing::warn;

use super::{
    DEFAULT_SCHEMA, MirrorError, MirrorSettings, schema,
    session::{Session, failovers},
};
use address::{Address, Host};
use failed::{FailedAttempt, FailureKind};
use tls::Mode;

/// A connection of the pool.
pub(super) type Connection = Object<Session>;

/// Limit of one attempt, unless the address has a `connect_timeout`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection, and what this side knows about it. A pooler knows only its own connection to the
/// server.
pub(super) struct Opened {
    pub(super) connection: Session,
    /// Host, port and database.
    pub(super) place: String,
    pub(super) is_encrypted: bool,
    /// Whether nothing of it leaves this machine.
    pub(super) is_local: bool,
}

/// Makes connections to one address.
#[derive(Debug)]
pub(super) struct Connector {
    address: Address,
    /// Whether a warning was logged already; each is logged once, not with each connection.
    has_warned_of_clear_text: AtomicBool,
    has_warned_of_passfile: AtomicBool,
}

impl Connector {
    /// Parses the address. Does not connect yet.
    ///
    /// # Errors
    /// The address, or a file that it names, cannot be used.
    pub(super) fn new(settings: &MirrorSettings) -> Result<Self, MirrorError> {
        let mut address = Address::parse(settings.url.expose(), &settings.variables)?;
        if address.config.get_application_name().is_none() {
            // `status` recognizes the daemon of its own mirror by it.
            let name = match schema() {
                DEFAULT_SCHEMA => settings.application_name.to_owned(),
                schema => format!("{} of {schema}", settings.application_name),
            };
            address.config.application_name(&name);
        }
        let connector = Self {
            address,
            has_warned_of_clear_text: AtomicBool::default(),
            has_warned_of_passfile: AtomicBool::default(),
        };
        // Each connection reads the files again, but errors in them are reported now.
        connector.tls()?;
        Ok(connector)
    }

    /// The `connect_timeout` of the address.
    pub(super) fn connect_timeout(&self) -> Option<Duration> {
        self.address.connect_timeout
    }

    /// Returns the address's `sslmode`, whether a server without a trusted certificate is refused,
    /// and whether the certificate must be for the host's name.
    pub(super) fn trust(&self) -> (&'static str, bool, bool) {
        let tls = &self.address.tls;
        (tls.mode.name(), tls.checks(), tls.mode == Mode::VerifyFull)
    }

    /// Connects to the first server that accepts.
    ///
    /// # Errors
    /// As with libpq, the next server is tried if one cannot be reached, but not if one refuses.
    pub(super) async fn open(&self) -> Result<Session, MirrorError> {
        let opened = self.open_first().await?;
        if !opened.is_encrypted && !opened.is_local {
            self.warn_of_clear_text(&opened.place);
        }
        Ok(opened.connection)
    }

    /// As [`Self::open`], for callers that report themselves whether the connection is encrypted.
    /// No warning is logged about it from then on.
    pub(super) async fn reach(&self) -> Result<Opened, MirrorError> {
        self.has_warned_of_clear_text.store(true, Ordering::Relaxed);
        self.open_first().await
    }

    async fn open_first(&self) -> Result<Opened, MirrorError> {
        let tls = self.tls()?;
        let mut hosts: Vec<&Host> = self.address.hosts.iter().collect();
        if self.address.shuffled {
            fastrand::shuffle(&mut hosts);
        }
        let mut errors = Vec::new();
        for host in hosts {
            match self.open_at(host, tls.as_ref()).await {
                Err(MirrorError::Unavailable(why)) => errors.push(why),
                opened => return opened,
            }
        }
        Err(MirrorError::Unavailable(errors.join("; ")))
    }

    fn tls(&self) -> Result<Option<MakeRustlsConnect>, MirrorError> {
        let connector = self.address.may_use_tls().then(|| self.address.tls.connector());
        connector.transpose()
    }

    /// Connects to the first address of a host that accepts.
    async fn open_at(&self, host: &Host, tls: Option<&MakeRustlsConnect>) -> Result<Opened, MirrorError> {
        let place = self.address.place(host);
        let mut config = self.address.config.clone();
        config.port(host.port);
        if let Some(password) = self.password(host) {
            config.password(password);
        }
        if let Some(folder) = host.socket() {
            config.host_path(folder);
            return self.attempt(config, None, &place).await.map_err(|failed| failed.error);
        }
        config.host(host.name());
        let mut errors = Vec::new();
        for ip in self.resolve(host, &place).await? {
            let mut config = config.clone();
            config.hostaddr(ip);
            match self.open_either_way(config, tls, &place).await {
                Err(MirrorError::Unavailable(why)) => errors.push(why),
                opened => return opened,
            }
        }
        // The addresses of localhost give the same message.
        errors.dedup();
        Err(MirrorError::Unavailable(errors.join("; ")))
    }

    /// Looks up the password for a host in the password file, if none is given.
    fn password(&self, host: &Host) -> Option<String> {
        let (None, Some(file)) = (self.address.config.get_password(), &self.address.passfile) else {
            return None;
        };
        let entry = passfile::PassfileEntry {
            host: &host.in_passfile(),
            port: host.port,
            database: &self.address.database,
            user: &self.address.user,
        };
        passfile::read(file, &entry).unwrap_or_else(|why| {
            if !self.has_warned_of_passfile.swap(true, Ordering::Relaxed) {
                warn!("{why}");
            }
            None
        })
    }

    async fn resolve(&self, host: &Host, place: &str) -> Result<Vec<IpAddr>, MirrorError> {
        if let Some(ip) = host.ip {
            return Ok(vec![ip]);
        }
        let name = host.name();
        let looking = tokio::net::lookup_host((name.as_str(), host.port));
        match tokio::time::timeout(self.timeout(), looking).await {
            Ok(Ok(found)) => {
                let mut ips: Vec<IpAddr> = found.map(|address| address.ip()).collect();
                if self.address.shuffled {
                    fastrand::shuffle(&mut ips);
                }
                Ok(ips)
            }
            Ok(Err(error)) => Err(MirrorError::Unavailable(format!("{error}, at {place}"))),
            Err(_) => Err(MirrorError::Unavailable(format!(
                "the host's name could not be resolved in time, at {place}"
            ))),
        }
    }

    /// Connects with or without TLS, whichever `sslmode` asks for first, and then the other way if
    /// it allows that.
    async fn open_either_way(
        &self,
        config: Config,
        tls: Option<&MakeRustlsConnect>,
        place: &str,
    ) -> Result<Opened, MirrorError> {
        let mode = self.address.tls.mode;
        let first = tls.filter(|_| mode != Mode::Allow);
        let opened = self.attempt(config.clone(), first, place).await;
        let failed = match opened {
            Ok(opened) => return Ok(opened),
            Err(failed) => failed,
        };
        match (mode, failed.kind) {
            (Mode::Allow, FailureKind::NoRule | FailureKind::Refused) => self
                .attempt(config, tls, place)
                .await
                .map_err(|over_tls| match over_tls.kind {
                    FailureKind::NoTls => failed.error,
                    _ => over_tls.error,
                }),
            // A server that must be trusted, and is not, gets no unencrypted connection.
            (Mode::Prefer, FailureKind::Handshake) if self.address.tls.checks() => Err(failed.error),
            // A server that is starting or full is not tried again, least of all unencrypted.
            (Mode::Prefer, FailureKind::NoTls | FailureKind::Handshake | FailureKind::NoRule) => self
                .attempt(config, None, place)
                .await
                .map_err(|in_clear| match failed.kind {
                    FailureKind::NoTls => in_clear.error,
                    _ => failed.error,
                }),
            _ => Err(failed.error),
        }
    }

    fn warn_of_clear_text(&self, place: &str) {
        if !self.has_warned_of_clear_text.swap(true, Ordering::Relaxed) {
            warn!(
                place,
                "the connection to Postgres is not encrypted: others on the network can read the users; set sslmode=verify-full in its address, or require"
            );
        }
    }

    fn timeout(&self) -> Duration {
        self.address.connect_timeout.unwrap_or(CONNECT_TIMEOUT)
    }

    async fn attempt(
        &self,
        mut config: Config,
        tls: Option<&MakeRustlsConnect>,
        place: &str,
    ) -> Result<Opened, FailedAttempt> {
        let began_after = failovers();
        let is_local = config.get_hostaddrs().iter().all(|ip| ip.to_canonical().is_loopback());
        let connecting = async {
            let failed = |error: tokio_postgres::Error| {
                FailedAttempt::new(&error, place, tls.is_some(), self.address.tls.is_direct)
            };
            let connection = if let Some(tls) = tls {
                config.ssl_mode(SslMode::Require);
                let (client, connection) = config.connect(tls.clone()).await.map_err(failed)?;
                Session::new(client, connection, began_after)
            } else {
                config.ssl_mode(SslMode::Disable);
                let (client, connection) = config.connect(NoTls).await.map_err(failed)?;
                Session::new(client, connection, began_after)
            };
            Ok(Opened {
                connection,
                place: place.to_owned(),
                is_encrypted: tls.is_some(),
                is_local,
            })
        };
        // The library's own limit covers the TCP connection only.
        tokio::time::timeout(self.timeout(), connecting)
            .await
            .unwrap_or_else(|_| Err(FailedAttempt::unavailable(format!("no answer in time, at {place}"))))
    }
}

/// Creates a pool. It connects when a connection is asked for.
pub(super) fn pool(connector: Arc<Connector>, max_connections: usize) -> Result<Pool<Session>, MirrorError> {
    let timeout = connector.timeout();
    let mut manager = ManagerConfig::default();
    // A closed connection is noticed without a query. A query each time would exceed what an idle
    // sync may cost.
    manager.recycling_method = RecyclingMethod::Fast;
    manager.custom_setup = Box::new(move |_| {
        let connector = connector.clone();
        // Diesel has no variant for most of our errors, and passes this one through.
        let packed = |error| ConnectionError::CouldntSetupConfiguration(Diesel::QueryBuilderError(Box::new(error)));
        Box::pin(async move { connector.open().await.map_err(packed) })
    });
    // The manager stores the address it is given. The real one, with its password, stays in the
    // closure.
    Pool::builder(AsyncDieselConnectionManager::new_with_config("", manager))
        .max_size(max_connections)
        .runtime(deadpool::Runtime::Tokio1)
        .wait_timeout(Some(Duration::from_secs(60)))
        .recycle_timeout(Some(timeout))
        .build()
        .map_err(|error| MirrorError::Database(error.to_string()))
}

/// Takes a connection from the pool.
pub(super) async fn get(pool: &Pool<Session>) -> Result<Connection, MirrorError> {
    pool.get().await.map_err(|error| match error {
        PoolError::Backend(Connect::ConnectionError(error)) => unpacked(error),
        PoolError::Backend(Connect::QueryError(error)) => error.into(),
        PoolError::Timeout(_) => MirrorError::Unavailable("no connection was free in time".to_owned()),
        error => MirrorError::Unavailable(error.to_string()),
    })
}

/// Extracts our own error from Diesel's.
fn unpacked(error: ConnectionError) -> MirrorError {
    match error {
        ConnectionError::CouldntSetupConfiguration(Diesel::QueryBuilderError(ours)) => match ours.downcast() {
            Ok(ours) => *ours,
            Err(other) => MirrorError::Unavailable(other.to_string()),
        },
        error => MirrorError::Unavailable(error.to_string()),
    }
}
