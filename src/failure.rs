//! Why a sync or a command failed, by what happens next.

use std::fmt;

use crate::{clerk, config::ConfigError, mirror};

/// A failure with what a person needs: what failed, why, and what to do.
#[derive(Debug)]
pub struct Failure {
    /// What the caller does about it.
    pub cause: Cause,
    /// What failed and why.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

/// What a caller does about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Clerk is away: wait for it.
    ClerkAway,
    /// Postgres is away: wait for it.
    PostgresAway,
    /// Another clerk2pg is at work: try again later.
    Busy,
    /// The sync was told to stop.
    Stopped,
    /// The configuration cannot be used as it stands; nothing was tried yet.
    Configuration,
    /// A person has to change something first: a key, a password, a schema, the configuration.
    NeedsPerson,
    /// Everything else.
    Other,
}

impl Failure {
    /// A failure without a hint.
    pub fn new(cause: Cause, message: impl Into<String>) -> Self {
        Self {
            cause,
            message: message.into(),
            hint: None,
        }
    }

    /// Whether every kind of sync has to wait for its end.
    pub fn is_of_all(&self) -> bool {
        match self.cause {
            Cause::ClerkAway | Cause::PostgresAway | Cause::Busy | Cause::Stopped => true,
            Cause::Configuration | Cause::NeedsPerson | Cause::Other => false,
        }
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<ConfigError> for Failure {
    fn from(ConfigError { message, hint }: ConfigError) -> Self {
        Failure {
            cause: Cause::Configuration,
            message,
            hint,
        }
    }
}

impl From<clerk::Error> for Failure {
    fn from(error: clerk::Error) -> Self {
        let cause = match &error {
            clerk::Error::KeyRefused(_) => Cause::NeedsPerson,
            clerk::Error::Unavailable { .. } | clerk::Error::RateLimited { .. } | clerk::Error::Garbage(_) => {
                Cause::ClerkAway
            }
            clerk::Error::NotFound(_) | clerk::Error::Refused(_) | clerk::Error::TooLarge { .. } => Cause::Other,
        };
        Failure::new(cause, error.to_string()).hint(error.hint())
    }
}

impl From<mirror::Error> for Failure {
    fn from(error: mirror::Error) -> Self {
        let cause = match &error {
            mirror::Error::Unavailable(_) | mirror::Error::ReadOnly(_) | mirror::Error::Locked(_) => {
                Cause::PostgresAway
            }
            mirror::Error::Address { .. } => Cause::Configuration,
            mirror::Error::Tls { .. }
            | mirror::Error::Refused { .. }
            | mirror::Error::Denied(_)
            | mirror::Error::Schema(_) => Cause::NeedsPerson,
            mirror::Error::LeaseLost => Cause::Busy,
            mirror::Error::Database(_) => Cause::Other,
        };
        Failure::new(cause, error.to_string()).hint(error.hint())
    }
}
