//! Checks what must hold for the body of any answer.
//!
//! A body is unpacked, split into users, hashed, decoded, compared, and put together again as
//! Postgres would, without network and database. Any bytes give users, rejected users or an error.

use std::collections::HashSet;

use clerk2pg::{
    clerk::{self, MAX_BODY, MAX_OBJECTS, Page, RawObject, ResponseBody},
    mirror::Rejected,
    reconcile::{
        ListEntry,
        diff::{Fetched, Known, compare},
        range::Range,
        recent::RecentWalk,
        walk::Walk,
    },
    resource::{
        Change, Digest, DigestKey, FieldKind, FieldValue, MAX_DOCUMENT, MAX_ID, MAX_PAGE, Record, USERS, decode,
        decode_stored, time,
    },
};
use serde_json::Value as Json;

/// Bytes of a reason. It is short, because it does not repeat the input.
const MAX_REASON: usize = 300;

/// Checks a body. Panics if something does not hold.
pub fn check_body(bytes: &[u8]) {
    if bytes.starts_with(b"\x1f\x8b")
        && let Ok(bytes) = clerk::unpack(bytes, "users")
    {
        assert!(bytes.len() <= MAX_BODY);
        read(&bytes);
    }
    read(bytes);
}

fn read(bytes: &[u8]) {
    let key = DigestKey::new(b"a key of thirty-two bytes, or so");
    let body = || ResponseBody {
        bytes: bytes.to_vec(),
        date: None,
    };
    for page in [Page::parse(&USERS, body(), &key), Page::single(&USERS, body(), &key)] {
        match page {
            Ok(page) => check_page(&page, &key),
            Err((_, why)) => assert!(why.len() < MAX_REASON, "{why}"),
        }
    }
}

fn check_page(page: &Page, key: &DigestKey) {
    assert!(page.objects().len() <= MAX_OBJECTS);
    for raw in page.objects() {
        check_user(page, raw, key);
    }
    let entries = page.objects().iter().map(|raw| ListEntry {
        id: id_of(raw),
        created_at: raw.created_at,
        updated_at: raw.updated_at,
    });
    let entries: Vec<_> = entries.collect();
    let _ = Walk::new().receive(&entries);
    let _ = RecentWalk::new(1_700_000_000_000, MAX_PAGE).receive(&entries);

    // Compared with a mirror that has this page, nothing changes.
    let mut seen = HashSet::new();
    let users: Vec<_> = page.objects().iter().filter(|raw| seen.insert(id_of(raw))).collect();
    let fetched: Vec<_> = users
        .iter()
        .map(|raw| Fetched {
            id: id_of(raw),
            digest: raw.digest,
        })
        .collect();
    let known = |raw: &&RawObject| Known {
        id: id_of(raw).to_owned(),
        created_at: raw.created_at.unwrap_or_default(),
        digest: raw.digest,
        deleted: false,
    };
    let known: Vec<_> = users.iter().map(known).collect();
    let comparison = compare(&fetched, &known, Some(Range::ALL), &HashSet::new());
    assert_eq!(comparison.unchanged, users.len() as u64);
    assert!(comparison.missing.is_empty());
}

fn id_of(raw: &RawObject) -> &str {
    raw.id.as_deref().unwrap_or("(no id)")
}

fn check_user(page: &Page, raw: &RawObject, key: &DigestKey) {
    let document = page.document(raw);
    assert_eq!(raw.digest, Digest::of(key, document.as_bytes()));
    assert!(!raw.is_mangled || document.contains(char::REPLACEMENT_CHARACTER));
    // A rejected document is kept as text.
    assert!(!Rejected::kept(document).contains('\0'));
    assert!(
        raw.id
            .as_ref()
            .is_none_or(|id| (1..=MAX_ID).contains(&id.len()) && !id.contains('\0'))
    );
    let user = match decode(&USERS, document) {
        Ok(user) => user,
        Err(rejection) => {
            assert!(rejection.reason.len() < MAX_REASON, "{rejection}");
            return;
        }
    };
    assert!(!user.id.is_empty());
    assert!(document.len() <= MAX_DOCUMENT);
    if let (Some(id), Some(created_at)) = (&raw.id, raw.created_at) {
        assert_eq!((id.as_str(), created_at), (user.id.as_ref(), user.created_at));
    }
    let stored = stored(&user);
    let again = decode_stored(&USERS, &stored).unwrap();
    assert_eq!((&again.id, again.created_at), (&user.id, user.created_at));
    // A value that is stored as its text derives nothing, or something else.
    if user.unexpected.is_empty() {
        assert_eq!(again.derived, user.derived);
    }
    assert!(
        user.storable
            .as_deref()
            .is_none_or(|document| !contains_escaped_nul(document))
    );
    for (old, new) in [(&user, &user), (&user, &again), (&again, &user)] {
        assert_eq!(old.change(new), Change::Refresh);
    }
    let kept = serde_json::from_str(&stored);
    assert!(kept.as_ref().is_ok_and(|kept| !contains_nul(kept)) || nests_too_deep(&stored));
    // This parser refuses half of a surrogate pair.
    if let (Ok(original), Ok(kept)) = (serde_json::from_str(document), kept) {
        assert_same(&original, &kept);
    }
    for derived in &user.derived {
        assert!(!matches!(derived, FieldValue::Text(text) if text.contains('\0')));
    }
}

/// The document, put together again from its columns.
fn stored(user: &Record<'_>) -> String {
    let mut pairs = Vec::new();
    for (field, value) in USERS.fields.iter().zip(&user.values) {
        let value = match value {
            FieldValue::Absent => continue,
            FieldValue::Null => "null".to_owned(),
            FieldValue::Text(text) => Json::from(text.as_ref()).to_string(),
            FieldValue::Bool(value) => value.to_string(),
            FieldValue::Int(number) | FieldValue::Time(number) => number.to_string(),
            FieldValue::Json(json) => (*json).to_owned(),
            // It is in `extra`.
            FieldValue::Unexpected(_) => continue,
        };
        pairs.push(format!("\"{}\":{value}", field.name));
    }
    let extra = user.extra_object();
    let extra = extra
        .as_deref()
        .and_then(|object| object.strip_prefix('{')?.strip_suffix('}'));
    pairs.extend(extra.map(str::to_owned));
    format!("{{{}}}", pairs.join(","))
}

/// Asserts that the kept document has the same keys and values as the original one.
///
/// Times and what `jsonb` cannot hold may differ.
fn assert_same(original: &Json, kept: &Json) {
    let (original, kept) = (original.as_object().unwrap(), kept.as_object().unwrap());
    let stored_key = |key: &String| key.replace('\0', r"\u0000");
    // Keys that differ only in how U+0000 is written become one.
    if original.len() != kept.len() {
        assert!(original.keys().any(|key| key.contains('\0')));
        return;
    }
    for (key, original) in original {
        let kept = &kept[&stored_key(key)];
        let kind = USERS
            .fields
            .iter()
            .find(|field| field.name == key)
            .map(|field| field.kind);
        let is_time = kind == Some(FieldKind::Time)
            && time(&original.to_string()).is_some_and(|time| kept.as_i64() == Some(time));
        let is_whole = kind == Some(FieldKind::Int) && kept.as_i64().is_some();
        let as_text = || kept.as_str().and_then(|text| serde_json::from_str::<Json>(text).ok());
        assert!(
            is_time || is_whole || original == kept || as_text().as_ref() == Some(original),
            "{key}: {original} beoriginal {kept}"
        );
    }
}

fn contains_escaped_nul(document: &str) -> bool {
    serde_json::from_str(document).is_ok_and(|document| contains_nul(&document))
}

/// Whether the document may be too deep for this parser, which reads 128 levels.
fn nests_too_deep(document: &str) -> bool {
    document.matches(['[', '{']).count() >= 128
}

fn contains_nul(json: &Json) -> bool {
    match json {
        Json::String(text) => text.contains('\0'),
        Json::Array(list) => list.iter().any(contains_nul),
        Json::Object(object) => object
            .iter()
            .any(|(key, value)| key.contains('\0') || contains_nul(value)),
        _ => false,
    }
}
