//! Reads Clerk's users in the order of their last change, and stores those that differ from the
//! mirror.

use std::{
    collections::{HashMap, HashSet},
    time::Instant,
};

use tracing::debug;

use super::{
    AskError, Carryover, SyncContext, Syncer,
    page_batch::{self, DecodedUsers, PageUsers, StoredRows, page_entries, page_ids},
    page_worker::PageSource,
    recheck::ReplicaTrust,
};
use crate::{
    clerk::{self, Objection, Page},
    failure::Failure,
    mirror::{Batch, SyncKind},
    reconcile::{
        Unreadable,
        range::Range,
        recent::{RecentStep, RecentWalk},
    },
    resource::Digest,
};

/// Users of the first page that are remembered as witnesses.
const WITNESSES: usize = 3;

/// The reason for a full sync if no page shows all users of a moment.
const TIED: &str = "more users changed in one moment than a page shows";

/// The list of recent changes, read down to the floor or to the first page that differs from the
/// mirror.
pub(super) struct RecentChanges {
    recent: RecentWalk,
    began: Instant,
    /// When the first page had arrived.
    seen: Instant,
    /// Clerk's clock at that time, in Unix milliseconds.
    date: Option<i64>,
    /// The page that differs from the mirror, with what comes after it; `None` if no page differs.
    news: Option<(Page, RecentStep)>,
    /// Users of the first page: they are known to exist.
    witnesses: Vec<String>,
    /// The server does not list by the last change.
    is_unordered: bool,
    /// It belongs to an incremental sync, not to a full one that reads all users anyway.
    is_incremental: bool,
}

impl Syncer {
    /// Reads recent changes down to the floor, or to the first page that differs from the mirror.
    /// `users` is about how many users Clerk has.
    pub(super) async fn read_changes(
        &self,
        carryover: &Carryover,
        watermark: i64,
        users: i64,
    ) -> Result<RecentChanges, Failure> {
        let floor = carryover.floor.get(watermark);
        let mut changes = RecentChanges {
            recent: RecentWalk::new(floor, carryover.first_page()).among(users.unsigned_abs()),
            began: Instant::now(),
            seen: Instant::now(),
            date: None,
            news: None,
            witnesses: Vec::new(),
            is_unordered: false,
            is_incremental: true,
        };
        let mut is_first = true;
        loop {
            let Some((page, step)) = changes.next(self).await? else {
                changes.is_unordered = true;
                return Ok(changes);
            };
            if std::mem::take(&mut is_first) {
                changes.seen = Instant::now();
                changes.date = page.date;
                let ids = page.objects().iter().filter_map(|raw| raw.id.clone());
                changes.witnesses = ids.take(WITNESSES).collect();
            }
            if step == RecentStep::Unordered {
                changes.is_unordered = true;
                return Ok(changes);
            }
            if self.has_news(&page, None).await? {
                changes.news = Some((page, step));
                return Ok(changes);
            }
            if step == RecentStep::End {
                return Ok(changes);
            }
        }
    }

    /// Whether a page of a list holds anything that the mirror does not, or leaves out a row of the
    /// `judged` range. Documents that were rejected before do not count.
    pub(super) async fn has_news(&self, page: &Page, judged: Option<Range>) -> Result<bool, Failure> {
        self.has_news_beside(page, judged, HashSet::new()).await
    }

    /// The same if earlier pages showed `carried` ids of the judged range.
    pub(super) async fn has_news_beside(
        &self,
        page: &Page,
        judged: Option<Range>,
        carried: HashSet<String>,
    ) -> Result<bool, Failure> {
        self.holds_news(page, judged, carried, false).await
    }

    /// Whether a page that answers a question by id holds anything that the mirror does not.
    pub(super) async fn has_news_by_id(&self, page: &Page) -> Result<bool, Failure> {
        self.holds_news(page, None, HashSet::new(), true).await
    }

    async fn holds_news(
        &self,
        page: &Page,
        judged: Option<Range>,
        carried: HashSet<String>,
        is_by_id: bool,
    ) -> Result<bool, Failure> {
        let users = PageUsers::new(self.resource, page, page.objects().iter().collect());
        let rows = StoredRows::load(Some(&self.mirror), &users, judged, carried).await?;
        let decoded = DecodedUsers::new(&users, &rows);
        let trust = ReplicaTrust {
            rechecks: &self.rechecks,
            is_by_id,
        };
        let (batch, older) = page_batch::batch(&users, &rows, &decoded, &HashMap::new(), trust);
        self.recheck_older(&older);
        if is_by_id {
            let ids: Vec<String> = page.objects().iter().filter_map(|raw| raw.id.clone()).collect();
            return Ok(!batch.is_empty() || !self.mirror.rejected().digests(&ids).await?.is_empty());
        }
        if batch.is_empty() {
            return Ok(false);
        }
        if !batch.missing.is_empty() && !self.mirror.missing().unsettled_among(&batch.missing).await?.is_empty() {
            return Ok(true);
        }
        let written = batch.create.iter().chain(&batch.update).chain(&batch.refresh);
        let mut news: HashMap<String, Digest> = written
            .map(|write| (write.record.id.to_string(), write.digest))
            .collect();
        let refused = batch.reject.iter();
        news.extend(refused.filter_map(|user| Some((user.object_id.clone(), user.digest?))));
        let ids: Vec<String> = news.keys().cloned().collect();
        let rejected = self.mirror.rejected().digests(&ids).await?;
        Ok(news.iter().any(|(id, digest)| rejected.get(id) != Some(&Some(*digest))))
    }
}

impl RecentChanges {
    /// Marks the list as read between two pages of a full sync.
    pub(super) fn between_pages(self) -> Self {
        Self {
            is_incremental: false,
            ..self
        }
    }

    /// Clerk's clock when the first page arrived, in Unix milliseconds.
    pub(super) fn date(&self) -> Option<i64> {
        self.date
    }

    /// Whether the server does not list by the last change.
    pub(super) fn is_unordered(&self) -> bool {
        self.is_unordered
    }

    /// Whether a page differs from the mirror.
    pub(super) fn has_news(&self) -> bool {
        self.news.is_some()
    }

    /// Whether a user could not be read and was stepped over.
    pub(super) fn has_stepped_over(&self) -> bool {
        self.recent.has_stepped()
    }

    /// Fetches the next page, and says what comes after it; `None` if the server refuses to list in
    /// this order.
    async fn next(&mut self, syncer: &Syncer) -> Result<Option<(Page, RecentStep)>, Failure> {
        let Some(page) = self.fetch(syncer).await? else {
            return Ok(None);
        };
        let step = self.recent.receive(&page_entries(&page, &page_ids(&page)));
        Ok(Some((page, step)))
    }

    /// Fetches the next page. If it cannot be read, smaller pages are asked for, down to the one
    /// user that is the cause, which is stepped over.
    async fn fetch(&mut self, syncer: &Syncer) -> Result<Option<Page>, Failure> {
        loop {
            let (offset, limit) = self.recent.query();
            let error = match syncer.recent(offset, limit).await {
                Ok(page) => return Ok(Some(page)),
                Err(error @ AskError::Stopped) => return Err(error.into()),
                Err(AskError::Clerk(error @ (clerk::Error::Refused(_) | clerk::Error::NotFound(_)))) => {
                    return match error.objection() {
                        Objection::None => Err(error.into()),
                        _ => Ok(None),
                    };
                }
                Err(AskError::Clerk(error)) => error,
            };
            if !syncer.is_about_request(&error).await? {
                return Err(error.into());
            }
            match self.recent.unreadable() {
                Unreadable::Smaller => {}
                Unreadable::SteppedOver => debug!(%error, "a user that changed cannot be read; continuing after it"),
                Unreadable::Broken => return Err(error.into()),
            }
        }
    }

    /// The newest change at Clerk when the reading began, in Unix milliseconds.
    fn watermark(&self) -> Option<i64> {
        self.recent.newest(self.date)
    }

    /// The newest moment at which more users changed than a page shows, so that some of them may
    /// not have been met. In Unix milliseconds.
    fn tied(&self, carryover: &Carryover) -> Option<i64> {
        self.recent
            .tied(self.date)
            .filter(|&at| !carryover.floor.is_settled(at))
    }

    /// Raises the floor for the next reading, as the changes above it are stored now.
    pub(super) fn raise_floor(&self, carryover: &mut Carryover) {
        if self.recent.has_stepped() {
            carryover.warn_once("a user that changed cannot be read and is skipped");
        }
        carryover.above = self.recent.above();
        match (self.watermark(), self.tied(carryover)) {
            (Some(newest), None) => carryover.floor.learn(self.began, self.seen, newest),
            (Some(newest), Some(tied)) => {
                carryover.floor.note(self.seen, newest);
                // A full sync that begins too early could miss users of that moment that are not in
                // the list yet.
                if self.is_incremental && carryover.floor.would_pass(tied, self.began) {
                    carryover.request_full_sync(TIED);
                }
            }
            (None, _) => {}
        }
    }
}

impl SyncContext<'_> {
    /// Stores the users that changed. The watermark moves with the last page, but not in a full
    /// sync: that one moves it at its own end, when it has read all users.
    pub(super) async fn store_changes(&mut self, mut changes: RecentChanges) -> Result<(), Failure> {
        let moves_watermark = self.mode.run().is_some_and(|run| run.kind != SyncKind::Full);
        self.witnesses.extend(changes.witnesses.drain(..));
        let Some((mut page, mut step)) = changes.news.take() else {
            changes.raise_floor(self.carryover);
            return Ok(());
        };
        loop {
            let is_complete = step == RecentStep::End && changes.tied(self.carryover).is_none();
            let more = Batch {
                watermark: changes.watermark().filter(|_| moves_watermark && is_complete),
                ..Batch::default()
            };
            self.store(PageSource::List, &page, page.objects().iter().collect(), None, more)
                .await?;
            match step {
                RecentStep::More => {}
                RecentStep::End => break,
                RecentStep::Unordered => {
                    self.note("the list of changes was in another order than asked for");
                    return Ok(());
                }
            }
            (page, step) = match changes.next(self.syncer).await? {
                Some(next) => next,
                None => {
                    self.note("Clerk refused to list more changes");
                    return Ok(());
                }
            };
        }
        changes.raise_floor(self.carryover);
        Ok(())
    }
}
