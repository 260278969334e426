//! A request under `/v1`, as far as its answer depends on it.

use super::route::Route;
use crate::clock::now;
use crate::faults::Quirks;

/// The parts of a request that its answer depends on.
pub(crate) struct ApiRequest<'a> {
    pub(crate) route: Route<'a>,
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    pub(crate) authorization: Option<&'a str>,
    pub(crate) version: Option<&'a str>,
    pub(crate) body: &'a [u8],
    pub(crate) quirks: &'a Quirks,
    /// The lag of the replica that answers, in milliseconds. 0 if the primary answers.
    pub(crate) lag_ms: u64,
}

impl ApiRequest<'_> {
    /// The time whose state a list or a count shows. `None` is the present.
    pub(super) fn lists_as_of(&self) -> Option<i64> {
        ago(self.lag_ms.max(self.quirks.stale_lists_ms))
    }

    /// The time whose state a single read shows. `None` is the present.
    pub(super) fn single_read_as_of(&self) -> Option<i64> {
        ago(self.lag_ms)
    }
}

fn ago(lag_ms: u64) -> Option<i64> {
    (lag_ms > 0).then(|| now().saturating_sub_unsigned(lag_ms))
}
