use super::*;

fn source(file: Option<&str>, environment: &[(&str, &str)]) -> (tempfile::TempDir, ConfigSource) {
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
        ConfigSource {
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

/// The shipped file, and the same with every setting in it uncommented. A setting's line begins with
/// `#` and a letter, a comment's with `#` and a space.
fn shipped_file() -> (&'static str, String) {
    let shipped = include_str!("../../../config.toml");
    let uncommented = shipped.lines().map(|line| match line.strip_prefix('#') {
        Some(setting) if setting.starts_with(|letter: char| letter.is_ascii_lowercase()) => setting,
        _ => line,
    });
    (shipped, uncommented.collect::<Vec<_>>().join("\n"))
}

#[test]
fn the_shipped_file_names_every_setting_with_its_default() {
    let (shipped, uncommented) = shipped_file();
    let keys = |text| flatten("", &parse(text, "config.toml").unwrap().cache);
    assert_eq!(keys(shipped), [""; 0], "it sets nothing");
    assert_eq!(keys(&uncommented), known_keys().unwrap());

    let found = loaded(Some(&uncommented), &[]).unwrap().settings;
    let default = Settings::default();
    let values = |settings: &Settings| serde_json::to_value(settings).unwrap();
    assert_eq!(values(&found), values(&default));
    // Serialized secrets are redacted.
    assert_eq!(found.clerk.secret_key, default.clerk.secret_key);
    assert_eq!(found.database.url, default.database.url);
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
fn lists_come_from_the_file_alone() {
    for (name, list) in [
        ("CLERK2PG_TABLES__0__NAME", "tables"),
        ("CLERK2PG_TABLES__NAME", "tables"),
        ("CLERK2PG_ENDPOINTS__0__SECRET", "endpoints"),
        ("CLERK2PG_Endpoints__URL", "endpoints"),
    ] {
        check_error(
            "",
            &[(name, "hidden")],
            &format!("the environment: {name} cannot be used: {list} is a list"),
            Some(&format!("write it as [[{list}]] in config.toml")),
        );
    }
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
