//! What one transaction does, as a value.

use super::{Mark, TableCounts, sqlstate::BLOCKED};
use crate::resource::{Digest, Record};

/// An object to write.
#[derive(Debug, Clone)]
pub struct Write<'a> {
    /// The decoded object.
    pub record: &'a Record<'a>,
    /// Names of the fields that changed; empty for a new object.
    pub changed: Vec<String>,
    /// Whether the row is marked as deleted although its object exists again.
    pub returns: bool,
    /// The digest of the document.
    pub digest: Digest,
    /// The document as received, in case Postgres refuses it.
    pub document: &'a str,
}

impl Write<'_> {
    /// Returns the object as rejected with this code.
    pub(super) fn rejected(&self, sqlstate: &str, reason: String) -> Rejected {
        Rejected {
            object_id: self.record.id.to_string(),
            reason,
            document: Some(Rejected::kept(self.document)),
            digest: Some(self.digest),
            created_at: Some(self.record.created_at),
            sqlstate: Some(sqlstate.to_owned()),
        }
    }
}

/// An object that cannot be stored, or a row that cannot be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Clerk's id, or a substitute if the document has none.
    pub object_id: String,
    /// The reason, as text.
    pub reason: String,
    /// The document as received, see [`Self::kept`]; `None` if the row cannot be deleted.
    pub document: Option<String>,
    /// The digest of the document.
    pub digest: Option<Digest>,
    /// `created_at` in Unix milliseconds, if it is readable.
    pub created_at: Option<i64>,
    /// The code that Postgres refused the row with; `None` if the document itself cannot be stored.
    pub sqlstate: Option<String>,
}

impl Rejected {
    /// Whether other rows or locks of the application are in the way, so that the object may be
    /// stored or deleted once they are gone.
    pub fn is_blocked(&self) -> bool {
        self.sqlstate.as_deref().is_some_and(|code| BLOCKED.contains(&code))
    }

    /// Returns the part of a document that is kept: its first 64 kB, cut between characters.
    /// U+0000, which neither JSON nor Postgres' text allows, is replaced.
    pub fn kept(document: &str) -> String {
        let kept = &document[..document.floor_char_boundary(64 << 10)];
        kept.replace('\0', "\u{FFFD}")
    }
}

/// What one transaction does. As a value, it can also be counted and printed.
#[derive(Debug, Default)]
pub struct Batch<'a> {
    /// Objects new to the mirror.
    pub create: Vec<Write<'a>>,
    /// Objects that changed.
    pub update: Vec<Write<'a>>,
    /// Rows to bring up to date although the object did not change.
    pub refresh: Vec<Write<'a>>,
    /// Rows to write without some fields. Those that are marked as deleted stay marked.
    pub erase: Vec<Write<'a>>,
    /// Objects of the page that are in sync.
    pub unchanged: u64,
    /// Objects that cannot be stored.
    pub reject: Vec<Rejected>,
    /// Ids to remove from the rejected objects, unless they are rejected again.
    pub unreject: Vec<String>,
    /// Ids that the walk did not meet.
    pub missing: Vec<String>,
    /// Ids that exist although they were missing.
    pub found: Vec<String>,
    /// How far the walk over its partition has come with this batch.
    pub checkpoint: Option<Mark>,
    /// Every object that was updated at Clerk before this moment, less the overlap, is in the mirror
    /// with this batch. In Unix milliseconds.
    pub watermark: Option<i64>,
}

impl Batch<'_> {
    /// Whether it writes rows of the resource's table.
    pub(super) fn writes_rows(&self) -> bool {
        !(self.create.is_empty() && self.update.is_empty() && self.refresh.is_empty() && self.erase.is_empty())
    }

    /// Whether applying it would change nothing but the progress of a walk.
    pub fn is_empty(&self) -> bool {
        self.create.is_empty()
            && self.update.is_empty()
            && self.refresh.is_empty()
            && self.erase.is_empty()
            && self.reject.is_empty()
            && self.unreject.is_empty()
            && self.missing.is_empty()
            && self.found.is_empty()
            && self.watermark.is_none()
            && self.checkpoint.as_ref().is_none_or(|mark| !mark.is_end)
    }
}

/// What a batch did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Objects new to the mirror, or back in it after they were marked as deleted.
    pub created: u64,
    /// Objects that changed.
    pub updated: u64,
    /// Rows updated although the object did not change.
    pub refreshed: u64,
    /// All objects that could not be stored, also those that Postgres refused.
    pub rejected: Vec<Rejected>,
    /// What it did with the rows of the application's tables.
    pub tables: TableCounts,
}
