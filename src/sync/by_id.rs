//! Asks Clerk for users by id: for many ids in one request, or for each id alone.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use tracing::debug;

use super::{
    AskError, SyncContext, Syncer,
    recheck::{Observation, REPLICA_LAG},
};
use crate::{
    clerk::{self, Lookup, Members, Page},
    failure::Failure,
    resource::{Confirm, MAX_IDS, Place},
};

/// Ids per request. One place is left for the witness.
pub(super) const BATCH: usize = MAX_IDS - 1;

/// Witnesses that are tried before a batch is left undecided.
pub(super) const WITNESSES: usize = 3;

/// How long failed requests for ids are repeated. What stays unclear is left to the next sync.
const REPEAT_FOR: Duration = Duration::from_secs(10);

/// What Clerk answers when it is asked for many ids in one request.
pub(super) enum ByIds {
    /// The users on the page exist. Clerk left the others out.
    Answered(Page),
    /// The server ignores the ids.
    Ignored,
    /// The answer proves nothing, for this reason.
    Void(&'static str),
}

/// What Clerk answers when it is asked for one id.
pub(super) enum ById {
    /// The user does not exist.
    Gone,
    /// The user is on this page.
    Found(Page),
    /// The sync of organizations decides: its organization is gone.
    EndsWithOrganization,
    /// The request failed, or the answer proves nothing, for this reason.
    Unclear(String),
    /// Nothing was asked, as the organization that it belongs to is not known: neither the mirror nor
    /// Clerk's list has shown the id.
    PlaceUnknown,
}

impl SyncContext<'_> {
    /// Asks for ids together with a witness: a user that is known to exist. An answer without the
    /// witness is void, and so is one with users that were not asked for. If no user is known to
    /// exist, the ids are asked for without a witness: their deletions are held in any case.
    pub(super) async fn by_ids(&self, ids: &[String]) -> Result<ByIds, Failure> {
        if self.syncer.resource.list.ids.is_none() {
            return Ok(ByIds::Ignored);
        }
        let mut why = "";
        let witnesses = self.witnesses.iter().rev().take(WITNESSES).map(Some);
        let alone = self.witnesses.is_empty().then_some(None);
        for witness in witnesses.chain(alone) {
            let asked: Vec<&str> = ids.iter().chain(witness).map(String::as_str).collect();
            let page = match self
                .syncer
                .ask(self.syncer.clerk.by_ids(self.syncer.resource, &asked))
                .await
            {
                Ok(page) => page,
                Err(AskError::Clerk(error)) if self.syncer.is_about_request(&error).await? => {
                    return Ok(ByIds::Void("the answer cannot be used"));
                }
                Err(error) => return Err(error.into()),
            };
            let asked: HashSet<&str> = asked.into_iter().collect();
            let is_stranger = |raw: &clerk::RawObject| raw.id.as_deref().is_none_or(|id| !asked.contains(id));
            if page.objects().iter().any(is_stranger) {
                return Ok(ByIds::Ignored);
            }
            let Some(witness) = witness else {
                return Ok(ByIds::Answered(page));
            };
            if page.objects().iter().any(|raw| raw.id.as_ref() == Some(witness)) {
                return Ok(ByIds::Answered(page));
            }
            why = "the answer leaves out a user that is known to exist";
            debug!(witness, "{why}");
        }
        Ok(ByIds::Void(why))
    }
}

impl Syncer {
    /// Asks for one id.
    async fn answer_by_id(&self, clerk: &clerk::Client, place: &Place) -> Result<ById, AskError> {
        let is_asked = |raw: &clerk::RawObject| raw.id.as_ref() == Some(&place.id);
        Ok(match self.ask(clerk.by_id(self.resource, place)).await? {
            Lookup::Gone => ById::Gone,
            Lookup::Found(page) if page.objects().iter().any(is_asked) => ById::Found(page),
            Lookup::Found(_) => ById::Unclear("Clerk answered with another object than it was asked for".to_owned()),
            Lookup::PlaceUnknown => ById::PlaceUnknown,
        })
    }

    /// Asks for one member of an organization, or for several together.
    async fn answers_of_members(
        &self,
        clerk: &clerk::Client,
        organization: &str,
        places: &[Place],
    ) -> Result<Vec<(String, ById)>, AskError> {
        let (page, why) = match self.ask(clerk.members(self.resource, places, organization)).await? {
            Members::Shown(page) => (page, None),
            Members::Unclear(page, why) => (page, Some(why)),
            // Nothing else decides if the organization is not mirrored, or not any more.
            Members::NoOrganization => {
                let ended = |place: &Place| match place.has_organization && self.options.mirrors_organizations {
                    true => (place.id.clone(), ById::EndsWithOrganization),
                    false => (place.id.clone(), ById::Gone),
                };
                return Ok(places.iter().map(ended).collect());
            }
        };
        let shown: HashSet<&str> = page.objects().iter().filter_map(|raw| raw.id.as_deref()).collect();
        let (found, others): (Vec<&Place>, Vec<&Place>) = places.iter().partition(|place| shown.contains(&*place.id));
        let answer = |place: &Place| match why {
            None => (place.id.clone(), ById::Gone),
            Some(why) => (place.id.clone(), ById::Unclear(why.to_owned())),
        };
        let mut answers: Vec<(String, ById)> = others.into_iter().map(answer).collect();
        // Its page holds the others that were found.
        let first = found.first().map(|place| place.id.clone());
        answers.extend(first.map(|id| (id, ById::Found(page))));
        Ok(answers)
    }

    /// Asks for each id alone, several side by side. Failed requests are repeated together for a
    /// limited time, so that the sync ends however many of them fail.
    ///
    /// # Errors
    /// Clerk is away, or refuses the key.
    pub(super) async fn each_by_id(&self, ids: &[String]) -> Result<Vec<(String, ById)>, Failure> {
        let places = self.mirror.rows().places(ids).await?;
        self.ask_groups(places.into_iter().map(|place| vec![place]).collect())
            .await
    }

    /// The same, but members of one organization are asked for together, at most [`BATCH`]. An answer that
    /// holds several of them is given for one.
    pub(super) async fn each_by_organization(&self, ids: &[String]) -> Result<Vec<(String, ById)>, Failure> {
        let places = self.mirror.rows().places(ids).await?;
        let are_members = matches!(self.resource.confirm, Confirm::Member);
        let (members, others): (Vec<Place>, Vec<Place>) = places
            .into_iter()
            .partition(|place| are_members && place.organization_id.is_some() && place.user_id.is_some());
        let mut groups: BTreeMap<Option<String>, Vec<Place>> = BTreeMap::new();
        for place in members {
            groups.entry(place.organization_id.clone()).or_default().push(place);
        }
        let alone = others.into_iter().map(|place| vec![place]);
        self.ask_groups(groups.into_values().chain(alone).collect()).await
    }

    /// Asks for groups of ids, several side by side.
    async fn ask_groups(&self, groups: Vec<Vec<Place>>) -> Result<Vec<(String, ById)>, Failure> {
        let mut answers = Vec::new();
        let mut failed = HashMap::new();
        let once = &self.clerk.clone().asking_once();
        self.ask_side_by_side(once, &groups, &mut answers, &mut failed).await?;
        let Some(error) = failed.values().next() else {
            return Ok(answers);
        };
        let is_limited = |error| matches!(error, &clerk::Error::RateLimited { .. });
        let patience = if failed.values().any(is_limited) {
            // The client itself waits for as long as Clerk asks for.
            Duration::MAX
        } else if self.is_about_request(error).await? {
            REPEAT_FOR
        } else {
            let error = failed.into_values().next();
            return error.map_or(Ok(answers), |error| Err(error.into()));
        };
        // Each alone: one of them may be the cause.
        let again = groups.into_iter().filter(|group| failed.contains_key(&group[0].id));
        let again: Vec<Vec<Place>> = again.flatten().map(|place| vec![place]).collect();
        let asked = self.ask_side_by_side(&self.clerk, &again, &mut answers, &mut failed);
        if let Ok(asked) = tokio::time::timeout(patience, asked).await {
            asked?;
        }
        let answered: HashSet<String> = answers.iter().map(|(id, _)| id.clone()).collect();
        let unanswered = again.into_iter().flatten().map(|place| place.id);
        let unanswered: Vec<String> = unanswered.filter(|id| !answered.contains(id)).collect();
        answers.extend(unanswered.into_iter().map(|id| {
            let why = failed.remove(&id).map(|error| error.to_string());
            (
                id,
                ById::Unclear(why.unwrap_or_else(|| "Clerk did not answer in time".to_owned())),
            )
        }));
        Ok(answers)
    }

    /// Asks for each group of ids, and sorts the groups by answered and failed. A group goes by its first
    /// id.
    async fn ask_side_by_side(
        &self,
        clerk: &clerk::Client,
        groups: &[Vec<Place>],
        answers: &mut Vec<(String, ById)>,
        failed: &mut HashMap<String, clerk::Error>,
    ) -> Result<(), Failure> {
        let mut asked = stream::iter(groups)
            .map(async |group| (&group[0].id, self.answers_of(clerk, group).await))
            .buffer_unordered(self.options.concurrency);
        while let Some((first, answer)) = asked.next().await {
            match answer {
                Ok(of_group) => {
                    failed.remove(first);
                    answers.extend(of_group);
                }
                Err(error @ (AskError::Stopped | AskError::Clerk(clerk::Error::KeyRefused(_)))) => {
                    return Err(error.into());
                }
                // At the first attempt, the client does not wait.
                Err(error @ AskError::Clerk(clerk::Error::RateLimited { .. })) if failed.contains_key(first) => {
                    return Err(error.into());
                }
                Err(AskError::Clerk(error)) => {
                    failed.insert(first.clone(), error);
                }
            }
        }
        Ok(())
    }

    /// Asks for a group of ids: one, or members of an organization. Organizations that are gone are asked
    /// about once, not once for each member.
    async fn answers_of(&self, clerk: &clerk::Client, group: &[Place]) -> Result<Vec<(String, ById)>, AskError> {
        let organization = group[0].organization_id.as_deref();
        let has_ended = |organization: &str| {
            let since = self.rechecks.since(Observation::Ended, organization, Instant::now());
            since.is_some_and(|since| since < REPLICA_LAG)
        };
        if organization.is_some_and(has_ended) {
            let ended = |place: &Place| (place.id.clone(), ById::EndsWithOrganization);
            return Ok(group.iter().map(ended).collect());
        }
        let answers = match (self.resource.confirm, organization) {
            (Confirm::Member, Some(organization)) => self.answers_of_members(clerk, organization, group).await?,
            _ => {
                let place = &group[0];
                vec![(place.id.clone(), self.answer_by_id(clerk, place).await?)]
            }
        };
        if let ([(_, ById::EndsWithOrganization), ..], Some(organization)) = (&answers[..], organization) {
            self.rechecks.forget(Observation::Ended, organization);
            self.rechecks.note(Observation::Ended, organization, Instant::now());
        }
        Ok(answers)
    }
}
