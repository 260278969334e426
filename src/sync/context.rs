//! A sync under way: what it has seen so far.

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use chrono::{DateTime, Utc};

use super::{
    Carryover, Line, Printer, Report, Syncer,
    page_context::{Deferred, PageContext, PageOutcome, Planned, Target},
    recheck::Said,
};
use crate::{
    clerk,
    failure::Failure,
    mirror::{Ages, Batch, Checkpoint, Run},
    reconcile::walk::Range,
    resource::{Digest, DigestKey},
    watch::Changes,
};

/// So many users met on the last pages are remembered as known to exist.
const WITNESSES: usize = 5;

/// A sync under way.
pub(super) struct SyncContext<'a> {
    pub(super) syncer: &'a Syncer,
    pub(super) desk: PageContext<'a>,
    /// What a dry run tells and remembers.
    pub(super) dry_run: Option<DryRun<'a>>,
    pub(super) report: Report,
    pub(super) carryover: &'a mut Carryover,
    /// Users met on the last pages: they are known to exist.
    pub(super) witnesses: VecDeque<String>,
    /// The walk to go on with.
    pub(super) resumed: Option<Checkpoint>,
    /// Everybody who was updated at Clerk before it, less the overlap, is in the mirror, or will be when this walk is done. In Unix
    /// milliseconds.
    pub(super) watermark: Option<i64>,
    /// When the walk began, by the database's clock.
    pub(super) walk_started_at: Option<DateTime<Utc>>,
    /// Whether recent changes are looked at between pages, and whether they were.
    pub(super) looks_between: bool,
    pub(super) has_looked: bool,
    /// Users created between pages.
    pub(super) created_between: u64,
    /// The server takes no notice of `user_id`, so that ids can only be asked for one by one.
    pub(super) asks_one_by_one: bool,
    quiet: Deferred,
    /// How old the changes so far were when they were committed.
    pub(super) ages: Ages,
}

/// What was counted for the users of a walk.
#[derive(Debug, Default)]
pub(super) struct Met {
    written: u64,
    unchanged: u64,
    rejected: u64,
}

impl Met {
    pub(super) fn add(&mut self, brought: &PageOutcome) {
        self.written += brought.created + brought.updated;
        self.unchanged += brought.unchanged;
        self.rejected += brought.rejected;
    }
}

/// A plan on paper.
pub(super) struct DryRun<'a> {
    pub(super) print: Printer<'a>,
    /// Whom the walk did not meet.
    pub(super) missing: Vec<String>,
    /// Who was met and would be updated: with another `created_at` at another place than the mirror has them.
    pub(super) updated: HashSet<String>,
    /// Users in the plan: a walk that starts over meets them again.
    pub(super) planned: HashSet<Digest>,
}

impl<'a> SyncContext<'a> {
    pub(super) fn new(desk: PageContext<'a>, report: Report, carryover: &'a mut Carryover) -> Self {
        Self {
            syncer: desk.syncer,
            desk,
            dry_run: None,
            report,
            carryover,
            witnesses: VecDeque::new(),
            resumed: None,
            watermark: None,
            walk_started_at: None,
            looks_between: true,
            has_looked: false,
            created_between: 0,
            asks_one_by_one: false,
            quiet: Deferred::default(),
            ages: Ages::default(),
        }
    }

    /// The sync that writes, as opposed to a dry run.
    pub(super) fn run(&self) -> Option<&'a Run> {
        match self.desk.target {
            Target::Mirror { run, .. } => Some(run),
            Target::DryRun => None,
        }
    }

    pub(super) fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        if !self.report.notes.contains(&note) {
            self.report.notes.push(note);
        }
    }

    /// Brings the mirror in sync with some users of a page, and notes who is missing in the stretch that the page lets judge.
    pub(super) async fn take<'p>(
        &mut self,
        page: &'p clerk::Page,
        users: Vec<&'p clerk::Raw>,
        judged: Option<Range>,
        carried: HashSet<String>,
        more: Batch<'_>,
    ) -> Result<(), Failure> {
        let taken = self.desk.take(&mut self.quiet, page, users, judged, carried, more);
        let brought = taken.await?;
        self.tell(brought);
        Ok(())
    }

    /// Stores the user of a page that answers a question by id.
    pub(super) async fn take_by_id(&mut self, page: &clerk::Page) -> Result<(), Failure> {
        let desk = PageContext {
            is_by_id: true,
            ..self.desk
        };
        let users = page.users();
        let all = users.iter().collect();
        let taken = desk.take(&mut self.quiet, page, all, None, HashSet::new(), Batch::default());
        let brought = taken.await?;
        // What is not called older again is stored now, or was not older.
        for id in users.iter().filter_map(|raw| raw.id.as_deref()) {
            if !brought.older.iter().any(|older| older == id) {
                self.syncer.rechecks.forget(Said::Older, id);
            }
        }
        self.tell(brought);
        Ok(())
    }

    pub(super) async fn apply(&mut self, batch: Batch<'_>) -> Result<(), Failure> {
        let brought = self.desk.apply(&mut self.quiet, batch).await?;
        self.tell(brought);
        Ok(())
    }

    /// Takes into account what came of some users.
    pub(super) fn tell(&mut self, mut brought: PageOutcome) {
        if let Some(dry_run) = &mut self.dry_run {
            dry_run.leave_out_planned(&mut brought);
        }
        self.report.created += brought.created;
        self.report.updated += brought.updated;
        self.report.unchanged += brought.unchanged;
        self.report.rejected += brought.rejected;
        self.syncer.note_older(&brought.older);
        if let Some(run) = self.run() {
            self.watch(run, &brought);
        }
        if let Some(dry_run) = &mut self.dry_run {
            dry_run.note(brought.planned);
        }
    }

    /// Subtracts the counts of a walk that starts over, as its users are met again. Users that were written count once, and are unchanged when
    /// they are met again. Returns their number, which is to be subtracted at the end.
    pub(super) fn take_back(&mut self, told: &Met) -> u64 {
        self.report.unchanged = self.report.unchanged.saturating_sub(told.unchanged);
        if self.run().is_none() {
            // The plan leaves out users that are in it already.
            return 0;
        }
        self.report.rejected = self.report.rejected.saturating_sub(told.rejected);
        told.written
    }

    /// Tells those who watch what is committed now.
    fn watch(&mut self, run: &Run, brought: &PageOutcome) {
        let Syncer { watch, .. } = self.syncer;
        watch.record_changes(Changes {
            created: brought.created,
            updated: brought.updated,
            deleted: 0,
            // What is rejected now may be stored by the end of the sync.
            rejected: 0,
        });
        let now = self.carryover.now();
        for at in &brought.times {
            let age_ms = now.saturating_sub(*at).max(0);
            watch.record_freshness(run.kind, Duration::from_millis(age_ms.unsigned_abs()));
            self.ages.add(age_ms);
        }
    }

    /// Users met before count too: a walk taken up again behind the last user meets nobody else.
    pub(super) fn remember(&mut self, page: &clerk::Page) {
        self.remember_all(ends(page));
    }

    pub(super) fn remember_all(&mut self, ids: impl IntoIterator<Item = String>) {
        self.witnesses.extend(ids);
        let surplus = self.witnesses.len().saturating_sub(WITNESSES);
        self.witnesses.drain(..surplus);
    }
}

/// The first and the last user of a page.
pub(super) fn ends(page: &clerk::Page) -> impl Iterator<Item = String> {
    let mut ids = page.users().iter().filter_map(|raw| raw.id.clone());
    let first = ids.next();
    first.into_iter().chain(ids.next_back())
}

impl DryRun<'_> {
    /// Leaves out users that are in the plan already.
    fn leave_out_planned(&mut self, brought: &mut PageOutcome) {
        let mut is_new = |id: &String| self.planned.insert(Digest::of(&DigestKey::default(), id.as_bytes()));
        let planned = &mut brought.planned;
        planned.create.retain(&mut is_new);
        planned.update.retain(|(id, _)| is_new(id));
        planned.reject.retain(|(id, _)| is_new(id));
        brought.created = planned.create.len() as u64;
        brought.updated = planned.update.len() as u64;
        brought.rejected = planned.reject.len() as u64;
    }

    fn note(&mut self, planned: Planned) {
        planned.create.iter().for_each(|id| (self.print)(Line::Create(id)));
        planned
            .update
            .iter()
            .for_each(|(id, changed)| (self.print)(Line::Update(id, changed)));
        planned
            .reject
            .iter()
            .for_each(|(id, reason)| (self.print)(Line::Reject(id, reason)));
        self.missing.extend(planned.missing);
        self.updated.extend(planned.update.into_iter().map(|(id, _)| id));
    }
}
