//! The commands that show and steer the delivery of events.

use std::time::Duration;

use chrono::Utc;
use clerk2pg::{
    cli::Format,
    config::Loaded,
    deliver::{Endpoint, EndpointClient, TestEvent, list_endpoints},
    failure::{Cause, Failure},
    mirror::Redelivery,
    output,
};

use super::{Exit, printed};
use crate::setup::{build_existing_mirror, build_mirror};

/// Dead events that are listed for each endpoint.
const LISTED_DEAD: i64 = 20;

/// How long a test waits for the database, which it only asks for the instance's id.
const INSTANCE_TIMEOUT: Duration = Duration::from_secs(3);

/// Shows how far events are delivered: `endpoints`.
pub async fn run_endpoints(loaded: &Loaded, format: Format) -> Result<Exit, Failure> {
    let deliveries = build_existing_mirror(loaded).await?.deliveries();
    let configured = loaded.require_endpoints();
    let names: Option<Vec<&str>> = configured.as_ref().ok().map(|endpoints| names(endpoints));
    let mut listed = list_endpoints(names.as_deref(), deliveries.status().await?);
    // Without a secret, nothing is known of the configured ones.
    if listed.is_empty() {
        configured?;
    }
    for endpoint in &mut listed {
        if endpoint.status.dead > 0 {
            endpoint.dead_events = deliveries.dead(&endpoint.status.name, LISTED_DEAD).await?;
        }
    }
    printed(output::endpoints(format, &listed))?;
    Ok(Exit::Success)
}

/// Delivers events again: `redeliver`.
pub async fn run_redeliver(
    loaded: &Loaded,
    format: Format,
    endpoint: &str,
    what: &Redelivery,
) -> Result<Exit, Failure> {
    let deliveries = build_existing_mirror(loaded).await?.deliveries();
    if let Some(queued) = deliveries.redeliver(endpoint, what).await? {
        printed(output::redelivered(format, endpoint, what, queued))?;
        return Ok(Exit::Success);
    }
    let configured = loaded.require_endpoints().map(names).unwrap_or_default();
    if configured.contains(&endpoint) {
        let message = format!("no daemon has delivered to {endpoint} yet");
        return Err(Failure::new(Cause::Other, message).hint("start the daemon with this configuration, or reload it"));
    }
    let known = deliveries.active().await?;
    Err(unknown_endpoint(
        endpoint,
        known.iter().map(|endpoint| endpoint.name.as_str()).chain(configured),
    ))
}

/// Sends a test: `send-test`.
pub async fn run_send_test(loaded: &Loaded, format: Format, name: &str) -> Result<Exit, Failure> {
    let endpoints = loaded.require_endpoints()?;
    let Some(endpoint) = endpoints.iter().find(|endpoint| endpoint.name == name) else {
        return Err(unknown_endpoint(name, names(endpoints)));
    };
    let client = EndpointClient::new(endpoint)
        .map_err(|error| Failure::new(Cause::NeedsPerson, format!("[[endpoints]] {name}: {error}")))?;
    let instance = tokio::time::timeout(INSTANCE_TIMEOUT, pinned_instance(loaded)).await;
    let instance = instance.unwrap_or_default();
    let TestEvent { id, body } = TestEvent::new(instance.as_deref(), Utc::now())
        .map_err(|error| Failure::new(Cause::Other, format!("the event cannot be written as JSON: {error}")))?;
    let attempt = client.send(&id, body).await;
    printed(output::tested(format, name, &id, &attempt))?;
    let (_, Some(error)) = attempt.outcome.describe() else {
        return Ok(Exit::Success);
    };
    let failure = Failure::new(Cause::Other, format!("{name} did not accept the event: {error}"));
    Err(match attempt.outcome.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    })
}

/// Returns the id of the instance that the database mirrors, if the database is there.
async fn pinned_instance(loaded: &Loaded) -> Option<String> {
    loaded.require_database().ok()?;
    build_mirror(loaded).ok()?.instance().id().await.ok()?
}

fn names(endpoints: &[Endpoint]) -> Vec<&str> {
    endpoints.iter().map(|endpoint| endpoint.name.as_str()).collect()
}

/// Returns the error about a name that no endpoint has.
fn unknown_endpoint<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Failure {
    let mut known: Vec<&str> = known.into_iter().collect();
    known.sort_unstable();
    known.dedup();
    let failure = Failure::new(Cause::Other, format!("there is no endpoint {name}"));
    match known.as_slice() {
        [] => failure.hint("describe it under [[endpoints]] in the configuration file"),
        known => failure.hint(format!("choose one of these: {}", known.join(", "))),
    }
}
