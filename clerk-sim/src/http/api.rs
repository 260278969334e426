//! Answers requests under `/v1`.

use std::time::Instant;

use rand::RngExt;
use serde_json::{Value, json};

use super::reply::Reply;
use super::route::Route;
use crate::clock::now;
use crate::errors::{self, Failure};
use crate::faults::Quirks;
use crate::ids::trace_id;
use crate::list::query::{Query, read_count};
use crate::list::select;
use crate::state::State;
use crate::store::canonical;
use crate::store::entry::Entry;
use crate::users::resource::USERS;
use crate::users::{create, update};

/// The versions of Clerk's API that are accepted (documented).
const VERSIONS: [&str; 3] = ["2025-04-10", "2025-11-10", "2026-05-12"];

/// The parts of a request that its answer depends on.
pub(crate) struct ApiRequest<'a> {
    pub(crate) route: Route<'a>,
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    pub(crate) authorization: Option<&'a str>,
    pub(crate) version: Option<&'a str>,
    pub(crate) body: &'a [u8],
    pub(crate) quirks: &'a Quirks,
    /// The lag of the replica that answers, in milliseconds. 0 if the primary answers.
    pub(crate) lag_ms: u64,
}

impl ApiRequest<'_> {
    /// The time whose state a list or a count shows. `None` is the present.
    fn lists_as_of(&self) -> Option<i64> {
        ago(self.lag_ms.max(self.quirks.stale_lists_ms))
    }

    /// The time whose state a single read shows. `None` is the present.
    fn single_read_as_of(&self) -> Option<i64> {
        ago(self.lag_ms)
    }
}

fn ago(lag_ms: u64) -> Option<i64> {
    (lag_ms > 0).then(|| now().saturating_sub_unsigned(lag_ms))
}

/// Answers a request that no fault has replaced.
pub(crate) fn answer(state: &State, request: &ApiRequest<'_>) -> Reply {
    match check_access(state, request).and_then(|()| dispatch(state, request)) {
        Ok(reply) => reply,
        Err(failure) => refuse(state, &failure, request.quirks),
    }
}

/// Makes an answer of an error.
pub(crate) fn refuse(state: &State, failure: &Failure, quirks: &Quirks) -> Reply {
    let mut reply = if quirks.html_not_found && failure.status == 404 {
        Reply {
            html: true,
            body: errors::html(404).into_bytes(),
            ..Reply::default()
        }
    } else {
        Reply::value(&failure.body(&trace_id(&mut *state.request_rng()), quirks.upper_case_codes))
    };
    reply.status = failure.status;
    reply.retry_after = failure.retry_after;
    reply
}

/// Checks the key, the version and the rate limit.
fn check_access(state: &State, request: &ApiRequest<'_>) -> Result<(), Failure> {
    if request.quirks.unauthorized {
        return Err(Failure::wrong_key());
    }
    // Schemes are compared without case (RFC 9110).
    let key = request
        .authorization
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    match key {
        None => return Err(Failure::no_key()),
        Some((_, key)) if key.trim() != state.options.secret_key => return Err(Failure::wrong_key()),
        Some(_) => {}
    }
    if let Some(version) = request.version.filter(|version| !VERSIONS.contains(version)) {
        return Err(Failure::wrong_version(version));
    }
    state.limiter().admit(Instant::now()).map_err(Failure::too_many)
}

fn dispatch(state: &State, request: &ApiRequest<'_>) -> Result<Reply, Failure> {
    let quirks = request.quirks;
    match request.route {
        Route::List => list(state, request),
        Route::Count if quirks.missing_count => Err(Failure::no_path(request.path)),
        Route::Count => {
            let mut filter = read_count(&USERS, request.query)?;
            filter.apply_quirks(quirks);
            let count = select::count(&state.read(), &filter, quirks, request.lists_as_of());
            Ok(Reply::value(&json!({"object": "total_count", "total_count": count})))
        }
        Route::Get(id) => {
            if quirks.not_found_by_id.iter().any(|hidden| hidden == id) {
                return Err(Failure::no_object(USERS.object, id));
            }
            single(state, id, quirks, request.single_read_as_of())
        }
        Route::Instance if quirks.missing_instance => Err(Failure::no_path(request.path)),
        Route::Instance => {
            let live = state.options.secret_key.starts_with("sk_live_");
            Ok(Reply::value(&json!({
                "object": "instance",
                "id": state.options.instance_id,
                "environment_type": if live { "production" } else { "development" },
                "allowed_origins": null,
                "workspace_id": null,
            })))
        }
        Route::Unknown => Err(Failure::no_path(request.path)),
        Route::Delete(id) => {
            if !state.write().remove(id, now()) {
                return Err(Failure::no_object(USERS.object, id));
            }
            Ok(Reply::value(
                &json!({"object": USERS.object, "id": id, "deleted": true}),
            ))
        }
        Route::Create => {
            let id = create::create(state, request.body)?;
            single(state, &id, quirks, None)
        }
        Route::Update(id) => {
            update::update(state, id, request.body, request.version)?;
            single(state, id, quirks, None)
        }
        Route::MergeMetadata(id) => {
            update::merge_metadata(state, id, request.body)?;
            single(state, id, quirks, None)
        }
        Route::ReplaceMetadata(id) => {
            update::replace_metadata(state, id, request.body)?;
            single(state, id, quirks, None)
        }
        Route::Restrict(restriction, id) => {
            update::restrict(state, id, restriction, quirks)?;
            single(state, id, quirks, None)
        }
    }
}

/// Answers with a single object, from the state at `as_of`.
fn single(state: &State, id: &str, quirks: &Quirks, as_of: Option<i64>) -> Result<Reply, Failure> {
    let entry = state
        .read()
        .get_as_of(id, as_of)
        .ok_or_else(|| Failure::no_object(USERS.object, id))?;
    let mut body = Vec::with_capacity(4096);
    write_document(&entry, quirks, now(), &mut body);
    Ok(Reply::json(body))
}

/// Answers with a page of a list.
fn list(state: &State, request: &ApiRequest<'_>) -> Result<Reply, Failure> {
    let quirks = request.quirks;
    let mut query = Query::read(&USERS, request.query)?;
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
