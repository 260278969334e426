//! The result of a check.

use serde::Serialize;

use crate::{failure::Failure, mirror::in_message};

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was checked, in a word.
    pub name: &'static str,
    /// Whether it works.
    pub status: CheckStatus,
    /// What was found.
    pub message: String,
    /// What to do; `None` if nothing has to be done.
    pub hint: Option<String>,
}

/// Whether what was checked works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckStatus {
    /// It works.
    Ok,
    /// It works, but a person should look at it.
    Warn,
    /// It does not work.
    Failed,
    /// It could not be checked.
    Skipped,
}

impl Finding {
    pub(super) fn new(name: &'static str, status: CheckStatus, message: impl Into<String>) -> Self {
        Self {
            name,
            status,
            message: in_message(&message.into()).into_owned(),
            hint: None,
        }
    }

    pub(super) fn ok(name: &'static str, message: impl Into<String>) -> Self {
        Self::new(name, CheckStatus::Ok, message)
    }

    pub(super) fn warn(name: &'static str, message: impl Into<String>) -> Self {
        Self::new(name, CheckStatus::Warn, message)
    }

    pub(super) fn failed(name: &'static str, message: impl Into<String>) -> Self {
        Self::new(name, CheckStatus::Failed, message)
    }

    pub(super) fn skipped(name: &'static str, why: impl Into<String>) -> Self {
        Self::new(name, CheckStatus::Skipped, why)
    }

    /// A failed check, with the message and the hint of a failure.
    pub(super) fn of(name: &'static str, failure: &Failure) -> Self {
        Self {
            hint: failure.hint.clone(),
            ..Self::failed(name, &failure.message)
        }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(in_message(&hint.into()).into_owned()),
            ..self
        }
    }
}
