//! A sync under way: what it works with, what it has seen so far, and what it has done.

use std::{
    collections::{HashSet, VecDeque},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};

use super::{
    Carryover, Report, Syncer,
    dry_run::DryRun,
    mode::SyncMode,
    page_worker::{Deferred, Listed, PageOutcome, PageSource, PageWorker},
    recheck::Observation,
};
use crate::{
    clerk,
    failure::Failure,
    mirror::{Ages, Batch, Checkpoint, Run, SyncKind},
    reconcile::range::Range,
    watch::Changes,
};

/// Users of the last pages that are remembered as witnesses.
const WITNESSES: usize = 5;

/// Which kind of sync began when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    pub(super) kind: SyncKind,
    at: Instant,
    /// Requests that the client had sent before.
    requests: u64,
}

impl Start {
    /// The start of a sync that begins now.
    pub(super) fn now(syncer: &Syncer, kind: SyncKind) -> Self {
        Self {
            kind,
            at: Instant::now(),
            requests: syncer.clerk.requests(),
        }
    }

    /// Requests sent since the start.
    pub(super) fn requests(&self, syncer: &Syncer) -> u64 {
        syncer.clerk.requests() - self.requests
    }

    /// Milliseconds since the start.
    pub(super) fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.at.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// A sync under way.
pub(super) struct SyncContext<'a> {
    pub(super) syncer: &'a Syncer,
    pub(super) mode: SyncMode<'a>,
    pub(super) listed: &'a Listed,
    pub(super) start: Start,
    pub(super) carryover: &'a mut Carryover,
    pub(super) report: Report,
    /// What a dry run prints and remembers; `None` if the sync writes.
    pub(super) dry_run: Option<DryRun<'a>>,
    /// Users of the last pages: they are known to exist.
    pub(super) witnesses: VecDeque<String>,
    /// The walk that this sync continues.
    pub(super) resumed: Option<Checkpoint>,
    /// Users that changed at Clerk before this moment, less the overlap, are in the mirror, or will
    /// be when the walk is done. In Unix milliseconds.
    pub(super) watermark: Option<i64>,
    /// When the walk began, by the database's clock.
    pub(super) walk_started_at: Option<DateTime<Utc>>,
    /// Whether recent changes may be read between two pages.
    pub(super) reads_changes_between: bool,
    /// Whether recent changes were read between two pages.
    pub(super) has_read_changes: bool,
    /// Users created between two pages.
    pub(super) created_between: u64,
    /// Whether this sync has read the whole list and left nothing out.
    pub(super) has_walked_all: bool,
    /// Whether the walk over a list was cut off, as something else is due. The next sync continues it.
    pub(super) has_given_way: bool,
    /// Clerk has answered for none of the ids that it was last asked for one by one.
    pub(super) has_no_answers: bool,
    /// The server ignores `user_id`, so that ids can only be asked for one by one.
    pub(super) asks_one_by_one: bool,
    deferred: Deferred,
    /// How old the changes so far were when they were committed.
    pub(super) ages: Ages,
}

/// Users of a walk, counted by what happened to them.
#[derive(Debug, Default)]
pub(super) struct WalkCounts {
    written: u64,
    unchanged: u64,
    rejected: u64,
}

impl WalkCounts {
    pub(super) fn add(&mut self, outcome: &PageOutcome) {
        self.written += outcome.created + outcome.updated;
        self.unchanged += outcome.unchanged;
        self.rejected += outcome.rejected;
    }
}

impl<'a> SyncContext<'a> {
    pub(super) fn new(
        syncer: &'a Syncer,
        mode: SyncMode<'a>,
        listed: &'a Listed,
        start: Start,
        carryover: &'a mut Carryover,
        instance: &str,
    ) -> Self {
        Self {
            syncer,
            mode,
            listed,
            start,
            carryover,
            report: Report {
                is_import: mode.run().is_some_and(|run| run.is_import),
                ..Report::new(instance)
            },
            dry_run: None,
            witnesses: VecDeque::new(),
            resumed: None,
            watermark: None,
            walk_started_at: None,
            reads_changes_between: true,
            has_read_changes: false,
            created_between: 0,
            has_walked_all: false,
            has_given_way: false,
            has_no_answers: false,
            asks_one_by_one: false,
            deferred: Deferred::default(),
            ages: Ages::default(),
        }
    }

    /// A worker for pages of this sync.
    pub(super) fn worker(&self, source: PageSource) -> PageWorker<'a> {
        PageWorker {
            syncer: self.syncer,
            mode: self.mode,
            listed: self.listed,
            source,
        }
    }

    /// Adds a reason why the sync is incomplete. Each reason is listed once.
    pub(super) fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        if !self.report.notes.contains(&note) {
            self.report.notes.push(note);
        }
    }

    /// Stores some users of a page, and notes which rows of the `judged` range are missing from it.
    /// See [`PageWorker::store`].
    pub(super) async fn store<'p>(
        &mut self,
        source: PageSource,
        page: &'p clerk::Page,
        users: Vec<&'p clerk::RawObject>,
        judged: Option<Range>,
        more: Batch<'_>,
    ) -> Result<(), Failure> {
        let worker = self.worker(source);
        let stored = worker.store(&mut self.deferred, page, users, judged, HashSet::new(), more);
        let outcome = stored.await?;
        self.record(outcome);
        Ok(())
    }

    /// Stores some objects of a page, and notes which rows of the `judged` range are missing from it;
    /// `carried` are ids of that range that earlier pages showed.
    pub(super) async fn store_carrying<'p>(
        &mut self,
        page: &'p clerk::Page,
        objects: Vec<&'p clerk::RawObject>,
        judged: Option<Range>,
        carried: HashSet<String>,
    ) -> Result<(), Failure> {
        let worker = self.worker(PageSource::List);
        let stored = worker.store(&mut self.deferred, page, objects, judged, carried, Batch::default());
        let outcome = stored.await?;
        self.record(outcome);
        Ok(())
    }

    /// Stores the users of a page that answers a question by id.
    pub(super) async fn store_by_id(&mut self, page: &clerk::Page) -> Result<(), Failure> {
        let users = page.objects();
        let worker = self.worker(PageSource::ById);
        let all = users.iter().collect();
        let stored = worker.store(&mut self.deferred, page, all, None, HashSet::new(), Batch::default());
        let outcome = stored.await?;
        // A user that is not reported as older any more is stored now, or never was older.
        for id in users.iter().filter_map(|raw| raw.id.as_deref()) {
            if !outcome.older.iter().any(|older| older == id) {
                self.syncer.rechecks.forget(Observation::Older, id);
            }
        }
        self.record(outcome);
        Ok(())
    }

    /// Commits a batch, or plans it in a dry run.
    pub(super) async fn apply(&mut self, batch: Batch<'_>) -> Result<(), Failure> {
        let worker = self.worker(PageSource::List);
        let outcome = worker.apply(&mut self.deferred, batch).await?;
        self.record(outcome);
        Ok(())
    }

    /// Adds what happened to some users to the report, the metrics and the plan.
    pub(super) fn record(&mut self, mut outcome: PageOutcome) {
        if let Some(dry_run) = &mut self.dry_run {
            dry_run.leave_out_planned(&mut outcome);
        }
        self.report.created += outcome.created;
        self.report.updated += outcome.updated;
        self.report.unchanged += outcome.unchanged;
        self.report.rejected += outcome.rejected;
        self.record_tables(&outcome.tables);
        self.syncer.recheck_older(&outcome.older);
        if let Some(run) = self.mode.run() {
            self.add_to_metrics(run, &outcome);
        }
        if let Some(dry_run) = &mut self.dry_run {
            dry_run.record(outcome.planned);
        }
    }

    /// Subtracts the counts of a walk that starts over, because it meets its users again. Users
    /// that were written stay counted, and the new walk meets them as unchanged: returns their
    /// number, to be subtracted at the end.
    pub(super) fn subtract(&mut self, counts: &WalkCounts) -> u64 {
        self.report.unchanged = self.report.unchanged.saturating_sub(counts.unchanged);
        if self.mode.run().is_none() {
            // The plan leaves out users that it holds already.
            return 0;
        }
        self.report.rejected = self.report.rejected.saturating_sub(counts.rejected);
        counts.written
    }

    /// Adds what is committed now to the metrics.
    fn add_to_metrics(&mut self, run: &Run, outcome: &PageOutcome) {
        let Syncer { watch, .. } = self.syncer;
        watch.record_changes(Changes {
            created: outcome.created,
            updated: outcome.updated,
            deleted: 0,
            // A user that is rejected now may be stored by the end of the sync.
            rejected: 0,
        });
        let now = self.carryover.now();
        for at in &outcome.times {
            let age_ms = now.saturating_sub(*at).max(0);
            watch.record_freshness(run.kind, Duration::from_millis(age_ms.unsigned_abs()));
            self.ages.add(age_ms);
        }
    }

    /// Remembers users of a page as witnesses. Users that were met before count, too: a walk that
    /// continues after the last user meets no others.
    pub(super) fn remember(&mut self, page: &clerk::Page) {
        self.remember_all(ends(page));
    }

    /// Remembers users that exist as witnesses.
    pub(super) fn remember_all(&mut self, ids: impl IntoIterator<Item = String>) {
        self.witnesses.extend(ids);
        let surplus = self.witnesses.len().saturating_sub(WITNESSES);
        self.witnesses.drain(..surplus);
    }
}

/// The ids of the first and the last user of a page.
pub(super) fn ends(page: &clerk::Page) -> impl Iterator<Item = String> {
    let mut ids = page.objects().iter().filter_map(|raw| raw.id.clone());
    let first = ids.next();
    first.into_iter().chain(ids.next_back())
}
