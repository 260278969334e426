//! Changes a stored object in place.

use serde_json::{Map, Value};

use super::Store;
use super::entry::Entry;
use crate::clock::now;
use crate::errors::Failure;

/// Whether an edit moves `updated_at`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Touch {
    /// To now, unless the edit itself moves it.
    UpdatedAt,
    /// No.
    Nothing,
}

/// Changes a document. False if there is none with this id, or none that is JSON.
pub(crate) fn edit(store: &mut Store, id: &str, touch: Touch, change: impl FnOnce(&mut Value)) -> bool {
    let now = now();
    let Some(old) = store.get(id).cloned() else {
        return false;
    };
    let Some(mut document) = old.value(now) else {
        return false;
    };
    let lock = |document: &Value| {
        (
            document.get("locked").cloned(),
            document.get("lockout_expires_in_seconds").cloned(),
        )
    };
    let (updated_at, locked) = (document.get("updated_at").cloned(), lock(&document));
    change(&mut document);
    if touch == Touch::UpdatedAt
        && document.get("updated_at") == updated_at.as_ref()
        && let Some(user) = document.as_object_mut()
    {
        user.insert("updated_at".to_owned(), now.into());
    }
    let lock_ends_at = match lock(&document) {
        same if same == locked => old.lock_ends_at(),
        (Some(Value::Bool(true)), Some(Value::Number(seconds))) => seconds.as_i64().map(|seconds| now + seconds * 1000),
        _ => None,
    };
    let mut entry = Entry::new(id, &document, lock_ends_at).with_oddity(old.oddity);
    if document.get("created_at").and_then(Value::as_i64).is_none() {
        entry.created_at = old.created_at;
    }
    store.put(entry, now);
    true
}

/// Changes a document that must be an object. `missing` is the error if there is none with this id.
pub(crate) fn edit_object(
    store: &mut Store,
    id: &str,
    touch: Touch,
    missing: impl FnOnce() -> Failure,
    change: impl FnOnce(&mut Map<String, Value>),
) -> Result<(), Failure> {
    let entry = store.get(id).ok_or_else(missing)?;
    if !entry.value(0).is_some_and(|value| value.is_object()) {
        return Err(Failure::not_editable(id));
    }
    edit(store, id, touch, |document| {
        if let Some(object) = document.as_object_mut() {
            change(object);
        }
    });
    Ok(())
}
