//! Faults on demand: what can go wrong between Clerk and whoever reads it.
//!
//! Two kinds. [`Quirks`] change what the answers say (a server that ignores cursors, a count that is off). [`Rule`]s
//! happen to requests (an error, a stall, a dropped connection): they choose the requests by endpoint, can let some
//! pass first, can end by themselves, and can carry quirks for just those requests.

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// All faults of a simulator; the default has none. The same JSON as `PUT /_sim/faults` takes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// What is different in every answer.
    pub quirks: Quirks,
    /// What happens to some requests, tried in this order; the first that replaces the answer ends the search.
    pub rules: Vec<Rule>,
}

impl From<Quirks> for Faults {
    fn from(quirks: Quirks) -> Self {
        Self {
            quirks,
            rules: Vec::new(),
        }
    }
}

impl From<Rule> for Faults {
    fn from(rule: Rule) -> Self {
        Self {
            quirks: Quirks::default(),
            rules: vec![rule],
        }
    }
}

/// The kinds of requests that rules tell apart.
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
    /// Every request that changes something.
    Write,
}

/// One thing that happens to some requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// To which requests; to all under `/v1` when empty.
    #[serde(default)]
    pub on: Vec<Endpoint>,
    /// To those whose path and query contain this.
    #[serde(default)]
    pub about: Option<String>,
    /// So many matching requests pass unharmed first; counts down.
    #[serde(default)]
    pub skip: u64,
    /// Then it happens so many times and never again; counts down, none is for ever.
    #[serde(default)]
    pub next: Option<u64>,
    /// How likely it is for each of them, from 0 to 1; a request that is spared does not use up `next`.
    #[serde(default = "certain")]
    pub probability: f64,
    /// What happens.
    pub effect: Effect,
}

fn certain() -> f64 {
    1.0
}

impl Rule {
    /// Happens to every request, for ever.
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

    /// Only to these requests.
    pub fn on(mut self, endpoints: impl Into<Vec<Endpoint>>) -> Self {
        self.on = endpoints.into();
        self
    }

    /// Only to those whose path and query contain a text, such as a user's id.
    pub fn about(mut self, text: &str) -> Self {
        self.about = Some(text.to_owned());
        self
    }

    /// Only after so many have passed.
    pub fn skip(mut self, requests: u64) -> Self {
        self.skip = requests;
        self
    }

    /// Only so many times.
    pub fn next(mut self, requests: u64) -> Self {
        self.next = Some(requests);
        self
    }

    /// Only sometimes.
    pub fn probability(mut self, probability: f64) -> Self {
        self.probability = probability;
        self
    }

    fn fires(&mut self, endpoint: Option<Endpoint>, path: &str, rng: &mut impl Rng) -> bool {
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
    /// Answers so many milliseconds later.
    LatencyMs(u64),
    /// Answers with an error instead.
    Error(ErrorAnswer),
    /// Answers with status 200 and an HTML page instead.
    Html,
    /// Sends only half of the answer's body, though `content-length` says more.
    Truncate,
    /// Closes the connection without an answer.
    DropBefore,
    /// Closes the connection in the middle of the answer's headers and body: a few bytes of the body arrive.
    DropDuring,
    /// Sends the headers and then nothing, with the connection kept open.
    Stall,
    /// Answers these requests with further quirks.
    Quirks(Box<Quirks>),
}

/// An error to answer with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorAnswer {
    /// 429, 500, 502, 503, 504, 521, 522, 524, or any other.
    pub status: u16,
    /// The `Retry-After` header in seconds; absent when none. 0 has been seen (observed).
    #[serde(default)]
    pub retry_after: Option<u64>,
    /// Whose error it is.
    #[serde(default)]
    pub body: ErrorBody,
}

/// The body of an error answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorBody {
    /// Clerk's own JSON.
    #[default]
    Json,
    /// A page of the proxy in front.
    Html,
    /// Nothing.
    Empty,
}

/// What becomes of a page after a user who is gone. Clerk does not document it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeletedCursor {
    /// 404 `resource_not_found`. The default, as a guess: Clerk answers so wherever an id names nobody.
    #[default]
    NotFound,
    /// 422 `form_param_value_invalid`.
    Unprocessable,
    /// An empty page, as if the walk had ended.
    EmptyPage,
    /// Page one again.
    Restart,
}

/// A count that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WrongCount {
    /// Off by this; never below 0.
    Offset(i64),
    /// Always this.
    Fixed(u64),
}

/// Read replicas that lag behind the primary. Clerk's reads come from such (inferred; older states were observed in lists).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replicas {
    /// How far they lag, in milliseconds. At most ten minutes.
    pub lag_ms: u64,
    /// Which part of the reads they answer, from 0 to 1. The primary answers the others.
    #[serde(default = "half")]
    pub share: f64,
}

fn half() -> f64 {
    0.5
}

impl Replicas {
    fn check(&self, place: &str) -> Result<(), String> {
        if (0.0..=1.0).contains(&self.share) {
            Ok(())
        } else {
            Err(format!(
                "{place}.replicas.share is {}, but must be from 0 to 1",
                self.share
            ))
        }
    }
}

/// What is in another order at each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shuffle {
    /// Users that share the time a list is ordered by.
    Ties,
    /// Whole lists.
    All,
}

/// Ways in which answers can differ from Clerk's; the default has none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quirks {
    /// `starting_after` is ignored: page one for ever.
    pub ignore_starting_after: bool,
    /// `created_at_before` and `created_at_after` are ignored.
    pub ignore_created_at: bool,
    /// `user_id` is ignored: everybody is returned.
    pub ignore_user_id: bool,
    /// `offset` is ignored.
    pub ignore_offset: bool,
    /// `order_by` is ignored: always the default, newest first.
    pub ignore_order_by: bool,
    /// `order_by` with a literal `+` is not understood: ascending by `updated_at` (observed in an emulator).
    pub unknown_plus: bool,
    /// Lists by time are shuffled anew at each request.
    pub shuffle: Option<Shuffle>,
    /// What becomes of a page after a user who is gone.
    pub deleted_cursor: DeletedCursor,
    /// Pages hold at most so many users, whatever the limit asked for; at least one.
    pub max_page: Option<usize>,
    /// Pages are cut to a random length, at least one.
    pub random_pages: bool,
    /// Lists answer `[]` although there are users.
    pub empty_lists: bool,
    /// Lists and counts show the state of so many milliseconds ago; single reads show the present. At most ten minutes.
    pub stale_lists_ms: u64,
    /// Some reads, lists, counts and single reads alike, show an older state: see [`Replicas`]. Where `stale_lists_ms` is set
    /// too, the older of the two states.
    pub replicas: Option<Replicas>,
    /// Counts are wrong.
    pub count: Option<WrongCount>,
    /// `/v1/instance` is a 404, as emulators do (observed).
    pub missing_instance: bool,
    /// `/v1/users/count` is a 404.
    pub missing_count: bool,
    /// Lists are wrapped as `{"data":[…],"total_count":n}` (observed in an emulator).
    pub wrapped_lists: bool,
    /// Error codes are in capitals (observed in emulators).
    pub upper_case_codes: bool,
    /// Times are in seconds (observed in emulators). Filters are still read as milliseconds.
    pub times_in_seconds: bool,
    /// These users are left out of lists, of those by `user_id` too, though they exist; counts include them.
    pub hidden_from_lists: Vec<String>,
    /// Reading these users by id is a 404, though they exist.
    pub not_found_by_id: Vec<String>,
    /// Every 404 is a page of HTML, as a proxy's.
    pub html_not_found: bool,
    /// Every request is a 401 `clerk_key_invalid`.
    pub unauthorized: bool,
    /// Ban, unban, lock and unlock move `updated_at`. Whether they do at Clerk is not known; by default they do not, which is
    /// the harder case for whoever follows changes.
    pub bans_move_updated_at: bool,
}

impl Quirks {
    /// Both, where they can be had together; `other` where not.
    fn merge(&mut self, other: &Quirks) {
        let Quirks {
            ignore_starting_after,
            ignore_created_at,
            ignore_user_id,
            ignore_offset,
            ignore_order_by,
            unknown_plus,
            shuffle,
            deleted_cursor,
            max_page,
            random_pages,
            empty_lists,
            stale_lists_ms,
            replicas,
            count,
            missing_instance,
            missing_count,
            wrapped_lists,
            upper_case_codes,
            times_in_seconds,
            hidden_from_lists,
            not_found_by_id,
            html_not_found,
            unauthorized,
            bans_move_updated_at,
        } = other;
        self.ignore_starting_after |= ignore_starting_after;
        self.ignore_created_at |= ignore_created_at;
        self.ignore_user_id |= ignore_user_id;
        self.ignore_offset |= ignore_offset;
        self.ignore_order_by |= ignore_order_by;
        self.unknown_plus |= unknown_plus;
        self.shuffle = shuffle.or(self.shuffle);
        if *deleted_cursor != DeletedCursor::default() {
            self.deleted_cursor = *deleted_cursor;
        }
        self.max_page = max_page.or(self.max_page);
        self.random_pages |= random_pages;
        self.empty_lists |= empty_lists;
        self.stale_lists_ms = self.stale_lists_ms.max(*stale_lists_ms);
        self.replicas = replicas.or(self.replicas);
        self.count = count.or(self.count);
        self.missing_instance |= missing_instance;
        self.missing_count |= missing_count;
        self.wrapped_lists |= wrapped_lists;
        self.upper_case_codes |= upper_case_codes;
        self.times_in_seconds |= times_in_seconds;
        self.hidden_from_lists.extend_from_slice(hidden_from_lists);
        self.not_found_by_id.extend_from_slice(not_found_by_id);
        self.html_not_found |= html_not_found;
        self.unauthorized |= unauthorized;
        self.bans_move_updated_at |= bans_move_updated_at;
    }
}

/// What the faults decided about one request.
pub(crate) struct Verdict {
    pub(crate) quirks: Quirks,
    pub(crate) latency_ms: u64,
    /// How far behind the replica lags that answers; 0 at the primary.
    pub(crate) lag_ms: u64,
    /// Never `LatencyMs` or `Quirks`.
    pub(crate) effect: Option<Effect>,
}

impl Faults {
    /// Says what is wrong with faults that can never work.
    pub(crate) fn check(&self) -> Result<(), String> {
        if let Some(replicas) = &self.quirks.replicas {
            replicas.check("quirks")?;
        }
        for (index, rule) in self.rules.iter().enumerate() {
            if let Effect::Quirks(quirks) = &rule.effect
                && let Some(replicas) = &quirks.replicas
            {
                replicas.check(&format!("rules[{index}].effect.quirks"))?;
            }
            if !(0.0..=1.0).contains(&rule.probability) {
                return Err(format!(
                    "rules[{index}].probability is {}, but must be from 0 to 1",
                    rule.probability
                ));
            }
            if let Effect::Error(error) = &rule.effect
                && !(400..=599).contains(&error.status)
            {
                return Err(format!(
                    "rules[{index}].effect.error.status is {}, but must be from 400 to 599",
                    error.status
                ));
            }
        }
        Ok(())
    }

    /// Counts the request against the rules.
    pub(crate) fn judge(&mut self, endpoint: Option<Endpoint>, path: &str, rng: &mut impl Rng) -> Verdict {
        let mut verdict = Verdict {
            quirks: self.quirks.clone(),
            latency_ms: 0,
            lag_ms: 0,
            effect: None,
        };
        for rule in &mut self.rules {
            if !rule.fires(endpoint, path, rng) {
                continue;
            }
            match &rule.effect {
                Effect::LatencyMs(ms) => verdict.latency_ms += ms,
                Effect::Quirks(quirks) => verdict.quirks.merge(quirks),
                other => {
                    verdict.effect = Some(other.clone());
                    break;
                }
            }
        }
        let is_read = matches!(endpoint, Some(Endpoint::List | Endpoint::Count | Endpoint::Get));
        if let Some(Replicas { lag_ms, share }) = verdict.quirks.replicas
            && is_read
            && rng.random::<f64>() < share
        {
            verdict.lag_ms = lag_ms;
        }
        verdict
    }
}
