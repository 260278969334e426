//! One object as the simulator keeps it: bytes ready to be served, and what the indexes need.

use std::ops::Range;
use std::sync::OnceLock;

use bytes::Bytes;
use serde_json::Value;

use super::canonical;
use super::properties::Properties;
use crate::oddity::Oddity;

/// A stored object. It never changes in place: a change makes a new entry, so that replicas that
/// lag can still show the old one.
pub(crate) struct Entry {
    pub(crate) id: Box<str>,
    /// In Unix milliseconds, as is `updated_at`.
    pub(crate) created_at: i64,
    pub(crate) updated_at: i64,
    pub(crate) oddity: Option<Oddity>,
    bytes: Bytes,
    lockout: Option<Box<Lockout>>,
    part: OnceLock<Box<[u8]>>,
}

/// A lock that ends by itself, and where its two properties are in the bytes.
struct Lockout {
    expires_at: i64,
    locked: Range<usize>,
    seconds: Range<usize>,
}

impl Entry {
    /// An entry that serves exactly these bytes.
    pub(crate) fn verbatim(id: &str, created_at: i64, updated_at: i64, bytes: impl Into<Bytes>) -> Self {
        Self {
            id: id.into(),
            created_at,
            updated_at,
            oddity: None,
            bytes: bytes.into(),
            lockout: None,
            part: OnceLock::new(),
        }
    }

    /// An entry that serves this document.
    ///
    /// With `lock_ends_at`, its `lockout_expires_in_seconds` counts down to that time.
    pub(crate) fn new(id: &str, document: &Value, lock_ends_at: Option<i64>) -> Self {
        let time = |key: &str| document.get(key).and_then(Value::as_i64);
        let created_at = time("created_at").unwrap_or(0);
        let updated_at = time("updated_at").unwrap_or(created_at);
        Self::verbatim(id, created_at, updated_at, canonical::to_bytes(document)).lock_until(lock_ends_at)
    }

    /// Notes how the document deviates from the specification.
    pub(crate) fn with_oddity(mut self, oddity: Option<Oddity>) -> Self {
        self.oddity = oddity;
        self
    }

    /// Lets `lockout_expires_in_seconds` count down to this time in Unix milliseconds.
    pub(crate) fn lock_until(mut self, ends_at: Option<i64>) -> Self {
        self.lockout = ends_at.and_then(|expires_at| {
            let start = self.bytes.as_ptr() as usize;
            let range = |part: &str| {
                let from = part.as_ptr() as usize - start;
                from..from + part.len()
            };
            let properties = Properties::read(&self.bytes)?;
            Some(Box::new(Lockout {
                expires_at,
                locked: range(properties.raw("locked")?),
                seconds: range(properties.raw("lockout_expires_in_seconds")?),
            }))
        });
        self
    }

    /// When the lock ends, in Unix milliseconds. `None` if no lock counts down.
    pub(crate) fn lock_ends_at(&self) -> Option<i64> {
        self.lockout.as_ref().map(|lockout| lockout.expires_at)
    }

    /// The bytes to read properties from. Only the countdown of a lock differs from what is served.
    pub(crate) fn stored(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes by which this object is a part of others, such as its user of a membership.
    ///
    /// They are made once, since making them from the document takes longer than all else in a
    /// list. An object must have one such form only.
    pub(crate) fn part(&self, make: impl FnOnce() -> Vec<u8>) -> &[u8] {
        self.part.get_or_init(|| make().into())
    }

    /// Appends the document as it is at the time `now`.
    ///
    /// `lockout_expires_in_seconds` is the seconds that remain (documented). An expired lock shows
    /// as `locked: false` with null seconds (a guess).
    pub(crate) fn write(&self, now: i64, out: &mut Vec<u8>) {
        let Some(lockout) = &self.lockout else {
            return out.extend_from_slice(&self.bytes);
        };
        let left = (lockout.expires_at - now + 999).div_euclid(1000);
        let (locked, seconds) = if left > 0 {
            ("true", left.to_string())
        } else {
            ("false", "null".to_owned())
        };
        let mut parts = [(&lockout.locked, locked), (&lockout.seconds, &*seconds)];
        parts.sort_by_key(|(range, _)| range.start);
        let mut done = 0;
        for (range, text) in parts {
            out.extend_from_slice(&self.bytes[done..range.start]);
            out.extend_from_slice(text.as_bytes());
            done = range.end;
        }
        out.extend_from_slice(&self.bytes[done..]);
    }

    /// The bytes of the document as it is at the time `now`.
    pub(crate) fn served(&self, now: i64) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes.len() + 8);
        self.write(now, &mut out);
        out
    }

    /// The document as it is at the time `now`. `None` if the bytes are not JSON.
    pub(crate) fn value(&self, now: i64) -> Option<Value> {
        serde_json::from_slice(&self.served(now)).ok()
    }
}
