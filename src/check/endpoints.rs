//! Checks that each endpoint can be connected to. Nothing is sent to it.

use std::net::SocketAddr;

use super::{finding::Finding, time_limit::STEP};
use crate::{
    deliver::{Endpoint, EndpointClient},
    humanize::duration,
};

const NAME: &str = "endpoint";

/// Resolves each endpoint's name and connects. `listen` is where the daemon itself listens.
pub(super) async fn check_endpoints(endpoints: &[Endpoint], listen: Option<SocketAddr>) -> Vec<Finding> {
    futures_util::future::join_all(endpoints.iter().map(|endpoint| check_endpoint(endpoint, listen))).await
}

async fn check_endpoint(endpoint: &Endpoint, listen: Option<SocketAddr>) -> Finding {
    // A path or a query may be secret.
    let place = format!("{}: {}", endpoint.name, endpoint.url.origin().ascii_serialization());
    let client = match EndpointClient::new(endpoint) {
        Ok(client) => client,
        Err(error) => {
            return Finding::failed(NAME, format!("{place}: {error}"))
                .hint("install the certificates of the public authorities, for example the package ca-certificates");
        }
    };
    let reached = tokio::time::timeout(STEP, client.reach())
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {}", duration(STEP))));
    match reached {
        Ok(address) if Some(address) == listen => Finding::warn(
            NAME,
            format!("{place} is the address at which clerk2pg itself listens (http.listen)"),
        )
        .hint("set its url to the address of your handler"),
        Ok(address) => Finding::ok(
            NAME,
            format!(
                "{place} accepts connections, at {address}; it gets {}",
                endpoint.types.join(", ")
            ),
        ),
        Err(why) => Finding::failed(NAME, format!("{place} cannot be reached: {why}"))
            .hint("is its url right, does your handler run, and can this machine reach it? events wait until then"),
    }
}
