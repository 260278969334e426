//! The second part of a pass: whom the walk did not meet is asked for by name, in two ways, before anyone is deleted.

use std::collections::HashSet;

use futures_util::{StreamExt, stream};
use tracing::{debug, info, warn};

use super::{DeleteMode, Line, Pass, desk::warn_of, running::Running};
use crate::{
    clerk::{self, Lookup, NAMES, Page},
    failure::{Cause, Failure},
    guard::Checksum,
    mirror::{Batch, Kind, Lease, Mirror, Run},
    walk::Interval,
    watch::Changes,
};

/// A batch of names leaves room for the witness.
const BATCH: usize = NAMES - 1;

/// So many witnesses are tried before a batch is left undecided.
const WITNESSES: usize = 3;

/// What Clerk says to a list of names.
enum ByName {
    /// Those in the page exist; the others were left out.
    Answered(Page),
    /// The answer proves nothing.
    Void(&'static str),
}

/// What Clerk says to one id.
pub(super) enum ById {
    Gone,
    Found(Page),
    Unclear(clerk::Error),
}

impl Running<'_> {
    /// Carries out or holds the deletions that the pass left as a question.
    pub(super) async fn settle_deletions(&mut self, lease: &Lease, run: &Run) -> Result<(), Failure> {
        if self.pass.options.delete_mode == DeleteMode::Keep {
            // The walk may go on with one that was begun in another mode, and that noted who is missing.
            return Ok(());
        }
        let mirror = &self.pass.mirror;
        let mut any_missing = false;
        let mut after = String::new();
        loop {
            let ids = mirror.missing(run, &after, BATCH).await?;
            let Some(last) = ids.last() else { break };
            after.clone_from(last);
            any_missing = true;
            let absent = self.ask_for(&ids).await?;
            mirror.note_absent(lease, &absent).await?;
        }

        if !any_missing && run.kind != Kind::Full {
            return Ok(());
        }
        let absent = mirror.count_absent().await?;
        let hold = self.must_hold(mirror, absent).await?;
        let mark = self.pass.options.delete_mode == DeleteMode::Mark;
        let mut after = String::new();
        loop {
            let ids = mirror.absent(run, &after, NAMES, hold).await?;
            let Some(last) = ids.last() else { break };
            after.clone_from(last);
            let confirmed = self.confirm(&ids).await?;
            if !confirmed.is_empty() {
                let (deleted, kept) = mirror.delete(lease, run, &confirmed, mark).await?;
                self.report.deleted += deleted;
                self.report.rejected += kept.len() as u64;
                self.pass.watch.changed(Changes {
                    deleted,
                    rejected: kept.len() as u64,
                    ..Changes::default()
                });
                warn_of(&kept);
            }
        }
        if !hold {
            mirror.forget_open(lease, run).await?;
        } else if absent > 0 {
            self.report.held = absent;
            self.report.plan = mirror.hold(lease).await?;
            warn!(
                held = absent,
                plan = self.report.plan,
                "deletions are held; see them with `clerk2pg --dry-run`, let them through with `clerk2pg approve`"
            );
        }
        Ok(())
    }

    /// The same for a dry run, on what it kept in memory.
    pub(super) async fn plan_deletions(&mut self) -> Result<(), Failure> {
        let Some(paper) = &mut self.paper else {
            return Ok(());
        };
        let mut missing = std::mem::take(&mut paper.missing);
        missing.retain(|id| !paper.updated.contains(id));
        let Some(mirror) = self.desk.mirror else { return Ok(()) };
        let approved: HashSet<String> = mirror.approved().await?.into_iter().collect();
        let mut absent = Vec::new();
        for ids in missing.chunks(BATCH) {
            absent.append(&mut self.ask_for(ids).await?);
        }
        let (approved, unapproved): (Vec<String>, Vec<String>) =
            absent.into_iter().partition(|id| approved.contains(id));
        let kept = mirror.kept_rows().await?;
        let judged: Vec<String> = unapproved.iter().filter(|id| !kept.contains(*id)).cloned().collect();
        let hold = self.must_hold(mirror, judged.len() as u64).await?;
        let mut candidates = approved;
        if hold {
            self.report.held = judged.len() as u64;
            self.report.plan = Checksum::of(&judged);
        } else {
            candidates.extend_from_slice(&unapproved);
        }
        let mut delete = Vec::new();
        for ids in candidates.chunks(NAMES) {
            delete.append(&mut self.confirm(ids).await?);
        }
        self.report.deleted = delete.len() as u64;
        if !hold {
            self.report.plan = Checksum::of(&delete);
        }
        if let Some(paper) = &mut self.paper {
            delete.iter().for_each(|id| (paper.print)(Line::Delete(id)));
            if hold {
                judged.iter().for_each(|id| (paper.print)(Line::Hold(id)));
            }
        }
        Ok(())
    }

    /// Whether only what a person approved may go, where so many are absent. They are judged together with those who went within the last
    /// hour: passes every few seconds must not make many small deletions of one large one.
    async fn must_hold(&self, mirror: &Mirror, absent: u64) -> Result<bool, Failure> {
        // A Clerk without a single user is more likely a wrong key or an outage than everybody's farewell, and offers no witness.
        if self.witnesses.is_empty() {
            return Ok(true);
        }
        if absent == 0 {
            return Ok(false);
        }
        let lately = mirror.deleted_lately().await?;
        let users = mirror.count().await? + lately;
        Ok(self.pass.options.limits.hold(absent + lately, users))
    }

    /// Asks for ids by name. Those found are brought in step; those left out are returned.
    async fn ask_for(&mut self, ids: &[String]) -> Result<Vec<String>, Failure> {
        let page = match self.by_name(ids).await? {
            ByName::Answered(page) => page,
            ByName::Void(why) => {
                self.note(format!(
                    "{} missing users could not be asked for by name: {why}",
                    ids.len()
                ));
                return Ok(Vec::new());
            }
        };
        let asked: HashSet<&str> = ids.iter().map(String::as_str).collect();
        let found: Vec<&clerk::Raw> = page
            .users()
            .iter()
            .filter(|raw| raw.id.as_deref().is_some_and(|id| asked.contains(id)))
            .collect();
        let found_ids: HashSet<&str> = found.iter().filter_map(|raw| raw.id.as_deref()).collect();
        let absent: Vec<String> = ids
            .iter()
            .filter(|id| !found_ids.contains(id.as_str()))
            .cloned()
            .collect();
        if !found_ids.is_empty() {
            debug!(users = found_ids.len(), "no page had shown some users that exist");
            self.keep(&page, &found).await?;
        }
        Ok(absent)
    }

    /// Brings the mirror in step with users that turned out to exist.
    async fn keep(&mut self, page: &Page, found: &[&clerk::Raw]) -> Result<(), Failure> {
        let more = Batch {
            found: found.iter().filter_map(|raw| raw.id.clone()).collect(),
            ..Batch::default()
        };
        self.take(page, found.iter().copied(), None, HashSet::new(), more).await
    }

    /// Asks for names together with one that is known to exist. An answer without that one, or with strangers, is void. Where nobody is
    /// known to exist the names are asked for alone: their deletions are held for a person in any case.
    async fn by_name(&self, ids: &[String]) -> Result<ByName, Failure> {
        let mut why = "";
        let witnesses = self.witnesses.iter().rev().take(WITNESSES).map(Some);
        let alone = self.witnesses.is_empty().then_some(None);
        for witness in witnesses.chain(alone) {
            let names: Vec<&str> = ids.iter().chain(witness).map(String::as_str).collect();
            let page = match self.pass.or_stop_raw(self.pass.clerk.named(&names)).await? {
                Ok(page) => page,
                Err(error) if self.is_of_this_request(&error).await? => {
                    return Ok(ByName::Void("the answer cannot be used"));
                }
                Err(error) => return Err(error.into()),
            };
            let names: HashSet<&str> = names.into_iter().collect();
            let is_stranger = |raw: &clerk::Raw| raw.id.as_deref().is_none_or(|id| !names.contains(id));
            if page.users().iter().any(is_stranger) {
                return Ok(ByName::Void(
                    "the answer holds users that were not asked for; this server ignores user_id",
                ));
            }
            let Some(witness) = witness else {
                return Ok(ByName::Answered(page));
            };
            if page.users().iter().any(|raw| raw.id.as_ref() == Some(witness)) {
                return Ok(ByName::Answered(page));
            }
            why = "the answer leaves out a user that is known to exist";
            debug!(witness, "{why}");
        }
        Ok(ByName::Void(why))
    }

    pub(super) async fn is_of_this_request(&self, error: &clerk::Error) -> Result<bool, Failure> {
        self.pass.is_of_this_request(error).await
    }

    /// Asks for each id alone: those that Clerk says are gone are returned, those found after all are brought in step.
    async fn confirm(&mut self, ids: &[String]) -> Result<Vec<String>, Failure> {
        let answers = stream::iter(ids)
            .map(async |id| (id, self.pass.by_id(id).await))
            .buffered(self.pass.options.concurrency)
            .collect::<Vec<_>>();
        let (knows_somebody, answers) = tokio::join!(self.knows_somebody_by_id(), answers);
        if !knows_somebody? {
            self.note(format!(
                "{} deletions could not be confirmed: users that are known to exist are not found by their id",
                ids.len()
            ));
            return Ok(Vec::new());
        }
        let mut gone = Vec::new();
        let mut unclear = 0;
        for (id, answer) in answers {
            match answer? {
                ById::Gone => gone.push(id.clone()),
                ById::Found(page) => {
                    info!(user_id = id, "left out of the list, but there");
                    let found: Vec<&clerk::Raw> = page.users().iter().collect();
                    self.keep(&page, &found).await?;
                }
                ById::Unclear(error) => {
                    warn!(user_id = id, %error, "a deletion could not be confirmed");
                    unclear += 1;
                }
            }
        }
        if unclear > 0 {
            self.note(format!("{unclear} deletions could not be confirmed"));
        }
        Ok(gone)
    }

    /// A server that finds nobody by id, not even one who exists, confirms nothing. Where there is no witness a person has approved.
    async fn knows_somebody_by_id(&self) -> Result<bool, Failure> {
        for witness in self.witnesses.iter().rev().take(WITNESSES) {
            if matches!(self.pass.by_id(witness).await?, ById::Found(_)) {
                return Ok(true);
            }
        }
        Ok(self.witnesses.is_empty())
    }
}

impl Pass {
    /// Whether an error is about what was asked for, and not about Clerk being away: a server that can still count has trouble with
    /// this request only.
    pub(super) async fn is_of_this_request(&self, error: &clerk::Error) -> Result<bool, Failure> {
        Ok(match error {
            clerk::Error::KeyRefused(_) | clerk::Error::RateLimited { .. } => false,
            clerk::Error::Unavailable { .. } => self.or_stop_raw(self.clerk.count(Interval::ALL)).await?.is_ok(),
            _ => true,
        })
    }

    pub(super) async fn by_id(&self, id: &str) -> Result<ById, Failure> {
        match self.or_stop_raw(self.clerk.user(id)).await? {
            Ok(Lookup::Gone) => Ok(ById::Gone),
            Ok(Lookup::Found(page)) if page.users().iter().any(|raw| raw.id.as_deref() == Some(id)) => {
                Ok(ById::Found(page))
            }
            Ok(Lookup::Found(_)) => Err(Failure::new(
                Cause::Other,
                "Clerk answered with another user than asked for",
            )),
            Err(error) if self.is_of_this_request(&error).await? => Ok(ById::Unclear(error)),
            Err(error) => Err(error.into()),
        }
    }
}
