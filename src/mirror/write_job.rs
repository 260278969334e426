//! An object to write, with what the write means.

use super::{batch::Write, upsert::WriteKind};

/// An object, and what the write means for its row.
#[derive(Clone, Copy)]
pub(super) struct WriteJob<'w> {
    pub(super) kind: WriteKind,
    pub(super) write: &'w Write<'w>,
}

impl WriteJob<'_> {
    /// Returns Clerk's id.
    pub(super) fn id(&self) -> &str {
        self.write.record.id.as_ref()
    }
}

impl PartialEq for WriteJob<'_> {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.write, other.write)
    }
}
