//! Users that Clerk showed in an older state than the mirror's: they are asked for again, as the
//! answer may come from a replica that lags.

use std::time::{Duration, Instant};

use tracing::debug;

use super::{
    AskError, SyncContext, Syncer,
    by_id::ById,
    recheck::{Observation, REPLICA_LAG, make_due_later},
};
use crate::{failure::Failure, humanize::users, resource::MAX_IDS};

impl Syncer {
    /// Remembers users that Clerk showed in a state that is not trusted yet. A daemon asks for them
    /// again.
    pub(super) fn recheck_older(&self, ids: &[String]) {
        let now = Instant::now();
        let is_first = |id: &&String| self.rechecks.note(Observation::Older, id, now).is_zero();
        let ids: Vec<String> = ids.iter().filter(is_first).cloned().collect();
        if !ids.is_empty() && !self.is_single_run() {
            debug!(
                users = ids.len(),
                "Clerk shows an older state; asking again when replicas have caught up"
            );
            make_due_later(&self.due, ids, REPLICA_LAG);
        }
    }
}

impl Syncer {
    /// Ids of the syncer's resource that Clerk showed in an older state, with the time left until they
    /// are asked for again.
    fn older_ids(&self) -> Vec<(String, Duration)> {
        let mut older = self.rechecks.older(Instant::now());
        older.retain(|(id, _)| self.has_id(id));
        older
    }
}

impl SyncContext<'_> {
    /// Asks again for users that Clerk showed in a state that is not trusted yet. What Clerk still
    /// shows after ten seconds is stored. A daemon asks only if there are many such users;
    /// otherwise on-demand syncs ask for them.
    pub(super) async fn settle_older(&mut self) -> Result<(), Failure> {
        let older = self.syncer.older_ids();
        let Some(pause) = older.iter().map(|(_, left)| *left).max() else {
            return Ok(());
        };
        if !self.syncer.is_single_run() && older.len() <= MAX_IDS {
            return Ok(());
        }
        self.syncer.pause(pause).await?;
        let ids: Vec<&str> = older.iter().map(|(id, _)| id.as_str()).collect();
        if self.syncer.resource.list.ids.is_none() {
            return self.settle_older_one_by_one(&older).await;
        }
        for ids in ids.chunks(MAX_IDS) {
            let page = match self
                .syncer
                .ask(self.syncer.clerk.by_ids(self.syncer.resource, ids))
                .await
            {
                Ok(page) => page,
                Err(AskError::Clerk(error)) if self.syncer.is_about_request(&error).await? => break,
                Err(error) => return Err(error.into()),
            };
            self.store_by_id(&page).await?;
            // Users that are gone are left to the next sync.
            let is_shown = |id: &str| page.objects().iter().any(|raw| raw.id.as_deref() == Some(id));
            let gone = ids.iter().filter(|id| !is_shown(id));
            gone.for_each(|id| self.syncer.rechecks.forget(Observation::Older, id));
        }
        self.note_older_left();
        Ok(())
    }

    /// The same for a list that cannot be filtered by id.
    async fn settle_older_one_by_one(&mut self, older: &[(String, Duration)]) -> Result<(), Failure> {
        let ids: Vec<String> = older.iter().map(|(id, _)| id.clone()).collect();
        for (id, answer) in self.syncer.each_by_id(&ids).await? {
            match answer {
                ById::Found(page) => self.store_by_id(&page).await?,
                // It is left to the next sync.
                ById::Gone | ById::EndsWithOrganization => self.syncer.rechecks.forget(Observation::Older, &id),
                ById::Unclear(_) | ById::PlaceUnknown => {}
            }
        }
        self.note_older_left();
        Ok(())
    }

    /// Notes how many users stay in another state than Clerk shows.
    fn note_older_left(&mut self) {
        let left = self.syncer.older_ids().len();
        if left > 0 {
            self.note(format!(
                "Clerk showed {} in an older state than before; the next sync asks again",
                users(left as u64)
            ));
        }
    }
}
