//! What one transaction does, as a value.

use super::{Mark, sqlstate::BLOCKED};
use crate::resource::{Digest, Record};

/// A user to write.
#[derive(Debug, Clone)]
pub struct Write<'a> {
    /// The decoded user.
    pub user: &'a Record<'a>,
    /// Names of the fields that changed; empty for a new user.
    pub changed: Vec<String>,
    /// Whether the row is marked as deleted although its user exists again.
    pub returns: bool,
    /// The digest of the document.
    pub digest: Digest,
    /// The document as received, in case Postgres refuses it.
    pub document: &'a str,
}

impl Write<'_> {
    /// Returns the user as rejected with this code.
    pub(super) fn rejected(&self, sqlstate: &str, reason: String) -> Rejected {
        Rejected {
            user_id: self.user.id.to_string(),
            reason,
            document: Some(Rejected::kept(self.document)),
            digest: Some(self.digest),
            created_at: Some(self.user.created_at),
            sqlstate: Some(sqlstate.to_owned()),
        }
    }
}

/// A user that cannot be stored, or a row that cannot be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Clerk's id, or a substitute if the document has none.
    pub user_id: String,
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
    /// Whether other users or locks of the application are in the way, so that the user may be
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
    /// Users new to the mirror.
    pub create: Vec<Write<'a>>,
    /// Users that changed.
    pub update: Vec<Write<'a>>,
    /// Rows to bring up to date although the user did not change.
    pub refresh: Vec<Write<'a>>,
    /// Users of the page that are in sync.
    pub unchanged: u64,
    /// Users that cannot be stored.
    pub reject: Vec<Rejected>,
    /// Ids to remove from the rejected users, unless they are rejected again.
    pub unreject: Vec<String>,
    /// Ids that the walk did not meet.
    pub missing: Vec<String>,
    /// Ids that exist although they were missing.
    pub found: Vec<String>,
    /// How far the walk over its partition has come with this batch.
    pub checkpoint: Option<Mark>,
    /// Every user that was updated at Clerk before this moment, less the overlap, is in the mirror
    /// with this batch. In Unix milliseconds.
    pub watermark: Option<i64>,
}

impl Batch<'_> {
    /// Whether it writes rows of `clerk.users`.
    pub(super) fn writes_users(&self) -> bool {
        !(self.create.is_empty() && self.update.is_empty() && self.refresh.is_empty())
    }

    /// Whether applying it would change nothing but the progress of a walk.
    pub fn is_empty(&self) -> bool {
        self.create.is_empty()
            && self.update.is_empty()
            && self.refresh.is_empty()
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
    /// Users new to the mirror, or back in it after they were marked as deleted.
    pub created: u64,
    /// Users that changed.
    pub updated: u64,
    /// Rows updated although the user did not change.
    pub refreshed: u64,
    /// All users that could not be stored, also those that Postgres refused.
    pub rejected: Vec<Rejected>,
}
