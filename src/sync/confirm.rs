//! The last part of a sync: ids that Clerk's list left out are asked for by id, in two ways, before any row is deleted.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use tracing::{debug, info, warn};

use super::{
    DeleteMode, Line, Syncer,
    context::SyncContext,
    identity::{Identity, Told},
    page_context::warn_of,
    recheck::{REPLICA_LAG, Said, make_due},
};
use crate::{
    clerk::{self, Lookup, MAX_IDS, Page},
    failure::Failure,
    mirror::{Batch, Mirror, Run, SyncKind},
    reconcile::{
        guard::Checksum,
        walk::{Range, Walk},
    },
    watch::Changes,
};

/// Ids per request; one place is left for the witness.
pub(super) const BATCH: usize = MAX_IDS - 1;

/// Witnesses that are tried before a batch is left undecided.
const WITNESSES: usize = 3;

/// How long failed requests for ids are repeated. What stays unclear is left to the next sync.
const REPEATED: Duration = Duration::from_secs(10);

/// Approved deletions that are tried again at a time.
const MOST_APPROVED: usize = 500;

/// After how long a daemon tries approved deletions again that could not be confirmed.
const TRY_APPROVED_AGAIN: Duration = Duration::from_secs(60);

/// What Clerk answers when it is asked for a batch of ids.
pub(super) enum ByIds {
    /// The users in the page exist; Clerk left the others out.
    Answered(Page),
    /// The server takes no notice of the ids.
    Ignored,
    /// The answer proves nothing, for this reason.
    Void(&'static str),
}

/// What Clerk answers when it is asked for one id.
pub(super) enum ById {
    Gone,
    Found(Page),
    Unclear(String),
}

/// The result of asking for each id alone.
struct Confirmed {
    /// Clerk said that these do not exist.
    gone: Vec<String>,
    /// Clerk did not answer for all.
    is_unclear: bool,
}

impl SyncContext<'_> {
    /// Deletes or holds the rows whose users the sync did not find.
    pub(super) async fn settle_deletions(&mut self, run: &Run) -> Result<(), Failure> {
        if self.syncer.options.delete_mode == DeleteMode::Keep {
            // The walk may continue one that was begun in another mode, and that noted missing ids.
            return Ok(());
        }
        let mirror = &self.syncer.mirror;
        let mut later = Vec::new();
        let mut any_missing = false;
        let mut after = String::new();
        loop {
            let ids = mirror.missing().next(run, &after, BATCH).await?;
            let Some(last) = ids.last() else { break };
            after.clone_from(last);
            any_missing = true;
            later.extend(self.note_absent(run, &ids).await?);
        }

        if !any_missing && run.kind != SyncKind::Full {
            return Ok(());
        }
        self.judge_and_delete(run).await?;
        if let Some(pause) = later.iter().map(|(_, pause)| *pause).max() {
            let ids: Vec<String> = later.into_iter().map(|(id, _)| id).collect();
            self.settle_later(run, ids, pause).await?;
        }
        mirror.missing().forget_open(run).await?;
        self.report.held = mirror.missing().count_held().await?;
        if self.report.held > 0 {
            self.report.plan = mirror.missing().checksum().await?;
            warn!(
                held = self.report.held,
                plan = self.report.plan,
                "deletions are held; see them with `clerk2pg --dry-run`, approve them with `clerk2pg approve`"
            );
        }
        self.retry_approved().await
    }

    /// Asks for missing ids, and notes those that are absent. Returns the ids whose answer does not count yet.
    async fn note_absent(&mut self, run: &Run, ids: &[String]) -> Result<Vec<(String, Duration)>, Failure> {
        let absent = self.ask_for(ids).await?;
        let (absent, later) = self.apart(&absent).await?;
        self.syncer.mirror.missing().note_absent(run.lease(), &absent).await?;
        Ok(later)
    }

    /// Holds the absent ids if there are too many of them, and deletes the rows of those that are not held.
    async fn judge_and_delete(&mut self, run: &Run) -> Result<(), Failure> {
        let mirror = &self.syncer.mirror;
        let absent = mirror.missing().count_absent().await?;
        if absent > 0 && self.must_hold(mirror, absent).await? {
            mirror.missing().hold(run.lease()).await?;
        }
        let mut after = String::new();
        let mut has_time_for_kept = true;
        loop {
            let ids = mirror.missing().deletable(run, &after, MAX_IDS).await?;
            let Some(last) = ids.last() else { return Ok(()) };
            after.clone_from(last);
            let syncer = self.syncer;
            let (told, confirmed) = tokio::join!(syncer.ask_identity(), self.confirm(&ids));
            let confirmed = confirmed?;
            if !confirmed.gone.is_empty() {
                let told = match told? {
                    weak if weak.is_weak() => syncer.ask_identity().await?,
                    told => told,
                };
                if !self.is_mirrored_instance(told)? {
                    return Ok(());
                }
            }
            let kept: HashSet<String> = self
                .syncer
                .mirror
                .rejected()
                .kept_among(&confirmed.gone)
                .await?
                .into_iter()
                .collect();
            let (kept, gone): (Vec<String>, Vec<String>) = confirmed.gone.into_iter().partition(|id| kept.contains(id));
            if !gone.is_empty() && !self.delete(run, &gone).await? {
                return Ok(());
            }
            // Rows that cannot go quickly must not keep the others here.
            has_time_for_kept = has_time_for_kept && self.delete_kept(run, kept).await?;
            if confirmed.is_unclear {
                // What a server cannot answer for some it cannot answer for the next ones either.
                return Ok(());
            }
        }
    }

    /// Deletes rows that the application kept in an earlier sync. They were not judged with the others, and may all be free to go now: no more
    /// of them go than the guard allows. Where some went, the rest is held. Returns whether there was time for all.
    async fn delete_kept(&mut self, run: &Run, mut kept: Vec<String>) -> Result<bool, Failure> {
        let before = self.report.deleted;
        while !kept.is_empty() {
            let room = self.room().await?;
            if room == 0 {
                if self.report.deleted > before {
                    self.syncer.mirror.missing().hold_these(run.lease(), &kept).await?;
                }
                break;
            }
            let rest = kept.split_off(kept.len().min(room));
            if !self.delete(run, &kept).await? {
                return Ok(false);
            }
            kept = rest;
        }
        Ok(true)
    }

    /// How many rows may still be deleted without a person's approval.
    async fn room(&self) -> Result<usize, Failure> {
        if self.witnesses.is_empty() {
            return Ok(0);
        }
        let mirror = &self.syncer.mirror;
        let lately = mirror.missing().deleted_lately().await?;
        let room = self
            .syncer
            .options
            .limits
            .room(lately, mirror.counts().users().await? + lately);
        Ok(usize::try_from(room).unwrap_or(usize::MAX))
    }

    /// Whether the mirrored instance answered. The deletions wait where that is unclear.
    fn is_mirrored_instance(&mut self, told: Told) -> Result<bool, Failure> {
        match self.syncer.identity(told, self.carryover)? {
            Identity::Confirmed => Ok(true),
            Identity::Unclear(why) => {
                self.note(format!("deletions wait until Clerk says which instance this is: {why}"));
                Ok(false)
            }
        }
    }

    /// Asks again for ids whose first answer does not count: at the end of a single run, or with the daemon's next syncs.
    async fn settle_later(&mut self, run: &Run, ids: Vec<String>, pause: Duration) -> Result<(), Failure> {
        info!(
            users = ids.len(),
            pause_ms = pause.as_millis() as u64,
            "missing users are asked for once more, as Clerk may answer from a replica that lags"
        );
        if !self.syncer.is_single_run() {
            make_due(&self.syncer.due, ids, pause);
            return Ok(());
        }
        self.syncer.pause(pause).await?;
        let mut later = 0;
        for ids in ids.chunks(BATCH) {
            later += self.note_absent(run, ids).await?.len();
        }
        self.judge_and_delete(run).await?;
        if later > 0 {
            self.note(format!(
                "{later} missing users could not be asked for twice; the next sync asks again"
            ));
        }
        Ok(())
    }

    /// Makes approved deletions that could not be carried out due again after a minute, in a daemon.
    async fn retry_approved(&self) -> Result<(), Failure> {
        if self.syncer.is_single_run() {
            return Ok(());
        }
        let approved = self.syncer.mirror.missing().approved(MOST_APPROVED).await?;
        if !approved.is_empty() {
            make_due(&self.syncer.due, approved, TRY_APPROVED_AGAIN);
        }
        Ok(())
    }

    /// Deletes rows whose deletion Clerk confirmed. Returns whether there was time for all of them.
    async fn delete(&mut self, run: &Run, ids: &[String]) -> Result<bool, Failure> {
        let mark = self.syncer.options.delete_mode == DeleteMode::Mark;
        let done = self.syncer.mirror.rows().delete(run, ids, mark).await?;
        for id in ids {
            if !done.kept.iter().any(|row| row.user_id == *id) && !done.left.contains(id) {
                self.syncer.rechecks.forget(Said::Deleted, id);
                self.syncer.rechecks.note(Said::Deleted, id, Instant::now());
            }
        }
        self.report.deleted += done.rows;
        self.syncer.watch.record_changes(Changes {
            deleted: done.rows,
            ..Changes::default()
        });
        warn_of(&done.kept);
        if !done.left.is_empty() {
            self.note("deleting rows takes Postgres so long that some are left to the next sync");
        }
        Ok(done.left.is_empty())
    }

    /// The same for a dry run, on what it kept in memory.
    pub(super) async fn plan_deletions(&mut self) -> Result<(), Failure> {
        if self.syncer.options.delete_mode == DeleteMode::Keep {
            return Ok(());
        }
        let Some(dry_run) = &mut self.dry_run else {
            return Ok(());
        };
        let mut missing: HashSet<String> = std::mem::take(&mut dry_run.missing).into_iter().collect();
        missing.retain(|id| !dry_run.updated.contains(id));
        let Some(mirror) = self.desk.mirror else { return Ok(()) };
        let held = mirror.missing().held().await?;
        missing.extend(held.keys().cloned());
        if self.syncer.options.delete_mode == DeleteMode::Delete {
            missing.extend(mirror.rows().marked().await?);
        }
        let mut missing: Vec<String> = missing.into_iter().collect();
        missing.sort_unstable();
        let mut absent = Vec::new();
        for ids in missing.chunks(BATCH) {
            absent.append(&mut self.ask_for(ids).await?);
        }
        let kept = mirror.rejected().kept_rows().await?;
        let is_judged = |id: &&String| held.get(*id) != Some(&true) && !kept.contains(*id);
        let judged: Vec<String> = absent.iter().filter(is_judged).cloned().collect();
        let hold = !judged.is_empty() && self.must_hold(mirror, judged.len() as u64).await?;
        let is_held = |id: &String| match held.get(id) {
            Some(is_approved) => !is_approved,
            None => hold && !kept.contains(id),
        };
        let (held, candidates): (Vec<String>, Vec<String>) = absent.into_iter().partition(is_held);
        let mut delete = Vec::new();
        for ids in candidates.chunks(MAX_IDS) {
            delete.extend(self.confirm(ids).await?.gone);
        }
        self.report.deleted = delete.len() as u64;
        self.report.held = held.len() as u64;
        self.report.plan = Checksum::of(if held.is_empty() { &delete } else { &held });
        if let Some(dry_run) = &mut self.dry_run {
            delete.iter().for_each(|id| (dry_run.print)(Line::Delete(id)));
            held.iter().for_each(|id| (dry_run.print)(Line::Hold(id)));
        }
        Ok(())
    }

    /// Whether new deletions must wait for a person when so many ids are absent. They are judged together with the rows
    /// that went within the last hour: syncs every few seconds must not split one large deletion into many small ones.
    async fn must_hold(&self, mirror: &Mirror, absent: u64) -> Result<bool, Failure> {
        // No user at all is more likely a wrong key or an outage than a real deletion, and offers no witness.
        if self.witnesses.is_empty() {
            return Ok(true);
        }
        let lately = mirror.missing().deleted_lately().await?;
        let users = mirror.counts().users().await? + lately;
        Ok(self.syncer.options.limits.hold(absent + lately, users))
    }

    /// Asks for a batch of ids. Stores the users that are found, and returns the ids that are absent.
    async fn ask_for(&mut self, ids: &[String]) -> Result<Vec<String>, Failure> {
        let page = match self.by_ids(ids).await? {
            ByIds::Answered(page) => page,
            ByIds::Ignored => return self.ask_one_by_one(ids).await,
            ByIds::Void(why) => {
                self.note(format!(
                    "{} missing users could not be asked for by id: {why}",
                    ids.len()
                ));
                return Ok(Vec::new());
            }
        };
        let asked: HashSet<&str> = ids.iter().map(String::as_str).collect();
        let mut found: Vec<&clerk::Raw> = page
            .users()
            .iter()
            .filter(|raw| raw.id.as_deref().is_some_and(|id| asked.contains(id)))
            .collect();
        let found_ids: HashSet<&str> = found.iter().filter_map(|raw| raw.id.as_deref()).collect();
        if self.desk.holds.load(Ordering::Relaxed) {
            // A replica that lags still shows what was held a moment ago.
            let ids: Vec<&str> = found_ids.iter().copied().collect();
            let held = self.syncer.mirror.missing().held_lately_among(&ids).await?;
            found.retain(|raw| !held.iter().any(|id| raw.id.as_ref() == Some(id)));
        }
        let absent: Vec<String> = ids
            .iter()
            .filter(|id| !found_ids.contains(id.as_str()))
            .cloned()
            .collect();
        if !found.is_empty() {
            debug!(users = found.len(), "no page had shown some users that exist");
            self.store_found(&page, &found).await?;
        }
        Ok(absent)
    }

    /// Asks for each id alone, because the server ignores `user_id`. Two such answers then confirm a deletion.
    async fn ask_one_by_one(&mut self, ids: &[String]) -> Result<Vec<String>, Failure> {
        self.carryover
            .tell_once("this server ignores user_id; deletions are confirmed by two answers for each id");
        self.asks_one_by_one = true;
        let answers = self.syncer.each_by_id(ids).await?;
        let (absent, unclear) = self.take_answers(answers).await?;
        for id in &absent {
            self.syncer.rechecks.note(Said::Gone, id, Instant::now());
        }
        self.note_unclear(unclear, "missing users could not be asked for by id");
        Ok(absent)
    }

    /// Stores users that turned out to exist.
    async fn store_found(&mut self, page: &Page, found: &[&clerk::Raw]) -> Result<(), Failure> {
        let ids: Vec<String> = found.iter().filter_map(|raw| raw.id.clone()).collect();
        ids.iter().for_each(|id| self.syncer.rechecks.forget(Said::Gone, id));
        let more = Batch {
            found: ids,
            ..Batch::default()
        };
        self.take(page, found.to_vec(), None, HashSet::new(), more).await
    }

    /// Asks for ids together with one that is known to exist. An answer without that one, or with strangers, is void. Where
    /// no user is known to exist the ids are asked for alone: their deletions are held in any case.
    pub(super) async fn by_ids(&self, ids: &[String]) -> Result<ByIds, Failure> {
        let mut why = "";
        let witnesses = self.witnesses.iter().rev().take(WITNESSES).map(Some);
        let alone = self.witnesses.is_empty().then_some(None);
        for witness in witnesses.chain(alone) {
            let asked: Vec<&str> = ids.iter().chain(witness).map(String::as_str).collect();
            let page = match self.syncer.or_stop_raw(self.syncer.clerk.named(&asked)).await? {
                Ok(page) => page,
                Err(error) if self.syncer.is_of_this_request(&error).await? => {
                    return Ok(ByIds::Void("the answer cannot be used"));
                }
                Err(error) => return Err(error.into()),
            };
            let asked: HashSet<&str> = asked.into_iter().collect();
            let is_stranger = |raw: &clerk::Raw| raw.id.as_deref().is_none_or(|id| !asked.contains(id));
            if page.users().iter().any(is_stranger) {
                return Ok(ByIds::Ignored);
            }
            let Some(witness) = witness else {
                return Ok(ByIds::Answered(page));
            };
            if page.users().iter().any(|raw| raw.id.as_ref() == Some(witness)) {
                return Ok(ByIds::Answered(page));
            }
            why = "the answer leaves out a user that is known to exist";
            debug!(witness, "{why}");
        }
        Ok(ByIds::Void(why))
    }

    /// Confirms deletions by asking for each id alone, provided that users known to exist are found that way.
    async fn confirm(&mut self, ids: &[String]) -> Result<Confirmed, Failure> {
        // Where the list cannot be filtered, answers for single ids are all that there is: they need two witnesses.
        let least = if self.asks_one_by_one { 2 } else { 1 };
        // Side by side, as each costs a round trip.
        let (knows_users, answers) = tokio::join!(self.knows_users_by_id(least), self.syncer.each_by_id(ids));
        if !knows_users? {
            self.note("deletions could not be confirmed: users that are known to exist are not found by their id");
            return Ok(Confirmed {
                gone: Vec::new(),
                is_unclear: true,
            });
        }
        let (gone, unclear) = self.take_answers(answers?).await?;
        self.note_unclear(unclear, "deletions could not be confirmed");
        Ok(Confirmed {
            gone,
            is_unclear: unclear > 0,
        })
    }

    /// Sets ids apart whose answer would not count yet, each with the time that is left.
    async fn apart(&self, ids: &[String]) -> Result<(Vec<String>, Vec<(String, Duration)>), Failure> {
        let rechecks = &self.syncer.rechecks;
        let now = Instant::now();
        let mut young = match self.desk.mirror {
            Some(mirror) => mirror.rows().too_young(ids, REPLICA_LAG).await?,
            None => HashMap::new(),
        };
        // The database's clock went back since the row was written: the clock of this process decides.
        young.retain(|id, left| {
            if *left <= REPLICA_LAG {
                return true;
            }
            *left = REPLICA_LAG.saturating_sub(rechecks.note(Said::Gone, id, now));
            !left.is_zero()
        });
        if self.asks_one_by_one {
            for id in ids {
                let left = REPLICA_LAG.saturating_sub(rechecks.note(Said::Gone, id, now));
                if !left.is_zero() {
                    let longest = young.get(id).copied().unwrap_or_default().max(left);
                    young.insert(id.clone(), longest);
                }
            }
        }
        let old = ids.iter().filter(|id| !young.contains_key(*id)).cloned().collect();
        let mut young: Vec<_> = young.into_iter().collect();
        young.sort_unstable();
        Ok((old, young))
    }

    /// Takes the answers for single ids. Stores the users that are found; returns the ids that Clerk says are gone, and the number of
    /// ids that stay unclear.
    async fn take_answers(&mut self, mut answers: Vec<(String, ById)>) -> Result<(Vec<String>, usize), Failure> {
        answers.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let mut gone = Vec::new();
        let mut unclear = 0;
        for (id, answer) in answers {
            match answer {
                ById::Gone => gone.push(id),
                ById::Found(page) => {
                    info!(user_id = id, "left out of the list, but found by id");
                    let found: Vec<&clerk::Raw> = page.users().iter().collect();
                    self.store_found(&page, &found).await?;
                }
                ById::Unclear(error) => {
                    warn!(user_id = id, error, "a deletion could not be confirmed");
                    unclear += 1;
                }
            }
        }
        Ok((gone, unclear))
    }

    fn note_unclear(&mut self, unclear: usize, what: &str) {
        if unclear > 0 {
            self.note(format!("{unclear} {what}"));
        }
    }

    /// Whether at least `least` users that are known to exist are found by their id. A server that finds nobody by id confirms
    /// nothing. Where no user is known to exist, a person has approved.
    async fn knows_users_by_id(&self, least: usize) -> Result<bool, Failure> {
        let mut witnesses: Vec<String> = Vec::new();
        for witness in self.witnesses.iter().rev() {
            if witnesses.len() < WITNESSES && !witnesses.contains(witness) {
                witnesses.push(witness.clone());
            }
        }
        let (first, others) = witnesses.split_at(least.min(witnesses.len()));
        let mut found = 0;
        for witnesses in [first, others] {
            let answers = self.syncer.each_by_id(witnesses).await?;
            found += answers
                .iter()
                .filter(|(_, answer)| matches!(answer, ById::Found(_)))
                .count();
            if found >= least {
                return Ok(true);
            }
        }
        Ok(self.witnesses.is_empty())
    }
}

impl Syncer {
    /// Whether an error is about what was asked for, and not about Clerk being away: a server that can still count or list has trouble
    /// with this request only.
    pub(super) async fn is_of_this_request(&self, error: &clerk::Error) -> Result<bool, Failure> {
        Ok(match error {
            clerk::Error::KeyRefused(_) | clerk::Error::RateLimited { .. } => false,
            clerk::Error::Unavailable { .. } => {
                self.or_stop_raw(self.clerk.count(Range::ALL)).await?.is_ok() || self.lists_users().await?
            }
            _ => true,
        })
    }

    /// Whether Clerk lists users at this moment.
    pub(super) async fn lists_users(&self) -> Result<bool, Failure> {
        let clerk = self.clerk.clone().asking_once();
        Ok(self.or_stop_raw(clerk.list(&Walk::new().query(), 1)).await?.is_ok())
    }

    async fn answer_by_id(&self, clerk: &clerk::Client, id: &str) -> Result<Result<ById, clerk::Error>, Failure> {
        let lookup = self.or_stop_raw(clerk.user(id)).await?;
        Ok(lookup.map(|lookup| match lookup {
            Lookup::Gone => ById::Gone,
            Lookup::Found(page) if page.users().iter().any(|raw| raw.id.as_deref() == Some(id)) => ById::Found(page),
            Lookup::Found(_) => ById::Unclear("Clerk answered with another user than it was asked for".to_owned()),
        }))
    }

    /// Asks for each id alone, several side by side. Failed requests are repeated together and for a limited time, so that
    /// the sync ends however many fail.
    ///
    /// # Errors
    /// Clerk is away, or refuses the key.
    pub(super) async fn each_by_id(&self, ids: &[String]) -> Result<Vec<(String, ById)>, Failure> {
        let mut answers = Vec::new();
        let mut failed = HashMap::new();
        let once = &self.clerk.clone().asking_once();
        self.ask_side_by_side(once, ids, &mut answers, &mut failed).await?;
        let Some(error) = failed.values().next() else {
            return Ok(answers);
        };
        let is_limited = |error| matches!(error, &clerk::Error::RateLimited { .. });
        let patience = if failed.values().any(is_limited) {
            // The client itself waits as long as it is told to.
            Duration::MAX
        } else if self.is_of_this_request(error).await? {
            REPEATED
        } else {
            let error = failed.into_values().next();
            return error.map_or(Ok(answers), |error| Err(error.into()));
        };
        let again: Vec<String> = failed.keys().cloned().collect();
        let asked = self.ask_side_by_side(&self.clerk, &again, &mut answers, &mut failed);
        if let Ok(asked) = tokio::time::timeout(patience, asked).await {
            asked?;
        }
        let unclear = failed
            .into_iter()
            .map(|(id, error)| (id, ById::Unclear(error.to_string())));
        answers.extend(unclear);
        Ok(answers)
    }

    async fn ask_side_by_side(
        &self,
        clerk: &clerk::Client,
        ids: &[String],
        answers: &mut Vec<(String, ById)>,
        failed: &mut HashMap<String, clerk::Error>,
    ) -> Result<(), Failure> {
        let mut asked = stream::iter(ids)
            .map(async |id| (id, self.answer_by_id(clerk, id).await))
            .buffer_unordered(self.options.concurrency);
        while let Some((id, answer)) = asked.next().await {
            match answer? {
                Ok(answer) => {
                    failed.remove(id);
                    answers.push((id.clone(), answer));
                }
                Err(error @ clerk::Error::KeyRefused(_)) => return Err(error.into()),
                // The first time, the client was told not to wait.
                Err(error @ clerk::Error::RateLimited { .. }) if failed.contains_key(id) => return Err(error.into()),
                Err(error) => {
                    failed.insert(id.clone(), error);
                }
            }
        }
        Ok(())
    }
}
