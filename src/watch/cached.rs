//! What is shown of the mirror. It is read only on request, and at most once every few seconds,
//! however many requests come.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::state::Watch;
use crate::{
    clerk,
    humanize::duration,
    mirror::{EndpointStatus, History, Mirror, MirrorError, ResourceStatus, Summary, TableStatus},
    secret::without_personal_data,
};

/// Syncs that the page lists.
const MAX_LISTED_SYNCS: i64 = 15;

/// Intervals that the plots show: six hours in all.
pub(super) const INTERVALS: i64 = 72;

/// Length of an interval.
pub(super) const INTERVAL: Duration = Duration::from_secs(300);

/// How long an answer of the database is used.
const MAX_AGE: Duration = Duration::from_secs(5);

/// Time limit for the database: a scrape waits only for some seconds.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Where the shown data comes from.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The health and the metrics of the daemon.
    pub watch: Watch,
    /// The client that the syncs use, for its budget.
    pub clerk: clerk::Client,
    /// With a separate connection: requests must not delay a sync.
    pub mirror: Mirror,
    /// The name of this process in the lease.
    pub holder: String,
}

/// The sources, with the latest answers of the database. An error says why there is no answer.
pub(super) struct CachedSources {
    pub(super) sources: Sources,
    summary: Cached<Summary>,
    history: Cached<History>,
    resources: Cached<Vec<ResourceStatus>>,
    tables: Cached<Vec<TableStatus>>,
    endpoints: Cached<Vec<EndpointStatus>>,
}

/// An answer, and when it came.
struct Cached<T>(Mutex<Option<(Instant, Result<T, String>)>>);

impl<T: Clone> Cached<T> {
    fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Returns the latest answer, or asks if it is too old. Requests that come meanwhile wait for
    /// the same answer.
    async fn get(&self, ask: impl Future<Output = Result<T, String>>) -> Result<T, String> {
        let mut cached = self.0.lock().await;
        if let Some((at, answer)) = cached.as_ref()
            && at.elapsed() < MAX_AGE
        {
            return answer.clone();
        }
        let answer = ask.await;
        *cached = Some((Instant::now(), answer.clone()));
        answer
    }
}

impl CachedSources {
    /// Starts without answers.
    pub(super) fn new(sources: Sources) -> Self {
        Self {
            sources,
            summary: Cached::new(),
            history: Cached::new(),
            resources: Cached::new(),
            tables: Cached::new(),
            endpoints: Cached::new(),
        }
    }

    /// Returns the state of the mirror.
    pub(super) async fn summary(&self) -> Result<Summary, String> {
        let overview = self.sources.mirror.overview();
        self.summary.get(self.ask(overview.summary())).await
    }

    /// Returns the state of the other resources; nothing if the database does not answer.
    pub(super) async fn resources(&self) -> Vec<ResourceStatus> {
        if self.summary().await.is_err() {
            return Vec::new();
        }
        let overview = self.sources.mirror.overview();
        self.resources
            .get(self.ask(overview.resources()))
            .await
            .unwrap_or_default()
    }

    /// Returns how far the application's tables are in sync; nothing if the database does not answer.
    pub(super) async fn tables(&self) -> Vec<TableStatus> {
        // Otherwise a request would wait for the same database twice.
        if self.summary().await.is_err() {
            return Vec::new();
        }
        let tables = self.sources.mirror.app_tables();
        self.tables.get(self.ask(tables.status())).await.unwrap_or_default()
    }

    /// Returns how far the endpoints are; nothing if the database does not answer.
    pub(super) async fn endpoints(&self) -> Vec<EndpointStatus> {
        if self.summary().await.is_err() {
            return Vec::new();
        }
        let deliveries = self.sources.mirror.deliveries();
        self.endpoints
            .get(self.ask(deliveries.active()))
            .await
            .unwrap_or_default()
    }

    /// Returns the last syncs, and the changes of the last hours.
    pub(super) async fn history(&self) -> Result<History, String> {
        let overview = self.sources.mirror.overview();
        let history = overview.history(MAX_LISTED_SYNCS, INTERVALS, INTERVAL);
        self.history.get(self.ask(history)).await
    }

    async fn ask<T>(&self, question: impl Future<Output = Result<T, MirrorError>>) -> Result<T, String> {
        let answer = async {
            match question.await {
                Ok(answer) => Ok(answer),
                // There are no tables before the first full sync.
                Err(MirrorError::Database(_)) if matches!(self.sources.mirror.schema().exists().await, Ok(false)) => {
                    Err("there is no mirror in this database yet".to_owned())
                }
                Err(error) => Err(without_personal_data(&error.to_string())),
            }
        };
        let answer = tokio::time::timeout(TIMEOUT, answer).await;
        answer.unwrap_or_else(|_| Err(format!("Postgres did not answer within {}", duration(TIMEOUT))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn concurrent_requests_ask_once() {
        let cached = Cached::new();
        let asked = std::sync::atomic::AtomicU32::new(0);
        let ask = || async {
            asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            tokio::task::yield_now().await;
            Err::<(), _>("away".to_owned())
        };
        let (one, other) = tokio::join!(cached.get(ask()), cached.get(ask()));
        assert_eq!((one, other), (Err("away".to_owned()), Err("away".to_owned())));
        assert_eq!(asked.into_inner(), 1);
    }
}
