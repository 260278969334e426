//! The configuration: defaults, `config.toml`, `CLERK2PG_<SECTION>__<KEY>`, and the names people already have set; later wins.

mod exposed;
mod http;
mod sources;

use std::{fmt, path::PathBuf, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use http::Http;
pub use sources::{Source, load};

use crate::{
    mirror::{Mirror, Variables},
    reconcile::guard::Limits,
    secret::{Secret, without_secrets},
    sync::DeleteMode,
};

/// Everything that can be set. Only `main` sees it whole; the parts get theirs.
#[derive(Debug, Clone, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "each is the section of the same name in config.toml")]
pub struct Settings {
    pub clerk: Clerk,
    pub database: Database,
    pub schedule: Schedule,
    pub deletes: Deletes,
    pub lease: Lease,
    pub events: Events,
    pub http: Http,
    pub log: Log,
}

/// `[clerk]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Clerk {
    /// Base address of the Backend API; a trailing `/v1` is taken off.
    pub api_url: String,
    /// `sk_live_…` or `sk_test_…`
    pub secret_key: Secret,
    /// Clerk's rate limit for this instance, in requests in ten seconds; zero stands for what is usual for such a key.
    pub rate_limit: u32,
    /// The part of Clerk's rate limit that may be spent.
    pub request_budget: f64,
    /// How many pages a full sync works on at a time, while as many more are on their way.
    pub concurrency: usize,
    /// For one request; an outage is an error after twice this time.
    pub timeout: Span,
}

impl Clerk {
    /// Whether the secret key travels in clear text to another machine.
    pub fn sends_key_in_clear(&self) -> bool {
        let Some(rest) = self.api_url.strip_prefix("http://") else {
            return false;
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = match authority.strip_prefix('[') {
            Some(address) => address.split(']').next().unwrap_or_default(),
            None => authority.split(':').next().unwrap_or_default(),
        };
        let is_name = host.eq_ignore_ascii_case("localhost") || host.to_ascii_lowercase().ends_with(".localhost");
        let address = host.parse::<std::net::IpAddr>().map(|address| address.to_canonical());
        !is_name && !address.is_ok_and(|address| address.is_loopback())
    }
}

impl Default for Clerk {
    fn default() -> Self {
        Self {
            api_url: "https://api.clerk.com".to_owned(),
            secret_key: Secret::default(),
            rate_limit: 0,
            request_budget: 0.25,
            concurrency: 8,
            timeout: Span(Duration::from_secs(30)),
        }
    }
}

/// `[database]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Database {
    /// `postgres://user:password@host:port/database`, or libpq's `name=value` form.
    pub url: Secret,
    /// Whether migrations are applied at start.
    pub migrate: bool,
    /// Most connections at a time.
    pub max_connections: usize,
}

impl Default for Database {
    fn default() -> Self {
        Self {
            url: Secret::default(),
            migrate: true,
            max_connections: 4,
        }
    }
}

/// `[schedule]`: six fields with seconds first, in UTC; empty turns one off.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Schedule {
    /// For incremental syncs.
    pub incremental: String,
    /// For full syncs.
    pub full: String,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            incremental: "*/5 * * * * *".to_owned(),
            full: "0 0 * * * *".to_owned(),
        }
    }
}

/// `[deletes]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Deletes {
    /// What becomes of the row of a deleted user.
    #[serde(with = "delete_mode")]
    pub mode: DeleteMode,
    /// More deletions than this within an hour are held.
    pub max_count: u64,
    /// More deletions than this part of the mirror, in percent, are held.
    pub max_percent: f64,
    /// Up to this many are never held.
    pub min_count: u64,
}

impl Default for Deletes {
    fn default() -> Self {
        Self {
            mode: DeleteMode::Delete,
            max_count: 500,
            max_percent: 20.0,
            min_count: 10,
        }
    }
}

impl Deletes {
    /// The guard's part.
    pub fn limits(&self) -> Limits {
        Limits {
            min_count: self.min_count,
            max_count: self.max_count,
            max_percent: self.max_percent,
        }
    }
}

/// `[lease]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lease {
    /// How long a holder that vanished keeps others waiting.
    pub ttl: Span,
}

impl Default for Lease {
    fn default() -> Self {
        Self {
            ttl: Span(Duration::from_secs(15)),
        }
    }
}

/// `[events]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Events {
    /// Whether the first import makes events.
    pub initial: bool,
    /// How long events are kept.
    pub keep: Span,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            initial: false,
            keep: Span(Duration::from_secs(30 * 24 * 3600)),
        }
    }
}

/// `[log]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// How lines look.
    #[serde(with = "log_format")]
    pub format: LogFormat,
    /// A level, or directives as in `RUST_LOG`.
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Auto,
            level: "info".to_owned(),
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// The journal where systemd reads it, else for people.
    Auto,
    /// For people.
    Pretty,
    /// An object a line.
    Json,
    /// The journal's own protocol, with fields.
    Journald,
}

/// Words for values, with an error that lists them.
macro_rules! words {
    ($module:ident, $type:ty, $($word:literal => $value:expr),+) => {
        mod $module {
            use super::*;

            pub fn serialize<S: Serializer>(value: &$type, serializer: S) -> Result<S::Ok, S::Error> {
                $(if *value == $value { return serializer.serialize_str($word); })+
                unreachable!("every value has its word")
            }

            pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<$type, D::Error> {
                let word = String::deserialize(deserializer)?;
                $(if word == $word { return Ok($value); })+
                Err(serde::de::Error::custom(format!("{word:?} is none of {}", [$($word),+].join(", "))))
            }
        }
    };
}

words!(delete_mode, DeleteMode, "delete" => DeleteMode::Delete, "mark" => DeleteMode::Mark, "keep" => DeleteMode::Keep);
words!(log_format, LogFormat, "auto" => LogFormat::Auto, "pretty" => LogFormat::Pretty, "json" => LogFormat::Json,
    "journald" => LogFormat::Journald);

/// A duration written as people write it: `30s`, `5m`, `30d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map(Self).map_err(|_| {
            serde::de::Error::custom(format!("{text:?} is no duration; write for example \"30s\" or \"5m\""))
        })
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(self.0))
    }
}

/// A configuration that cannot be used: what is wrong, where, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// What is wrong and where.
    pub message: String,
    /// What would be right.
    pub hint: Option<String>,
}

impl ConfigError {
    fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
        }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ConfigError {}

/// Loaded settings, with where they came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// Files that secrets were read from, the configuration file among them if there is one in it.
    pub secrets: Vec<PathBuf>,
    /// libpq's variables, and `HOME`.
    pub variables: Variables,
}

impl Loaded {
    /// Checks what the types cannot: ranges, schedules, and that something is there to talk to.
    ///
    /// # Errors
    /// The first setting that cannot be used.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let Settings {
            clerk,
            schedule,
            deletes,
            lease,
            events,
            database,
            http,
            ..
        } = &self.settings;
        if !(clerk.request_budget > 0.0 && clerk.request_budget <= 1.0) {
            return Err(self.wrong(
                "clerk.request_budget",
                clerk.request_budget,
                "a part above 0 and up to 1, for example 0.25",
            ));
        }
        if !(1..=64).contains(&clerk.concurrency) {
            return Err(self.wrong("clerk.concurrency", clerk.concurrency, "a number from 1 to 64"));
        }
        let host = clerk
            .api_url
            .strip_prefix("https://")
            .or(clerk.api_url.strip_prefix("http://"));
        if host.is_none_or(|host| host.contains('@')) {
            return Err(self.wrong(
                "clerk.api_url",
                &clerk.api_url,
                "an address that begins with https://, without user and password: the key takes their place",
            ));
        }
        if !(0.0..=100.0).contains(&deletes.max_percent) {
            return Err(self.wrong("deletes.max_percent", deletes.max_percent, "a percentage from 0 to 100"));
        }
        // Postgres counts in milliseconds of 32 bits, and in microseconds since the year 2000.
        for (key, span, range, expected) in [
            (
                "clerk.timeout",
                clerk.timeout.0,
                Duration::from_millis(100)..=Duration::from_hours(1),
                "a duration from 100ms to 1h",
            ),
            (
                "lease.ttl",
                lease.ttl.0,
                Duration::from_secs(1)..=Duration::from_hours(24),
                "a duration from 1s to 24h",
            ),
            (
                "events.keep",
                events.keep.0,
                Duration::from_secs(1)..=Duration::from_hours(24 * 36_500),
                "a duration from 1s to 36500d",
            ),
        ] {
            if !range.contains(&span) {
                return Err(self.wrong(key, humantime::format_duration(span), expected));
            }
        }
        if !(2..=Mirror::MOST_CONNECTIONS).contains(&database.max_connections) {
            let expected = format!("2 to {}", Mirror::MOST_CONNECTIONS);
            return Err(self.wrong("database.max_connections", database.max_connections, &expected));
        }
        if let Err(expected) = http.address() {
            return Err(self.wrong("http.listen", &http.listen, expected));
        }
        for (key, cron) in [
            ("schedule.full", &schedule.full),
            ("schedule.incremental", &schedule.incremental),
        ] {
            if !cron.is_empty() && !crate::daemon::is_schedule(cron) {
                return Err(self.wrong(
                    key,
                    cron,
                    "six fields, seconds first, in UTC: \"0 0 * * * *\" is every full hour; \"\" turns it off",
                ));
            }
        }
        Ok(())
    }

    /// Checks what talking to Clerk needs.
    ///
    /// # Errors
    /// There is no secret key, or something else in its place.
    pub fn require_key(&self) -> Result<(), ConfigError> {
        let key = self.settings.clerk.secret_key.expose();
        let found = "it is in Clerk's dashboard under Configure → API keys, and begins with sk_live_ or sk_test_";
        if key.is_empty() {
            return Err(ConfigError::new("CLERK_SECRET_KEY is not set").hint(found));
        }
        if key.starts_with("pk_") {
            return Err(
                ConfigError::new("CLERK_SECRET_KEY holds a publishable key (pk_…), which cannot read users")
                    .hint(format!("the secret key is needed; {found}")),
            );
        }
        if !key.starts_with("sk_live_") && !key.starts_with("sk_test_") {
            return Err(ConfigError::new("CLERK_SECRET_KEY is no secret key of Clerk").hint(found));
        }
        if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ConfigError::new(
                "CLERK_SECRET_KEY holds characters that no key has; was it copied whole, and alone?",
            )
            .hint(found));
        }
        Ok(())
    }

    /// Checks what talking to Postgres needs.
    ///
    /// # Errors
    /// There is no address.
    pub fn require_database(&self) -> Result<(), ConfigError> {
        // Less than the database's name, and a shell that is set up for psql would decide what is written to.
        if self.settings.database.url.expose().is_empty() && !self.variables.contains_key("PGDATABASE") {
            return Err(ConfigError::new("DATABASE_URL is not set").hint(
                "for example postgres://user:password@localhost:5432/app; or database.url in config.toml, or PGDATABASE, PGHOST and so on",
            ));
        }
        Ok(())
    }

    fn wrong(&self, key: &str, value: impl fmt::Display, expected: &str) -> ConfigError {
        let place = self
            .file
            .as_ref()
            .map_or_else(String::new, |file| format!(" ({})", file.display()));
        // A key or the database's address, perhaps, that was meant for another setting.
        let value = without_secrets(&value.to_string());
        ConfigError::new(format!("{key} = {value} cannot be used{place}")).hint(format!("expected {expected}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_clear_text_stays_on_this_machine() {
        let check = |api_url: &str, expected| {
            let clerk = Clerk {
                api_url: api_url.to_owned(),
                ..Clerk::default()
            };
            assert_eq!(clerk.sends_key_in_clear(), expected, "{api_url}");
        };
        for url in [
            "https://api.clerk.com",
            "http://localhost:5555",
            "http://clerk.localhost/v1",
            "http://127.0.0.1",
            "http://127.1.2.3:80/v1",
            "http://[::1]:5555",
            "http://[::ffff:127.0.0.1]",
        ] {
            check(url, false);
        }
        for url in [
            "http://api.clerk.com",
            "http://10.0.0.5:5555",
            "http://clerk-sim:5555",
            "http://[2001:db8::1]/v1",
            "http://localhost.example.com",
            "http://127.0.0.1.example.com",
        ] {
            check(url, true);
        }
    }
}
