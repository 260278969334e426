//! Endpoints, as the configuration gives them.

use std::{fmt, time::Duration};

use super::SigningKey;

/// Where events are delivered.
#[derive(Clone)]
pub struct Endpoint {
    /// Identifies the endpoint in the database, in commands and in messages.
    pub name: String,
    /// `http` or `https`, without user and password.
    pub url: reqwest::Url,
    /// One key, or two while one is rolled; the first is the newer one.
    pub keys: Vec<SigningKey>,
    /// The types of events that it gets, such as `user.created`; never empty.
    pub types: Vec<String>,
    /// Which events a new endpoint gets first.
    pub start: Start,
    /// Requests under way at once, 1 to 64.
    pub concurrency: usize,
    /// The time limit of an attempt, from 1 s to 5 min.
    pub timeout: Duration,
}

impl fmt::Debug for Endpoint {
    /// Path and query of the address may contain a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("name", &self.name)
            .field("origin", &self.url.origin().ascii_serialization())
            .field("types", &self.types)
            .field("start", &self.start)
            .field("concurrency", &self.concurrency)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// Which events a new endpoint gets first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Events from now on.
    Now,
    /// A `created` event for each object in the mirror, then events from now on.
    Everything,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_origin_of_an_address_is_printed() {
        let endpoint = Endpoint {
            name: "app".to_owned(),
            url: "http://127.0.0.1:3000/hooks/abc?token=def".parse().unwrap(),
            keys: Vec::new(),
            types: Vec::new(),
            start: Start::Now,
            concurrency: 8,
            timeout: Duration::from_secs(15),
        };
        let client = crate::deliver::EndpointClient::new(&endpoint).unwrap();
        for printed in [format!("{endpoint:?}"), format!("{client:?}")] {
            assert!(printed.contains("http://127.0.0.1:3000\""), "{printed}");
            assert!(!printed.contains("abc") && !printed.contains("def"), "{printed}");
        }
    }
}
