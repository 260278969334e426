//! What one transaction does, as a value.

use super::{Mark, sqlstate::BLOCKED};
use crate::resource::{Digest, User};

/// A user to be written.
#[derive(Debug, Clone)]
pub struct Write<'a> {
    /// Decoded.
    pub user: &'a User<'a>,
    /// Names of the fields that changed; empty for a new user.
    pub changed: Vec<String>,
    /// The row is marked as deleted, and its user is there again.
    pub returns: bool,
    /// Of the document.
    pub digest: Digest,
    /// As received, for the case that Postgres refuses it.
    pub document: &'a str,
}

impl Write<'_> {
    /// The user as one that Postgres refuses with this code.
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

/// A user that cannot be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Clerk's id, or what stands for it where the document has none.
    pub user_id: String,
    /// In words.
    pub reason: String,
    /// As received, see [`Self::kept`]; none where the row, not a document, is the trouble.
    pub document: Option<String>,
    /// Of the document.
    pub digest: Option<Digest>,
    /// Unix milliseconds, where there is a readable one.
    pub created_at: Option<i64>,
    /// The code that Postgres refused the row with; `None` if the document itself cannot be stored.
    pub sqlstate: Option<String>,
}

impl Rejected {
    /// Whether other users or locks of the application block it, so that it may be stored or deleted once they are gone.
    pub fn is_blocked(&self) -> bool {
        self.sqlstate.as_deref().is_some_and(|code| BLOCKED.contains(&code))
    }

    /// As much of a document as is kept: its first 64 kB, cut between characters. U+0000, which is no JSON and no text to Postgres, is
    /// replaced.
    pub fn kept(document: &str) -> String {
        let kept = &document[..document.floor_char_boundary(64 << 10)];
        kept.replace('\0', "\u{FFFD}")
    }
}

/// What one transaction does. A value: it can be counted and printed instead.
#[derive(Debug, Default)]
pub struct Batch<'a> {
    /// Users new to the mirror.
    pub create: Vec<Write<'a>>,
    /// Users that changed.
    pub update: Vec<Write<'a>>,
    /// Rows to be brought up to date although nobody changed the user.
    pub refresh: Vec<Write<'a>>,
    /// Users of the page that are in sync.
    pub unchanged: u64,
    /// Users that cannot be stored.
    pub reject: Vec<Rejected>,
    /// Ids that are listed as rejected, and go from the list unless they are rejected again.
    pub unreject: Vec<String>,
    /// Ids that the walk did not meet.
    pub missing: Vec<String>,
    /// Ids that turned out to exist after all.
    pub found: Vec<String>,
    /// Where the walk over its part of the list stands after this batch.
    pub checkpoint: Option<Mark>,
    /// Everybody who was updated at Clerk before this moment, less the overlap, is in the mirror with this batch. In Unix milliseconds.
    pub watermark: Option<i64>,
}

impl Batch<'_> {
    /// Whether it writes rows of `clerk.users`.
    pub(super) fn writes_users(&self) -> bool {
        !(self.create.is_empty() && self.update.is_empty() && self.refresh.is_empty())
    }

    /// Whether applying it would change anything but progress on the way.
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
    /// Users who changed.
    pub updated: u64,
    /// Rows updated although nobody changed the user.
    pub refreshed: u64,
    /// Everyone who could not be stored, those that Postgres refused among them.
    pub rejected: Vec<Rejected>,
}
