//! What is shown of the mirror: asked for only when somebody looks, and not more often than every few seconds, however many look.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::{Watch, health::anonymous, page};
use crate::{
    clerk,
    mirror::{Error, History, Mirror, Summary},
};

/// How long what the database said is good for.
const FRESH: Duration = Duration::from_secs(5);

/// How long the database may take; who scrapes waits no longer than some seconds.
const PATIENCE: Duration = Duration::from_secs(3);

/// Where what is shown comes from.
#[derive(Debug, Clone)]
pub struct Sources {
    /// How the daemon is.
    pub watch: Watch,
    /// The client that the syncs use, for its budget.
    pub clerk: clerk::Client,
    /// With a connection of its own: who only looks must not keep a sync waiting.
    pub mirror: Mirror,
    /// This process, as it is called in the lease.
    pub holder: String,
}

/// The sources, and what they said a moment ago.
pub(super) struct Show {
    pub(super) sources: Sources,
    glance: Kept<Summary>,
    lately: Kept<History>,
}

/// An answer of the database, or why there is none.
type Told<T> = Result<T, String>;

struct Kept<T>(Mutex<Option<(Instant, Told<T>)>>);

impl<T: Clone> Kept<T> {
    fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// What was said a moment ago, else what is said now. Who comes meanwhile waits for the same answer.
    async fn get(&self, ask: impl Future<Output = Told<T>>) -> Told<T> {
        let mut kept = self.0.lock().await;
        if let Some((at, told)) = kept.as_ref()
            && at.elapsed() < FRESH
        {
            return told.clone();
        }
        let told = ask.await;
        *kept = Some((Instant::now(), told.clone()));
        told
    }
}

impl Show {
    pub(super) fn new(sources: Sources) -> Self {
        Self {
            sources,
            glance: Kept::new(),
            lately: Kept::new(),
        }
    }

    /// How the mirror stands.
    pub(super) async fn glance(&self) -> Told<Summary> {
        let overview = self.sources.mirror.overview();
        self.glance.get(self.ask(overview.summary())).await
    }

    /// What happened lately.
    pub(super) async fn lately(&self) -> Told<History> {
        let overview = self.sources.mirror.overview();
        let lately = overview.history(page::PASSES, page::STRETCHES, page::STRETCH);
        self.lately.get(self.ask(lately)).await
    }

    async fn ask<T>(&self, question: impl Future<Output = Result<T, Error>>) -> Told<T> {
        let answer = async {
            match question.await {
                Ok(answer) => Ok(answer),
                // Before the first full sync there are no tables to read.
                Err(Error::Database(_)) if matches!(self.sources.mirror.schema().exists().await, Ok(false)) => {
                    Err("there is no mirror in this database yet".to_owned())
                }
                Err(error) => Err(anonymous(&error.to_string())),
            }
        };
        let answer = tokio::time::timeout(PATIENCE, answer).await;
        answer.unwrap_or_else(|_| Err(format!("Postgres did not answer within {} s", PATIENCE.as_secs())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn many_who_look_ask_once() {
        let kept = Kept::new();
        let asked = std::sync::atomic::AtomicU32::new(0);
        let ask = || async {
            asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            tokio::task::yield_now().await;
            Err::<(), _>("away".to_owned())
        };
        let (one, other) = tokio::join!(kept.get(ask()), kept.get(ask()));
        assert_eq!((one, other), (Err("away".to_owned()), Err("away".to_owned())));
        assert_eq!(asked.into_inner(), 1);
    }
}
