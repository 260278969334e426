//! The SQLSTATEs that decide what happens next.
//!
//! Codes decide, not messages: these are in the server's language, and may contain the
//! application's data. They are strings, because `clerk.rejected` stores them.

/// The row or table is locked, and `lock_timeout` has passed.
pub(super) const LOCK_NOT_AVAILABLE: &str = "55P03";

/// A statement was cancelled, as by `statement_timeout`.
pub(super) const QUERY_CANCELED: &str = "57014";

/// The role may not do this.
pub(super) const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// Another row has the unique value.
pub(super) const UNIQUE_VIOLATION: &str = "23505";

/// Another row is in the way of an exclusion constraint.
pub(super) const EXCLUSION_VIOLATION: &str = "23P01";

/// There is no such function.
pub(super) const UNDEFINED_FUNCTION: &str = "42883";

/// There is no such type, or another object.
pub(super) const UNDEFINED_OBJECT: &str = "42704";

/// There is no such table.
pub(super) const UNDEFINED_TABLE: &str = "42P01";

/// No row was written, and no error says why. clerk2pg itself records it for such a row.
pub(super) const NO_DATA: &str = "02000";

/// A function raised an exception with a message of its own.
pub(super) const RAISE_EXCEPTION: &str = "P0001";

/// Codes that are about other rows or locks, so that the row may be stored once these are gone.
pub(super) const BLOCKED: [&str; 3] = [UNIQUE_VIOLATION, EXCLUSION_VIOLATION, LOCK_NOT_AVAILABLE];

/// Classes and codes that are surely about the whole transaction or server, whatever the rows are.
const GLOBAL: [&str; 8] = [
    CONNECTION_EXCEPTION,
    "25",    // invalid_transaction_state
    "40",    // transaction_rollback
    "53",    // insufficient_resources
    "57",    // operator_intervention
    "58",    // system_error
    "55006", // object_in_use
    "55P02", // cant_change_runtime_param
];

/// The class of lost connections. A pooler that lost its server uses it, too.
const CONNECTION_EXCEPTION: &str = "08";

/// Whether a code is surely about the whole transaction or server, whatever the rows are.
///
/// Everything else may be one object's data in an expression, a constraint or a trigger of the
/// application: even "permission denied" and "out of range" of a system table. Functions of
/// extensions report a value that they do not accept as an internal error.
pub(super) fn is_global(code: &str) -> bool {
    GLOBAL.iter().any(|prefix| code.starts_with(prefix))
}

/// Whether a code says that the connection is lost.
pub(super) fn is_connection_exception(code: &str) -> bool {
    code.starts_with(CONNECTION_EXCEPTION)
}

/// Whether another row's value is in the way.
pub(super) fn is_conflict(code: &str) -> bool {
    [UNIQUE_VIOLATION, EXCLUSION_VIOLATION].contains(&code)
}
