//! Options out of the environment.

use std::{env, error::Error, str::FromStr};

use anyhow::{Context, Result, bail};

/// A number; the default where the variable is not set, or empty.
pub fn number<T: FromStr>(name: &str, default: T) -> Result<T>
where
    T::Err: Error + Send + Sync + 'static,
{
    match variable(name) {
        Some(value) => value.parse().with_context(|| format!("{name}={value}")),
        None => Ok(default),
    }
}

/// The stages that `BENCH_ONLY` names, with commas; all where it is not set.
pub fn stages<S: Copy, const N: usize>(known: &[(&str, S); N]) -> Result<Vec<S>> {
    let Some(only) = variable("BENCH_ONLY") else {
        return Ok(known.iter().map(|(_, stage)| *stage).collect());
    };
    only.split(',')
        .map(|name| match known.iter().find(|(known, _)| *known == name.trim()) {
            Some((_, stage)) => Ok(*stage),
            None => bail!(
                "BENCH_ONLY: there is no stage {name:?}, but {:?}",
                known.each_ref().map(|(known, _)| *known)
            ),
        })
        .collect()
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}
