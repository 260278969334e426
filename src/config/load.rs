//! Loads the configuration, and checks that every key in it exists.

use std::path::{Path, PathBuf};

use config::{Config, ConfigError as LibraryError, File, FileFormat, Value, ValueKind};

use super::{
    endpoints::read_endpoints,
    environment::{ConfigSource, Override, libpq, overrides},
    error::ConfigError,
    exposed::{exposed_files, holds_password},
    keys::{ENDPOINTS, LISTS, TABLES, check_key, flatten, known_keys},
    settings::Settings,
    tables::{check_entries, validate_tables},
    validate::validate,
};
use crate::{deliver::Endpoint, mirror::Variables, secret::without_secrets};

/// Files that are read if `--config` is not given; the first that exists.
const FILES: [&str; 2] = ["config.toml", "/etc/clerk2pg/config.toml"];

/// Loaded settings, with the files they came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// The configuration file, if there is one.
    pub file: Option<PathBuf>,
    /// Files that hold secrets: those that variables and endpoints name, and the configuration file
    /// if a secret is in it.
    pub secrets: Vec<PathBuf>,
    /// libpq's variables, and `HOME`.
    pub variables: Variables,
    /// The endpoints, or what is wrong with their signing secrets.
    endpoints: Result<Vec<Endpoint>, ConfigError>,
}

impl Loaded {
    /// Returns the files with secrets that other users of this machine can read, each once.
    pub fn exposed(&self) -> Vec<PathBuf> {
        exposed_files(&self.secrets)
    }

    /// Checks that there is a secret key.
    ///
    /// # Errors
    /// There is no secret key, or something else is in its place.
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
            return Err(ConfigError::new("CLERK_SECRET_KEY is not a secret key of Clerk").hint(found));
        }
        if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ConfigError::new(
                "CLERK_SECRET_KEY holds characters that no key has; was it copied completely, and nothing else?",
            )
            .hint(found));
        }
        Ok(())
    }

    /// Returns the endpoints that events are delivered to. A command that delivers nothing needs
    /// none of their signing secrets.
    ///
    /// # Errors
    /// An endpoint has no signing secret, or one that cannot be used.
    pub fn require_endpoints(&self) -> Result<&[Endpoint], ConfigError> {
        self.endpoints.as_deref().map_err(ConfigError::clone)
    }

    /// Checks that there is a database to connect to.
    ///
    /// # Errors
    /// There is no address.
    pub fn require_database(&self) -> Result<(), ConfigError> {
        // Without this check, a shell that is set up for psql would decide which database is
        // written to.
        if self.settings.database.url.expose().is_empty() && !self.variables.contains_key("PGDATABASE") {
            return Err(ConfigError::new("DATABASE_URL is not set").hint(
                "for example postgres://user:password@localhost:5432/app; or database.url in config.toml, or PGDATABASE, PGHOST and so on",
            ));
        }
        Ok(())
    }
}

/// Reads and checks the configuration.
///
/// # Errors
/// A file cannot be read, a key does not exist, or a value has the wrong type or range.
pub fn load(source: &ConfigSource) -> Result<Loaded, ConfigError> {
    let known = known_keys()?;
    let mut builder = Config::builder();
    let mut secrets = Vec::new();
    let mut endpoints = Ok(Vec::new());

    let file = match &source.file {
        Some(file) => Some(file.clone()),
        None => FILES.iter().map(PathBuf::from).find(|file| file.exists()),
    };
    if let Some(file) = &file {
        let text = std::fs::read_to_string(file)
            .map_err(|error| ConfigError::new(format!("{} cannot be read: {error}", file.display())))?;
        let place = file.display().to_string();
        let mut parsed = parse(&text, &place)?;
        if let Some(list) = take(&mut parsed, ENDPOINTS) {
            let configured = read_endpoints(&list, file, source)?;
            secrets.extend(configured.secrets);
            endpoints = configured.endpoints;
        }
        secrets.extend(check_keys(&parsed, &known, &place)?.then(|| file.clone()));
        builder = builder.add_source(parsed);
    }

    for Override { name, key, value, file } in overrides(source, &known)? {
        secrets.extend(file.filter(|_| is_secret(&key, &value)));
        builder = builder
            .set_override(&key, Value::new(Some(&name), ValueKind::String(value)))
            .map_err(|error| ConfigError::new(format!("{name} cannot be used: {error}")))?;
    }

    let mut settings = builder
        .build()
        .and_then(Config::try_deserialize::<Settings>)
        .map_err(|error| explain(&error, file.as_deref()))?;
    validate(&settings, file.as_deref())?;
    let excluded = settings.mirror.excluded();
    for mapping in &mut settings.tables {
        let is_concerned = excluded.concern(mapping.from.resource());
        mapping.excluded = excluded.names().iter().filter(|_| is_concerned).cloned().collect();
    }
    let place = file
        .as_ref()
        .map_or_else(String::new, |file| file.display().to_string());
    validate_tables(&settings.tables, &settings.mirror, &settings.database.schema, &place)?;
    Ok(Loaded {
        settings,
        file,
        secrets,
        variables: libpq(source),
        endpoints,
    })
}

/// Takes a key out of a parsed file.
fn take(parsed: &mut Config, key: &str) -> Option<Value> {
    match &mut parsed.cache.kind {
        ValueKind::Table(keys) => keys.remove(key),
        _ => None,
    }
}

/// Checks that each key of a parsed file exists. `place` is the file's name in errors. Returns
/// whether a value is a secret.
fn check_keys(parsed: &Config, known: &[String], place: &str) -> Result<bool, ConfigError> {
    let tables = parsed.cache.clone().into_table().unwrap_or_default().remove(TABLES);
    if let Some(tables) = &tables {
        check_entries(tables, place)?;
    }
    let known: Vec<String> = known.iter().cloned().chain(LISTS.map(str::to_owned)).collect();
    let mut has_secret = false;
    for key in flatten("", &parsed.cache) {
        check_key(&known, &key, place, &key)?;
        has_secret |= parsed.get_string(&key).is_ok_and(|value| is_secret(&key, &value));
    }
    Ok(has_secret)
}

/// Whether a value is a secret.
fn is_secret(key: &str, value: &str) -> bool {
    match key {
        "clerk.secret_key" => !value.is_empty(),
        "database.url" => holds_password(value),
        _ => false,
    }
}

/// Parses a configuration file. `place` is its name in errors.
fn parse(text: &str, place: &str) -> Result<Config, ConfigError> {
    Config::builder()
        .add_source(File::from_str(text, FileFormat::Toml))
        .build()
        .map_err(|error| {
            // The parser's text quotes the line, which may contain a secret; its number is enough.
            let text = error.to_string();
            let line = text
                .lines()
                .find(|line| line.contains("at line"))
                .unwrap_or("TOML parse error")
                .trim();
            ConfigError::new(format!("{place} is not valid TOML: {line}"))
        })
}

/// Explains a value of the wrong type. The library quotes the value; it is left out if it may be a
/// secret.
fn explain(error: &LibraryError, file: Option<&Path>) -> ConfigError {
    match error {
        LibraryError::Type {
            key,
            origin,
            unexpected,
            expected,
        } => {
            let key = key.as_deref().unwrap_or("a setting");
            let place = origin
                .clone()
                .or_else(|| file.map(|file| file.display().to_string()))
                .unwrap_or_else(|| "the configuration".to_owned());
            let is_secret = key.ends_with("secret_key") || key.ends_with("url");
            let found = if is_secret {
                String::new()
            } else {
                format!(", not {}", without_secrets(&unexpected.to_string()))
            };
            ConfigError::new(format!("{place}: {key} must be {expected}{found}"))
        }
        error => {
            let place = file.map_or_else(|| "the configuration".to_owned(), |file| file.display().to_string());
            ConfigError::new(format!("{place}: {}", without_secrets(&error.to_string())))
        }
    }
}

#[cfg(test)]
mod tests;
