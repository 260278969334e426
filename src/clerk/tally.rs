//! Counts of requests.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Counts requests and their answers. Clones share the counts. They outlive a client, which is
/// replaced when the configuration is reloaded.
#[derive(Debug, Clone, Default)]
pub struct Tally(Arc<RequestCounts>);

#[derive(Debug, Default)]
struct RequestCounts {
    sent: AtomicU64,
    /// By status; `None` counts requests without an answer.
    answers: Mutex<BTreeMap<Option<u16>, u64>>,
}

impl Tally {
    /// Returns how many requests were sent so far, with retries.
    pub fn sent(&self) -> u64 {
        self.0.sent.load(Ordering::Relaxed)
    }

    /// Returns how often Clerk's rate limit has refused a request.
    pub fn rate_limited(&self) -> u64 {
        self.lock().get(&Some(429)).copied().unwrap_or_default()
    }

    /// Returns the number of answers by status; `None` counts requests without an answer.
    pub fn answers(&self) -> BTreeMap<Option<u16>, u64> {
        self.lock().clone()
    }

    pub(super) fn send(&self) {
        self.0.sent.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn answer(&self, status: Option<u16>) {
        *self.lock().entry(status).or_default() += 1;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Option<u16>, u64>> {
        self.0.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
