//! An object to write, with what the write means.

use super::{batch::Write, session::Fault, upsert::WriteKind};

/// An object, and what the write means for its row.
#[derive(Clone, Copy)]
pub(super) struct WriteJob<'w> {
    pub(super) kind: WriteKind,
    pub(super) write: &'w Write<'w>,
}

/// An object that another row's value blocks.
pub(super) struct Blocked<'w> {
    pub(super) job: WriteJob<'w>,
    pub(super) fault: Fault,
}

impl WriteJob<'_> {
    /// Returns Clerk's id.
    pub(super) fn id(&self) -> &str {
        self.write.record.id.as_ref()
    }
}
