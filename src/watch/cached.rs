//! What is shown of the mirror. It is read only on request, and at most once every few seconds,
//! however many requests come.

use std::{
    fmt,
    time::{Duration, Instant},
};

use tokio::sync::Mutex;

use super::{
    page::{MirrorReport, Page, ProcessReport},
    state::Watch,
    view::{Range, View},
};
use crate::{
    clerk,
    humanize::duration,
    mirror::{
        Activity, EndpointStatus, HeldSet, Mirror, MirrorError, RecentSyncs, RejectionReason, ResourceStatus, Summary,
        TableStatus,
    },
    progress::Progress,
    secret::without_personal_data,
};

/// Syncs that the page lists.
const MAX_LISTED_SYNCS: i64 = 15;

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
    /// The progress of the full sync.
    pub progress: Progress,
    /// The name of this process in the lease.
    pub holder: String,
}

/// Why the mirror could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unread {
    /// Nothing has created it yet.
    NoMirror,
    /// The database did not answer, for this reason.
    Failed(String),
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMirror => f.write_str("there is no mirror in this database yet"),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

/// The sources, with the latest answers of the database.
pub(super) struct CachedSources {
    pub(super) sources: Sources,
    summary: Cached<Summary>,
    recent: Cached<RecentSyncs>,
    /// In the order of [`Range::ALL`].
    activity: [Cached<Activity>; 3],
    resources: Cached<Vec<ResourceStatus>>,
    tables: Cached<Vec<TableStatus>>,
    endpoints: Cached<Vec<EndpointStatus>>,
    held: Cached<Vec<HeldSet>>,
    rejections: Cached<Vec<RejectionReason>>,
}

/// An answer, and when it came.
#[derive(Clone)]
struct Answer<T> {
    at: Instant,
    result: Result<T, Unread>,
}

/// The latest answer to a question.
struct Cached<T>(Mutex<Option<Answer<T>>>);

impl<T: Clone> Cached<T> {
    fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Returns the latest answer, or asks if it is not fresh. Requests that come meanwhile wait for
    /// the same answer.
    async fn get(&self, is_fresh: impl Fn(Instant) -> bool, ask: impl Future<Output = Result<T, Unread>>) -> Answer<T> {
        let mut latest = self.0.lock().await;
        if let Some(answer) = latest.as_ref()
            && is_fresh(answer.at)
            // A failure may be over soon.
            && (answer.result.is_ok() || answer.at.elapsed() < MAX_AGE)
        {
            return answer.clone();
        }
        let result = ask.await;
        latest
            .insert(Answer {
                at: Instant::now(),
                result,
            })
            .clone()
    }
}

impl CachedSources {
    /// Starts without answers.
    pub(super) fn new(sources: Sources) -> Self {
        Self {
            sources,
            summary: Cached::new(),
            recent: Cached::new(),
            activity: Range::ALL.map(|_| Cached::new()),
            resources: Cached::new(),
            tables: Cached::new(),
            endpoints: Cached::new(),
            held: Cached::new(),
            rejections: Cached::new(),
        }
    }

    /// Returns what the page shows.
    pub(super) async fn page(&self, view: View) -> Page {
        let Sources {
            watch,
            clerk,
            progress,
            holder,
            ..
        } = &self.sources;
        let (summary, report) = (self.summary().await, self.report(view.range).await);
        Page {
            view,
            condition: watch.condition(),
            since_success: watch.since_success(),
            progress: progress.position(),
            process: ProcessReport {
                holder: holder.clone(),
                started_at: watch.started_at(),
                requests_per_second: clerk.requests_per_second(),
                budget_used: clerk.budget_used(),
                rate_limited: clerk.rate_limited(),
            },
            summary,
            report,
        }
    }

    /// Returns what the page shows of the mirror apart from its summary.
    async fn report(&self, range: Range) -> Result<MirrorReport, Unread> {
        let overview = self.sources.mirror.overview();
        let activity = self.ask(overview.activity(range.periods(), range.period()));
        Ok(MirrorReport {
            recent: self
                .with_summary(&self.recent, overview.recent(MAX_LISTED_SYNCS))
                .await?,
            resources: self.resources().await?,
            tables: self.tables().await?,
            endpoints: self.endpoints().await?,
            held: self.with_summary(&self.held, overview.held()).await?,
            rejections: self.with_summary(&self.rejections, overview.rejections()).await?,
            activity: self.activity[range as usize]
                .get(|at| at.elapsed() < range.max_age(), activity)
                .await
                .result?,
        })
    }

    /// Returns the state of the mirror.
    pub(super) async fn summary(&self) -> Result<Summary, Unread> {
        self.latest_summary().await.result
    }

    /// Returns the state of the other resources.
    pub(super) async fn resources(&self) -> Result<Vec<ResourceStatus>, Unread> {
        let overview = self.sources.mirror.overview();
        self.with_summary(&self.resources, overview.resources()).await
    }

    /// Returns how far the application's tables are in sync.
    pub(super) async fn tables(&self) -> Result<Vec<TableStatus>, Unread> {
        let tables = self.sources.mirror.app_tables();
        self.with_summary(&self.tables, tables.status()).await
    }

    /// Returns how far the endpoints are.
    pub(super) async fn endpoints(&self) -> Result<Vec<EndpointStatus>, Unread> {
        let deliveries = self.sources.mirror.deliveries();
        self.with_summary(&self.endpoints, deliveries.active()).await
    }

    async fn latest_summary(&self) -> Answer<Summary> {
        let overview = self.sources.mirror.overview();
        let question = self.ask(overview.summary());
        self.summary.get(|at| at.elapsed() < MAX_AGE, question).await
    }

    /// Returns an answer that is not older than the summary, so that what is shown fits together.
    /// Without a summary there is none: a request must not wait for the same database several times.
    async fn with_summary<T: Clone>(
        &self,
        cached: &Cached<T>,
        question: impl Future<Output = Result<T, MirrorError>>,
    ) -> Result<T, Unread> {
        let summary = self.latest_summary().await;
        summary.result?;
        cached.get(|at| at >= summary.at, self.ask(question)).await.result
    }

    async fn ask<T>(&self, question: impl Future<Output = Result<T, MirrorError>>) -> Result<T, Unread> {
        let answer = async {
            match question.await {
                Ok(answer) => Ok(answer),
                // There are no tables before the first full sync.
                Err(MirrorError::Database(_)) if matches!(self.sources.mirror.schema().exists().await, Ok(false)) => {
                    Err(Unread::NoMirror)
                }
                Err(error) => Err(Unread::Failed(without_personal_data(&error.to_string()))),
            }
        };
        let answer = tokio::time::timeout(TIMEOUT, answer).await;
        answer.unwrap_or_else(|_| {
            let why = format!("Postgres did not answer within {}", duration(TIMEOUT));
            Err(Unread::Failed(why))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn concurrent_requests_ask_once() {
        let cached = Cached::new();
        let asked = AtomicU32::new(0);
        let ask = || async {
            asked.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Err::<(), _>(Unread::Failed("away".to_owned()))
        };
        let (one, other) = tokio::join!(cached.get(|_| true, ask()), cached.get(|_| true, ask()));
        let away = Err(Unread::Failed("away".to_owned()));
        assert_eq!((one.result, other.result), (away.clone(), away));
        assert_eq!(asked.into_inner(), 1);
    }

    #[tokio::test]
    async fn an_answer_from_before_is_not_fresh() {
        let cached = Cached::new();
        let first = cached.get(|_| true, async { Ok(1) }).await;
        let again = cached.get(|at| at >= first.at, async { Ok(2) }).await;
        let newer = cached.get(|at| at > first.at, async { Ok(3) }).await;
        assert_eq!([first.result, again.result, newer.result], [Ok(1), Ok(1), Ok(3)]);
    }
}
