//! Works on pages: compares their users with the mirror, and applies or plans the difference.
//! Several workers may run side by side.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use tracing::warn;

use super::{
    DeleteMode, Syncer,
    mode::SyncMode,
    page_batch::{self, DecodedUsers, PageUsers, StoredRows, id_or_digest},
    recheck::ReplicaTrust,
};
use crate::{
    clerk::{Page, RawObject},
    failure::Failure,
    mirror::{
        Batch, Committed, MirrorError, Rejected, RunTable, SyncKind, TableCounts, TableDifferences, TableError, Write,
    },
    reconcile::range::Range,
    resource::{Digest, FieldValue},
};

/// Pages without a change write nothing, except that the checkpoint follows at least this often.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(5);

/// What the mirror lists apart from its users. Nothing is looked up in a list that is empty.
#[derive(Default)]
pub(super) struct Listed {
    /// Whether any user is listed as rejected.
    pub(super) rejects: AtomicBool,
    /// Whether a deletion was held when the sync began.
    pub(super) holds: bool,
}

/// Why Clerk sent a page.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum PageSource {
    /// It is a page of a list.
    List,
    /// It answers a question about one id, or about the ids of users whose older state was shown.
    ById,
    /// It holds users to be stored again that were rejected before.
    Retry,
}

/// Works on one page at a time. It borrows what the sync's workers share, so that several can run
/// side by side.
#[derive(Clone, Copy)]
pub(super) struct PageWorker<'a> {
    pub(super) syncer: &'a Syncer,
    pub(super) mode: SyncMode<'a>,
    pub(super) listed: &'a Listed,
    pub(super) source: PageSource,
}

/// What pages without a change have left unwritten.
pub(super) struct Deferred {
    unchanged: u64,
    written: Instant,
    /// Whether the next batch is committed, although nothing has changed.
    is_due: bool,
}

impl Deferred {
    /// Makes the next batch commit what is left unwritten.
    pub(super) fn make_due(&mut self) {
        self.is_due = true;
    }

    /// Adds what pages that were stored side by side have left unwritten.
    pub(super) fn add(&mut self, other: Self) {
        self.unchanged += other.unchanged;
    }
}

impl Default for Deferred {
    fn default() -> Self {
        Self {
            unchanged: 0,
            written: Instant::now(),
            is_due: false,
        }
    }
}

/// What happened to some users.
#[derive(Default)]
pub(super) struct PageOutcome {
    pub(super) created: u64,
    pub(super) updated: u64,
    pub(super) unchanged: u64,
    pub(super) rejected: u64,
    /// Users that Clerk showed in a state that is not trusted yet, and that was not stored.
    pub(super) older: Vec<String>,
    /// `updated_at` of the users that are new or whose `updated_at` moved, in Unix milliseconds.
    /// Empty in the first import.
    pub(super) times: Vec<i64>,
    /// What was done with rows of the application's tables.
    pub(super) tables: TableCounts,
    /// What a dry run plans instead of writing it.
    pub(super) planned: PagePlan,
}

/// What a sync would do with some users.
#[derive(Default)]
pub(super) struct PagePlan {
    pub(super) create: Vec<String>,
    /// Ids with the names of the fields that change.
    pub(super) update: Vec<(String, Vec<String>)>,
    /// Ids with the reasons.
    pub(super) reject: Vec<(String, String)>,
    pub(super) missing: Vec<String>,
    /// Ids that were missing and are found now.
    pub(super) found: Vec<String>,
    /// Ids of users whose rows in the mirror would be written.
    pub(super) stored: Vec<String>,
    /// How rows of the application's tables differ from what these users make of them, with the
    /// tables' names.
    pub(super) tables: Vec<(String, PageDifferences)>,
}

/// How rows of a table differ from what the users of a page make of them, or why the table cannot be
/// read.
pub(super) type PageDifferences = Result<TableDifferences, MirrorError>;

impl PageOutcome {
    /// Adds what happened to other users.
    pub(super) fn add(&mut self, other: Self) {
        self.created += other.created;
        self.updated += other.updated;
        self.unchanged += other.unchanged;
        self.rejected += other.rejected;
        self.older.extend(other.older);
        self.times.extend(other.times);
        self.tables.merge(other.tables);
        self.planned.create.extend(other.planned.create);
        self.planned.update.extend(other.planned.update);
        self.planned.reject.extend(other.planned.reject);
        self.planned.missing.extend(other.planned.missing);
        self.planned.found.extend(other.planned.found);
        self.planned.stored.extend(other.planned.stored);
        self.planned.tables.extend(other.planned.tables);
    }
}

impl<'a> PageWorker<'a> {
    /// Stores some users of a page, and notes which rows of the `judged` range are missing from it.
    /// `carried` are ids of the range that earlier pages showed. What `more` holds is committed
    /// together with the page.
    pub(super) async fn store<'p>(
        &self,
        deferred: &mut Deferred,
        page: &'p Page,
        users: Vec<&'p RawObject>,
        judged: Option<Range>,
        mut carried: HashSet<String>,
        mut more: Batch<'_>,
    ) -> Result<PageOutcome, Failure> {
        let judged = judged.filter(|_| self.syncer.options.delete_mode != DeleteMode::Keep);
        let rejected = self.rejected_before(&users).await?;
        let (again, users): (Vec<_>, Vec<_>) = users
            .into_iter()
            .partition(|raw| self.is_known_as_rejected(&rejected, raw));
        carried.extend(again.into_iter().map(|raw| id_or_digest(raw).into_owned()));
        let users = PageUsers::new(self.syncer.resource, page, users);
        let mirror = &self.syncer.mirror;
        let readable = self.mode.has_schema().then_some(mirror);
        let mut rows = StoredRows::load(readable, &users, judged, carried).await?;
        let decoded = DecodedUsers::new(&users, &rows);
        let (mut batch, older) = page_batch::batch(&users, &rows, &decoded, &rejected, self.trust());
        batch.found.append(&mut more.found);
        if self.listed.holds {
            batch.found.append(&mut mirror.holds().among(&users.ids()).await?);
        }
        batch.missing.append(&mut more.missing);
        batch.checkpoint = more.checkpoint;
        batch.watermark = more.watermark;
        let mut outcome = PageOutcome {
            older,
            ..PageOutcome::default()
        };
        while let Some(missing) = rows.next_missing(mirror, &users).await? {
            let missing = Batch {
                missing,
                ..Batch::default()
            };
            outcome.add(self.apply(deferred, missing).await?);
        }
        outcome.add(self.apply(deferred, batch).await?);
        Ok(outcome)
    }

    /// Of ids that Clerk does not know as cursors any more, those that the mirror has: they are
    /// missing.
    pub(super) async fn still_in_mirror(&self, ids: &[String]) -> Result<Vec<String>, Failure> {
        let judges = self.syncer.options.delete_mode != DeleteMode::Keep;
        if ids.is_empty() || !judges || !self.mode.has_schema() {
            return Ok(Vec::new());
        }
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let rows = self.syncer.mirror.rows().by_ids(&ids).await?;
        Ok(rows.into_iter().filter(|row| !row.deleted).map(|row| row.id).collect())
    }

    /// Commits a batch, or plans it in a dry run.
    pub(super) async fn apply(&self, deferred: &mut Deferred, mut batch: Batch<'_>) -> Result<PageOutcome, Failure> {
        let mut outcome = PageOutcome {
            unchanged: batch.unchanged + batch.refresh.len() as u64,
            ..PageOutcome::default()
        };
        let run = match self.mode {
            SyncMode::Apply { run, .. } => run,
            SyncMode::DryRun { tables, .. } => {
                let differences = self.plan_tables(tables, &batch).await?;
                plan(&mut outcome, batch);
                outcome.planned.tables = differences;
                return Ok(outcome);
            }
        };
        let is_due = std::mem::take(&mut deferred.is_due) || deferred.written.elapsed() >= CHECKPOINT_EVERY;
        if batch.is_empty() && !is_due {
            deferred.unchanged += batch.unchanged;
            return Ok(outcome);
        }
        batch.unchanged += std::mem::take(&mut deferred.unchanged);
        let committed = self.syncer.mirror.rows().apply(run, &batch).await?;
        deferred.written = Instant::now();
        page_batch::warn_of_unexpected(&batch);
        if !run.is_import {
            outcome.times = times(&batch, &committed).collect();
        }
        outcome.created = committed.created;
        outcome.updated = committed.updated;
        outcome.rejected = committed.rejected.len() as u64;
        outcome.tables = committed.tables;
        if !committed.rejected.is_empty() {
            self.listed.rejects.store(true, Ordering::Relaxed);
            warn_of_rejected(&committed.rejected);
        }
        Ok(outcome)
    }

    /// How rows of the application's tables differ from what a batch makes of its users.
    async fn plan_tables(
        &self,
        tables: &[RunTable],
        batch: &Batch<'_>,
    ) -> Result<Vec<(String, PageDifferences)>, Failure> {
        let writes: Vec<_> = batch.create.iter().chain(&batch.update).chain(&batch.refresh).collect();
        let mut all = Vec::new();
        for table in tables.iter().filter(|_| !writes.is_empty()) {
            let app_tables = self.syncer.mirror.app_tables();
            let differences = match app_tables.plan_records(table, &writes).await {
                Ok(differences) => Ok(differences),
                Err(TableError::Unusable(error)) => Err(error),
                Err(TableError::Whole(error)) => return Err(error.into()),
            };
            all.push((table.name().to_owned(), differences));
        }
        Ok(all)
    }

    fn trust(&self) -> ReplicaTrust<'a> {
        ReplicaTrust {
            rechecks: &self.syncer.rechecks,
            is_by_id: self.source == PageSource::ById,
        }
    }

    /// Of these users, those listed as rejected, with the digest of the rejected document.
    async fn rejected_before(&self, users: &[&RawObject]) -> Result<HashMap<String, Option<Digest>>, Failure> {
        if !self.listed.rejects.load(Ordering::Relaxed) {
            return Ok(HashMap::new());
        }
        let names: Vec<String> = users.iter().map(|raw| id_or_digest(raw).into_owned()).collect();
        Ok(self.syncer.mirror.rejected().digests(&names).await?)
    }

    /// Whether this very document was rejected before and is not tried again now. A full sync tries
    /// all documents again.
    fn is_known_as_rejected(&self, rejected: &HashMap<String, Option<Digest>>, raw: &RawObject) -> bool {
        let is_full = self.mode.run().is_some_and(|run| run.kind == SyncKind::Full);
        !is_full
            && self.source == PageSource::List
            && !rejected.is_empty()
            && rejected.get(id_or_digest(raw).as_ref()).copied().flatten() == Some(raw.digest)
    }
}

/// Turns a batch into the plan of a dry run.
fn plan(outcome: &mut PageOutcome, batch: Batch<'_>) {
    let (returning, update): (Vec<_>, Vec<_>) = batch.update.iter().partition(|write| write.returns);
    outcome.created = (batch.create.len() + returning.len()) as u64;
    outcome.updated = update.len() as u64;
    outcome.rejected = batch.reject.len() as u64;
    let id = |write: &Write<'_>| write.record.id.to_string();
    outcome.planned = PagePlan {
        create: batch.create.iter().chain(returning).map(id).collect(),
        update: update.iter().map(|write| (id(write), write.changed.clone())).collect(),
        reject: batch
            .reject
            .into_iter()
            .map(|user| (user.object_id, user.reason))
            .collect(),
        stored: batch
            .create
            .iter()
            .chain(&batch.update)
            .chain(&batch.refresh)
            .map(id)
            .collect(),
        missing: batch.missing,
        found: batch.found,
        tables: Vec::new(),
    };
}

/// When the users changed that were stored just now, in Unix milliseconds.
fn times(batch: &Batch<'_>, committed: &Committed) -> impl Iterator<Item = i64> {
    let refused: HashSet<&str> = committed.rejected.iter().map(|user| &*user.object_id).collect();
    let moved = |write: &&Write<'_>| write.changed.iter().any(|field| field == "updated_at");
    let writes = batch.create.iter().chain(batch.update.iter().filter(moved));
    let stored = writes.filter(move |write| !refused.contains(&*write.record.id));
    stored.filter_map(|write| match write.record.get("updated_at") {
        Some(FieldValue::Time(at)) => Some(*at),
        _ => None,
    })
}

/// Logs users that are rejected. Those that the sync tries again at its end are logged then.
pub(super) fn warn_of_rejected(rejected: &[Rejected]) {
    for user in rejected.iter().filter(|user| !user.is_blocked()) {
        warn_left_out(&user.object_id, &user.reason);
    }
}

/// Logs a user that cannot be stored or deleted.
pub(super) fn warn_left_out(id: &str, reason: &str) {
    warn!(user_id = id, reason, "left out");
}
