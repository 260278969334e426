//! Asks Clerk, and gives up when the sync is stopped.

use std::{future::Future, time::Duration};

use super::Syncer;
use crate::{
    clerk::{self, Objection, Page},
    failure::{Cause, Failure},
    reconcile::{range::Range, walk::Walk},
};

/// The pause before a refusal that may be about the order of a list is believed.
const REFUSAL_RECHECK: Duration = Duration::from_secs(1);

/// Why there is no answer of Clerk.
#[derive(Debug)]
pub(super) enum AskError {
    /// The sync is stopped.
    Stopped,
    /// The request failed.
    Clerk(clerk::Error),
}

impl From<clerk::Error> for AskError {
    fn from(error: clerk::Error) -> Self {
        Self::Clerk(error)
    }
}

impl From<AskError> for Failure {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Stopped => Failure::new(
                Cause::Stopped,
                "stopped before the sync was done; the next sync continues from here",
            ),
            AskError::Clerk(error) => error.into(),
        }
    }
}

impl Syncer {
    /// Waits for an answer of Clerk, unless the sync is stopped first.
    ///
    /// # Errors
    /// The sync is stopped, or the request failed.
    pub(super) async fn ask<T, E: Into<AskError>>(
        &self,
        request: impl Future<Output = Result<T, E>>,
    ) -> Result<T, AskError> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(AskError::Stopped),
            answer = request => answer.map_err(Into::into),
        }
    }

    /// Ends work that asks nobody.
    ///
    /// # Errors
    /// The sync is stopped.
    pub(super) fn unless_stopped(&self) -> Result<(), AskError> {
        match self.stop.is_cancelled() {
            true => Err(AskError::Stopped),
            false => Ok(()),
        }
    }

    /// Waits for a time, unless the sync is stopped first.
    ///
    /// # Errors
    /// The sync is stopped.
    pub(super) async fn pause(&self, pause: Duration) -> Result<(), AskError> {
        tokio::select! {
            () = self.stop.cancelled() => Err(AskError::Stopped),
            () = tokio::time::sleep(pause) => Ok(()),
        }
    }

    /// Fetches a page of users, last changed first. A refusal that may be about the order counts
    /// only if Clerk repeats it: a server or proxy that restarts may answer everything with 404 for
    /// a moment.
    pub(super) async fn recent(&self, offset: u64, limit: u32) -> Result<Page, AskError> {
        match self.ask(self.clerk.recent(self.resource, offset, limit)).await {
            Err(AskError::Clerk(error)) if error.objection() == Objection::Possible => {
                self.pause(REFUSAL_RECHECK).await?;
                self.ask(self.clerk.recent(self.resource, offset, limit)).await
            }
            answer => answer,
        }
    }

    /// Whether an error is about this one request, and not about Clerk being away: a server that
    /// still counts or lists users cannot answer this request only.
    ///
    /// # Errors
    /// The sync is stopped.
    pub(super) async fn is_about_request(&self, error: &clerk::Error) -> Result<bool, AskError> {
        Ok(match error {
            clerk::Error::KeyRefused(_) | clerk::Error::RateLimited { .. } => false,
            clerk::Error::Unavailable { .. } => self.counts_users().await? || self.lists_users().await?,
            _ => true,
        })
    }

    /// Whether Clerk answers a request for the number of users now.
    async fn counts_users(&self) -> Result<bool, AskError> {
        is_answered(self.ask(self.clerk.count(self.resource, Range::ALL)).await)
    }

    /// Whether Clerk lists users now.
    ///
    /// # Errors
    /// The sync is stopped.
    pub(super) async fn lists_users(&self) -> Result<bool, AskError> {
        let clerk = self.clerk.clone().asking_once();
        is_answered(self.ask(clerk.list(self.resource, &Walk::new().query(), 1)).await)
    }
}

/// Whether a request succeeded.
///
/// # Errors
/// The sync is stopped.
fn is_answered<T>(answer: Result<T, AskError>) -> Result<bool, AskError> {
    match answer {
        Ok(_) => Ok(true),
        Err(AskError::Clerk(_)) => Ok(false),
        Err(AskError::Stopped) => Err(AskError::Stopped),
    }
}
