//! The entries of `[[endpoints]]`.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use config::{Map, Value, ValueKind};
use reqwest::Url;

use super::{
    environment::ConfigSource,
    error::ConfigError,
    signing::{OwnSecret, signing_secrets},
};
use crate::{
    deliver::{Endpoint, Start, check_address},
    nearest::nearest,
    resource::RESOURCES,
    secret::without_secrets,
};

/// The keys of an entry, and what each expects.
const KEYS: [(&str, &str); 8] = [
    (
        "name",
        "1 to 64 letters, digits, dots, underscores and hyphens, no hyphen first, for example name = \"app\"",
    ),
    (
        "url",
        "an address that begins with http:// or https://, for example url = \"http://app:3000/api/webhooks/clerk\"",
    ),
    (
        "secret",
        "a text that begins with whsec_, or a list of two while it is rolled, the newer one first",
    ),
    ("secret_file", "the path of a file that holds the signing secret"),
    (
        "events",
        "a list of types, for example events = [\"user.created\"] or [\"user.*\"]; all types if it is left out",
    ),
    ("start", "\"now\" or \"everything\""),
    ("concurrency", "a number from 1 to 64"),
    ("timeout", "a duration from \"1s\" to \"5m\""),
];

/// Characters of a name, at most.
const MAX_NAME: usize = 64;

/// The endpoints of a configuration file.
pub(super) struct ConfiguredEndpoints {
    /// The endpoints, or what is wrong with their signing secrets, which most commands do not need.
    pub(super) endpoints: Result<Vec<Endpoint>, ConfigError>,
    /// Files that hold their secrets.
    pub(super) secrets: Vec<PathBuf>,
}

/// Reads the entries of `[[endpoints]]` in a configuration file.
///
/// # Errors
/// The first entry that cannot be used, whatever its signing secret is.
pub(super) fn read_endpoints(
    list: &Value,
    file: &Path,
    source: &ConfigSource,
) -> Result<ConfiguredEndpoints, ConfigError> {
    let place = file.display();
    let ValueKind::Array(values) = &list.kind else {
        return Err(ConfigError::new(format!("{place}: endpoints is not a list"))
            .hint("begin each entry with [[endpoints]], in double brackets"));
    };
    let mut names = BTreeSet::new();
    let mut configured = ConfiguredEndpoints {
        endpoints: Ok(Vec::new()),
        secrets: Vec::new(),
    };
    let place = place.to_string();
    for (at, value) in values.iter().enumerate() {
        let entry = Entry::new(value, at, &place)?;
        let mut endpoint = entry.read()?;
        if !names.insert(endpoint.name.clone()) {
            return Err(entry
                .error("there are two entries with this name")
                .hint("give each endpoint a name of its own"));
        }
        let own = entry.own_secret()?;
        if !own.texts.is_empty() {
            configured.secrets.push(file.to_owned());
        }
        match signing_secrets(&own, &place, &entry.entry, source) {
            Ok(found) => {
                configured.secrets.extend(found.file);
                endpoint.keys = found.keys;
                if let Ok(endpoints) = &mut configured.endpoints {
                    endpoints.push(endpoint);
                }
            }
            // The first error counts.
            Err(error) => configured.endpoints = configured.endpoints.and(Err(error)),
        }
    }
    Ok(configured)
}

/// An entry of `[[endpoints]]` as the file has it.
///
/// Errors quote no value that may be a secret in the wrong place or a part of an address.
struct Entry<'e> {
    keys: &'e Map<String, Value>,
    /// The file in errors.
    place: &'e str,
    /// The entry in errors: its name, or its number if the name cannot be used.
    entry: String,
}

impl<'e> Entry<'e> {
    /// Checks that each key of the entry at a position exists.
    fn new(value: &'e Value, at: usize, place: &'e str) -> Result<Self, ConfigError> {
        let number = format!("entry {} of [[endpoints]]", at + 1);
        let ValueKind::Table(keys) = &value.kind else {
            return Err(
                ConfigError::new(format!("{place}: {number} has no keys")).hint("begin each entry with [[endpoints]]")
            );
        };
        let entry = match keys.get("name").map(|name| &name.kind) {
            Some(ValueKind::String(name)) if is_name(name) => format!("[[endpoints]] {name}"),
            _ => number,
        };
        let entry = Self { keys, place, entry };
        let known = || KEYS.iter().map(|(key, _)| *key);
        // In the order of names, so that each run reports the same one.
        let unknown = keys.keys().filter(|key| !known().any(|known| known == *key)).min();
        match unknown {
            None => Ok(entry),
            Some(key) => {
                let nearest = nearest(key, known()).unwrap_or_default();
                Err(entry
                    .error(&format!("there is no key {}", shown(key)))
                    .hint(format!("did you mean {nearest}?")))
            }
        }
    }

    /// Reads everything but the signing secret.
    fn read(&self) -> Result<Endpoint, ConfigError> {
        Ok(Endpoint {
            name: self.name()?,
            url: self.url()?,
            keys: Vec::new(),
            types: self.types()?,
            start: self.start()?,
            concurrency: self.concurrency()?,
            timeout: self.timeout()?,
        })
    }

    fn name(&self) -> Result<String, ConfigError> {
        match self.text("name")? {
            None | Some("") => Err(self.missing("name")),
            Some(name) if is_name(name) => Ok(name.to_owned()),
            Some(_) => Err(self.unusable("name")),
        }
    }

    fn url(&self) -> Result<Url, ConfigError> {
        let Some(text) = self.text("url")?.filter(|text| !text.is_empty()) else {
            return Err(self.missing("url"));
        };
        let url = Url::parse(text).map_err(|_| self.unusable("url"))?;
        if !["http", "https"].contains(&url.scheme()) {
            return Err(self.unusable("url"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(self
                .error("url contains a user or a password")
                .hint("remove them: clerk2pg signs what it sends, and your handler verifies the signature"));
        }
        if let Some(ip) = address(&url)
            && let Err(why) = check_address(ip, url.scheme() == "https")
        {
            return Err(self
                .error(&format!("url cannot be used: its host is {why}"))
                .hint("expected a private address, or https:// and a public one"));
        }
        Ok(url)
    }

    fn own_secret(&self) -> Result<OwnSecret<'e>, ConfigError> {
        let texts = self.texts("secret", true)?.unwrap_or_default();
        let texts: Vec<_> = texts.into_iter().filter(|text| !text.trim().is_empty()).collect();
        let file = self.text("secret_file")?.filter(|file| !file.is_empty());
        if !texts.is_empty() && file.is_some() {
            return Err(self.error("it has secret and secret_file").hint("remove one of them"));
        }
        Ok(OwnSecret { texts, file })
    }

    /// Returns the types of events that the patterns stand for.
    fn types(&self) -> Result<Vec<String>, ConfigError> {
        let known: Vec<String> = RESOURCES.iter().flat_map(|resource| resource.event_types()).collect();
        let Some(patterns) = self.texts("events", false)? else {
            return Ok(known);
        };
        if patterns.is_empty() {
            return Err(self.error("events is empty").hint("leave it out for all types"));
        }
        let unknown = patterns
            .iter()
            .find(|pattern| !known.iter().any(|name| is_match(pattern, name)));
        if let Some(unknown) = unknown {
            let objects = RESOURCES.iter().map(|resource| format!("{}.*", resource.event));
            let candidates: Vec<String> = known.iter().cloned().chain(objects).collect();
            let nearest = nearest(unknown, candidates.iter().map(String::as_str)).unwrap_or_default();
            return Err(self
                .error(&format!("events: there is no type {}", shown(unknown)))
                .hint(format!("did you mean {nearest}? the types are {}", known.join(", "))));
        }
        let is_wanted = |name: &String| patterns.iter().any(|pattern| is_match(pattern, name));
        Ok(known.into_iter().filter(is_wanted).collect())
    }

    fn start(&self) -> Result<Start, ConfigError> {
        match self.text("start")? {
            None | Some("now") => Ok(Start::Now),
            Some("everything") => Ok(Start::Everything),
            Some(_) => Err(self.unusable("start")),
        }
    }

    fn concurrency(&self) -> Result<usize, ConfigError> {
        match self.keys.get("concurrency").map(|value| &value.kind) {
            None => Ok(8),
            Some(ValueKind::I64(number)) => usize::try_from(*number)
                .ok()
                .filter(|number| (1..=64).contains(number))
                .ok_or_else(|| self.unusable("concurrency")),
            Some(_) => Err(self.unusable("concurrency")),
        }
    }

    fn timeout(&self) -> Result<Duration, ConfigError> {
        let text = self.text("timeout")?.unwrap_or("15s");
        let range = Duration::from_secs(1)..=Duration::from_mins(5);
        let timeout = humantime::parse_duration(text).ok();
        timeout
            .filter(|timeout| range.contains(timeout))
            .ok_or_else(|| self.unusable("timeout"))
    }

    /// Returns the text of a key; `None` if there is no such key.
    fn text(&self, key: &str) -> Result<Option<&'e str>, ConfigError> {
        match self.keys.get(key).map(|value| &value.kind) {
            None => Ok(None),
            Some(ValueKind::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.unusable(key)),
        }
    }

    /// Returns the texts in the list of a key; `None` if there is no such key. With `or_text`, one
    /// text counts as a list.
    fn texts(&self, key: &str, or_text: bool) -> Result<Option<Vec<&'e str>>, ConfigError> {
        let text = |value: &'e Value| match &value.kind {
            ValueKind::String(text) => Ok(text.as_str()),
            _ => Err(self.unusable(key)),
        };
        let Some(value) = self.keys.get(key) else {
            return Ok(None);
        };
        match &value.kind {
            ValueKind::Array(values) => values.iter().map(text).collect::<Result<_, _>>().map(Some),
            _ if or_text => Ok(Some(vec![text(value)?])),
            _ => Err(self.unusable(key)),
        }
    }

    fn error(&self, problem: &str) -> ConfigError {
        ConfigError::new(format!("{}: {}: {problem}", self.place, self.entry))
    }

    fn missing(&self, key: &str) -> ConfigError {
        self.error(&format!("it has no {key}")).hint(expected(key))
    }

    /// A value of a wrong type, or one that is out of range.
    fn unusable(&self, key: &str) -> ConfigError {
        let value = match self.keys.get(key).map(|value| &value.kind) {
            _ if ["url", "secret", "secret_file"].contains(&key) => String::new(),
            Some(ValueKind::String(text)) => format!(" = {}", shown(text)),
            Some(ValueKind::I64(_) | ValueKind::Float(_) | ValueKind::Boolean(_)) => format!(" = {}", self.keys[key]),
            _ => String::new(),
        };
        self.error(&format!("{key}{value} cannot be used")).hint(expected(key))
    }
}

/// Returns the hint on what a key expects.
fn expected(key: &str) -> String {
    let known = KEYS.iter().find(|(known, _)| *known == key);
    known.map_or_else(String::new, |(_, expects)| format!("expected {expects}"))
}

/// Returns the host of a URL if it is an address. Names are checked when they are resolved.
fn address(url: &Url) -> Option<IpAddr> {
    url.host_str()?.trim_matches(['[', ']']).parse().ok()
}

/// Whether a text can be the name of an endpoint: a label of metrics, and an argument of commands.
fn is_name(text: &str) -> bool {
    let is_allowed = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    (1..=MAX_NAME).contains(&text.len())
        && text.chars().all(is_allowed)
        && !text.starts_with('-')
        && without_secrets(text) == text
}

/// Whether a pattern stands for a type: `user.created`, `user.*` or `*`.
fn is_match(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some("") => true,
        Some(object) => object.ends_with('.') && name.starts_with(object),
        None => pattern == name,
    }
}

/// Returns a text as errors show it: whole if it is short or consists of words, as no secret does.
fn shown(text: &str) -> String {
    let is_short = text.chars().count() <= 12;
    let is_word = |letter: char| letter.is_ascii_alphabetic() || "._*-".contains(letter);
    match (is_short || text.len() <= MAX_NAME && text.chars().all(is_word)) && without_secrets(text) == text {
        true => format!("{text:?}"),
        false => "…".to_owned(),
    }
}

#[cfg(test)]
mod tests;
