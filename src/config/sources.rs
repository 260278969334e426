//! Where settings come from, and the check that every key is one that exists.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
};

use config::{Config, ConfigError as LibraryError, File, FileFormat, Map, Value, ValueKind};

use super::{ConfigError, Loaded, Settings, exposed::holds_password};
use crate::{
    mirror::Variables,
    secret::{Secret, without_secrets},
};

/// Read where no file is named, the first that exists.
const FILES: [&str; 2] = ["config.toml", "/etc/clerk2pg/config.toml"];

/// Names that people have set already, and the keys that they mean. Each also as `<NAME>_FILE` and as a systemd credential.
const FAMILIAR: [(&str, &str); 4] = [
    ("CLERK_SECRET_KEY", "clerk.secret_key"),
    ("CLERK_API_URL", "clerk.api_url"),
    ("DATABASE_URL", "database.url"),
    // For the time when events are delivered to an address; nothing reads it yet, and having it set is no error.
    ("CLERK_WEBHOOK_SECRET", ""),
];

const PREFIX: &str = "CLERK2PG_";

/// What `load` reads. Taken apart from the process's environment, so that a test can give its own.
#[derive(Debug, Clone)]
pub struct Source {
    /// From `--config`.
    pub file: Option<PathBuf>,
    /// Environment variables.
    pub environment: BTreeMap<String, String>,
}

impl Source {
    /// The process's own environment. Variables that are not Unicode are none of ours.
    pub fn of_process(file: Option<PathBuf>) -> Self {
        Self {
            file,
            environment: env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
        }
    }
}

/// Reads and checks the configuration.
///
/// # Errors
/// A file cannot be read, a key does not exist, or a value has the wrong type or range.
pub fn load(source: &Source) -> Result<Loaded, ConfigError> {
    let known = known_keys()?;
    let mut builder = Config::builder();
    let mut secrets = Vec::new();

    let file = match &source.file {
        Some(file) => Some(file.clone()),
        None => FILES.iter().map(PathBuf::from).find(|file| file.exists()),
    };
    if let Some(file) = &file {
        let text = std::fs::read_to_string(file)
            .map_err(|error| ConfigError::new(format!("{} cannot be read: {error}", file.display())))?;
        let place = file.display().to_string();
        let parsed = parse(&text, &place)?;
        for key in flatten("", &parsed.cache) {
            check_key(&known, &key, &place, &key)?;
            if parsed.get_string(&key).is_ok_and(|value| is_secret(&key, &value)) {
                secrets.push(file.clone());
            }
        }
        builder = builder.add_source(File::from_str(&text, FileFormat::Toml));
    }

    for Override { name, key, value, file } in overrides(source, &known)? {
        secrets.extend(file.filter(|_| is_secret(&key, &value)));
        builder = builder
            .set_override(&key, Value::new(Some(&name), ValueKind::String(value)))
            .map_err(|error| ConfigError::new(format!("{name} cannot be used: {error}")))?;
    }

    let settings = builder
        .build()
        .and_then(Config::try_deserialize::<Settings>)
        .map_err(|error| explain(&error, file.as_deref()))?;
    let loaded = Loaded {
        settings,
        file,
        secrets,
        variables: libpq(source),
    };
    loaded.validate()?;
    Ok(loaded)
}

/// The variables that stand in for what the database's address leaves out. An empty one counts as unset.
fn libpq(source: &Source) -> Variables {
    let set = source.environment.iter().filter(|(_, value)| !value.is_empty());
    set.filter(|(name, _)| name.starts_with("PG") || *name == "HOME")
        .map(|(name, value)| (name.clone(), Secret::from(value.clone())))
        .collect()
}

/// Whether others must not read a value.
fn is_secret(key: &str, value: &str) -> bool {
    match key {
        "clerk.secret_key" => !value.is_empty(),
        "database.url" => holds_password(value),
        _ => false,
    }
}

/// A setting out of the environment.
struct Override {
    /// The variable.
    name: String,
    key: String,
    value: String,
    /// Where the value itself comes from, if not from the variable.
    file: Option<PathBuf>,
}

/// Settings out of the environment, in the order of precedence.
fn overrides(source: &Source, known: &[String]) -> Result<Vec<Override>, ConfigError> {
    let mut overrides = Vec::new();
    for (name, value) in &source.environment {
        // Orchestrators set CLERK2PG_PORT and the like for services of that name; only the double underscore makes a setting.
        let Some((section, key)) = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once("__")) else {
            continue;
        };
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
        if let (Some((value, file)), false) = (familiar(source, name)?, key.is_empty()) {
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

/// The value of a familiar name, and the file that it comes from: itself, the file that `<NAME>_FILE` names, or a systemd credential. An empty
/// one counts as unset, as compose files set it.
fn familiar(source: &Source, name: &str) -> Result<Option<(String, Option<PathBuf>)>, ConfigError> {
    let variable = |name: &str| source.environment.get(name).filter(|value| !value.is_empty());
    if let Some(value) = variable(name) {
        return Ok(Some((value.clone(), None)));
    }
    let read = |file: &Path, by: &str| {
        std::fs::read_to_string(file)
            .map(|value| Some((value.trim_end_matches(['\r', '\n']).to_owned(), Some(file.to_owned()))))
            .map_err(|error| {
                // What is no whole path may be the secret itself.
                match file.is_absolute() {
                    true => ConfigError::new(format!("{} cannot be read: {error}", file.display()))
                        .hint(format!("it is named by {by}")),
                    false => ConfigError::new(format!("the file that {by} names cannot be read: {error}"))
                        .hint("it names a file with the secret in it, best by its whole path"),
                }
            })
    };
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

/// Every key there is, read off the defaults.
fn known_keys() -> Result<Vec<String>, ConfigError> {
    let defaults = Config::try_from(&Settings::default()).map_err(|error| ConfigError::new(error.to_string()))?;
    Ok(flatten("", &defaults.cache))
}

fn parse(text: &str, place: &str) -> Result<Config, ConfigError> {
    Config::builder()
        .add_source(File::from_str(text, FileFormat::Toml))
        .build()
        .map_err(|error| {
            // The parser's text shows the line, which may hold a secret; where it is says enough.
            let text = error.to_string();
            let line = text
                .lines()
                .find(|line| line.contains("at line"))
                .unwrap_or("TOML parse error")
                .trim();
            ConfigError::new(format!("{place} is no valid TOML: {line}"))
        })
}

fn flatten(prefix: &str, value: &Value) -> Vec<String> {
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

fn check_key(known: &[String], key: &str, place: &str, shown: &str) -> Result<(), ConfigError> {
    if known.iter().any(|known| known == key) {
        return Ok(());
    }
    let nearest = known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(known, key), known))
        .min()
        .map(|(_, known)| known);
    let error = ConfigError::new(format!("{place}: there is no setting {shown}"));
    Err(match nearest {
        Some(nearest) => error.hint(format!("did you mean {nearest}?")),
        None => error,
    })
}

/// A value of the wrong type. The library quotes it, so it is left out where it may be a secret.
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
mod tests {
    use super::*;

    fn source(file: Option<&str>, environment: &[(&str, &str)]) -> (tempfile::TempDir, Source) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        // A file always: one in the working directory must not decide a test.
        std::fs::write(&path, file.unwrap_or_default()).unwrap();
        let environment = environment
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        (
            directory,
            Source {
                file: Some(path),
                environment,
            },
        )
    }

    fn loaded(file: Option<&str>, environment: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
        let (_directory, source) = source(file, environment);
        load(&source)
    }

    fn check_error(file: &str, environment: &[(&str, &str)], message: &str, hint: Option<&str>) {
        let (directory, source) = source(Some(file), environment);
        let error = load(&source).unwrap_err();
        let shown = error.message.replace(&directory.path().display().to_string(), "DIR");
        assert_eq!((shown.as_str(), error.hint.as_deref()), (message, hint));
    }

    #[test]
    fn later_wins() {
        let file = "[deletes]\nmax_count = 7\nmin_count = 3\n[clerk]\nsecret_key = \"sk_test_file\"\n";
        let loaded = loaded(
            Some(file),
            &[
                ("CLERK2PG_DELETES__MAX_COUNT", "8"),
                ("CLERK2PG_CLERK__SECRET_KEY", "sk_test_variable"),
                ("CLERK_SECRET_KEY", "sk_test_familiar"),
                ("CLERK_WEBHOOK_SECRET", "whsec_x"),
                ("CLERK2PG_PORT", "tcp://10.0.0.1:9465"),
            ],
        )
        .unwrap();
        let settings = loaded.settings;
        assert_eq!((settings.deletes.max_count, settings.deletes.min_count), (8, 3));
        assert_eq!(settings.deletes.max_percent, 20.0);
        assert_eq!(settings.clerk.secret_key.expose(), "sk_test_familiar");
    }

    #[test]
    fn secrets_keep_every_character() {
        let loaded = loaded(
            None,
            &[("CLERK2PG_CLERK__SECRET_KEY", "00123"), ("DATABASE_URL", "1e5")],
        )
        .unwrap();
        assert_eq!(loaded.settings.clerk.secret_key.expose(), "00123");
        assert_eq!(loaded.settings.database.url.expose(), "1e5");
        assert!(!format!("{:?}", loaded.settings).contains("00123"));
    }

    #[test]
    fn secrets_out_of_files_and_credentials() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("key"), "sk_test_a\n").unwrap();
        std::fs::write(directory.path().join("DATABASE_URL"), "postgres://b").unwrap();
        let key = directory.path().join("key").display().to_string();
        let credentials = directory.path().display().to_string();
        let loaded = loaded(
            None,
            &[("CLERK_SECRET_KEY_FILE", &key), ("CREDENTIALS_DIRECTORY", &credentials)],
        )
        .unwrap();
        assert_eq!(loaded.settings.clerk.secret_key.expose(), "sk_test_a");
        assert_eq!(loaded.settings.database.url.expose(), "postgres://b");
    }

    #[test]
    fn a_misspelt_key_names_the_nearest() {
        check_error(
            "[schedule]\nfulll = \"\"\n",
            &[],
            "DIR/config.toml: there is no setting schedule.fulll",
            Some("did you mean schedule.full?"),
        );
        check_error(
            "",
            &[("CLERK2PG_DELETES__MAXCOUNT", "1")],
            "the environment: there is no setting CLERK2PG_DELETES__MAXCOUNT",
            Some("did you mean CLERK2PG_DELETES__MAX_COUNT?"),
        );
    }

    #[test]
    fn nonsense_says_what_is_expected() {
        check_error(
            "[deletes]\nmax_percent = 120\n",
            &[],
            "deletes.max_percent = 120 cannot be used (DIR/config.toml)",
            Some("expected a percentage from 0 to 100"),
        );
        check_error(
            "[schedule]\nfull = \"every hour\"\n",
            &[],
            "schedule.full = every hour cannot be used (DIR/config.toml)",
            Some("expected six fields, seconds first, in UTC: \"0 0 * * * *\" is every full hour; \"\" turns it off"),
        );
        check_error(
            "",
            &[("CLERK2PG_CLERK__REQUEST_BUDGET", "2")],
            "clerk.request_budget = 2 cannot be used (DIR/config.toml)",
            Some("expected a part above 0 and up to 1, for example 0.25"),
        );
    }

    #[test]
    fn a_number_or_duration_beyond_reason_names_its_range() {
        for (variable, values, says, expected) in [
            (
                "LEASE__TTL",
                &["0s", "999ms", "30d", "9000000000y"][..],
                "lease.ttl = ",
                "1s to 24h",
            ),
            (
                "CLERK__TIMEOUT",
                &["0s", "99ms", "61m", "1y"],
                "clerk.timeout = ",
                "100ms to 1h",
            ),
            (
                "EVENTS__KEEP",
                &["0s", "101y", "9000000000y"],
                "events.keep = ",
                "1s to 36500d",
            ),
            ("CLERK__CONCURRENCY", &["0", "65"], "clerk.concurrency = ", "1 to 64"),
            (
                "CLERK__REQUEST_BUDGET",
                &["0", "-1", "1.01", "NaN", "inf"],
                "clerk.request_budget = ",
                "above 0",
            ),
            (
                "DELETES__MAX_PERCENT",
                &["-0.1", "100.1", "NaN"],
                "deletes.max_percent = ",
                "0 to 100",
            ),
        ] {
            let variable = format!("CLERK2PG_{variable}");
            for value in values {
                let error = loaded(None, &[(&variable, value)]).unwrap_err();
                assert!(error.message.starts_with(says), "{value}: {error}");
                assert!(
                    error.hint.as_deref().is_some_and(|hint| hint.contains(expected)),
                    "{value}: {error:?}"
                );
            }
        }
        // Errors for values that the types refuse name the key, too.
        for (section, key, value) in [
            ("lease", "ttl", "-5s"),
            ("lease", "ttl", "99999999999999999999y"),
            ("deletes", "max_count", "-1"),
            ("clerk", "rate_limit", "-1"),
            ("clerk", "rate_limit", "4294967296"),
        ] {
            let variable = format!("CLERK2PG_{}__{}", section.to_uppercase(), key.to_uppercase());
            let error = loaded(None, &[(&variable, value)]).unwrap_err();
            let is_named = [variable, format!("{section}.{key}")]
                .iter()
                .any(|place| error.message.contains(place));
            assert!(is_named, "{value}: {error}");
        }
        for (variable, value) in [
            ("LEASE__TTL", "24h"),
            ("EVENTS__KEEP", "36500d"),
            ("CLERK__TIMEOUT", "1h"),
        ] {
            loaded(None, &[(&format!("CLERK2PG_{variable}"), value)]).unwrap();
        }
    }

    #[test]
    fn no_error_shows_a_secret() {
        for (file, environment) in [
            ("[clerk]\nsecret_key = [\"sk_test_hidden\"]\n", vec![]),
            ("[clerk]\nsecret_key = \"sk_test_hidden\nx = 1", vec![]),
            ("[clerk]\ntimeout = \"x\"\nsecret_key = \"sk_test_hidden\"\n", vec![]),
            ("", vec![("CLERK2PG_DATABASE__URLL", "postgres://u:hidden@h/d")]),
        ] {
            let error = loaded(Some(file), &environment).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hidden"), "{error:?}");
        }
    }

    #[test]
    fn a_wrong_type_names_its_place() {
        let error = loaded(None, &[("CLERK2PG_DATABASE__MIGRATE", "perhaps")]).unwrap_err();
        assert!(error.message.contains("CLERK2PG_DATABASE__MIGRATE"), "{error}");
        let error = loaded(Some("[deletes]\nmode = \"purge\"\n"), &[]).unwrap_err();
        assert!(
            error.message.contains("purge") && error.message.contains("mark"),
            "{error}"
        );
    }
}
