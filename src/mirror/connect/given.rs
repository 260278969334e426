//! What is stated, in the string or by libpq's variables, and what is wrong with it.

use std::collections::BTreeMap;

use super::string;
use crate::mirror::{Error, Variables};

/// Where the string comes from, for messages.
const STRING: &str = "database.url (DATABASE_URL)";

const EXAMPLE: &str = "for example postgres://user:password@localhost:5432/app";

/// Every parameter that is understood, with the variable that stands in where it is left out.
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

/// libpq's other parameters. Going on without what they ask for could be less than what was asked for.
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

/// The values that are stated, by parameter, each with the variable that it comes from. An empty one counts as left out.
pub(super) struct Given {
    values: BTreeMap<&'static str, (String, Option<&'static str>)>,
}

impl Given {
    pub(super) fn new(text: &str, variables: &Variables) -> Result<Self, Error> {
        let mut values = BTreeMap::new();
        let mut is_behind_password = false;
        for (name, value) in string::parameters(text).map_err(|why| unusable(STRING, why))? {
            let Some(&(known, _)) = PARAMETERS.iter().find(|(known, _)| *known == name) else {
                // A password that lacks its quotes goes on as a parameter.
                let why = if is_behind_password && !string::is_url(text) {
                    "there is an unknown parameter behind the password; one with spaces in it is written password='…'"
                        .to_owned()
                } else {
                    unknown(&name)
                };
                return Err(unusable(STRING, why));
            };
            is_behind_password |= known == "password";
            if !value.is_empty() {
                values.insert(known, (value, None));
            }
        }
        for (name, variable) in PARAMETERS {
            if let Some(value) = variables.get(variable).filter(|value| !value.expose().is_empty()) {
                values
                    .entry(name)
                    .or_insert_with(|| (value.expose().to_owned(), Some(variable)));
            }
        }
        Ok(Self { values })
    }

    /// The value as it is.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|(value, _)| value.as_str())
    }

    /// A whole number; negative ones count as zero, which mostly stands for the default.
    pub(super) fn number(&self, name: &str, expected: &str) -> Result<Option<u64>, Error> {
        let number = |text: &str| {
            text.trim()
                .parse::<i64>()
                .map(|number| u64::try_from(number).unwrap_or_default())
        };
        self.text(name)
            .map(|text| number(text).map_err(|_| self.wrong(name, expected)))
            .transpose()
    }

    /// What one of several words stands for.
    pub(super) fn word<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Result<Option<T>, Error> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let expected = || words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        match words.iter().find(|(word, _)| *word == text) {
            Some((_, meaning)) => Ok(Some(*meaning)),
            None => Err(self.wrong(name, &expected())),
        }
    }

    /// A value that cannot be used, shown, and what could be.
    pub(super) fn wrong(&self, name: &str, expected: &str) -> Error {
        match self.values.get(name) {
            Some((value, Some(variable))) => unusable(variable, format!("it is {value}, expected {expected}")),
            Some((value, None)) => unusable(STRING, format!("{name}={value}, expected {expected}")),
            None => unusable(STRING, format!("{name} is left out, expected {expected}")),
        }
    }

    /// Why a value cannot be used that must not be shown.
    pub(super) fn unusable(&self, name: &str, why: &str) -> Error {
        let variable = self.values.get(name).and_then(|(_, variable)| *variable);
        unusable(variable.unwrap_or(STRING), why.to_owned())
    }
}

fn unknown(name: &str) -> String {
    if OTHERS.contains(&name) {
        return format!("{name} is a parameter of libpq's that clerk2pg does not have");
    }
    let distance = |known: &str| strsim::damerau_levenshtein(known, name);
    match PARAMETERS.iter().map(|(known, _)| (distance(known), known)).min() {
        Some((..=3, nearest)) => format!("there is no parameter {name}; did you mean {nearest}?"),
        _ => format!("libpq has no parameter {name}; take it out"),
    }
}

fn unusable(place: &str, why: String) -> Error {
    Error::Address {
        place: place.to_owned(),
        why,
        hint: EXAMPLE,
    }
}
