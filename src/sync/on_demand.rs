//! A sync on demand: some users by id, at once, because somebody waits for them.

use std::time::Instant;

use tracing::debug;

use super::{
    Carryover, DeleteMode, SyncContext, SyncOutcome, Syncer,
    confirm::ById,
    recheck::{REPLICA_LAG, Said, make_due},
    run::Opening,
};
use crate::{
    clerk::MAX_IDS,
    failure::Failure,
    mirror::{Batch, Run, SyncKind},
};

/// Users that are asked for together with ids that may be gone.
const WITNESSES: u32 = 3;

/// What Clerk says to some ids.
#[derive(Default)]
pub(super) struct Asked {
    /// Who differs from the mirror.
    news: Vec<crate::clerk::Page>,
    /// Who is not there.
    gone: Vec<String>,
}

impl Syncer {
    /// Brings these users. A user who is not in the mirror and not at Clerk is nobody.
    ///
    /// # Errors
    /// The sync could not be carried through.
    pub async fn on_demand(&self, ids: &[String], carryover: &mut Carryover) -> Result<SyncOutcome, Failure> {
        let opening = Opening::new(self, SyncKind::OnDemand);
        let state = match self.begin_look(carryover).await? {
            Ok(state) => state,
            Err(followed) => return Ok(followed),
        };
        let asked = self.ask_by_id(ids).await?;
        if asked.news.is_empty() && asked.gone.is_empty() {
            return Ok(SyncOutcome::Idle);
        }
        self.expect_instance(carryover).await?;
        let Some(lease) = self.lease_since(state.lease_epoch).await? else {
            return Ok(SyncOutcome::Standby);
        };
        let work = async |running: &mut SyncContext<'_>, run: &Run| running.bring_alone(run, asked).await;
        let report = self.under_lease(&lease, opening, carryover, work).await?;
        Ok(SyncOutcome::Done(report))
    }

    pub(super) async fn ask_by_id(&self, ids: &[String]) -> Result<Asked, Failure> {
        let part = Syncer {
            clerk: self.clerk.for_notifications(),
            ..self.clone()
        };
        let mut asked = Asked::default();
        let (mut absent, mut unclear) = (Vec::new(), Vec::new());
        let holds = self.mirror.missing().any_held().await?;
        for (id, answer) in part.each_by_id(ids).await? {
            let id = id.as_str();
            match answer {
                ById::Found(page) => {
                    self.rechecks.forget(Said::Gone, id);
                    let is_held = holds && !self.mirror.missing().held_among(&[id]).await?.is_empty();
                    if is_held || self.is_news(&page, true).await? {
                        asked.news.push(page);
                    } else if self.rechecks.since(Said::Older, id, Instant::now()) >= Some(REPLICA_LAG) {
                        self.rechecks.forget(Said::Older, id);
                    }
                }
                ById::Gone => absent.push(id.to_owned()),
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
            let known = self.mirror.rows().by_ids(&absent).await?;
            asked.gone = known.into_iter().filter(|row| !row.deleted).map(|row| row.id).collect();
        }
        let unknown = absent.iter().filter(|id| !asked.gone.iter().any(|gone| gone == *id));
        self.due.users_unknown(unknown.cloned().collect());
        debug!(
            users = ids.len(),
            news = asked.news.len(),
            gone = asked.gone.len(),
            "asked for by id"
        );
        Ok(asked)
    }
}

impl Syncer {
    /// Remembers users that were shown in a state that is not trusted yet. A daemon asks for them again.
    pub(super) fn note_older(&self, ids: &[String]) {
        let now = Instant::now();
        let is_first = |id: &&String| self.rechecks.note(Said::Older, id, now).is_zero();
        let ids: Vec<String> = ids.iter().filter(is_first).cloned().collect();
        if !ids.is_empty() && !self.is_single_run() {
            debug!(
                users = ids.len(),
                "Clerk shows an older state; asking again when replicas have caught up"
            );
            make_due(&self.due, ids, REPLICA_LAG);
        }
    }
}

impl SyncContext<'_> {
    /// Asks again for users that were shown in a state that is not trusted. What Clerk still shows after ten seconds is stored.
    /// A daemon does so only if there are many; otherwise on-demand syncs ask for them.
    pub(super) async fn settle_older(&mut self) -> Result<(), Failure> {
        let older = self.syncer.rechecks.older(Instant::now());
        let Some(pause) = older.iter().map(|(_, left)| *left).max() else {
            return Ok(());
        };
        if !self.syncer.is_single_run() && older.len() <= MAX_IDS {
            return Ok(());
        }
        self.syncer.pause(pause).await?;
        let ids: Vec<&str> = older.iter().map(|(id, _)| id.as_str()).collect();
        for ids in ids.chunks(MAX_IDS) {
            let page = match self.syncer.or_stop_raw(self.syncer.clerk.named(ids)).await? {
                Ok(page) => page,
                Err(error) if self.syncer.is_of_this_request(&error).await? => break,
                Err(error) => return Err(error.into()),
            };
            self.take_by_id(&page).await?;
            // Users that are gone are left to the next sync.
            let is_shown = |id: &str| page.users().iter().any(|raw| raw.id.as_deref() == Some(id));
            let gone = ids.iter().filter(|id| !is_shown(id));
            gone.for_each(|id| self.syncer.rechecks.forget(Said::Older, id));
        }
        self.note_older_left();
        Ok(())
    }

    /// Says how many users stay in another state than Clerk shows.
    fn note_older_left(&mut self) {
        let left = self.syncer.rechecks.older(Instant::now()).len();
        if left > 0 {
            self.note(format!(
                "Clerk showed {left} users in an older state than before; the next sync asks again"
            ));
        }
    }

    /// Asks for users by id and stores those that exist.
    pub(super) async fn store_by_id(&mut self, ids: &[String]) -> Result<(), Failure> {
        let asked = self.syncer.ask_by_id(ids).await?;
        // Users that are gone by now are deleted by the next sync.
        let gone = Vec::new();
        self.bring(Asked { gone, ..asked }).await
    }

    /// Brings who was asked for. Who is not there any more is a question for the end of the sync.
    pub(super) async fn bring(&mut self, Asked { news, gone }: Asked) -> Result<(), Failure> {
        for page in &news {
            self.take_by_id(page).await?;
        }
        self.apply(Batch {
            missing: gone,
            ..Batch::default()
        })
        .await
    }

    async fn bring_alone(&mut self, run: &Run, asked: Asked) -> Result<(), Failure> {
        let gone = asked.gone.clone();
        self.bring(asked).await?;
        if self.resume_deletions().await? || !gone.is_empty() {
            match self.syncer.or_stop_raw(self.syncer.clerk.recent(0, WITNESSES)).await? {
                Ok(known) => self.remember(&known),
                // Users of the mirror do as well: a witness proves itself by being in the answer.
                Err(error) if self.syncer.is_of_this_request(&error).await? => {
                    self.remember_all(
                        self.syncer
                            .mirror
                            .rows()
                            .newest_ids_except(&gone, WITNESSES as usize)
                            .await?,
                    );
                }
                Err(error) => return Err(error.into()),
            }
            self.settle_deletions(run).await?;
        }
        self.retry_refused(run).await
    }
}
