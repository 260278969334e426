//! Reads options from the environment.

use std::{env, error::Error, str::FromStr};

use anyhow::{Context, Result, bail};

/// Reads a number. The default if the variable is unset or empty.
pub fn number<T: FromStr>(name: &str, default: T) -> Result<T>
where
    T::Err: Error + Send + Sync + 'static,
{
    match variable(name) {
        Some(value) => value.parse().with_context(|| format!("{name}={value}")),
        None => Ok(default),
    }
}

/// Reads the stages in `BENCH_ONLY`, separated by commas. All if it is unset or empty.
pub fn stages<S: Copy, const N: usize>(known: &[(&str, S); N]) -> Result<Vec<S>> {
    let Some(only) = variable("BENCH_ONLY") else {
        return Ok(known.iter().map(|(_, stage)| *stage).collect());
    };
    only.split(',')
        .map(|name| match known.iter().find(|(known, _)| *known == name.trim()) {
            Some((_, stage)) => Ok(*stage),
            None => bail!(
                "BENCH_ONLY: there is no stage {name:?}, only {:?}",
                known.each_ref().map(|(known, _)| *known)
            ),
        })
        .collect()
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}
