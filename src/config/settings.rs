//! The settings, one struct for each section of `config.toml`, with their defaults.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::IntoDeserializer};

use super::http::HttpSettings;
use crate::{
    logging::LogFormat,
    mirror::{DEFAULT_SCHEMA, TableMapping},
    reconcile::guard::DeleteLimits,
    resource::{Exclusions, RESOURCES, Resource},
    secret::Secret,
    sync::DeleteMode,
};

/// All settings. Only `setup` and the commands see them whole; the parts get their own.
#[derive(Debug, Clone, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "each is the section of the same name in config.toml")]
pub struct Settings {
    pub clerk: ClerkSettings,
    pub database: DatabaseSettings,
    pub mirror: ResourceSettings,
    pub schedule: ScheduleSettings,
    pub deletes: DeleteSettings,
    pub lease: LeaseSettings,
    pub events: EventSettings,
    pub http: HttpSettings,
    pub log: LogSettings,
    pub tables: Vec<TableMapping>,
}

/// `[clerk]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClerkSettings {
    /// Base address of the Backend API; a trailing `/v1` is removed.
    pub api_url: String,
    /// `sk_live_…` or `sk_test_…`
    pub secret_key: Secret,
    /// Clerk's rate limit for this instance, in requests per ten seconds; zero means the usual one
    /// for the kind of key.
    pub rate_limit: u32,
    /// The part of Clerk's rate limit to spend at most, above 0 and up to 1.
    pub request_budget: f64,
    /// Pages that a full sync works on at a time, while it fetches as many more.
    pub concurrency: usize,
    /// Time limit for one request. An outage is an error after twice this time.
    pub timeout: HumanDuration,
}

impl ClerkSettings {
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

impl Default for ClerkSettings {
    fn default() -> Self {
        Self {
            api_url: "https://api.clerk.com".to_owned(),
            secret_key: Secret::default(),
            rate_limit: 0,
            request_budget: 0.25,
            concurrency: 8,
            timeout: HumanDuration(Duration::from_secs(30)),
        }
    }
}

/// `[database]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatabaseSettings {
    /// `postgres://user:password@host:port/database`, or libpq's `name=value` form.
    pub url: Secret,
    /// The schema of the mirror's tables.
    pub schema: String,
    /// Whether migrations are applied at start.
    pub migrate: bool,
    /// Maximum number of connections.
    pub max_connections: usize,
}

impl Default for DatabaseSettings {
    fn default() -> Self {
        Self {
            url: Secret::default(),
            schema: DEFAULT_SCHEMA.to_owned(),
            migrate: true,
            max_connections: 4,
        }
    }
}

/// `[schedule]`: cron expressions of six fields, seconds first, in UTC. An empty one turns it off.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScheduleSettings {
    /// When incremental syncs are due.
    pub incremental: String,
    /// When full syncs are due.
    pub full: String,
}

impl Default for ScheduleSettings {
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
pub struct DeleteSettings {
    /// What happens to the row of a deleted user.
    #[serde(deserialize_with = "keyword")]
    pub mode: DeleteMode,
    /// Deletions within an hour; more are held.
    pub max_count: u64,
    /// Deletions within an hour, in percent of the mirror; more are held.
    pub max_percent: f64,
    /// Deletions that are never held, whatever the other two limits say.
    pub min_count: u64,
}

impl Default for DeleteSettings {
    fn default() -> Self {
        Self {
            mode: DeleteMode::Delete,
            max_count: 500,
            max_percent: 20.0,
            min_count: 10,
        }
    }
}

impl DeleteSettings {
    /// Returns the limits of the guard against mass deletions.
    pub fn limits(&self) -> DeleteLimits {
        DeleteLimits {
            min_count: self.min_count,
            max_count: self.max_count,
            max_percent: self.max_percent,
        }
    }
}

/// `[lease]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LeaseSettings {
    /// How long a process that vanished keeps others waiting.
    pub ttl: HumanDuration,
}

impl Default for LeaseSettings {
    fn default() -> Self {
        Self {
            ttl: HumanDuration(Duration::from_secs(15)),
        }
    }
}

/// `[mirror]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResourceSettings {
    /// The names of what is mirrored.
    #[serde(deserialize_with = "names")]
    pub resources: Vec<String>,
    /// The names of fields that are not stored.
    #[serde(deserialize_with = "names")]
    pub exclude: Vec<String>,
}

impl Default for ResourceSettings {
    fn default() -> Self {
        Self {
            resources: RESOURCES.iter().map(|resource| resource.name.to_owned()).collect(),
            exclude: Vec::new(),
        }
    }
}

impl ResourceSettings {
    /// Returns the resources other than users, in the order in which they are synced.
    pub fn others(&self) -> impl Iterator<Item = &'static Resource> + '_ {
        let is_chosen = |resource: &&&'static Resource| self.resources.iter().any(|name| name == resource.name);
        RESOURCES.iter().skip(1).filter(is_chosen).copied()
    }

    /// Returns the fields that are not stored.
    pub fn excluded(&self) -> Exclusions {
        Exclusions::new(&self.exclude)
    }
}

/// Deserializes a list of names, or a text with commas between them, as it stands in the
/// environment.
fn names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Names {
        List(Vec<String>),
        Text(String),
    }
    Ok(match Names::deserialize(deserializer)? {
        Names::List(names) => names,
        Names::Text(text) => {
            let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
            names.map(str::to_owned).collect()
        }
    })
}

/// `[events]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventSettings {
    /// Whether the first import writes an event for each user.
    pub initial: bool,
    /// How long events are kept.
    pub keep: HumanDuration,
}

impl Default for EventSettings {
    fn default() -> Self {
        Self {
            initial: false,
            keep: HumanDuration(Duration::from_secs(30 * 24 * 3600)),
        }
    }
}

/// `[log]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// The form of log lines.
    #[serde(deserialize_with = "keyword")]
    pub format: LogFormat,
    /// A level, or directives as in `RUST_LOG`.
    pub level: String,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            format: LogFormat::Auto,
            level: "info".to_owned(),
        }
    }
}

/// Deserializes a keyword. The configuration library's own error for an unknown keyword does not
/// list the known ones; serde's does.
fn keyword<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    let word = String::deserialize(deserializer)?;
    T::deserialize(word.into_deserializer())
}

/// A duration in the form `30s`, `5m` or `30d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HumanDuration(pub Duration);

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map(Self).map_err(|_| {
            serde::de::Error::custom(format!(
                "{text:?} is not a duration; write for example \"30s\" or \"5m\""
            ))
        })
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_sent_in_clear_text_only_to_this_machine() {
        let check = |api_url: &str, expected| {
            let clerk = ClerkSettings {
                api_url: api_url.to_owned(),
                ..ClerkSettings::default()
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
