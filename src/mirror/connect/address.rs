//! A connection string with libpq's meanings. What it leaves out comes from libpq's variables, then
//! from libpq's defaults.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio_postgres::{
    Config,
    config::{ChannelBinding, SslNegotiation, TargetSessionAttrs},
};

use super::{
    params::ConnectParams,
    tls::{Mode, Roots, Tls},
};
use crate::mirror::{MirrorError, Variables};

/// Directories of the server's socket: that of distributions, and PostgreSQL's default.
const SOCKETS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// Where and how to connect.
#[derive(Debug)]
pub(super) struct Address {
    /// At least one, in the order of the string.
    pub(super) hosts: Vec<Host>,
    /// Whether to try them in random order.
    pub(super) shuffled: bool,
    /// Settings that are the same for every host.
    pub(super) config: Config,
    pub(super) user: String,
    pub(super) database: String,
    /// Where to look up passwords if none is given.
    pub(super) passfile: Option<PathBuf>,
    pub(super) tls: Tls,
    /// Limit of one attempt, if given.
    pub(super) connect_timeout: Option<Duration>,
}

/// A server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host {
    /// A host name, or the directory of a socket.
    pub(super) name: Option<String>,
    /// The address, if given; then the name is not resolved.
    pub(super) ip: Option<IpAddr>,
    pub(super) port: u16,
}

impl Host {
    /// Returns the directory of the socket, if the host is not reached over the network.
    pub(super) fn socket(&self) -> Option<PathBuf> {
        match (&self.name, self.ip) {
            (Some(folder), None) if folder.starts_with('/') => Some(PathBuf::from(folder)),
            (None, None) => {
                let file = format!(".s.PGSQL.{}", self.port);
                let has_socket = |folder: &&str| Path::new(folder).join(&file).exists();
                Some(PathBuf::from(
                    SOCKETS.into_iter().find(has_socket).unwrap_or(SOCKETS[0]),
                ))
            }
            _ => None,
        }
    }

    /// Returns the name that the server's certificate is checked against.
    pub(super) fn name(&self) -> String {
        match (&self.name, self.ip) {
            (Some(name), _) => name.clone(),
            (None, Some(ip)) => ip.to_string(),
            (None, None) => String::new(),
        }
    }

    /// Returns the name under which passwords are looked up.
    pub(super) fn in_passfile(&self) -> String {
        let name = self.name();
        if name.is_empty() || SOCKETS.contains(&name.as_str()) {
            return "localhost".to_owned();
        }
        name
    }
}

impl Address {
    /// Parses a connection string. Does not connect, and reads no file.
    ///
    /// # Errors
    /// A parameter cannot be used. The error names it and what would be right, but shows no
    /// password, nor anything that may be part of one.
    pub(super) fn parse(string: &str, variables: &Variables) -> Result<Self, MirrorError> {
        let params = ConnectParams::new(string, variables)?;
        let home = variables
            .get("HOME")
            .map_or_else(std::env::home_dir, |home| Some(PathBuf::from(home.expose())));
        let user = match params.text("user") {
            Some(user) => user.to_owned(),
            None => {
                whoami::username().map_err(|_| params.unusable("user", "the system does not say which user this is"))?
            }
        };
        let database = params.text("dbname").unwrap_or(&user).to_owned();
        let passfile = params.text("passfile").map(PathBuf::from);
        let tls = tls(&params, home.clone())?;
        let connect_timeout = params.number("connect_timeout", "a number of seconds")?;
        let connect_timeout = connect_timeout.filter(|&seconds| seconds > 0).map(Duration::from_secs);
        Ok(Self {
            hosts: hosts(&params)?,
            shuffled: params
                .word("load_balance_hosts", &[("disable", false), ("random", true)])?
                .unwrap_or_default(),
            config: config(&params, &user, &database, &tls)?,
            user,
            database,
            passfile: passfile.or_else(|| Some(home?.join(".pgpass"))),
            tls,
            connect_timeout,
        })
    }

    /// Whether TLS may be used. It is never used on a socket.
    pub(super) fn may_use_tls(&self) -> bool {
        self.tls.mode != Mode::Disable && self.hosts.iter().any(|host| host.socket().is_none())
    }

    /// Returns host, port and database, for messages.
    pub(super) fn place(&self, host: &Host) -> String {
        let name = host
            .socket()
            .map_or_else(|| host.name(), |folder| folder.display().to_string());
        let name = if name.contains(':') { format!("[{name}]") } else { name };
        format!("{name}:{}/{}", host.port, self.database)
    }
}

fn hosts(params: &ConnectParams) -> Result<Vec<Host>, MirrorError> {
    fn list<'a>(params: &'a ConnectParams, name: &str) -> Vec<&'a str> {
        params
            .text(name)
            .map(|text| text.split(',').collect())
            .unwrap_or_default()
    }
    let (names, ips, ports) = (list(params, "host"), list(params, "hostaddr"), list(params, "port"));
    if names.iter().any(|name| name.contains('@')) {
        // This text begins with the end of the password, so it is not shown.
        return Err(params.unusable("host", "there is an @ too many; write an @ in the password as %40"));
    }
    if !names.is_empty() && !ips.is_empty() && names.len() != ips.len() {
        return Err(params.unusable("hostaddr", "host and hostaddr must be lists of the same length"));
    }
    let count = names.len().max(ips.len()).max(1);
    if ports.len() > 1 && ports.len() != count {
        return Err(params.unusable("port", "give one port for all hosts, or one for each"));
    }
    let port = |text: &str| match text {
        "" => Ok(5432),
        // A / in the password makes the rest of it the port, so it is not shown.
        text => text.parse().ok().filter(|&port| port != 0).ok_or_else(|| {
            params.unusable(
                "port",
                "a port is a number from 1 to 65535; write a / in the password as %2F",
            )
        }),
    };
    (0..count)
        .map(|index| {
            let ip = ips.get(index).filter(|ip| !ip.is_empty());
            Ok(Host {
                name: names
                    .get(index)
                    .filter(|name| !name.is_empty())
                    .map(ToString::to_string),
                ip: ip
                    .map(|ip| ip.parse().map_err(|_| params.wrong("hostaddr", "numeric IP addresses")))
                    .transpose()?,
                port: port(ports.get(index).or(ports.first()).unwrap_or(&""))?,
            })
        })
        .collect()
}

fn tls(params: &ConnectParams, home: Option<PathBuf>) -> Result<Tls, MirrorError> {
    let mode = params.word("sslmode", &Mode::ALL.map(|mode| (mode.name(), mode)))?;
    let roots = params.text("sslrootcert").map(|text| match text {
        "system" => Roots::System,
        file => Roots::File(PathBuf::from(file)),
    });
    let is_system = roots == Some(Roots::System);
    // Anyone can have a certificate of a public authority, so the name in it must be checked.
    let mode = mode.unwrap_or(if is_system { Mode::VerifyFull } else { Mode::Prefer });
    if is_system && mode != Mode::VerifyFull {
        return Err(params.unusable("sslmode", "sslrootcert=system needs sslmode=verify-full"));
    }
    let is_direct = params
        .word("sslnegotiation", &[("postgres", false), ("direct", true)])?
        .unwrap_or_default();
    if is_direct && mode < Mode::Require {
        return Err(params.unusable(
            "sslnegotiation",
            "sslnegotiation=direct needs sslmode=require or higher",
        ));
    }
    // Values that change nothing. Any other value asks for something that clerk2pg cannot do, and
    // is an error.
    params.word("gssencmode", &[("disable", ()), ("prefer", ())])?;
    params.word("sslcompression", &[("0", ())])?;
    Ok(Tls {
        mode,
        roots,
        certificate: params.text("sslcert").map(PathBuf::from),
        key: params.text("sslkey").map(PathBuf::from),
        home,
        sends_name: params.word("sslsni", &[("0", false), ("1", true)])?.unwrap_or(true),
        is_direct,
        only_13: params
            .word(
                "ssl_min_protocol_version",
                &[
                    ("TLSv1", false),
                    ("TLSv1.1", false),
                    ("TLSv1.2", false),
                    ("TLSv1.3", true),
                ],
            )?
            .unwrap_or_default(),
    })
}

fn config(params: &ConnectParams, user: &str, database: &str, tls: &Tls) -> Result<Config, MirrorError> {
    let mut config = Config::new();
    let application = params
        .text("application_name")
        .or(params.text("fallback_application_name"));
    config.user(user).dbname(database);
    if let Some(application) = application {
        config.application_name(application);
    }
    if let Some(password) = params.text("password") {
        config.password(password);
    }
    if let Some(options) = params.text("options") {
        config.options(options);
    }
    params.word(
        "client_encoding",
        &[("UTF8", ()), ("utf8", ()), ("UTF-8", ()), ("auto", ())],
    )?;
    let binding = [
        ("disable", ChannelBinding::Disable),
        ("prefer", ChannelBinding::Prefer),
        ("require", ChannelBinding::Require),
    ];
    config.channel_binding(
        params
            .word("channel_binding", &binding)?
            .unwrap_or(ChannelBinding::Prefer),
    );
    // libpq's other words ask for a server that cannot be written to.
    let attributes = [
        ("any", TargetSessionAttrs::Any),
        ("read-write", TargetSessionAttrs::ReadWrite),
        ("primary", TargetSessionAttrs::ReadWrite),
    ];
    config.target_session_attrs(
        params
            .word("target_session_attrs", &attributes)?
            .unwrap_or(TargetSessionAttrs::Any),
    );
    if tls.is_direct {
        config.ssl_negotiation(SslNegotiation::Direct);
    }
    watch_connection(&mut config, params)?;
    Ok(config)
}

/// Sets how a server that vanished is noticed: within half a minute, unless the address says
/// otherwise.
fn watch_connection(config: &mut Config, params: &ConnectParams) -> Result<(), MirrorError> {
    let timeout = params.number("tcp_user_timeout", "a number of milliseconds")?;
    config.tcp_user_timeout(Duration::from_millis(timeout.filter(|&ms| ms > 0).unwrap_or(30_000)));
    config.keepalives(params.word("keepalives", &[("0", false), ("1", true)])?.unwrap_or(true));
    let seconds = |name| {
        let stated = params.number(name, "a number of seconds")?;
        Ok::<_, MirrorError>(stated.filter(|&seconds| seconds > 0).map(Duration::from_secs))
    };
    config.keepalives_idle(seconds("keepalives_idle")?.unwrap_or(Duration::from_secs(30)));
    if let Some(interval) = seconds("keepalives_interval")? {
        config.keepalives_interval(interval);
    }
    if let Some(count) = params
        .number("keepalives_count", "a number")?
        .and_then(|count| u32::try_from(count).ok())
    {
        config.keepalives_retries(count);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
