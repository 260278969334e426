//! Why a writing transaction failed, by what its caller does next.

use diesel::result::Error as Diesel;

use super::{
    error::MirrorError,
    session::Fault,
    sqlstate::{LOCK_NOT_AVAILABLE, QUERY_CANCELED, is_global},
};

/// Why an attempt failed.
pub(super) enum WriteFailure {
    /// One row may be the cause.
    OneRow(Fault),
    /// A statement reached its time limit, or waited too long for a lock.
    TooLong(Fault),
    /// The whole transaction fails, whatever the rows are.
    Whole(MirrorError),
}

impl WriteFailure {
    pub(super) fn into_error(self) -> MirrorError {
        match self {
            WriteFailure::OneRow(fault) | WriteFailure::TooLong(fault) => fault.into(),
            WriteFailure::Whole(error) => error,
        }
    }
}

impl From<Fault> for WriteFailure {
    fn from(fault: Fault) -> Self {
        match fault.sqlstate() {
            Some(QUERY_CANCELED | LOCK_NOT_AVAILABLE) => WriteFailure::TooLong(fault),
            Some(code) if !fault.ends_connection() && !is_global(code) => WriteFailure::OneRow(fault),
            _ => WriteFailure::Whole(fault.into()),
        }
    }
}

impl From<Diesel> for WriteFailure {
    fn from(error: Diesel) -> Self {
        match Fault::of(error) {
            Ok(fault) => fault.into(),
            Err(other) => WriteFailure::Whole(other.into()),
        }
    }
}

impl From<MirrorError> for WriteFailure {
    fn from(error: MirrorError) -> Self {
        WriteFailure::Whole(error)
    }
}
