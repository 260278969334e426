//! Configurations that cannot be used.

use std::fmt;

use crate::failure::{Cause, Failure};

/// A configuration that cannot be used: what is wrong, where, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// What is wrong and where.
    pub message: String,
    /// What would be right.
    pub hint: Option<String>,
}

impl ConfigError {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
        }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ConfigError {}

impl From<ConfigError> for Failure {
    fn from(ConfigError { message, hint }: ConfigError) -> Self {
        Failure {
            cause: Cause::Configuration,
            message,
            hint,
        }
    }
}
