//! A user to write, with its statement.

use super::{
    batch::Write,
    session::Fault,
    upsert::{UPSERT, UpsertStatement},
};

/// A user, and the statement that writes it.
#[derive(Clone, Copy)]
pub(super) struct WriteJob<'w> {
    pub(super) statement: &'static UpsertStatement,
    pub(super) write: &'w Write<'w>,
}

/// A user that another user's value blocks.
pub(super) struct Blocked<'w> {
    pub(super) job: WriteJob<'w>,
    pub(super) fault: Fault,
}

impl WriteJob<'_> {
    /// Whether the user changes, or is only brought up to date.
    pub(super) fn is_change(&self) -> bool {
        std::ptr::eq(self.statement, &raw const *UPSERT)
    }

    /// Returns Clerk's id.
    pub(super) fn id(&self) -> &str {
        self.write.user.id.as_ref()
    }
}
