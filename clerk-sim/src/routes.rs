//! From a request to `/v1` to its answer.

use rand::RngExt;
use serde_json::{Value, json};

use crate::canonical;
use crate::document::Entry;
use crate::errors::{self, Failure};
use crate::faults::{Endpoint, Quirks};
use crate::ids::trace_id;
use crate::query;
use crate::reply::Reply;
use crate::select;
use crate::state::{State, now};
use crate::write;

/// The versions of Clerk's API that are accepted (documented).
const VERSIONS: [&str; 3] = ["2025-04-10", "2025-11-10", "2026-05-12"];

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    List,
    Count,
    Instance,
    Get(&'a str),
    Create,
    Update(&'a str),
    Delete(&'a str),
    MergeMetadata(&'a str),
    ReplaceMetadata(&'a str),
    Ban(&'a str),
    Unban(&'a str),
    Lock(&'a str),
    Unlock(&'a str),
    Unknown,
}

impl<'a> Route<'a> {
    pub(crate) fn find(method: &str, path: &'a str) -> Self {
        let parts: Vec<&str> = path.strip_prefix("/v1/").unwrap_or_default().split('/').collect();
        match (method, parts.as_slice()) {
            ("GET", ["users"]) => Self::List,
            ("GET", ["users", "count"]) => Self::Count,
            ("GET", ["instance"]) => Self::Instance,
            ("GET", ["users", id]) => Self::Get(id),
            ("POST", ["users"]) => Self::Create,
            ("PATCH", ["users", id]) => Self::Update(id),
            ("DELETE", ["users", id]) => Self::Delete(id),
            ("PATCH", ["users", id, "metadata"]) => Self::MergeMetadata(id),
            ("PUT", ["users", id, "metadata"]) => Self::ReplaceMetadata(id),
            ("POST", ["users", id, "ban"]) => Self::Ban(id),
            ("POST", ["users", id, "unban"]) => Self::Unban(id),
            ("POST", ["users", id, "lock"]) => Self::Lock(id),
            ("POST", ["users", id, "unlock"]) => Self::Unlock(id),
            _ => Self::Unknown,
        }
    }

    /// The path without ids, for statistics.
    pub(crate) fn template(self) -> &'static str {
        match self {
            Self::List => "GET /v1/users",
            Self::Count => "GET /v1/users/count",
            Self::Instance => "GET /v1/instance",
            Self::Get(_) => "GET /v1/users/{user_id}",
            Self::Create => "POST /v1/users",
            Self::Update(_) => "PATCH /v1/users/{user_id}",
            Self::Delete(_) => "DELETE /v1/users/{user_id}",
            Self::MergeMetadata(_) => "PATCH /v1/users/{user_id}/metadata",
            Self::ReplaceMetadata(_) => "PUT /v1/users/{user_id}/metadata",
            Self::Ban(_) => "POST /v1/users/{user_id}/ban",
            Self::Unban(_) => "POST /v1/users/{user_id}/unban",
            Self::Lock(_) => "POST /v1/users/{user_id}/lock",
            Self::Unlock(_) => "POST /v1/users/{user_id}/unlock",
            Self::Unknown => "other",
        }
    }

    pub(crate) fn endpoint(self) -> Option<Endpoint> {
        match self {
            Self::List => Some(Endpoint::List),
            Self::Count => Some(Endpoint::Count),
            Self::Instance => Some(Endpoint::Instance),
            Self::Get(_) => Some(Endpoint::Get),
            Self::Unknown => None,
            _ => Some(Endpoint::Write),
        }
    }
}

/// What of a request its answer depends on.
pub(crate) struct Ask<'a> {
    pub(crate) route: Route<'a>,
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    pub(crate) authorization: Option<&'a str>,
    pub(crate) version: Option<&'a str>,
    pub(crate) body: &'a [u8],
    pub(crate) quirks: &'a Quirks,
    /// How far behind the replica lags that answers; 0 at the primary.
    pub(crate) lag_ms: u64,
}

impl Ask<'_> {
    /// The moment whose state a list or a count shows; `None` for the present.
    fn shown_by_lists(&self) -> Option<i64> {
        ago(self.lag_ms.max(self.quirks.stale_lists_ms))
    }

    /// The moment whose state a single read shows; `None` for the present.
    fn shown_by_id(&self) -> Option<i64> {
        ago(self.lag_ms)
    }
}

fn ago(lag_ms: u64) -> Option<i64> {
    (lag_ms > 0).then(|| now().saturating_sub_unsigned(lag_ms))
}

/// The answer to a request that no fault has replaced.
pub(crate) fn answer(state: &State, ask: &Ask<'_>) -> Reply {
    match admit(state, ask).and_then(|()| dispatch(state, ask)) {
        Ok(reply) => reply,
        Err(failure) => refuse(state, &failure, ask.quirks),
    }
}

/// An error as an answer.
pub(crate) fn refuse(state: &State, failure: &Failure, quirks: &Quirks) -> Reply {
    let mut reply = if quirks.html_not_found && failure.status == 404 {
        Reply {
            html: true,
            body: errors::html(404).into_bytes(),
            ..Reply::default()
        }
    } else {
        Reply::value(&failure.body(&trace_id(&mut *state.noise()), quirks.upper_case_codes))
    };
    reply.status = failure.status;
    reply.retry_after = failure.retry_after;
    reply
}

fn admit(state: &State, ask: &Ask<'_>) -> Result<(), Failure> {
    if ask.quirks.unauthorized {
        return Err(Failure::wrong_key());
    }
    // Schemes are compared without case (RFC 9110).
    let key = ask
        .authorization
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    match key {
        None => return Err(Failure::no_key()),
        Some((_, key)) if key.trim() != state.options.secret_key => return Err(Failure::wrong_key()),
        Some(_) => {}
    }
    if let Some(version) = ask.version.filter(|version| !VERSIONS.contains(version)) {
        return Err(Failure::wrong_version(version));
    }
    state
        .limiter()
        .pass(std::time::Instant::now())
        .map_err(Failure::too_many)
}

fn dispatch(state: &State, ask: &Ask<'_>) -> Result<Reply, Failure> {
    let quirks = ask.quirks;
    match ask.route {
        Route::List => list(state, ask),
        Route::Count if quirks.missing_count => Err(Failure::no_path(ask.path)),
        Route::Count => {
            let mut filter = query::count(ask.query)?;
            filter.forget(quirks);
            let count = select::count(&state.read(), &filter, quirks, ask.shown_by_lists());
            Ok(Reply::value(&json!({"object": "total_count", "total_count": count})))
        }
        Route::Get(id) => {
            if quirks.not_found_by_id.iter().any(|hidden| hidden == id) {
                return Err(Failure::no_user(id));
            }
            one(state, id, quirks, ask.shown_by_id())
        }
        Route::Instance if quirks.missing_instance => Err(Failure::no_path(ask.path)),
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
        Route::Unknown => Err(Failure::no_path(ask.path)),
        Route::Delete(id) => {
            if !state.write().remove(id, now()) {
                return Err(Failure::no_user(id));
            }
            Ok(Reply::value(&json!({"object": "user", "id": id, "deleted": true})))
        }
        _ => {
            let id = write::apply(state, ask)?;
            one(state, &id, quirks, None)
        }
    }
}

/// A user as at that moment.
fn one(state: &State, id: &str, quirks: &Quirks, moment: Option<i64>) -> Result<Reply, Failure> {
    let entry = state.read().at(id, moment).ok_or_else(|| Failure::no_user(id))?;
    let mut body = Vec::with_capacity(4096);
    document(&entry, quirks, now(), &mut body);
    Ok(Reply::json(body))
}

fn list(state: &State, ask: &Ask<'_>) -> Result<Reply, Failure> {
    let quirks = ask.quirks;
    let mut query = query::list(ask.query)?;
    query.forget(quirks);
    if let Some(longest) = quirks.max_page {
        query.limit = query.limit.min(longest.max(1));
    }
    if quirks.random_pages {
        query.limit = state.noise().random_range(1..=query.limit);
    }
    query.shuffle = quirks.shuffle.map(|shuffle| (shuffle, state.noise().random()));
    let (now, moment) = (now(), ask.shown_by_lists());
    let (users, total) = {
        let store = state.read();
        let total = quirks
            .wrapped_lists
            .then(|| select::count(&store, &query.filter, quirks, moment));
        (select::page(&store, &query, quirks, moment)?, total)
    };
    let mut body = Vec::with_capacity(users.len() * 2560 + 64);
    if total.is_some() {
        body.extend_from_slice(b"{\"data\":");
    }
    body.push(b'[');
    for (index, entry) in users.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        document(entry, quirks, now, &mut body);
    }
    body.push(b']');
    if let Some(total) = total {
        body.extend_from_slice(format!(",\"total_count\":{total}}}").as_bytes());
    }
    Ok(Reply::json(body))
}

fn document(entry: &Entry, quirks: &Quirks, now: i64, out: &mut Vec<u8>) {
    if quirks.times_in_seconds
        && let Some(mut value) = entry.value(now)
    {
        seconds(&mut value);
        return out.extend_from_slice(&canonical::to_bytes(&value));
    }
    entry.write(now, out);
}

/// Clerk's own times, not those that applications keep in metadata.
fn seconds(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if let (true, Some(time)) = (key.ends_with("_at"), value.as_i64()) {
                    *value = (time / 1000).into();
                } else if !key.ends_with("_metadata") {
                    seconds(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(seconds),
        _ => {}
    }
}
