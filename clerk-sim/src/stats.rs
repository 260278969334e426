//! Counts and logs requests.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::limit::WINDOW;

/// Requests in the log.
const LOG_LENGTH: usize = 10_000;

/// A request to `/v1` that was answered or dropped.
#[derive(Clone, Debug, Serialize)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The path with its query, as it was sent.
    pub path: String,
    /// The status of the answer. 0 if the connection was dropped instead.
    pub status: u16,
    /// The time of its arrival, in Unix milliseconds.
    pub at: i64,
    /// The time until the answer was ready, added latency included, in microseconds.
    pub took_us: u64,
    /// The headers `clerk-api-version`, `accept-encoding` and `user-agent`, if they were sent.
    pub headers: BTreeMap<String, String>,
}

/// Statistics about all requests to `/v1`.
#[derive(Default)]
pub(crate) struct Stats {
    pub(crate) requests: u64,
    pub(crate) by_path: BTreeMap<String, u64>,
    pub(crate) by_status: BTreeMap<u16, u64>,
    pub(crate) busiest_window: u64,
    window: VecDeque<Instant>,
    log: VecDeque<Request>,
}

impl Stats {
    /// Counts a request that has arrived.
    pub(crate) fn arrived(&mut self, template: &str, now: Instant) {
        self.requests += 1;
        match self.by_path.get_mut(template) {
            Some(count) => *count += 1,
            None => drop(self.by_path.insert(template.to_owned(), 1)),
        }
        while self
            .window
            .front()
            .is_some_and(|first| now.saturating_duration_since(*first) >= WINDOW)
        {
            self.window.pop_front();
        }
        self.window.push_back(now);
        self.busiest_window = self.busiest_window.max(self.window.len() as u64);
    }

    /// Counts and logs a request whose answer is ready.
    pub(crate) fn answered(&mut self, mut request: Request, took: Duration) {
        request.took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        *self.by_status.entry(request.status).or_default() += 1;
        if self.log.len() == LOG_LENGTH {
            self.log.pop_front();
        }
        self.log.push_back(request);
    }

    pub(crate) fn log(&self) -> Vec<Request> {
        self.log.iter().cloned().collect()
    }
}
