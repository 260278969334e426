//! Asks Clerk for the users that its list left out: those that it leaves out again are absent.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use tracing::{debug, info, warn};

use super::{
    SyncContext,
    by_id::{ById, ByIds},
    missing::MissingUsers,
    page_worker::PageSource,
    recheck::{Observation, REPLICA_LAG},
};
use crate::{
    clerk::{Page, RawObject},
    failure::Failure,
    humanize::count,
    mirror::Batch,
};

/// An id whose absence does not count yet, with the time that is left.
pub(super) type TooEarly = (String, Duration);

impl SyncContext<'_> {
    /// Asks for missing ids, and notes those that are absent. Returns the ids whose absence does
    /// not count yet.
    pub(super) async fn note_absent(
        &mut self,
        missing: &mut MissingUsers<'_>,
        ids: &[String],
    ) -> Result<Vec<TooEarly>, Failure> {
        let absent = self.ask_for(ids).await?;
        let (absent, early) = match missing {
            MissingUsers::Stored { .. } => self.set_early_apart(absent).await?,
            // A dry run deletes nothing, and does not wait until Clerk's answers count.
            MissingUsers::Planned(_) => (absent, Vec::new()),
        };
        missing.note_absent(&absent).await?;
        Ok(early)
    }

    /// Asks for many ids in one request. Stores the users that are found, and returns the ids that
    /// are absent.
    pub(super) async fn ask_for(&mut self, ids: &[String]) -> Result<Vec<String>, Failure> {
        let page = match self.by_ids(ids).await? {
            ByIds::Answered(page) => page,
            ByIds::Ignored => return self.ask_one_by_one(ids).await,
            ByIds::Void(why) => {
                self.note(format!(
                    "{} could not be asked for by id: {why}",
                    count(ids.len() as u64, "missing user")
                ));
                return Ok(Vec::new());
            }
        };
        let asked: HashSet<&str> = ids.iter().map(String::as_str).collect();
        let is_asked = |raw: &&RawObject| raw.id.as_deref().is_some_and(|id| asked.contains(id));
        let mut found: Vec<&RawObject> = page.objects().iter().filter(is_asked).collect();
        let found_ids: HashSet<&str> = found.iter().filter_map(|raw| raw.id.as_deref()).collect();
        if self.listed.holds {
            // A replica that lags still shows users whose deletion was held a moment ago.
            let ids: Vec<&str> = found_ids.iter().copied().collect();
            let held = self.syncer.mirror.holds().lately_among(&ids).await?;
            found.retain(|raw| !held.iter().any(|id| raw.id.as_ref() == Some(id)));
        }
        let absent: Vec<String> = ids
            .iter()
            .filter(|id| !found_ids.contains(id.as_str()))
            .cloned()
            .collect();
        if !found.is_empty() {
            debug!(users = found.len(), "users exist that no page had shown");
            self.store_found(&page, &found).await?;
        }
        Ok(absent)
    }

    /// Asks for each id alone, because the list cannot be filtered by id; for members of an organization
    /// together. If a server ignores the filter, two such answers confirm a deletion.
    async fn ask_one_by_one(&mut self, ids: &[String]) -> Result<Vec<String>, Failure> {
        if self.syncer.resource.list.ids.is_some() {
            self.carryover
                .warn_once("this server ignores user_id; deletions are confirmed by two answers for each id");
            self.asks_one_by_one = true;
        }
        let answers = self.syncer.each_by_organization(ids).await?;
        let (absent, unclear) = self.take_answers(answers).await?;
        self.has_no_answers = unclear == ids.len();
        for id in &absent {
            self.syncer.rechecks.note(Observation::Gone, id, Instant::now());
        }
        self.note_unclear(unclear, "missing user", "could not be asked for by id");
        Ok(absent)
    }

    /// Takes the answers about single ids. Stores the users that are found. Returns the ids that
    /// Clerk says are gone, and the number of ids that stay unclear.
    pub(super) async fn take_answers(
        &mut self,
        mut answers: Vec<(String, ById)>,
    ) -> Result<(Vec<String>, usize), Failure> {
        answers.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let (mut gone, mut with_organization) = (Vec::new(), Vec::new());
        let mut unclear = 0;
        for (id, answer) in answers {
            match answer {
                ById::Gone => gone.push(id),
                // The whole list is the answer.
                ById::PlaceUnknown if self.has_walked_all => gone.push(id),
                ById::EndsWithOrganization => with_organization.push(id),
                ById::Found(page) => {
                    let found: Vec<&RawObject> = page.objects().iter().collect();
                    info!(id, objects = found.len(), "left out of the list, but found by id");
                    self.store_found(&page, &found).await?;
                }
                ById::Unclear(error) => {
                    warn!(user_id = id, error, "a deletion could not be confirmed");
                    unclear += 1;
                }
                ById::PlaceUnknown => unclear += 1,
            }
        }
        if let Some(run) = self.mode.run().filter(|_| !with_organization.is_empty()) {
            let holds = self.syncer.mirror.holds();
            holds.leave_to_organizations(run.lease(), &with_organization).await?;
            let held = holds.held_among(&gone).await?;
            gone.retain(|id| !held.contains(id));
        }
        Ok((gone, unclear))
    }

    /// Notes how many ids stay unclear, and why.
    pub(super) fn note_unclear(&mut self, unclear: usize, what: &str, why: &str) {
        if unclear > 0 {
            self.note(format!("{} {why}", count(unclear as u64, what)));
        }
    }

    /// Stores users that were missing and turned out to exist.
    async fn store_found(&mut self, page: &Page, found: &[&RawObject]) -> Result<(), Failure> {
        let ids: Vec<String> = found.iter().filter_map(|raw| raw.id.clone()).collect();
        for id in &ids {
            self.syncer.rechecks.forget(Observation::Gone, id);
        }
        let more = Batch {
            found: ids,
            ..Batch::default()
        };
        self.store(PageSource::List, page, found.to_vec(), None, more).await
    }

    /// Sets the ids apart whose absence does not count yet: a replica that lags may not know them.
    async fn set_early_apart(&self, ids: Vec<String>) -> Result<(Vec<String>, Vec<TooEarly>), Failure> {
        let rechecks = &self.syncer.rechecks;
        let now = Instant::now();
        let left_since_first = |id: &str| REPLICA_LAG.saturating_sub(rechecks.note(Observation::Gone, id, now));
        let mut early: HashMap<String, Duration> = self.syncer.mirror.rows().too_young(&ids, REPLICA_LAG).await?;
        early.retain(|id, left| {
            // The database's clock went back since the row was written. The clock of this process
            // decides.
            if *left > REPLICA_LAG {
                *left = left_since_first(id);
            }
            !left.is_zero()
        });
        if self.asks_one_by_one {
            for id in &ids {
                let left = left_since_first(id);
                if !left.is_zero() {
                    let longest = early.get(id).copied().unwrap_or_default().max(left);
                    early.insert(id.clone(), longest);
                }
            }
        }
        let absent = ids.into_iter().filter(|id| !early.contains_key(id)).collect();
        let mut early: Vec<TooEarly> = early.into_iter().collect();
        early.sort_unstable();
        Ok((absent, early))
    }
}
