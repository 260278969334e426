//! An incremental sync: whoever changed at Clerk, newest first, and then whether Clerk counts as many users as the mirror expects. A look at both
//! comes first and writes nothing; only where there is something to write is the lease taken.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    time::Instant,
};

use tracing::debug;

use super::{
    Carryover, DeleteMode, Report, SyncContext, Syncer, carryover::Response, page, recheck::Trust, run::Opening,
    same_instance,
};
use crate::{
    clerk::{self, Objection, Page},
    failure::{Cause, Failure},
    mirror::{Batch, Run, SyncKind, SyncState},
    reconcile::{
        recent::{Entry, Recent, Step},
        walk::{PAGE, Range, Unreadable},
    },
    resource::Digest,
    sync::due::Task,
};

/// So many users of the first page are remembered as known to exist.
const WITNESSES: usize = 3;

/// The reason for a full sync if no page shows all users of a moment.
const TIED: &str = "more users changed in one moment than a page shows";

/// With more users than this above the floor, no looks are made in between.
const MANY: u64 = 5_000;

/// What came of an incremental sync.
#[derive(Debug)]
pub enum SyncOutcome {
    /// Nothing had to be done.
    Idle,
    /// Something was done.
    Done(Report),
    /// Recent changes cannot be seen: a full sync brings them.
    Blind,
    /// Another clerk2pg is at work.
    Standby,
}

/// How far a look at recent changes has come.
pub(super) struct Look {
    recent: Recent,
    began: Instant,
    /// When the first page was there.
    seen: Instant,
    /// Clerk's clock at that time, in Unix milliseconds.
    date: Option<i64>,
    /// The page that differs from the mirror, and whether it is the last; none where nothing differs.
    page: Option<(Page, Step)>,
    /// Users on the first page: they are known to exist.
    witnesses: Vec<String>,
    /// The list cannot be followed.
    is_unordered: bool,
    /// Whether it moves the watermark, as it is not part of a full sync.
    is_alone: bool,
}

impl Syncer {
    /// An incremental sync.
    ///
    /// # Errors
    /// The sync could not be carried through; what it committed stays, and the next one does the rest.
    pub async fn incremental(&self, carryover: &mut Carryover) -> Result<SyncOutcome, Failure> {
        let opening = Opening::new(self, SyncKind::Incremental);
        let result = self.follow(opening, carryover).await;
        match &result {
            Err(failure) if carryover.is_news(failure.cause) => self.record(failure, opening).await,
            Err(_) => {}
            Ok(_) => carryover.succeeded(),
        }
        result
    }

    async fn follow(&self, opening: Opening, carryover: &mut Carryover) -> Result<SyncOutcome, Failure> {
        let state = match self.begin_look(carryover).await? {
            Ok(state) => state,
            Err(followed) => return Ok(followed),
        };
        let watermark = match state.watermark.filter(|_| state.is_imported) {
            Some(watermark) => watermark.timestamp_millis(),
            None if carryover.has_no_order => return Ok(cannot_follow(carryover, &state)),
            None => {
                carryover.walk("how far the changes were followed is not known");
                return Ok(SyncOutcome::Blind);
            }
        };

        carryover.floor.heed(watermark);
        let (look, counted) = tokio::join!(self.look(carryover, watermark, state.expected), self.total());
        let (look, total) = (look?, carryover.counted(counted?)?);
        carryover.set_clock(look.date);
        if look.is_unordered {
            return Ok(cannot_follow(carryover, &state));
        }
        let differs = look.page.is_none() && self.differs(&state, total, carryover);
        if look.page.is_none() && !differs && !self.has_put_off(&state) {
            look.teach(carryover);
            return Ok(SyncOutcome::Idle);
        }
        self.expect_instance(carryover).await?;
        let Some(lease) = self.lease_since(state.lease_epoch).await? else {
            return Ok(SyncOutcome::Standby);
        };
        let work = async |running: &mut SyncContext<'_>, run: &Run| {
            running.watermark = Some(watermark);
            running.follow(look).await?;
            let has_deletions = running.resume_deletions().await?;
            let has_settled = running.look_for_missing(run, total).await?;
            if has_deletions && !has_settled {
                running.settle_deletions(run).await?;
            }
            running.retry_refused(run).await
        };
        let result = self.under_lease(&lease, opening, carryover, work).await;
        if let Err(failure) = &result {
            carryover.listed(failure.cause);
        }
        result.map(SyncOutcome::Done)
    }

    /// What a look begins with; what comes of it where it cannot begin.
    pub(super) async fn begin_look(
        &self,
        carryover: &mut Carryover,
    ) -> Result<Result<SyncState, SyncOutcome>, Failure> {
        let Some(instance) = &carryover.instance else {
            carryover.walk("no full sync was done yet");
            return Ok(Err(SyncOutcome::Blind));
        };
        let state = self.mirror.runs().state().await?;
        if let Err(failure) = same_instance(state.instance_id.as_deref(), &instance.id) {
            // A person has pinned another one; a full sync asks again which one the key is of.
            carryover.instance = None;
            return Err(failure);
        }
        if let Some(holder) = &state.lease_holder {
            self.watch.set_standing_by(holder);
            return Ok(Err(SyncOutcome::Standby));
        }
        Ok(Ok(state))
    }

    /// How many users Clerk has; `None` if that is not asked, or the server does not count. A failed request is not repeated: the next
    /// incremental sync asks again.
    async fn total(&self) -> Result<Result<Option<u64>, clerk::Error>, Failure> {
        if self.options.delete_mode == DeleteMode::Keep {
            return Ok(Ok(None));
        }
        let clerk = self.clerk.clone().asking_once();
        match self.or_stop_raw(clerk.count(Range::ALL)).await? {
            // The client itself waits as long as it is told to.
            Err(clerk::Error::RateLimited { .. }) => self.or_stop_raw(self.clerk.count(Range::ALL)).await,
            counted => Ok(counted),
        }
    }

    /// Whether the counts deserve a closer look.
    fn differs(&self, state: &SyncState, total: Option<u64>, carryover: &mut Carryover) -> bool {
        let Some(total) = total else {
            if self.options.delete_mode != DeleteMode::Keep && !carryover.cannot_count {
                carryover.tell_once("this server does not count users; only full syncs see deletions");
            }
            return false;
        };
        let difference = i64::try_from(total).unwrap_or(i64::MAX) - state.expected;
        match carryover.mismatch.judge(difference, Instant::now()) {
            Response::Nothing => false,
            Response::Search => true,
            Response::Walk => {
                carryover.walk("the counts agree again, though nobody was found who explains it");
                false
            }
        }
    }

    /// Reads recent changes down to the floor, or to the first page that differs from the mirror.
    async fn look(&self, carryover: &Carryover, watermark: i64, users: i64) -> Result<Look, Failure> {
        let mut look = Look {
            recent: Recent::new(carryover.floor.get(watermark), carryover.first_page()).among(users.unsigned_abs()),
            began: Instant::now(),
            seen: Instant::now(),
            date: None,
            page: None,
            witnesses: Vec::new(),
            is_unordered: false,
            is_alone: true,
        };
        let mut is_first = true;
        loop {
            let Some((page, step)) = look.next(self).await? else {
                look.is_unordered = true;
                return Ok(look);
            };
            if std::mem::take(&mut is_first) {
                look.seen = Instant::now();
                look.date = page.date;
                look.witnesses = page
                    .users()
                    .iter()
                    .filter_map(|raw| raw.id.clone())
                    .take(WITNESSES)
                    .collect();
            }
            if step == Step::Unordered {
                look.is_unordered = true;
                return Ok(look);
            }
            if self.is_news(&page, false).await? {
                look.page = Some((page, step));
                return Ok(look);
            }
            if step == Step::End {
                return Ok(look);
            }
        }
    }

    /// Whether the application had locked rows that are to be tried again.
    fn has_put_off(&self, state: &SyncState) -> bool {
        state.has_put_off_users || (state.has_put_off_deletions && self.options.delete_mode != DeleteMode::Keep)
    }

    /// Whether a page holds anything that the mirror does not. A document that was rejected before counts only if it is an answer
    /// to a question by id: somebody asked for the user.
    pub(super) async fn is_news(&self, page: &Page, is_by_id: bool) -> Result<bool, Failure> {
        let chosen = page::Chosen::new(page, page.users().iter().collect());
        let loaded = page::Loaded::new(Some(&self.mirror), &chosen, None, HashSet::new()).await?;
        let decoded = page::Decoded::new(&chosen, &loaded);
        let trust = Trust {
            rechecks: &self.rechecks,
            is_by_id,
        };
        let (batch, older) = page::batch(&chosen, &loaded, &decoded, &HashMap::new(), trust);
        self.note_older(&older);
        if is_by_id {
            let ids: Vec<String> = page.users().iter().filter_map(|raw| raw.id.clone()).collect();
            return Ok(!batch.is_empty() || !self.mirror.rejected().digests(&ids).await?.is_empty());
        }
        if batch.is_empty() {
            return Ok(false);
        }
        let written = batch.create.iter().chain(&batch.update).chain(&batch.refresh);
        let mut news: HashMap<String, Digest> =
            written.map(|write| (write.user.id.to_string(), write.digest)).collect();
        news.extend(
            batch
                .reject
                .iter()
                .filter_map(|user| Some((user.user_id.clone(), user.digest?))),
        );
        let ids: Vec<String> = news.keys().cloned().collect();
        let rejected = self.mirror.rejected().digests(&ids).await?;
        Ok(news.iter().any(|(id, digest)| rejected.get(id) != Some(&Some(*digest))))
    }
}

/// Whether a sync ends with a failure of what is done between two of its pages.
fn is_final(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::Stopped | Cause::Busy | Cause::PostgresAway | Cause::NeedsPerson
    )
}

/// Where the list cannot be had by the last change, only full syncs see changes. Emulators are small, so that it may be one each time.
fn cannot_follow(carryover: &mut Carryover, state: &SyncState) -> SyncOutcome {
    carryover.tell_once("this server does not list users by their last change; only full syncs see changes");
    if state.expected <= i64::from(PAGE) {
        carryover.walk("changes cannot be followed here, and there are few users");
    }
    SyncOutcome::Blind
}

impl Look {
    /// The next page, and what it means; none where the server refuses to list in this order.
    async fn next(&mut self, syncer: &Syncer) -> Result<Option<(Page, Step)>, Failure> {
        let Some(page) = self.read(syncer).await? else {
            return Ok(None);
        };
        let names: Vec<Cow<'_, str>> = page.users().iter().map(page::name).collect();
        let entries = page.users().iter().zip(&names).map(|(raw, id)| Entry {
            id,
            updated_at: raw.updated_at,
        });
        let step = self.recent.receive(&entries.collect::<Vec<_>>());
        Ok(Some((page, step)))
    }

    /// The next page. One that cannot be read is asked for in smaller parts, down to the user to blame, who is stepped over.
    async fn read(&mut self, syncer: &Syncer) -> Result<Option<Page>, Failure> {
        loop {
            let (offset, limit) = self.recent.query();
            let error = match syncer.recent(offset, limit).await? {
                Ok(page) => return Ok(Some(page)),
                Err(error @ (clerk::Error::Refused(_) | clerk::Error::NotFound(_))) => {
                    return match error.objection() {
                        Objection::None => Err(error.into()),
                        _ => Ok(None),
                    };
                }
                Err(error) => error,
            };
            if !syncer.is_of_this_request(&error).await? {
                return Err(error.into());
            }
            match self.recent.unreadable() {
                Unreadable::Smaller => {}
                Unreadable::SteppedOver => debug!(%error, "a user who changed cannot be read; going on behind it"),
                Unreadable::Broken => return Err(error.into()),
            }
        }
    }

    /// The newest change at Clerk when the look began, in Unix milliseconds.
    fn watermark(&self) -> Option<i64> {
        self.recent.newest(self.date)
    }

    /// The newest moment of which no page has shown all users, so that some of them may not have been met.
    fn tied(&self, carryover: &Carryover) -> Option<i64> {
        self.recent
            .tied(self.date)
            .filter(|&at| !carryover.floor.is_settled(at))
    }

    fn teach(&self, carryover: &mut Carryover) {
        if self.recent.has_stepped() {
            carryover.tell_once("a user who changed cannot be read, and is stepped over");
        }
        carryover.above = self.recent.above();
        match (self.watermark(), self.tied(carryover)) {
            (Some(newest), None) => carryover.floor.learn(self.began, self.seen, newest),
            (Some(newest), Some(tied)) => {
                carryover.floor.note(self.seen, newest);
                // One that begins too early could miss those of the moment who are not in the list yet.
                if self.is_alone && carryover.floor.would_pass(tied, self.began) {
                    carryover.walk(TIED);
                }
            }
            (None, _) => {}
        }
    }
}

impl SyncContext<'_> {
    /// Brings the mirror in sync with whoever changed. The watermark moves with the last page; not in a full sync, which has not been everywhere
    /// yet, and moves it at its own end.
    async fn follow(&mut self, mut look: Look) -> Result<(), Failure> {
        let moves = self.run().is_some_and(|run| run.kind != SyncKind::Full);
        self.witnesses.extend(look.witnesses.drain(..));
        let Some((mut page, mut step)) = look.page.take() else {
            look.teach(self.carryover);
            return Ok(());
        };
        loop {
            let more = Batch {
                watermark: look
                    .watermark()
                    .filter(|_| moves && step == Step::End && look.tied(self.carryover).is_none()),
                ..Batch::default()
            };
            self.take(&page, page.users().iter().collect(), None, HashSet::new(), more)
                .await?;
            match step {
                Step::More => {}
                Step::End => break,
                Step::Unordered => {
                    self.note("the list of changes was in another order than asked for");
                    return Ok(());
                }
            }
            (page, step) = match look.next(self.syncer).await? {
                Some(next) => next,
                None => {
                    self.note("Clerk refused to list more changes");
                    return Ok(());
                }
            };
        }
        look.teach(self.carryover);
        Ok(())
    }

    /// Compares Clerk's count from the beginning of the sync with what the mirror expects now, and searches for whoever makes the difference.
    /// Returns whether deletions were settled.
    async fn look_for_missing(&mut self, run: &Run, total: Option<u64>) -> Result<bool, Failure> {
        let Some(total) = total else { return Ok(false) };
        if self.report.created > 0 {
            self.carryover.mismatch.saw_newcomers();
        }
        let state = self.syncer.mirror.runs().state().await?;
        if !self.syncer.differs(&state, Some(total), self.carryover) {
            return Ok(false);
        }
        let created = self.report.created;
        let total = i64::try_from(total).unwrap_or(i64::MAX);
        let Some(remote) = self.search(state.expected, total).await? else {
            if self.report.created == 0 {
                self.carryover.mismatch.vanished();
            }
            return Ok(false);
        };
        self.settle_deletions(run).await?;
        // Whoever was asked for and is there all the same explains nothing, nor does an answer that proves nothing, nor whoever signed up meanwhile.
        let between = i64::try_from(self.created_between).unwrap_or(i64::MAX);
        let expected = self.syncer.mirror.runs().state().await?.expected - between;
        if expected == state.expected
            && self.report.created == created + self.created_between
            && self.report.deleted == 0
        {
            // Perhaps it is our own number that is wrong: somebody else may have written to the table.
            let difference = remote + between - self.syncer.mirror.counts().recount(run.lease()).await?;
            self.carryover.mismatch.found_nobody(difference, Instant::now());
        } else if expected != remote {
            // Others may have been hidden by what happened meanwhile: they need not wait for the schedule.
            self.syncer.due.incremental();
        }
        Ok(true)
    }

    /// Whether something became due meanwhile that cannot wait.
    pub(super) fn has_to_attend(&self) -> bool {
        let has_users = self.syncer.due.has_users() && self.syncer.clerk.free_for_notifications() > 0;
        has_users || (self.may_look() && self.syncer.due.has_incremental())
    }

    /// Whether looks are made in between. After a change of very many users, they are as long as walks for a while.
    fn may_look(&self) -> bool {
        let knows_where = self.watermark.is_some() && self.run().is_some_and(|run| !run.is_import);
        knows_where && self.looks_between && self.carryover.above <= MANY
    }

    /// Does what became due meanwhile and cannot wait, at a moment when no page is half done.
    pub(super) async fn attend(&mut self) -> Result<(), Failure> {
        let created = self.report.created;
        let result = self.attend_to_it().await;
        self.created_between += self.report.created - created;
        result
    }

    async fn attend_to_it(&mut self) -> Result<(), Failure> {
        let users = self.syncer.due.take_users(self.syncer.clerk.free_for_notifications());
        if !users.is_empty() {
            self.bring_between(users).await?;
        }
        let Some(watermark) = self.watermark.filter(|_| self.may_look()) else {
            return Ok(());
        };
        if !self.syncer.due.take_incremental() {
            return Ok(());
        }
        match self.look_between(watermark).await {
            Err(failure) if is_final(failure.cause) => Err(failure),
            Err(failure) => {
                debug!(%failure, "no more looks in this sync");
                self.looks_between = false;
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Brings users between two steps of this sync. Users that cannot be brought are left for later.
    async fn bring_between(&mut self, users: Vec<String>) -> Result<(), Failure> {
        let brought = async {
            let asked = self.syncer.ask_by_id(&users).await?;
            self.bring(asked).await
        };
        match brought.await {
            Ok(()) => self.syncer.due.users_done(&users),
            Err(failure) if failure.stops_all_kinds() => {
                self.syncer.due.put_back(Task::Users(users));
                // If it is Clerk that is away, the sync itself finds out.
                if failure.cause != Cause::ClerkAway {
                    return Err(failure);
                }
            }
            Err(failure) => {
                debug!(%failure, "users who were asked for cannot be brought yet");
                self.syncer.due.users_failed(users);
            }
        }
        Ok(())
    }

    async fn look_between(&mut self, watermark: i64) -> Result<(), Failure> {
        self.syncer.watch.started(SyncKind::Incremental);
        let users = self.syncer.mirror.runs().state().await?.expected;
        let mut look = self.syncer.look(self.carryover, watermark, users).await?;
        look.is_alone = false;
        if look.page.is_some() {
            self.syncer.expect_instance(self.carryover).await?;
        }
        // What costs that much once would cost it between any two pages.
        self.looks_between = !look.is_unordered && !look.recent.has_stepped();
        self.has_looked = true;
        if look.is_unordered {
            return Ok(());
        }
        self.follow(look).await?;
        self.syncer.watch.incremental_succeeded();
        Ok(())
    }
}
