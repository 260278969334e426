//! The parameters of a connection string and of libpq's variables, and what is wrong with them.

use std::collections::BTreeMap;

use tracing::debug;

use super::{
    foreign::{ALIASES, IGNORED},
    string,
};
use crate::mirror::{MirrorError, Variables};

/// The source of the string, for messages.
const STRING: &str = "database.url (DATABASE_URL)";

const EXAMPLE: &str = "for example postgres://user:password@localhost:5432/app";

/// The parameters that are supported, each with the variable that replaces it if it is left out.
const PARAMETERS: [(&str, &str); 29] = [
    ("application_name", "PGAPPNAME"),
    ("channel_binding", "PGCHANNELBINDING"),
    ("client_encoding", ""),
    ("connect_timeout", "PGCONNECT_TIMEOUT"),
    ("dbname", "PGDATABASE"),
    ("fallback_application_name", ""),
    ("gssencmode", "PGGSSENCMODE"),
    ("host", "PGHOST"),
    ("hostaddr", "PGHOSTADDR"),
    ("keepalives", ""),
    ("keepalives_count", ""),
    ("keepalives_idle", ""),
    ("keepalives_interval", ""),
    ("load_balance_hosts", "PGLOADBALANCEHOSTS"),
    ("options", "PGOPTIONS"),
    ("passfile", "PGPASSFILE"),
    ("password", "PGPASSWORD"),
    ("port", "PGPORT"),
    ("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION"),
    ("sslcert", "PGSSLCERT"),
    ("sslcompression", ""),
    ("sslkey", "PGSSLKEY"),
    ("sslmode", "PGSSLMODE"),
    ("sslnegotiation", "PGSSLNEGOTIATION"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("sslsni", "PGSSLSNI"),
    ("target_session_attrs", "PGTARGETSESSIONATTRS"),
    ("tcp_user_timeout", ""),
    ("user", "PGUSER"),
];

/// libpq's other parameters. They are refused, because ignoring them could be less secure than what
/// was asked for.
const OTHERS: [&str; 16] = [
    "gssdelegation",
    "gsslib",
    "krbsrvname",
    "max_protocol_version",
    "min_protocol_version",
    "replication",
    "require_auth",
    "requirepeer",
    "service",
    "servicefile",
    "ssl_max_protocol_version",
    "sslcertmode",
    "sslcrl",
    "sslcrldir",
    "sslkeylogfile",
    "sslpassword",
];

/// Values by parameter, each with the variable that it comes from.
type Values = BTreeMap<&'static str, (String, Option<&'static str>)>;

/// The parameters that are given. An empty value counts as left out.
pub(super) struct ConnectParams {
    values: Values,
}

impl ConnectParams {
    pub(super) fn new(text: &str, variables: &Variables) -> Result<Self, MirrorError> {
        let mut values = Values::new();
        let mut others = ForeignParams::default();
        let mut is_after_password = false;
        for (name, value) in string::parameters(text).map_err(|why| unusable(STRING, why))? {
            let alias = ALIASES.iter().find(|(alias, _)| *alias == name);
            let name = alias.map_or(name.as_str(), |(_, name)| name);
            if let Some(&(known, _)) = PARAMETERS.iter().find(|(known, _)| *known == name) {
                is_after_password |= known == "password";
                if !value.is_empty() {
                    values.insert(known, (value, None));
                }
                continue;
            }
            if !others.take(name, &value)? {
                // The rest of a password without quotes looks like another parameter.
                let why = if is_after_password && !string::is_url(text) {
                    "there is an unknown parameter after the password; write a password with spaces as password='…'"
                        .to_owned()
                } else {
                    unknown(name)
                };
                return Err(unusable(STRING, why));
            }
        }
        others.apply(&mut values, variables)?;
        for (name, variable) in PARAMETERS {
            if let Some(value) = variables.get(variable).filter(|value| !value.expose().is_empty()) {
                values
                    .entry(name)
                    .or_insert_with(|| (value.expose().to_owned(), Some(variable)));
            }
        }
        Ok(Self { values })
    }

    /// Returns the value as text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|(value, _)| value.as_str())
    }

    /// Returns a whole number. Negative ones count as zero, which usually means the default.
    pub(super) fn number(&self, name: &str, expected: &str) -> Result<Option<u64>, MirrorError> {
        let number = |text: &str| {
            text.trim()
                .parse::<i64>()
                .map(|number| u64::try_from(number).unwrap_or_default())
        };
        self.text(name)
            .map(|text| number(text).map_err(|_| self.wrong(name, expected)))
            .transpose()
    }

    /// Returns what the value means, out of several words.
    pub(super) fn word<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Result<Option<T>, MirrorError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let expected = || words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        match words.iter().find(|(word, _)| *word == text) {
            Some((_, meaning)) => Ok(Some(*meaning)),
            None => Err(self.wrong(name, &expected())),
        }
    }

    /// Returns the error for a value that may be shown, with what would be right.
    pub(super) fn wrong(&self, name: &str, expected: &str) -> MirrorError {
        match self.values.get(name) {
            Some((value, Some(variable))) => unusable(variable, format!("it is {value}, expected {expected}")),
            Some((value, None)) => unusable(STRING, format!("{name}={value}, expected {expected}")),
            None => unusable(STRING, format!("{name} is missing, expected {expected}")),
        }
    }

    /// Returns the error for a value that must not be shown.
    pub(super) fn unusable(&self, name: &str, why: &str) -> MirrorError {
        let variable = self.values.get(name).and_then(|(_, variable)| *variable);
        unusable(variable.unwrap_or(STRING), why.to_owned())
    }
}

/// Parameters of other clients.
#[derive(Default)]
struct ForeignParams {
    ignored: Vec<&'static str>,
    /// The `ssl` of node-postgres, asyncpg and Java, as a word of `sslmode`.
    ssl: Option<&'static str>,
    /// Prisma's `sslaccept`: whether the server's certificate is checked against the host's name.
    is_strict: Option<bool>,
    has_identity: bool,
    has_password: bool,
}

impl ForeignParams {
    /// Takes a parameter. Returns whether it is one of another client.
    fn take(&mut self, name: &str, value: &str) -> Result<bool, MirrorError> {
        let expected = |words: &[&str]| unusable(STRING, format!("{name}={value}, expected {}", words.join(", ")));
        match name {
            "ssl" => {
                self.ssl = match value {
                    "true" | "1" | "require" | "no-verify" => Some("require"),
                    "" | "false" | "0" | "disable" | "allow" | "prefer" => None,
                    "verify-ca" => Some("verify-ca"),
                    "verify-full" => Some("verify-full"),
                    _ => return Err(expected(&["true", "false", "require", "verify-ca", "verify-full"])),
                };
            }
            "sslaccept" => {
                self.is_strict = match value {
                    "strict" => Some(true),
                    "" | "accept_invalid_certs" => Some(false),
                    _ => return Err(expected(&["strict", "accept_invalid_certs"])),
                };
            }
            // A client certificate in a format of its own, and its password. A server that requires
            // a certificate refuses a client without it.
            "sslidentity" => self.has_identity = true,
            "sslpassword" => self.has_password = true,
            _ => match IGNORED.iter().find(|known| **known == name) {
                Some(known) => self.ignored.push(known),
                None => return Ok(false),
            },
        }
        Ok(true)
    }

    /// Converts parameters for TLS to libpq's. The result is never less secure than libpq's own
    /// parameters ask for.
    fn apply(mut self, values: &mut Values, variables: &Variables) -> Result<(), MirrorError> {
        // To libpq, it is the password of a key. Without it the key could not be read.
        if self.has_password && values.contains_key("sslkey") {
            return Err(unusable(STRING, unknown("sslpassword")));
        }
        self.ignored.extend(self.has_identity.then_some("sslidentity"));
        self.ignored.extend(self.has_password.then_some("sslpassword"));
        let stated = values.get("sslmode").map(|(mode, _)| mode.as_str());
        if stated == Some("no-verify") {
            values.insert("sslmode", ("require".to_owned(), None));
        } else if let (None, Some(mode)) = (stated, self.ssl) {
            values.insert("sslmode", (mode.to_owned(), None));
        }
        if let Some(is_strict) = self.is_strict {
            // Prisma's `sslcert` is the certificate of the server's authority.
            if !values.contains_key("sslkey")
                && let Some(certificate) = values.remove("sslcert")
                && is_strict
            {
                values.entry("sslrootcert").or_insert(certificate);
            }
            if is_strict && values.get("sslmode").is_none_or(|(mode, _)| mode != "disable") {
                values.insert("sslmode", ("verify-full".to_owned(), None));
                // Prisma trusts the system's authorities.
                let is_stated = variables
                    .get("PGSSLROOTCERT")
                    .is_some_and(|file| !file.expose().is_empty());
                if !is_stated {
                    values.entry("sslrootcert").or_insert(("system".to_owned(), None));
                }
            }
        }
        if !self.ignored.is_empty() {
            let parameters = self.ignored.join(", ");
            debug!(
                parameters,
                "ignoring parameters of other clients in the address of Postgres"
            );
        }
        Ok(())
    }
}

fn unknown(name: &str) -> String {
    if OTHERS.contains(&name) {
        return format!("{name} is a parameter of libpq that clerk2pg does not support");
    }
    let distance = |known: &str| strsim::damerau_levenshtein(known, name);
    let known = PARAMETERS.iter().map(|(known, _)| known).chain(IGNORED);
    match known.map(|known| (distance(known), known)).min() {
        Some((..=3, nearest)) => format!("there is no parameter {name}; did you mean {nearest}?"),
        _ => format!("there is no parameter {name}, neither in libpq nor in other clients; remove it"),
    }
}

fn unusable(place: &str, why: String) -> MirrorError {
    MirrorError::Address {
        place: place.to_owned(),
        why,
        hint: EXAMPLE,
    }
}
