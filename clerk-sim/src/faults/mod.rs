//! Faults on demand: what can go wrong between Clerk and a client.
//!
//! There are two kinds. [`Quirks`] change what the answers say (a server that ignores cursors, a
//! count that is wrong). [`Rule`]s happen to requests (an error, a stall, a dropped connection):
//! they choose requests by endpoint, can let some pass first, can end by themselves, and can carry
//! quirks for just those requests.

mod quirks;
mod rules;

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

pub use self::quirks::{DeletedCursor, OrganizationsOff, Quirks, Replicas, Shuffle, WrongCount};
pub use self::rules::{Effect, Endpoint, ErrorAnswer, ErrorBody, Rule};

/// All faults of a simulator. The default has none. Its JSON is the body of `PUT /_sim/faults`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// How all answers differ.
    pub quirks: Quirks,
    /// What happens to some requests. Rules are tried in this order, up to the first that replaces
    /// or breaks the answer.
    pub rules: Vec<Rule>,
}

impl From<Quirks> for Faults {
    fn from(quirks: Quirks) -> Self {
        Self {
            quirks,
            rules: Vec::new(),
        }
    }
}

impl From<Rule> for Faults {
    fn from(rule: Rule) -> Self {
        Self {
            quirks: Quirks::default(),
            rules: vec![rule],
        }
    }
}

/// The faults of one request.
pub(crate) struct Injected {
    pub(crate) quirks: Quirks,
    pub(crate) latency_ms: u64,
    /// The lag of the replica that answers, in milliseconds. 0 if the primary answers.
    pub(crate) lag_ms: u64,
    /// Never `LatencyMs` or `Quirks`.
    pub(crate) effect: Option<Effect>,
}

impl Faults {
    /// Says what is wrong with faults that cannot work.
    pub(crate) fn check(&self) -> Result<(), String> {
        if let Some(replicas) = &self.quirks.replicas {
            replicas.check("quirks")?;
        }
        for (index, rule) in self.rules.iter().enumerate() {
            if let Effect::Quirks(quirks) = &rule.effect
                && let Some(replicas) = &quirks.replicas
            {
                replicas.check(&format!("rules[{index}].effect.quirks"))?;
            }
            if !(0.0..=1.0).contains(&rule.probability) {
                return Err(format!(
                    "rules[{index}].probability is {}, but must be from 0 to 1",
                    rule.probability
                ));
            }
            if let Effect::Error(error) = &rule.effect
                && !(400..=599).contains(&error.status)
            {
                return Err(format!(
                    "rules[{index}].effect.error.status is {}, but must be from 400 to 599",
                    error.status
                ));
            }
        }
        Ok(())
    }

    /// Chooses the faults of one request, and counts the request against the rules.
    pub(crate) fn inject(&mut self, endpoint: Option<Endpoint>, path: &str, rng: &mut impl Rng) -> Injected {
        let mut injected = Injected {
            quirks: self.quirks.clone(),
            latency_ms: 0,
            lag_ms: 0,
            effect: None,
        };
        for rule in &mut self.rules {
            if !rule.fires(endpoint, path, rng) {
                continue;
            }
            match &rule.effect {
                Effect::LatencyMs(ms) => injected.latency_ms += ms,
                Effect::Quirks(quirks) => injected.quirks.merge(quirks),
                other => {
                    injected.effect = Some(other.clone());
                    break;
                }
            }
        }
        let is_read = endpoint.is_some_and(|endpoint| !matches!(endpoint, Endpoint::Instance | Endpoint::Write));
        if let Some(Replicas { lag_ms, share }) = injected.quirks.replicas
            && is_read
            && rng.random::<f64>() < share
        {
            injected.lag_ms = lag_ms;
        }
        injected
    }
}
