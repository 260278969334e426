//! The way of a body from Clerk, as far as it needs neither network nor database: unpacked, split into users, hashed, decoded, compared, and
//! put together again as Postgres would. Whatever the bytes are, they give users, rejected users or an error.

use std::collections::HashSet;

use clerk2pg::{
    clerk::{self, Body, MAX_BODY, MAX_USERS, Page, Raw},
    mirror::Rejected,
    reconcile::{
        diff::{Fetched, Known, compare},
        recent::{self, Recent},
        walk::{Entry, PAGE, Range, Walk},
    },
    resource::{
        Change, Digest, DigestKey, FieldKind, FieldValue, MAX_DOCUMENT, MAX_ID, Record, USERS, decode, decode_stored,
        time,
    },
};
use serde_json::Value as Json;

/// No reason repeats what was sent.
const LONGEST_REASON: usize = 300;

/// Takes a body along, and panics where anything is not as promised.
pub fn go(bytes: &[u8]) {
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
    let body = || Body {
        bytes: bytes.to_vec(),
        date: None,
    };
    for page in [Page::parse(body(), &key), Page::single(body(), &key)] {
        match page {
            Ok(page) => check(&page, &key),
            Err((_, why)) => assert!(why.len() < LONGEST_REASON, "{why}"),
        }
    }
}

fn check(page: &Page, key: &DigestKey) {
    assert!(page.users().len() <= MAX_USERS);
    for raw in page.users() {
        check_user(page, raw, key);
    }
    let list = page.users().iter().map(|raw| Entry {
        id: name(raw),
        created_at: raw.created_at,
        updated_at: raw.updated_at,
    });
    let _ = Walk::new().receive(&list.collect::<Vec<_>>());
    let changes = page.users().iter().map(|raw| recent::Entry {
        id: name(raw),
        updated_at: raw.updated_at,
    });
    let _ = Recent::new(1_700_000_000_000, PAGE).receive(&changes.collect::<Vec<_>>());

    // A mirror of the very page has nothing to do.
    let mut met = HashSet::new();
    let users: Vec<_> = page.users().iter().filter(|raw| met.insert(name(raw))).collect();
    let fetched: Vec<_> = users
        .iter()
        .map(|raw| Fetched {
            id: name(raw),
            digest: raw.digest,
        })
        .collect();
    let known = |raw: &&Raw| Known {
        id: name(raw).to_owned(),
        created_at: raw.created_at.unwrap_or_default(),
        digest: raw.digest,
        deleted: false,
    };
    let known: Vec<_> = users.iter().map(known).collect();
    let comparison = compare(&fetched, &known, Some(Range::ALL), &HashSet::new());
    assert_eq!(comparison.unchanged, users.len() as u64);
    assert!(comparison.missing.is_empty());
}

fn name(raw: &Raw) -> &str {
    raw.id.as_deref().unwrap_or("(no id)")
}

fn check_user(page: &Page, raw: &Raw, key: &DigestKey) {
    let document = page.document(raw);
    assert_eq!(raw.digest, Digest::of(key, document.as_bytes()));
    assert!(!raw.is_mangled || document.contains(char::REPLACEMENT_CHARACTER));
    // What is rejected is kept as text.
    assert!(!Rejected::kept(document).contains('\0'));
    assert!(
        raw.id
            .as_ref()
            .is_none_or(|id| (1..=MAX_ID).contains(&id.len()) && !id.contains('\0'))
    );
    let user = match decode(&USERS, document) {
        Ok(user) => user,
        Err(rejection) => {
            assert!(rejection.reason.len() < LONGEST_REASON, "{rejection}");
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
    // What had to be stored as its text derives nothing any more, or something else.
    if user.unexpected.is_empty() {
        assert_eq!(again.derived, user.derived);
    }
    assert!(
        user.storable
            .as_deref()
            .is_none_or(|document| !holds_escaped_nul(document))
    );
    for (old, new) in [(&user, &user), (&user, &again), (&again, &user)] {
        assert_eq!(old.change(new), Change::Refresh);
    }
    let kept = serde_json::from_str(&stored);
    assert!(kept.as_ref().is_ok_and(|kept| !holds_nul(kept)) || nests_too_deep(&stored));
    // Half of a surrogate pair is no text to this parser.
    if let (Ok(came), Ok(kept)) = (serde_json::from_str(document), kept) {
        assert_same(&came, &kept);
    }
    for derived in &user.derived {
        assert!(!matches!(derived, FieldValue::Text(text) if text.contains('\0')));
    }
}

/// The document as it is put together again from its columns.
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
            // Stands in `extra`.
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

/// Key for key, the kept document is the one that came, but for the times and for what no `jsonb` can hold.
fn assert_same(came: &Json, kept: &Json) {
    let (came, kept) = (came.as_object().unwrap(), kept.as_object().unwrap());
    let spelled = |key: &String| key.replace('\0', r"\u0000");
    // Keys that only differ in how U+0000 is written become one.
    if came.len() != kept.len() {
        assert!(came.keys().any(|key| key.contains('\0')));
        return;
    }
    for (key, came) in came {
        let kept = &kept[&spelled(key)];
        let kind = USERS
            .fields
            .iter()
            .find(|field| field.name == key)
            .map(|field| field.kind);
        let is_time =
            kind == Some(FieldKind::Time) && time(&came.to_string()).is_some_and(|time| kept.as_i64() == Some(time));
        let is_whole = kind == Some(FieldKind::Int) && kept.as_i64().is_some();
        let as_text = || kept.as_str().and_then(|text| serde_json::from_str::<Json>(text).ok());
        assert!(
            is_time || is_whole || came == kept || as_text().as_ref() == Some(came),
            "{key}: {came} became {kept}"
        );
    }
}

fn holds_escaped_nul(document: &str) -> bool {
    serde_json::from_str(document).is_ok_and(|document| holds_nul(&document))
}

/// Whether this parser may have given up, which goes 128 levels deep.
fn nests_too_deep(document: &str) -> bool {
    document.matches(['[', '{']).count() >= 128
}

fn holds_nul(json: &Json) -> bool {
    match json {
        Json::String(text) => text.contains('\0'),
        Json::Array(list) => list.iter().any(holds_nul),
        Json::Object(object) => object.iter().any(|(key, value)| key.contains('\0') || holds_nul(value)),
        _ => false,
    }
}
