//! Why a sync or a command failed, by what the caller does next.

use std::fmt;

use crate::{
    clerk,
    mirror::{self, in_message},
};

/// A failure: what failed, why, and what to do.
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
    /// Clerk is unavailable: wait for it.
    ClerkUnavailable,
    /// Postgres is unavailable: wait for it.
    PostgresUnavailable,
    /// Another clerk2pg is syncing: try again later.
    Busy,
    /// The sync was stopped by a signal.
    Stopped,
    /// The configuration cannot be used; nothing was tried yet.
    Configuration,
    /// A person must change something first: a key, a password, a schema or the configuration.
    NeedsPerson,
    /// Everything else.
    Other,
}

impl Failure {
    /// Creates a failure without a hint.
    pub fn new(cause: Cause, message: impl Into<String>) -> Self {
        Self {
            cause,
            message: in_message(&message.into()).into_owned(),
            hint: None,
        }
    }

    /// Whether the failure stops every kind of sync, not only the one that met it.
    pub fn stops_all_kinds(&self) -> bool {
        match self.cause {
            Cause::ClerkUnavailable | Cause::PostgresUnavailable | Cause::Busy | Cause::Stopped => true,
            Cause::Configuration | Cause::NeedsPerson | Cause::Other => false,
        }
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(in_message(&hint.into()).into_owned());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<clerk::Error> for Failure {
    fn from(error: clerk::Error) -> Self {
        let cause = match &error {
            clerk::Error::KeyRefused(_) => Cause::NeedsPerson,
            clerk::Error::Unavailable { .. } | clerk::Error::RateLimited { .. } | clerk::Error::Garbage(_) => {
                Cause::ClerkUnavailable
            }
            clerk::Error::NotFound(_) | clerk::Error::Refused(_) | clerk::Error::TooLarge { .. } => Cause::Other,
        };
        Failure::new(cause, error.to_string()).hint(error.hint())
    }
}

impl From<mirror::MirrorError> for Failure {
    fn from(error: mirror::MirrorError) -> Self {
        let cause = match &error {
            mirror::MirrorError::Unavailable(_) | mirror::MirrorError::ReadOnly(_) | mirror::MirrorError::Locked(_) => {
                Cause::PostgresUnavailable
            }
            mirror::MirrorError::Address { .. } => Cause::Configuration,
            mirror::MirrorError::Tls { .. }
            | mirror::MirrorError::Refused { .. }
            | mirror::MirrorError::Denied(_)
            | mirror::MirrorError::Schema(_) => Cause::NeedsPerson,
            mirror::MirrorError::LeaseLost => Cause::Busy,
            mirror::MirrorError::Database(_) => Cause::Other,
        };
        Failure::new(cause, error.to_string()).hint(error.hint())
    }
}
