//! The keys of all settings, and the check that a key exists.

use config::{Config, Map, Value, ValueKind};

use super::{error::ConfigError, settings::Settings};
use crate::nearest::nearest;

/// The settings that are lists of entries, each below a header such as `[[tables]]`.
pub(super) const LISTS: [&str; 2] = [TABLES, ENDPOINTS];

/// The key of the list of tables.
pub(super) const TABLES: &str = "tables";

/// The key of the list of endpoints.
pub(super) const ENDPOINTS: &str = "endpoints";

/// Returns all keys but those of lists, read from the default settings.
pub(super) fn known_keys() -> Result<Vec<String>, ConfigError> {
    let mut settings = Settings::default();
    // An empty list has no key. Those of entries are checked by themselves.
    settings.mirror.exclude.push(String::new());
    let defaults = Config::try_from(&settings).map_err(|error| ConfigError::new(error.to_string()))?;
    Ok(flatten("", &defaults.cache))
}

/// Checks that a key exists, and suggests the nearest one. `shown` is the key as its place spells
/// it.
pub(super) fn check_key(known: &[String], key: &str, place: &str, shown: &str) -> Result<(), ConfigError> {
    if known.iter().any(|known| known == key) {
        return Ok(());
    }
    let nearest = nearest(key, known.iter().map(String::as_str));
    let error = ConfigError::new(format!("{place}: there is no setting {shown}"));
    Err(match nearest {
        Some(nearest) => error.hint(format!("did you mean {nearest}?")),
        None => error,
    })
}

/// Returns the keys of all values in a table, with dots between sections and names.
pub(super) fn flatten(prefix: &str, value: &Value) -> Vec<String> {
    match &value.kind {
        ValueKind::Table(table) => {
            let table: &Map<String, Value> = table;
            let mut keys: Vec<String> = table
                .iter()
                .flat_map(|(key, value)| {
                    let path = if prefix.is_empty() {
                        key.clone()
                    } else {
                        format!("{prefix}.{key}")
                    };
                    flatten(&path, value)
                })
                .collect();
            keys.sort();
            keys
        }
        _ => vec![prefix.to_owned()],
    }
}
