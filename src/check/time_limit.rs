//! Time limits of the checks.

use std::time::Duration;

use crate::failure::Failure;

/// Time limit for one request or query.
pub(super) const STEP: Duration = Duration::from_secs(5);

/// Waits for an answer. If it does not come in time, `late` says so.
pub(super) async fn within<T, E: Into<Failure>>(
    limit: Duration,
    late: impl FnOnce() -> Failure,
    answer: impl Future<Output = Result<T, E>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => answer.map_err(Into::into),
        Err(_) => Err(late()),
    }
}
