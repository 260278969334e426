//! An incremental sync of a list without an order by update: organizations, memberships and the like.
//!
//! A list of one page is compared whole each time. Of a longer one, the newest page shows what is
//! new, and another page of a walk that never ends shows what has changed: all of it after as many
//! syncs as the list has pages. If Clerk has fewer objects than the mirror expects, those that are
//! gone are searched for at once.

use std::ops::ControlFlow;

use futures_util::{StreamExt, stream};
use tracing::{debug, info};

use super::{
    AskError, Carryover, SyncContext, SyncOutcome, Syncer,
    context::Start,
    page_batch::{page_entries, page_ids},
    page_worker::PageSource,
};
use crate::{
    clerk::{self, Page, RawObject},
    failure::Failure,
    mirror::{Batch, SyncState},
    reconcile::{
        Unreadable,
        offset_search::{Boundary, OffsetSearch, PROBE, Question},
        range::Range,
        walk::{AcceptedPage, Walk, WalkStep},
    },
    resource::{MAX_IDS, MAX_PAGE},
};

/// Answers that one sync takes for the next page of the walk that never ends.
const TRIES: usize = 3;

/// Newest pages that a sync reads if all objects on the first one are new.
const NEWEST_PAGES: u64 = 20;

/// Searches of one sync. Each takes a part of the budget, and the next sync is soon.
const SEARCHES: usize = 2;

/// What became of a search in a long list.
#[derive(PartialEq, Eq)]
enum Searched {
    /// It was not needed, or has been tried already.
    NotNeeded,
    /// It found what it could.
    Done,
    /// It was not tried: the list lacks more objects than the guard lets go. A search or a page may show
    /// a part of them only, so a full sync looks for all.
    TooMany,
}

/// A page of the walk that never ends.
struct RolledPage {
    page: Page,
    accepted: AcceptedPage,
}

impl Syncer {
    /// Compares the newest page of the list with the mirror, and stores what differs.
    pub(super) async fn sync_newest(
        &self,
        start: Start,
        newest: Page,
        carryover: &mut Carryover,
    ) -> Result<SyncOutcome, Failure> {
        let state = match self.read_state(carryover).await? {
            ControlFlow::Continue(state) => state,
            ControlFlow::Break(outcome) => return Ok(outcome),
        };
        if !state.is_imported {
            return Ok(SyncOutcome::NeedsFull);
        }
        if let Some(why) = self.full_sync_for_tables(&state, &mut carryover.tables).await? {
            info!(resource = self.resource.name, why, "the whole list is read");
            return Ok(SyncOutcome::NeedsFull);
        }
        carryover.retries_rows &= state.has_rejected_rows;
        carryover.set_clock(newest.date);
        let total = newest.total.unwrap_or(newest.objects().len() as u64);
        let has_total = newest.total.is_some() || newest.objects().len() < MAX_PAGE as usize;
        let is_whole = has_total && newest.objects().len() as u64 == total;
        if newest.objects().is_empty() && state.expected > MAX_IDS as i64 {
            // More likely an odd answer than so many deletions, and each is asked for alone. A full
            // sync does that.
            return Ok(SyncOutcome::Nothing);
        }
        let looks = self.looks_for_missing() && !carryover.is_quiet();
        let shown = match is_whole {
            true => Some(Range::ALL),
            false => range_of_newest(&newest),
        };
        let judged = shown.filter(|_| looks);
        let before = carryover.rolling.clone();
        let rolled = match is_whole {
            true => None,
            false => self.roll(total, shown, carryover).await?,
        };
        let has_news = self.has_news(&newest, judged).await?
            || match &rolled {
                Some(RolledPage { page, accepted }) => {
                    let judged = accepted.judged.filter(|_| looks);
                    self.has_news_beside(page, judged, accepted.carried.clone()).await?
                }
                None => false,
            };
        let counts_differ = looks && self.list_counts_differ(&state, total, carryover);
        if !has_news && !counts_differ && !carryover.retries_rows && !self.has_put_off(&state) {
            return Ok(SyncOutcome::Nothing);
        }
        let result = async {
            self.check_instance_if_old(carryover).await?;
            let Some(lease) = self.lease_since(state.lease_epoch).await? else {
                return Ok(SyncOutcome::Standby);
            };
            let work = async |sync: &mut SyncContext<'_>| {
                sync.store_newest(&newest, judged, is_whole).await?;
                if let Some(RolledPage { page, accepted }) = &rolled {
                    sync.store_rolled(page, accepted).await?;
                }
                sync.resume_deletions().await?;
                match is_whole {
                    true => sync.settle_deletions().await?,
                    false => sync.search_and_delete(newest.total).await?,
                }
                sync.retry_refused().await?;
                sync.settle_tables().await
            };
            let report = self.under_lease(&lease, start, carryover, work).await?;
            carryover.retries_rows = false;
            carryover.note_fruit(report.writes_rows());
            Ok(SyncOutcome::Synced(Box::new(report)))
        }
        .await;
        if !matches!(result, Ok(SyncOutcome::Synced(_))) {
            // What this page showed is not stored.
            carryover.rolling = before;
        }
        result
    }

    /// Whether Clerk has another number of objects than the mirror expects, and no search has failed
    /// to explain just that.
    fn list_counts_differ(&self, state: &SyncState, total: u64, carryover: &Carryover) -> bool {
        let differ = u64::try_from(state.expected).ok() != Some(total);
        differ && self.looks_for_missing() && carryover.unexplained != Some((state.expected, total))
    }

    /// Reads the next page of the walk that never ends; `None` if there is none to be read now. Where the
    /// newest page begins, which has shown the range `newest`, the walk begins again.
    async fn roll(
        &self,
        total: u64,
        newest: Option<Range>,
        carryover: &mut Carryover,
    ) -> Result<Option<RolledPage>, Failure> {
        let mut walk = match carryover.rolling.take() {
            Some(walk) => walk,
            None => Walk::new().by_offset().expecting(total),
        };
        // What fails is asked for again by the next sync: the users do not wait for it.
        let clerk = self.clerk.clone().asking_once();
        for _ in 0..TRIES {
            let page = match self.ask(clerk.list(self.resource, &walk.query(), walk.limit())).await {
                Ok(page) => page,
                Err(AskError::Clerk(error)) if self.is_about_request(&error).await? => match walk.unreadable() {
                    Unreadable::Broken => return Err(error.into()),
                    Unreadable::Smaller | Unreadable::SteppedOver => continue,
                },
                Err(error) => {
                    carryover.rolling = Some(walk);
                    return Err(error.into());
                }
            };
            walk.note_total(page.total);
            let step = walk.receive(&page_entries(&page, &page_ids(&page)));
            match step {
                WalkStep::Page(accepted) => {
                    let judged_to = accepted.judged.and_then(|range| range.before);
                    let newest_from = newest.and_then(|range| range.from);
                    let meets_newest = judged_to.zip(newest_from).is_some_and(|(to, from)| to >= from);
                    carryover.rolling = (!meets_newest).then_some(walk);
                    return Ok(Some(RolledPage { page, accepted }));
                }
                // The next sync begins again.
                WalkStep::End(accepted) => return Ok(Some(RolledPage { page, accepted })),
                WalkStep::Again | WalkStep::Restart => {}
                WalkStep::Endless | WalkStep::CannotPartition => return Ok(None),
            }
        }
        carryover.rolling = Some(walk);
        Ok(None)
    }
}

impl SyncContext<'_> {
    /// Stores the newest page, and those before it as long as all objects on them are new.
    async fn store_newest(&mut self, newest: &Page, judged: Option<Range>, is_whole: bool) -> Result<(), Failure> {
        let created = self.store_page(newest, judged).await?;
        let length = newest.objects().len() as u64;
        let (mut offset, mut is_all_new) = (length, !is_whole && created == length && length > 0);
        while is_all_new && offset < NEWEST_PAGES * u64::from(MAX_PAGE) {
            let syncer = self.syncer;
            let page = syncer
                .ask(syncer.clerk.recent(syncer.resource, offset, MAX_PAGE))
                .await?;
            let length = page.objects().len() as u64;
            is_all_new = self.store_page(&page, None).await? == length && length > 0;
            offset += length;
        }
        Ok(())
    }

    /// Stores all objects of a page. Returns how many of them are new.
    async fn store_page(&mut self, page: &Page, judged: Option<Range>) -> Result<u64, Failure> {
        self.remember(page);
        let before = self.report.created;
        let all = page.objects().iter().collect();
        self.store(PageSource::List, page, all, judged, Batch::default())
            .await?;
        Ok(self.report.created - before)
    }

    async fn store_rolled(&mut self, page: &Page, accepted: &AcceptedPage) -> Result<(), Failure> {
        self.remember(page);
        let fresh: Vec<&RawObject> = accepted.fresh.iter().map(|&at| &page.objects()[at]).collect();
        let judged = accepted.judged.filter(|_| self.syncer.looks_for_missing());
        self.store_carrying(page, fresh, judged, accepted.carried.clone()).await
    }

    /// Searches for what the list lacks, and deletes its rows. Then it searches for what has gone
    /// meanwhile. `total` is that of the newest page.
    async fn search_and_delete(&mut self, mut total: Option<u64>) -> Result<(), Failure> {
        let syncer = self.syncer;
        // What fails is asked for again by the next sync: the users do not wait for it.
        let clerk = &syncer.clerk.clone().asking_once();
        for search in 1.. {
            let (created, deleted, searched_for) = (self.report.created, self.report.deleted, total);
            let searched = self.search_by_offset(clerk, total).await?;
            if searched == Searched::TooMany {
                break;
            }
            self.settle_deletions().await?;
            let is_done = searched == Searched::NotNeeded && self.report.deleted == deleted;
            if is_done || search == SEARCHES || self.is_turn_over() {
                break;
            }
            // What is new is stored first: one that has come would hide one that has gone.
            let limit = syncer.resource.list.max_page;
            let newest = syncer.ask(clerk.recent(syncer.resource, 0, limit)).await?;
            let judged = range_of_newest(&newest).filter(|_| syncer.looks_for_missing());
            self.store_newest(&newest, judged, false).await?;
            total = newest.total;
            if (self.report.created, self.report.deleted, total) == (created, deleted, searched_for) {
                // The same search would find the same.
                break;
            }
            if total != searched_for {
                // The list changed during the search, which may be why that explained nothing.
                self.carryover.unexplained = None;
            }
        }
        Ok(())
    }

    /// Searches for the objects that the list lacks, if its total and the pages so far leave any.
    async fn search_by_offset(&mut self, clerk: &clerk::Client, total: Option<u64>) -> Result<Searched, Failure> {
        let syncer = self.syncer;
        let Some((total, run)) = total.zip(self.mode.run()) else {
            return Ok(Searched::NotNeeded);
        };
        let lacked_too_many = std::mem::take(&mut self.carryover.lacks_too_many);
        let state = syncer.mirror.runs().state().await?;
        let missing = syncer.mirror.missing().count_open(run).await? as i64;
        if state.expected - missing == total as i64 {
            // The pages have shown all of them.
            return Ok(Searched::NotNeeded);
        }
        let differ = syncer.list_counts_differ(&state, total, self.carryover);
        let lacking = u64::try_from(state.expected - total as i64).unwrap_or_default();
        if lacking > 0 && syncer.looks_for_missing() && self.must_hold(lacking).await? {
            self.carryover.lacks_too_many = true;
            let why = "more objects are gone than may be deleted at once";
            // The next sync of organizations may take all of them along.
            if lacked_too_many && differ && self.carryover.request_full_sync(why) {
                self.carryover.unexplained = Some((state.expected, total));
            }
            return Ok(Searched::TooMany);
        }
        if !differ {
            return Ok(Searched::NotNeeded);
        }
        let mut search = OffsetSearch::new(total, state.expected);
        let mut requests = 0;
        loop {
            let side_by_side = syncer.options.concurrency;
            let questions = search.next_questions(side_by_side);
            if questions.is_empty() {
                break;
            }
            requests += questions.len();
            let asked = stream::iter(&questions).map(async |&Question { offset, holds }| {
                let limit = holds.map_or(PROBE, |_| MAX_PAGE);
                syncer
                    .ask(clerk.range(syncer.resource, Range::ALL, offset, limit))
                    .await
            });
            let answers: Vec<Result<Page, AskError>> = asked.buffered(side_by_side).collect().await;
            for (&Question { offset, holds }, answer) in questions.iter().zip(answers) {
                match (answer, holds) {
                    (Ok(page), Some(range)) => self.store_searched(offset, range, &page).await?,
                    (Ok(page), None) => self.divide(&mut search, offset, &page).await?,
                    (Err(AskError::Clerk(error)), _) if syncer.is_about_request(&error).await? => {
                        debug!(offset, %error, "a page of the search cannot be read");
                    }
                    (Err(error), _) => return Err(error.into()),
                }
            }
        }
        debug!(
            resource = syncer.resource.name,
            requests, "searched for missing objects"
        );
        let found = syncer.mirror.missing().count_open(run).await? as i64;
        self.carryover.unexplained = (found == missing).then_some((state.expected, total));
        Ok(Searched::Done)
    }

    /// Divides the list at objects that a search has asked for.
    async fn divide(&self, search: &mut OffsetSearch, offset: u64, page: &Page) -> Result<(), Failure> {
        if let Some(dates) = dates(page)
            && let Some(boundary) = Boundary::among(offset, &dates)
            && let Some(range) = search.range_before(boundary)
        {
            search.divide(boundary, self.syncer.mirror.counts().expected(range).await?);
        }
        Ok(())
    }

    /// Stores a page that a search has asked for, and notes what is missing in its range.
    async fn store_searched(&mut self, offset: u64, range: Range, page: &Page) -> Result<(), Failure> {
        let Some(dates) = dates(page).filter(|dates| dates.is_sorted()) else {
            return Ok(());
        };
        let end = offset + dates.len() as u64;
        // Others of the moments at its ends may be on other pages.
        let from = (offset > 0).then(|| dates.first().map_or(i64::MAX, |at| at + 1));
        let before = page
            .total
            .is_none_or(|total| end < total)
            .then(|| dates.last().copied().unwrap_or(i64::MIN));
        let shown = Range { from, before };
        self.store_page(page, range.intersection(shown)).await?;
        Ok(())
    }
}

/// The range that the newest page shows completely: what was created after its oldest object. `None` if
/// it is not in order.
fn range_of_newest(newest: &Page) -> Option<Range> {
    let dates = dates(newest)?;
    let (first, oldest) = dates.first().zip(dates.last())?;
    // A page of one moment shows no order.
    if first == oldest || !dates.iter().rev().is_sorted() {
        return None;
    }
    Some(Range {
        from: Some(oldest + 1),
        before: None,
    })
}

/// When the objects of a page were created; `None` if one of them does not say it.
fn dates(page: &Page) -> Option<Vec<i64>> {
    page.objects().iter().map(|raw| raw.created_at).collect()
}
