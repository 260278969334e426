//! A sync on demand: reads some users by id at once, because an application waits for them.

use std::{ops::ControlFlow, time::Instant};

use tracing::debug;

use super::{
    AskError, Carryover, DeleteMode, SyncContext, SyncOutcome, Syncer,
    by_id::ById,
    context::Start,
    recheck::{Observation, REPLICA_LAG},
};
use crate::{
    clerk::Page,
    failure::Failure,
    mirror::{Batch, SyncKind},
};

/// Witnesses for ids that may be gone.
const WITNESSES: u32 = 3;

/// What Clerk says about users that were asked for by id.
#[derive(Default)]
pub(super) struct RequestedUsers {
    /// Pages of the users that differ from the mirror.
    changed: Vec<Page>,
    /// Ids of rows whose users Clerk does not have.
    missing: Vec<String>,
}

impl Syncer {
    /// Stores users by id. An id that neither Clerk nor the mirror has is ignored.
    ///
    /// # Errors
    /// The sync could not be completed.
    pub async fn on_demand(&self, ids: &[String], carryover: &mut Carryover) -> Result<SyncOutcome, Failure> {
        let (ids, others): (Vec<String>, Vec<String>) = ids.iter().cloned().partition(|id| self.has_id(id));
        let is_standby = self.sync_others_on_demand(&others, carryover).await?;
        let outcome = match ids.is_empty() {
            true => SyncOutcome::Nothing,
            false => self.store_by_ids(&ids, carryover).await?,
        };
        Ok(if is_standby { SyncOutcome::Standby } else { outcome })
    }

    /// The same for ids of this syncer's resource.
    pub(super) async fn store_by_ids(&self, ids: &[String], carryover: &mut Carryover) -> Result<SyncOutcome, Failure> {
        let start = Start::now(self, SyncKind::OnDemand);
        let state = match self.read_state(carryover).await? {
            ControlFlow::Continue(state) => state,
            ControlFlow::Break(outcome) => return Ok(outcome),
        };
        let requested = self.look_up(ids).await?;
        if requested.changed.is_empty() && requested.missing.is_empty() {
            return Ok(SyncOutcome::Nothing);
        }
        self.check_instance_if_old(carryover).await?;
        let Some(lease) = self.lease_since(state.lease_epoch).await? else {
            return Ok(SyncOutcome::Standby);
        };
        let work = async |sync: &mut SyncContext<'_>| sync.sync_requested(requested).await;
        let report = self.under_lease(&lease, start, carryover, work).await?;
        Ok(SyncOutcome::Synced(Box::new(report)))
    }

    /// Asks Clerk for users by id, and compares them with the mirror.
    pub(super) async fn look_up(&self, ids: &[String]) -> Result<RequestedUsers, Failure> {
        // Notifications may spend only their part of the request budget.
        let limited = Syncer {
            clerk: self.clerk.for_notifications(),
            ..self.clone()
        };
        let mut requested = RequestedUsers::default();
        let (mut absent, mut unclear) = (Vec::new(), Vec::new());
        let holds = self.mirror.holds().any().await?;
        for (id, answer) in limited.each_by_id(ids).await? {
            let id = id.as_str();
            match answer {
                ById::Found(page) => {
                    self.rechecks.forget(Observation::Gone, id);
                    let is_held = holds && !self.mirror.holds().among(&[id]).await?.is_empty();
                    if is_held || self.has_news_by_id(&page).await? {
                        requested.changed.push(page);
                    } else if self.rechecks.since(Observation::Older, id, Instant::now()) >= Some(REPLICA_LAG) {
                        self.rechecks.forget(Observation::Older, id);
                    }
                }
                ById::Gone => absent.push(id.to_owned()),
                ById::EndsWithOrganization => {}
                // Its list may not show it yet.
                ById::PlaceUnknown => unclear.push(id.to_owned()),
                ById::Unclear(error) => {
                    debug!(
                        user_id = id,
                        error, "a user that was asked for by id cannot be read yet"
                    );
                    unclear.push(id.to_owned());
                }
            }
        }
        if !unclear.is_empty() {
            self.due.users_failed(unclear);
        }
        if self.options.delete_mode != DeleteMode::Keep {
            let absent: Vec<&str> = absent.iter().map(String::as_str).collect();
            let rows = self.mirror.rows().by_ids(&absent).await?;
            requested.missing = rows.into_iter().filter(|row| !row.deleted).map(|row| row.id).collect();
        }
        let is_missing = |id: &String| requested.missing.contains(id);
        let unknown = absent.iter().filter(|id| !is_missing(id));
        self.due.users_unknown(unknown.cloned().collect());
        debug!(
            users = ids.len(),
            changed = requested.changed.len(),
            missing = requested.missing.len(),
            "asked for by id"
        );
        Ok(requested)
    }
}

impl SyncContext<'_> {
    /// Asks for users by id, and stores those that exist.
    pub(super) async fn look_up_and_store(&mut self, ids: &[String]) -> Result<(), Failure> {
        let requested = self.syncer.look_up(ids).await?;
        // Users that are gone by now are deleted by the next sync.
        let missing = Vec::new();
        self.store_requested(RequestedUsers { missing, ..requested }).await
    }

    /// Stores users that were asked for, and notes the missing ones. The end of the sync settles
    /// those.
    pub(super) async fn store_requested(&mut self, requested: RequestedUsers) -> Result<(), Failure> {
        for page in &requested.changed {
            self.store_by_id(page).await?;
        }
        self.apply(Batch {
            missing: requested.missing,
            ..Batch::default()
        })
        .await
    }

    /// Stores users that were asked for, and settles deletions and rejections.
    async fn sync_requested(&mut self, requested: RequestedUsers) -> Result<(), Failure> {
        let missing = requested.missing.clone();
        self.store_requested(requested).await?;
        if self.resume_deletions().await? || !missing.is_empty() {
            let mirror = &self.syncer.mirror;
            match self
                .syncer
                .ask(self.syncer.clerk.recent(self.syncer.resource, 0, WITNESSES))
                .await
            {
                Ok(page) => self.remember(&page),
                // Users of the mirror serve as well: a witness proves itself by being in the
                // answer.
                Err(AskError::Clerk(error)) if self.syncer.is_about_request(&error).await? => {
                    self.remember_all(mirror.rows().newest_ids_except(&missing, WITNESSES as usize).await?);
                }
                Err(error) => return Err(error.into()),
            }
            self.settle_deletions().await?;
        }
        self.retry_refused().await?;
        self.settle_tables().await
    }
}
