//! Moments at which many objects were created, and how they are read again.

use std::collections::HashSet;

use super::MAX_PAGE;
use crate::resource::{Digest, DigestKey};

/// A moment whose objects were on more than one page, or several at the end of one. A server that
/// breaks ties differently at each request may have let objects slip between the pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TiedMoment {
    /// `created_at` of its objects, in Unix milliseconds.
    pub at: i64,
    met: HashSet<Digest>,
}

impl TiedMoment {
    pub(super) fn new<'a>(at: i64, ids: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            at,
            met: ids.into_iter().map(id_digest).collect(),
        }
    }

    /// Notes one of its objects. Returns whether it is met for the first time.
    pub fn meet(&mut self, id: &str) -> bool {
        self.met.insert(id_digest(id))
    }

    /// Returns how many of its objects were met.
    pub fn met(&self) -> u64 {
        self.met.len() as u64
    }
}

/// Returns the digest by which an id is remembered.
pub(super) fn id_digest(id: &str) -> Digest {
    Digest::of(&DigestKey::default(), id.as_bytes())
}

/// Which pages of a tied moment are read again until as many objects are met as Clerk counts there.
/// Each reading shows others.
#[derive(Debug)]
pub struct TieRereads {
    count: u64,
    missing: u64,
    left: u64,
    offset: u64,
}

impl TieRereads {
    /// The rereads of a moment at which Clerk counts `count` objects.
    pub fn new(moment: &TiedMoment, count: u64) -> Self {
        let pages = count.div_ceil(MAX_PAGE.into());
        Self {
            count,
            missing: count.saturating_sub(moment.met()),
            // Each page shows every object with the same chance; after twelve rounds hardly any is
            // left.
            left: 12 * pages,
            offset: 0,
        }
    }

    /// Returns the offset of the next page; `None` if all objects are met, or enough was asked.
    pub fn next_offset(&mut self) -> Option<u64> {
        if self.missing == 0 || self.left == 0 {
            return None;
        }
        self.left -= 1;
        let offset = self.offset;
        self.offset += u64::from(MAX_PAGE);
        if self.offset >= self.count {
            self.offset = 0;
        }
        Some(offset)
    }

    /// Records that `objects` more of the moment were met.
    pub fn found(&mut self, objects: u64) {
        self.missing = self.missing.saturating_sub(objects);
    }
}
