//! Lists, counts, single reads and deletions, for any kind of object.

use rand::RngExt;
use serde_json::{Value, json};

use super::reply::Reply;
use super::request::ApiRequest;
use crate::clock::now;
use crate::errors::Failure;
use crate::faults::Quirks;
use crate::list::query::{Query, read_count};
use crate::list::resource::Resource;
use crate::list::select;
use crate::state::State;
use crate::store::canonical;
use crate::store::entry::Entry;

/// Answers with a single object, from the state at `as_of`.
pub(super) fn single(
    state: &State,
    resource: &Resource,
    id: &str,
    quirks: &Quirks,
    as_of: Option<i64>,
) -> Result<Reply, Failure> {
    let entry = state
        .read()
        .get_as_of(id, as_of)
        .ok_or_else(|| Failure::no_object(resource.object, id))?;
    let mut body = Vec::with_capacity(4096);
    write_document(&entry, quirks, now(), &mut body);
    Ok(Reply::json(body))
}

/// Answers with a page of a list.
pub(super) fn list(state: &State, resource: &'static Resource, request: &ApiRequest<'_>) -> Result<Reply, Failure> {
    let quirks = request.quirks;
    let mut query = Query::read(resource, request.query)?;
    query.apply_quirks(quirks);
    if let Some(max_page) = quirks.max_page {
        query.limit = query.limit.min(max_page.max(1));
    }
    if quirks.random_pages {
        query.limit = state.request_rng().random_range(1..=query.limit);
    }
    query.shuffle = quirks.shuffle.map(|shuffle| (shuffle, state.request_rng().random()));
    let (now, as_of) = (now(), request.lists_as_of());
    let (entries, total) = {
        let store = state.read();
        let total = quirks
            .wrapped_lists
            .then(|| select::count(&store, &query.filter, quirks, as_of));
        (select::page(&store, &query, quirks, as_of)?, total)
    };
    let mut body = Vec::with_capacity(entries.len() * 2560 + 64);
    if total.is_some() {
        body.extend_from_slice(b"{\"data\":");
    }
    body.push(b'[');
    for (index, entry) in entries.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        write_document(entry, quirks, now, &mut body);
    }
    body.push(b']');
    if let Some(total) = total {
        body.extend_from_slice(format!(",\"total_count\":{total}}}").as_bytes());
    }
    Ok(Reply::json(body))
}

/// Answers with a count.
pub(super) fn count(state: &State, resource: &'static Resource, request: &ApiRequest<'_>) -> Result<Reply, Failure> {
    let quirks = request.quirks;
    let mut filter = read_count(resource, request.query)?;
    filter.apply_quirks(quirks);
    let count = select::count(&state.read(), &filter, quirks, request.lists_as_of());
    Ok(Reply::value(&json!({"object": "total_count", "total_count": count})))
}

/// Deletes an object.
pub(super) fn delete(state: &State, resource: &Resource, id: &str) -> Result<Reply, Failure> {
    if !state.write().remove(id, now()) {
        return Err(Failure::no_object(resource.object, id));
    }
    Ok(Reply::value(
        &json!({"object": resource.object, "id": id, "deleted": true}),
    ))
}

fn write_document(entry: &Entry, quirks: &Quirks, now: i64, out: &mut Vec<u8>) {
    if quirks.times_in_seconds
        && let Some(mut value) = entry.value(now)
    {
        convert_to_seconds(&mut value);
        return out.extend_from_slice(&canonical::to_bytes(&value));
    }
    entry.write(now, out);
}

/// Converts Clerk's times, but not those that applications keep in metadata.
fn convert_to_seconds(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if let (true, Some(time)) = (key.ends_with("_at"), value.as_i64()) {
                    *value = (time / 1000).into();
                } else if !key.ends_with("_metadata") {
                    convert_to_seconds(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(convert_to_seconds),
        _ => {}
    }
}
