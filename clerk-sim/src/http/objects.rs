//! Lists, counts, single reads and deletions, for any kind of object.

use std::sync::Arc;

use rand::RngExt;
use serde_json::{Value, json};

use super::reply::Reply;
use super::request::ApiRequest;
use crate::clock::now;
use crate::errors::Failure;
use crate::faults::Quirks;
use crate::list::filter::Lookup;
use crate::list::query::{Query, read_count};
use crate::list::rendering::{Include, Rendering};
use crate::list::resource::{ListForm, Resource};
use crate::list::select;
use crate::state::State;
use crate::store::canonical;
use crate::store::entry::Entry;

/// Answers with a single object.
pub(super) fn single(
    state: &State,
    resource: &'static Resource,
    id: &str,
    request: &ApiRequest<'_>,
) -> Result<Reply, Failure> {
    if request.quirks.not_found_by_id.iter().any(|hidden| hidden == id) {
        return Err(Failure::no_object(resource.object, id));
    }
    single_as_of(state, resource, id, request, request.single_read_as_of())
}

/// Answers with a single object, from the state at `as_of`, in Unix milliseconds. `None` is the
/// present.
pub(super) fn single_as_of(
    state: &State,
    resource: &'static Resource,
    id: &str,
    request: &ApiRequest<'_>,
    as_of: Option<i64>,
) -> Result<Reply, Failure> {
    let stores = state.read();
    let view = stores.at(as_of);
    let entry = view.of(resource.kind).get(id);
    let entry = entry.ok_or_else(|| Failure::no_object(resource.object, id))?;
    let rendering = Rendering::new(&view, now(), Include::read(request.query)?);
    let mut body = Vec::with_capacity(4096);
    write_document(resource, entry, &rendering, request.quirks, &mut body);
    Ok(Reply::json(body))
}

/// Answers with an object that may be deleted already.
pub(super) fn shown(
    state: &State,
    resource: &Resource,
    entry: &Entry,
    request: &ApiRequest<'_>,
) -> Result<Reply, Failure> {
    let stores = state.read();
    let view = stores.at(None);
    let rendering = Rendering::new(&view, now(), Include::read(request.query)?);
    let mut body = Vec::new();
    write_document(resource, entry, &rendering, request.quirks, &mut body);
    Ok(Reply::json(body))
}

/// Answers with these objects, as a list does.
pub(super) fn many(
    state: &State,
    resource: &'static Resource,
    ids: &[String],
    request: &ApiRequest<'_>,
) -> Result<Reply, Failure> {
    let stores = state.read();
    let view = stores.at(None);
    let rendering = Rendering::new(&view, now(), Include::read(request.query)?);
    let found = ids.iter().filter_map(|id| view.of(resource.kind).get(id).cloned());
    let total = Some(ids.len() as u64);
    let body = write_list(resource, &found.collect::<Vec<_>>(), total, &rendering, request.quirks);
    Ok(Reply::json(body))
}

/// Answers with a page of a list. The path may add to its filters.
pub(super) fn list(
    state: &State,
    resource: &'static Resource,
    request: &ApiRequest<'_>,
    lookups: Vec<Lookup>,
) -> Result<Reply, Failure> {
    let quirks = request.quirks;
    let mut query = Query::read(resource, request.query)?;
    query.filter.lookups.extend(lookups);
    query.apply_quirks(quirks);
    if let Some(max_page) = quirks.max_page {
        query.limit = query.limit.min(max_page.max(1));
    }
    if quirks.random_pages {
        query.limit = state.request_rng().random_range(1..=query.limit);
    }
    query.shuffle = quirks.shuffle.map(|shuffle| (shuffle, state.request_rng().random()));
    let include = Include::read(request.query)?;
    let stores = state.read();
    let view = stores.at(request.lists_as_of());
    let has_total = resource.form == ListForm::WithTotal || quirks.wrapped_lists;
    let total = has_total.then(|| select::count(&view, &query.filter, quirks));
    let entries = select::page(&view, &query, quirks)?;
    let rendering = Rendering::new(&view, now(), include);
    Ok(Reply::json(write_list(resource, &entries, total, &rendering, quirks)))
}

/// Writes a list. It is an object with the total if that is given.
fn write_list(
    resource: &Resource,
    entries: &[Arc<Entry>],
    total: Option<u64>,
    rendering: &Rendering<'_>,
    quirks: &Quirks,
) -> Vec<u8> {
    let mut body = Vec::with_capacity(entries.len() * 2560 + 64);
    if total.is_some() {
        body.extend_from_slice(b"{\"data\":");
    }
    body.push(b'[');
    for (index, entry) in entries.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        write_document(resource, entry, rendering, quirks, &mut body);
    }
    body.push(b']');
    if let Some(total) = total {
        body.extend_from_slice(format!(",\"total_count\":{total}}}").as_bytes());
    }
    body
}

/// Answers with a count.
pub(super) fn count(state: &State, resource: &'static Resource, request: &ApiRequest<'_>) -> Result<Reply, Failure> {
    let quirks = request.quirks;
    let mut filter = read_count(resource, request.query)?;
    filter.apply_quirks(quirks);
    let stores = state.read();
    let count = select::count(&stores.at(request.lists_as_of()), &filter, quirks);
    Ok(Reply::value(&json!({"object": "total_count", "total_count": count})))
}

/// Deletes an object.
pub(super) fn delete(state: &State, resource: &Resource, id: &str) -> Result<Reply, Failure> {
    if state.write().remove(resource.kind, id, now()).is_none() {
        return Err(Failure::no_object(resource.object, id));
    }
    Ok(Reply::value(
        &json!({"object": resource.object, "id": id, "deleted": true}),
    ))
}

fn write_document(resource: &Resource, entry: &Entry, rendering: &Rendering<'_>, quirks: &Quirks, out: &mut Vec<u8>) {
    let start = out.len();
    (resource.write)(entry, rendering, out);
    if quirks.times_in_seconds
        && let Ok(mut value) = serde_json::from_slice(&out[start..])
    {
        convert_to_seconds(&mut value);
        out.truncate(start);
        out.extend_from_slice(&canonical::to_bytes(&value));
    }
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
