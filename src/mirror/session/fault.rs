//! Why a statement failed.

use diesel::result::Error as Diesel;
use tokio_postgres::error::{DbError, Severity, SqlState};

use crate::mirror::sqlstate::is_connection_exception;

/// What conversions of values fail with.
pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A failed statement: the server's error, or why the server did not answer.
///
/// Diesel's own error drops the SQLSTATE, which decides everything: texts are in the server's
/// language, and may contain the application's data. Therefore Diesel's error carries this one, and
/// [`Fault::of`] extracts it.
#[derive(Debug, Clone, thiserror::Error)]
pub(in crate::mirror) enum Fault {
    /// The server refused the statement.
    #[error("{}", .0.message())]
    Refused(Box<DbError>),
    /// The connection was lost.
    #[error("{0}")]
    Lost(String),
}

impl Fault {
    /// Returns the fault that an error of a [`Session`](super::Session) carries.
    ///
    /// # Errors
    /// The error is one of Diesel's own.
    pub(in crate::mirror) fn of(error: Diesel) -> Result<Self, Diesel> {
        match error {
            Diesel::QueryBuilderError(fault) => match fault.downcast() {
                Ok(fault) => Ok(*fault),
                Err(other) => Err(Diesel::QueryBuilderError(other)),
            },
            other => Err(other),
        }
    }

    /// The server's code; `None` if the server did not answer.
    pub(in crate::mirror) fn sqlstate(&self) -> Option<&str> {
        match self {
            Fault::Refused(answer) => Some(answer.code().code()),
            Fault::Lost(_) => None,
        }
    }

    /// Whether the connection cannot be used any more.
    pub(in crate::mirror) fn ends_connection(&self) -> bool {
        let Fault::Refused(answer) = self else { return true };
        // A pooler that lost its server says so in class 08, and leaves out the untranslated
        // severity.
        matches!(answer.parsed_severity(), Some(Severity::Fatal | Severity::Panic))
            || answer.severity() == "FATAL"
            || is_connection_exception(answer.code().code())
    }

    /// Whether the server takes no writes.
    pub(in crate::mirror) fn is_read_only(&self) -> bool {
        matches!(self, Fault::Refused(answer) if *answer.code() == SqlState::READ_ONLY_SQL_TRANSACTION)
    }
}

impl From<Fault> for Diesel {
    fn from(fault: Fault) -> Self {
        Diesel::QueryBuilderError(Box::new(fault))
    }
}
