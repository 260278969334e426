//! Endpoints, as the configuration gives them.

use std::time::Duration;

use super::SigningKey;

/// Where events are delivered.
#[derive(Debug, Clone)]
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

/// Which events a new endpoint gets first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Events from now on.
    Now,
    /// A `created` event for each object in the mirror, then events from now on.
    Everything,
}
