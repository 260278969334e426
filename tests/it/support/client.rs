//! The client of Clerk's API, in the test's own process.

use std::time::Duration;

use clerk2pg::{
    clerk::{Client, ClientSettings},
    resource::Exclusions,
    secret::Secret,
};

/// Returns a client with these limits.
pub fn client_with(url: &str, key: &str, rate_limit: Option<u32>, request_budget: f64, timeout: Duration) -> Client {
    // The program installs the provider at its start. A second call fails, and the first provider
    // stays.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::new(&ClientSettings {
        api_url: url.to_owned(),
        secret_key: Secret::from(key.to_owned()),
        rate_limit,
        request_budget,
        timeout,
        excluded: Exclusions::default(),
    })
    .unwrap()
}
