//! Users that a mirror cannot store or read. They are made only on demand.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::generate::{self, Creation};
use crate::clock::now;
use crate::kind::Kind;
use crate::state::State;
use crate::store::canonical;
use crate::store::entry::Entry;

/// Why a user cannot be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unstorable {
    /// A document of 2,000 keys.
    ManyKeys,
    /// A document of five megabytes.
    Huge,
    /// A `created_at` that is a word.
    CreatedAtAsWord,
    /// A `created_at` later than any calendar allows.
    CreatedAtTooLate,
    /// No `created_at`.
    CreatedAtMissing,
    /// A `created_at` that is a list.
    CreatedAtAsList,
    /// Half of a surrogate pair in `created_at`: valid by the grammar of JSON, but not a text.
    LoneSurrogate,
    /// Bytes that are not UTF-8.
    InvalidUtf8,
    /// A list entry that is a string instead of an object.
    NotAnObject,
}

impl Unstorable {
    /// All kinds.
    pub const ALL: [Self; 9] = [
        Self::ManyKeys,
        Self::Huge,
        Self::CreatedAtAsWord,
        Self::CreatedAtTooLate,
        Self::CreatedAtMissing,
        Self::CreatedAtAsList,
        Self::LoneSurrogate,
        Self::InvalidUtf8,
        Self::NotAnObject,
    ];
}

/// Adds such a user, created now, and returns its id.
pub(crate) fn add(state: &State, kind: Unstorable) -> String {
    let now = now();
    let base = generate::user(state.options.seed, state.next_user(), Creation::Present { now });
    let bytes = bytes(&base, kind, now);
    let id = base.id.to_string();
    state
        .write()
        .of_mut(Kind::Users)
        .put(Entry::verbatim(&id, now, base.updated_at, bytes), now);
    id
}

fn bytes(base: &Entry, kind: Unstorable, now: i64) -> Vec<u8> {
    const MARK: &str = "clerk-sim-mark";
    let with = |change: &dyn Fn(&mut Value)| {
        let mut document = base.value(now).expect("a generated user is JSON");
        change(&mut document);
        canonical::to_bytes(&document)
    };
    // A JSON value cannot hold these bytes: they replace a mark in the written document.
    let replaced = |field: &str, by: &[u8]| {
        let bytes = with(&|user| user[field] = MARK.into());
        let at = bytes
            .windows(MARK.len())
            .position(|part| part == MARK.as_bytes())
            .unwrap_or_default();
        [&bytes[..at], by, &bytes[at + MARK.len()..]].concat()
    };
    match kind {
        Unstorable::ManyKeys => with(&|user| {
            for n in 0..2_000 {
                user[format!("key_{n}")] = n.into();
            }
        }),
        Unstorable::Huge => with(&|user| user["public_metadata"] = json!({"blob": "x".repeat(5 * 1024 * 1024)})),
        Unstorable::CreatedAtAsWord => with(&|user| user["created_at"] = "soon".into()),
        Unstorable::CreatedAtTooLate => with(&|user| user["created_at"] = i64::MAX.into()),
        Unstorable::CreatedAtMissing => with(&|user| {
            user.as_object_mut().map(|user| user.remove("created_at"));
        }),
        Unstorable::CreatedAtAsList => with(&|user| user["created_at"] = json!([user["created_at"]])),
        Unstorable::LoneSurrogate => replaced("created_at", br"half \ud83d emoji"),
        Unstorable::InvalidUtf8 => replaced("first_name", b"latin-1 \xe9\xff"),
        Unstorable::NotAnObject => serde_json::to_vec(&*base.id).expect("a string can be written to memory"),
    }
}
