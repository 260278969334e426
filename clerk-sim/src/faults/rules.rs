//! Rules: what happens to some requests.

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use super::quirks::Quirks;

/// The kinds of requests that rules can choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// `GET /v1/users`
    List,
    /// `GET /v1/users/count`
    Count,
    /// `GET /v1/users/{user_id}`
    Get,
    /// `GET /v1/instance`
    Instance,
    /// A list of organizations, memberships, invitations, roles or permissions. `about` chooses
    /// among them.
    OrganizationList,
    /// A single organization, invitation, role or permission.
    OrganizationGet,
    /// Each request that changes something.
    Write,
}

/// A fault that happens to some requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Which endpoints it happens to. All under `/v1` if empty.
    #[serde(default)]
    pub on: Vec<Endpoint>,
    /// A text that path and query must contain.
    #[serde(default)]
    pub about: Option<String>,
    /// The number of matching requests that pass unharmed first. Counts down.
    #[serde(default)]
    pub skip: u64,
    /// The number of times that it then happens. Counts down; `None` is no limit.
    #[serde(default)]
    pub next: Option<u64>,
    /// The probability for each of them, from 0 to 1. A request that is spared does not use up
    /// `next`.
    #[serde(default = "certain")]
    pub probability: f64,
    /// What happens to the request.
    pub effect: Effect,
}

fn certain() -> f64 {
    1.0
}

impl Rule {
    /// A rule that happens to each request, without end.
    pub fn new(effect: Effect) -> Self {
        Self {
            on: Vec::new(),
            about: None,
            skip: 0,
            next: None,
            probability: 1.0,
            effect,
        }
    }

    /// Limits it to these endpoints.
    pub fn on(mut self, endpoints: impl Into<Vec<Endpoint>>) -> Self {
        self.on = endpoints.into();
        self
    }

    /// Limits it to requests whose path and query contain a text, such as a user's id.
    pub fn about(mut self, text: &str) -> Self {
        self.about = Some(text.to_owned());
        self
    }

    /// Lets this number of requests pass first.
    pub fn skip(mut self, requests: u64) -> Self {
        self.skip = requests;
        self
    }

    /// Ends it after this number of times.
    pub fn next(mut self, requests: u64) -> Self {
        self.next = Some(requests);
        self
    }

    /// Sets the probability for each request, from 0 to 1.
    pub fn probability(mut self, probability: f64) -> Self {
        self.probability = probability;
        self
    }

    /// Whether it happens to this request. Counts `skip` and `next` down.
    pub(super) fn fires(&mut self, endpoint: Option<Endpoint>, path: &str, rng: &mut impl Rng) -> bool {
        let matches = (self.on.is_empty() || endpoint.is_some_and(|endpoint| self.on.contains(&endpoint)))
            && self.about.as_ref().is_none_or(|text| path.contains(text));
        if !matches || self.next == Some(0) {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        if self.probability < 1.0 && rng.random::<f64>() >= self.probability {
            return false;
        }
        if let Some(next) = &mut self.next {
            *next -= 1;
        }
        true
    }
}

/// What a rule does to a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Answers this number of milliseconds later.
    LatencyMs(u64),
    /// Answers with an error instead.
    Error(ErrorAnswer),
    /// Answers with status 200 and an HTML page instead.
    Html,
    /// Sends half of the body, although `content-length` says more, and closes the connection.
    Truncate,
    /// Closes the connection without an answer.
    DropBefore,
    /// Closes the connection after the headers and a few bytes of the body.
    DropDuring,
    /// Sends the headers, then nothing, and keeps the connection open.
    Stall,
    /// Adds quirks to these requests.
    Quirks(Box<Quirks>),
}

/// An error to answer with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorAnswer {
    /// The status, from 400 to 599.
    pub status: u16,
    /// The `Retry-After` header in seconds. `None` if it is absent. Clerk also sends 0 (observed).
    #[serde(default)]
    pub retry_after: Option<u64>,
    /// What the body is.
    #[serde(default)]
    pub body: ErrorBody,
}

/// The body of an error answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorBody {
    /// Clerk's JSON.
    #[default]
    Json,
    /// An HTML page, as from a proxy in front of Clerk.
    Html,
    /// Nothing.
    Empty,
}
