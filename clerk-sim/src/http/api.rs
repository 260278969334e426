//! Answers requests under `/v1`.

use std::time::Instant;

use serde_json::json;

use super::objects;
use super::organization_api;
use super::reply::Reply;
use super::request::ApiRequest;
use super::route::Route;
use crate::errors::{self, Failure};
use crate::faults::Quirks;
use crate::ids::trace_id;
use crate::state::State;
use crate::users::resource::USERS;
use crate::users::{create, update};

/// The versions of Clerk's API that are accepted (documented).
const VERSIONS: [&str; 3] = ["2025-04-10", "2025-11-10", "2026-05-12"];

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
        Route::List => objects::list(state, &USERS, request, Vec::new()),
        Route::Count if quirks.missing_count => Err(Failure::no_path(request.path)),
        Route::Count => objects::count(state, &USERS, request),
        Route::Get(id) => objects::single(state, &USERS, id, request),
        Route::Organization(route) => organization_api::answer(state, route, request),
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
        Route::Delete(id) => objects::delete(state, &USERS, id),
        Route::Create => {
            let id = create::create(state, request.body)?;
            objects::single_as_of(state, &USERS, &id, request, None)
        }
        Route::Update(id) => {
            update::update(state, id, request.body, request.version)?;
            objects::single_as_of(state, &USERS, id, request, None)
        }
        Route::MergeMetadata(id) => {
            update::merge_metadata(state, id, request.body)?;
            objects::single_as_of(state, &USERS, id, request, None)
        }
        Route::ReplaceMetadata(id) => {
            update::replace_metadata(state, id, request.body)?;
            objects::single_as_of(state, &USERS, id, request, None)
        }
        Route::Restrict(restriction, id) => {
            update::restrict(state, id, restriction, quirks)?;
            objects::single_as_of(state, &USERS, id, request, None)
        }
    }
}
