//! Answers requests under `/_sim`, which show and control the simulator.
//!
//! They need no key, and the rate limit does not count them.

use serde::de::value::Error;
use serde::de::{DeserializeOwned, IntoDeserializer};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::watch;

use super::reply::Reply;
use crate::faults::Faults;
use crate::kind::Kind;
use crate::oddity::Oddity;
use crate::organizations;
use crate::organizations::invitations;
use crate::resources;
use crate::state::State;
use crate::users::churn;
use crate::users::unstorable::{self, Unstorable};

/// Changes of each kind per request.
const MAX_CHANGES: u64 = 1_000_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChurnRequest {
    rate: Option<f64>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct RandomChanges {
    create: u64,
    update: u64,
    delete: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RandomOrganizationChanges {
    changes: u64,
}

#[derive(Serialize)]
struct ChangedIds {
    created: Vec<String>,
    updated: Vec<String>,
    deleted: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UnstorableRequest {
    kind: Unstorable,
}

/// Answers a request.
pub(crate) fn answer(state: &State, method: &str, path: &str, body: &[u8]) -> Reply {
    let parts: Vec<&str> = path.trim_start_matches("/_sim").trim_matches('/').split('/').collect();
    let answered = match (method, parts.as_slice()) {
        ("GET", ["stats"]) => Ok(stats(state)),
        ("GET", ["log"]) => Ok(Reply::value(&state.stats().log())),
        ("GET", ["faults"]) => Ok(Reply::value(&*state.faults())),
        ("PUT", ["faults"]) => parse::<Faults>(body).and_then(|faults| {
            faults.check()?;
            *state.faults() = faults;
            Ok(Reply::value(&*state.faults()))
        }),
        ("DELETE", ["faults"]) => {
            *state.faults() = Faults::default();
            Ok(Reply::value(&*state.faults()))
        }
        ("GET", ["churn"]) => Ok(Reply::value(&json!({"rate": *state.churn.borrow()}))),
        ("POST", ["churn"]) => set_churn(&state.churn, body),
        ("GET", ["organizations", "churn"]) => Ok(Reply::value(&json!({"rate": *state.organization_churn.borrow()}))),
        ("POST", ["organizations", "churn"]) => set_churn(&state.organization_churn, body),
        ("POST", ["organizations", "random"]) => parse::<RandomOrganizationChanges>(body).and_then(|random| {
            if random.changes > MAX_CHANGES {
                return Err(format!("at most {MAX_CHANGES} at once"));
            }
            let changed = (0..random.changes).filter_map(|_| organizations::churn::change(state));
            let changed = changed.map(|(kind, id)| json!({"kind": kind, "id": id}));
            Ok(Reply::value(&json!({"changed": changed.collect::<Vec<_>>()})))
        }),
        ("POST", ["organization_invitations", id, "accept"]) => match invitations::accept(state, id) {
            Some(membership) => Ok(Reply::value(&json!({"id": membership}))),
            None => return problem(404, &format!("there is no pending invitation {id}")),
        },
        ("POST", ["users", "random"]) => parse::<RandomChanges>(body).and_then(|random| {
            if random.create.max(random.update).max(random.delete) > MAX_CHANGES {
                return Err(format!("at most {MAX_CHANGES} at once"));
            }
            Ok(Reply::value(&ChangedIds {
                created: (0..random.create).map(|_| churn::create(state)).collect(),
                updated: (0..random.update).filter_map(|_| churn::update(state)).collect(),
                deleted: (0..random.delete).filter_map(|_| churn::delete(state)).collect(),
            }))
        }),
        ("POST", ["users", "unstorable"]) => parse::<UnstorableRequest>(body)
            .map(|UnstorableRequest { kind }| Reply::value(&json!({"id": unstorable::add(state, kind)}))),
        ("GET", ["users", "odd"]) => Ok(odd(state)),
        ("GET", [kind, id]) => return object(state, kind, id),
        _ => {
            return problem(
                404,
                &format!("there is no {method} {path}; see the README of clerk-sim for what there is"),
            );
        }
    };
    answered.unwrap_or_else(|why| problem(400, &why))
}

/// Shows an object of a kind, such as `organizations`.
fn object(state: &State, kind: &str, id: &str) -> Reply {
    let known: Result<Kind, Error> = Kind::deserialize(kind.into_deserializer());
    let shown = known.ok().and_then(|kind| resources::shown(state, kind, id));
    shown.map_or_else(
        || problem(404, &format!("there is no {id} among the {kind}")),
        Reply::json,
    )
}

fn set_churn(churn: &watch::Sender<Option<f64>>, body: &[u8]) -> Result<Reply, String> {
    let ChurnRequest { rate } = parse(body)?;
    if rate.is_some_and(|rate| !(0.0..=100_000.0).contains(&rate)) {
        return Err("rate must be from 0 to 100000 changes a second".to_owned());
    }
    churn.send_replace(rate);
    Ok(Reply::value(&json!({"rate": rate})))
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

fn problem(status: u16, why: &str) -> Reply {
    Reply {
        status,
        ..Reply::value(&json!({"error": why}))
    }
}

fn stats(state: &State) -> Reply {
    let counts = {
        let stores = state.read();
        Kind::ALL.map(|kind| stores.of(kind).len())
    };
    let [users, organizations, memberships, invitations, ..] = counts;
    let stats = state.stats();
    Reply::value(&json!({
        "users": users,
        "organizations": organizations,
        "organization_memberships": memberships,
        "organization_invitations": invitations,
        "requests": stats.requests,
        "by_path": stats.by_path,
        "by_status": stats.by_status,
        "busiest_window": stats.busiest_window,
    }))
}

fn odd(state: &State) -> Reply {
    let stores = state.read();
    let odd: Vec<(String, Oddity)> = stores
        .of(Kind::Users)
        .in_order()
        .filter_map(|entry| Some((entry.id.to_string(), entry.oddity?)))
        .collect();
    Reply::value(
        &odd.into_iter()
            .map(|(id, oddity)| json!({"id": id, "oddity": oddity}))
            .collect::<Vec<_>>(),
    )
}
