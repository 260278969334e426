//! Keyed digests of documents, by which unchanged objects are recognized.

use std::ops::Range;

use highway::{HighwayHash, HighwayHasher, Key};

use super::exclusions::Exclusions;

/// The key of digests, a secret of the database that stores them: end users write parts of their
/// documents, and must not be able to make two documents with the same digest. All zeros as long as
/// there is no database.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct DigestKey([u64; 4]);

impl std::fmt::Debug for DigestKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

impl DigestKey {
    /// A key of 32 bytes. Missing bytes are zero.
    pub fn new(bytes: &[u8]) -> Self {
        let mut key = [0; 4];
        for (part, bytes) in key.iter_mut().zip(bytes.chunks(8)) {
            *part = bytes.iter().fold(0, |part, byte| part << 8 | u64::from(*byte));
        }
        Self(key)
    }

    /// The key for documents that are stored without some fields. It differs with the fields, so
    /// that a digest is never that of a document that was stored with other ones.
    #[must_use]
    pub fn without_fields(&self, excluded: &Exclusions) -> Self {
        if excluded.names().is_empty() {
            return *self;
        }
        let mut hasher = HighwayHasher::new(Key(self.0));
        for name in excluded.names() {
            hasher.append(name.as_bytes());
            hasher.append(b",");
        }
        Self(hasher.finalize256())
    }
}

/// A keyed hash (HighwayHash, 128 bits) of a document's bytes as received. Equal digests need no
/// comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 16]);

impl Digest {
    /// The digest of a document's bytes.
    pub fn of(key: &DigestKey, document: &[u8]) -> Self {
        Self::from_hash(HighwayHasher::new(Key(key.0)).hash128(document))
    }

    /// The digest of a document's bytes without those of a part.
    pub fn without(key: &DigestKey, document: &[u8], part: Range<usize>) -> Self {
        let mut hasher = HighwayHasher::new(Key(key.0));
        hasher.append(&document[..part.start]);
        hasher.append(&document[part.end..]);
        Self::from_hash(hasher.finalize128())
    }

    fn from_hash([low, high]: [u64; 2]) -> Self {
        Self((u128::from(high) << 64 | u128::from(low)).to_le_bytes())
    }
}
