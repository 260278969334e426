//! Settings and secrets from environment variables.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
};

use super::{
    error::ConfigError,
    keys::{LISTS, check_key},
};
use crate::{mirror::Variables, secret::Secret};

/// Familiar variables and the keys that they set. Each works also as `<NAME>_FILE` and as a systemd
/// credential.
const FAMILIAR: [(&str, &str); 3] = [
    ("CLERK_SECRET_KEY", "clerk.secret_key"),
    ("CLERK_API_URL", "clerk.api_url"),
    ("DATABASE_URL", "database.url"),
];

/// Prefix of the variables that set a key.
const PREFIX: &str = "CLERK2PG_";

/// What `load` reads. A value, so that tests can give their own environment.
#[derive(Debug, Clone)]
pub struct ConfigSource {
    /// From `--config`.
    pub file: Option<PathBuf>,
    /// Environment variables.
    pub environment: BTreeMap<String, String>,
}

impl ConfigSource {
    /// Returns the environment of the process. Variables that are not Unicode are ignored.
    pub fn of_process(file: Option<PathBuf>) -> Self {
        Self {
            file,
            environment: env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
        }
    }
}

/// A setting from the environment.
pub(super) struct Override {
    /// The name of the variable.
    pub(super) name: String,
    pub(super) key: String,
    pub(super) value: String,
    /// The file that the value comes from, if it is not in the variable itself.
    pub(super) file: Option<PathBuf>,
}

/// Returns the settings from the environment; later ones win.
///
/// # Errors
/// A variable names a setting that does not exist, or a file cannot be read.
pub(super) fn overrides(source: &ConfigSource, known: &[String]) -> Result<Vec<Override>, ConfigError> {
    let mut overrides = Vec::new();
    for (name, value) in &source.environment {
        // Orchestrators set variables such as CLERK2PG_PORT for a service of that name; only a
        // double underscore makes a setting.
        let Some((section, key)) = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once("__")) else {
            continue;
        };
        if let Some(list) = LISTS.iter().find(|list| section.eq_ignore_ascii_case(list)) {
            return Err(
                ConfigError::new(format!("the environment: {name} cannot be used: {list} is a list"))
                    .hint(format!("write it as [[{list}]] in config.toml")),
            );
        }
        let key = format!("{}.{}", section.to_lowercase(), key.to_lowercase());
        let shown = |key: &str| format!("{PREFIX}{}", key.replacen('.', "__", 1).to_uppercase());
        let known_names: Vec<String> = known.iter().map(|key| shown(key)).collect();
        if !known.contains(&key) {
            check_key(&known_names, name, "the environment", name)?;
        }
        overrides.push(Override {
            name: name.clone(),
            key,
            value: value.clone(),
            file: None,
        });
    }
    for (name, key) in FAMILIAR {
        if let Some((value, file)) = familiar(source, name)? {
            overrides.push(Override {
                name: name.to_owned(),
                key: key.to_owned(),
                value,
                file,
            });
        }
    }
    Ok(overrides)
}

/// Returns the value of a familiar variable, and the file that it comes from, if any: the variable
/// itself, the file that `<NAME>_FILE` names, or a systemd credential. An empty variable counts as
/// unset, because compose files set empty ones.
pub(super) fn familiar(source: &ConfigSource, name: &str) -> Result<Option<(String, Option<PathBuf>)>, ConfigError> {
    let variable = |name: &str| source.environment.get(name).filter(|value| !value.is_empty());
    if let Some(value) = variable(name) {
        return Ok(Some((value.clone(), None)));
    }
    let read = |file: &Path, by: &str| Ok(Some((read_secret(file, by)?, Some(file.to_owned()))));
    let by = format!("{name}_FILE");
    if let Some(file) = variable(&by) {
        return read(Path::new(file), &by);
    }
    if let Some(directory) = variable("CREDENTIALS_DIRECTORY") {
        let file = Path::new(directory).join(name);
        if file.exists() {
            return read(&file, "the systemd credential");
        }
    }
    Ok(None)
}

/// Reads a secret from a file. `by` is what names the file.
pub(super) fn read_secret(file: &Path, by: &str) -> Result<String, ConfigError> {
    let value = std::fs::read_to_string(file).map_err(|error| {
        // A text that is not an absolute path may be the secret itself.
        match file.is_absolute() {
            true => ConfigError::new(format!("{} cannot be read: {error}", file.display()))
                .hint(format!("it is named by {by}")),
            false => ConfigError::new(format!("the file that {by} names cannot be read: {error}"))
                .hint("it must name a file that contains the secret, best by its absolute path"),
        }
    })?;
    Ok(value.trim_end_matches(['\r', '\n']).to_owned())
}

/// Returns the variables that libpq uses for what the address of the database leaves out. An empty
/// one counts as unset.
pub(super) fn libpq(source: &ConfigSource) -> Variables {
    let set = source.environment.iter().filter(|(_, value)| !value.is_empty());
    set.filter(|(name, _)| name.starts_with("PG") || *name == "HOME")
        .map(|(name, value)| (name.clone(), Secret::from(value.clone())))
        .collect()
}
