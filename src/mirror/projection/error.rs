//! Why a table could not be read or written.

use crate::mirror::{MirrorError, write_failure::WriteFailure};

/// Why a table of the application could not be read or written as a whole.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// It is about this table: the application has locked it, or changed it since the sync began.
    /// Other tables, and the mirror, go on.
    #[error("{0}")]
    Unusable(MirrorError),
    /// It is about the database or the lease.
    #[error("{0}")]
    Whole(#[from] MirrorError),
}

impl From<WriteFailure> for TableError {
    fn from(failure: WriteFailure) -> Self {
        match failure {
            WriteFailure::OneRow(fault) | WriteFailure::TooLong(fault) => TableError::Unusable(fault.into()),
            WriteFailure::Whole(error) => TableError::Whole(error),
        }
    }
}

impl From<diesel::result::Error> for TableError {
    fn from(error: diesel::result::Error) -> Self {
        WriteFailure::from(error).into()
    }
}
