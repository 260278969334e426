//! Checks of settings that their types cannot make: ranges, schedules and addresses.

use std::{fmt::Display, path::Path, time::Duration};

use super::{
    error::ConfigError,
    exclusions::validate_exclusions,
    settings::{ClerkSettings, ScheduleSettings, Settings},
};
use crate::{
    mirror::{Mirror, is_schema_name},
    resource::{RESOURCES, USERS},
    schedule,
    secret::without_secrets,
};

/// Checks all settings. `file` is the configuration file, which errors name.
///
/// # Errors
/// The first setting that cannot be used.
pub(super) fn validate(settings: &Settings, file: Option<&Path>) -> Result<(), ConfigError> {
    let Settings {
        clerk,
        schedule: schedules,
        deletes,
        database,
        http,
        ..
    } = settings;
    let wrong = |key: &str, value: &dyn Display, expected: &str| {
        let place = file.map_or_else(String::new, |file| format!(" ({})", file.display()));
        // The value may be a key or an address of the database that was meant for another setting.
        let value = without_secrets(&value.to_string());
        ConfigError::new(format!("{key} = {value} cannot be used{place}")).hint(format!("expected {expected}"))
    };
    validate_clerk(clerk, &wrong)?;
    if !(0.0..=100.0).contains(&deletes.max_percent) {
        return Err(wrong(
            "deletes.max_percent",
            &deletes.max_percent,
            "a percentage from 0 to 100",
        ));
    }
    validate_resources(&settings.mirror.resources, &wrong)?;
    validate_exclusions(&settings.mirror.exclude, &wrong)?;
    validate_durations(settings, &wrong)?;
    if !is_schema_name(&database.schema) {
        return Err(wrong(
            "database.schema",
            &database.schema,
            "up to 30 lowercase letters, digits and underscores, for example clerk_dev; neither public nor pg_…",
        ));
    }
    if !(2..=Mirror::MOST_CONNECTIONS).contains(&database.max_connections) {
        let expected = format!("2 to {}", Mirror::MOST_CONNECTIONS);
        return Err(wrong("database.max_connections", &database.max_connections, &expected));
    }
    if let Err(expected) = http.address() {
        return Err(wrong("http.listen", &http.listen, expected));
    }
    validate_schedules(schedules, &wrong)
}

/// Checks the names of resources.
fn validate_resources(
    names: &[String],
    wrong: &impl Fn(&str, &dyn Display, &str) -> ConfigError,
) -> Result<(), ConfigError> {
    let known = || RESOURCES.iter().map(|resource| resource.name);
    let unknown = names.iter().find(|name| !known().any(|known| known == **name));
    let expected = || {
        format!(
            "\"users\", and any of {}",
            known().skip(1).collect::<Vec<_>>().join(", ")
        )
    };
    if let Some(name) = unknown {
        return Err(wrong("mirror.resources", name, &expected()));
    }
    if !names.iter().any(|name| name == USERS.name) {
        return Err(wrong("mirror.resources", &names.join(", "), &expected()));
    }
    Ok(())
}

/// Checks the section `clerk`, without its durations.
fn validate_clerk(
    clerk: &ClerkSettings,
    wrong: &impl Fn(&str, &dyn Display, &str) -> ConfigError,
) -> Result<(), ConfigError> {
    if !(clerk.request_budget > 0.0 && clerk.request_budget <= 1.0) {
        return Err(wrong(
            "clerk.request_budget",
            &clerk.request_budget,
            "a part above 0 and up to 1, for example 0.25",
        ));
    }
    if !(1..=64).contains(&clerk.concurrency) {
        return Err(wrong("clerk.concurrency", &clerk.concurrency, "a number from 1 to 64"));
    }
    let url = &clerk.api_url;
    let host = url.strip_prefix("https://").or(url.strip_prefix("http://"));
    if host.is_none_or(|host| host.contains('@')) {
        return Err(wrong(
            "clerk.api_url",
            url,
            "an address that begins with https://, without user and password: the key takes their place",
        ));
    }
    Ok(())
}

/// Checks the cron expressions.
fn validate_schedules(
    schedules: &ScheduleSettings,
    wrong: &impl Fn(&str, &dyn Display, &str) -> ConfigError,
) -> Result<(), ConfigError> {
    for (key, expression) in [
        ("schedule.full", &schedules.full),
        ("schedule.incremental", &schedules.incremental),
    ] {
        if !expression.is_empty() && !schedule::is_valid(expression) {
            return Err(wrong(
                key,
                expression,
                "six fields, seconds first, in UTC: \"0 0 * * * *\" is every full hour; \"\" turns it off",
            ));
        }
    }
    Ok(())
}

/// Checks the ranges of durations.
fn validate_durations(
    settings: &Settings,
    wrong: &impl Fn(&str, &dyn Display, &str) -> ConfigError,
) -> Result<(), ConfigError> {
    // Postgres counts in milliseconds of 32 bits, and in microseconds since the year 2000.
    for (key, span, range, expected) in [
        (
            "clerk.timeout",
            settings.clerk.timeout.0,
            Duration::from_millis(100)..=Duration::from_hours(1),
            "a duration from 100ms to 1h",
        ),
        (
            "lease.ttl",
            settings.lease.ttl.0,
            Duration::from_secs(1)..=Duration::from_hours(24),
            "a duration from 1s to 24h",
        ),
        (
            "events.keep",
            settings.events.keep.0,
            Duration::from_secs(1)..=Duration::from_hours(24 * 36_500),
            "a duration from 1s to 36500d",
        ),
    ] {
        if !range.contains(&span) {
            return Err(wrong(key, &humantime::format_duration(span), expected));
        }
    }
    Ok(())
}
