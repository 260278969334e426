//! Where pages are worked on: held against the mirror, and what follows carried out or put on paper. Several may be worked on side by side.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use tracing::warn;

use super::{DeleteMode, Syncer, page, recheck::Trust};
use crate::{
    clerk::{Page, Raw},
    failure::Failure,
    mirror::{Batch, Committed, Mirror, Rejected, Run, SyncKind, Write},
    reconcile::walk::Range,
    resource::{Digest, Value},
};

/// Pages without a change write nothing, except that the checkpoint follows at least this often.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(5);

/// Where the plan of a page goes: into the mirror, or onto paper.
#[derive(Clone, Copy)]
pub(super) enum Target<'a> {
    Mirror {
        run: &'a Run,
        /// When this run began, by the database's clock and by ours.
        began: (DateTime<Utc>, Instant),
    },
    DryRun,
}

/// What all need who work on pages.
#[derive(Clone, Copy)]
pub(super) struct PageContext<'a> {
    pub(super) syncer: &'a Syncer,
    pub(super) target: Target<'a>,
    /// The mirror to compare with; none in a dry run where there is no schema yet.
    pub(super) mirror: Option<&'a Mirror>,
    /// Whether anybody is listed as rejected.
    pub(super) rejects: &'a AtomicBool,
    /// Whether a deletion was held when the sync began.
    pub(super) holds: &'a AtomicBool,
    /// Whether the users are answers to questions by id.
    pub(super) is_by_id: bool,
    /// Documents that were rejected before are tried again. A full sync always does so, and so do answers to questions by id.
    pub(super) tries_rejected: bool,
}

/// What quiet pages left unwritten.
pub(super) struct Deferred {
    unchanged: u64,
    written: Instant,
}

impl Default for Deferred {
    fn default() -> Self {
        Self {
            unchanged: 0,
            written: Instant::now(),
        }
    }
}

/// What came of some users.
#[derive(Default)]
pub(super) struct PageOutcome {
    pub(super) created: u64,
    pub(super) updated: u64,
    pub(super) unchanged: u64,
    pub(super) rejected: u64,
    /// Users that Clerk showed in a state that is not trusted yet, and that was not stored.
    pub(super) older: Vec<String>,
    /// When users changed who are new, or whose `updated_at` moved, in Unix milliseconds; nothing in an import.
    pub(super) times: Vec<i64>,
    /// What was put on paper instead.
    pub(super) planned: Planned,
}

/// The plan of some users.
#[derive(Default)]
pub(super) struct Planned {
    pub(super) create: Vec<String>,
    pub(super) update: Vec<(String, Vec<String>)>,
    pub(super) reject: Vec<(String, String)>,
    pub(super) missing: Vec<String>,
}

impl PageOutcome {
    /// Adds what came of others.
    pub(super) fn add(&mut self, other: Self) {
        self.created += other.created;
        self.updated += other.updated;
        self.unchanged += other.unchanged;
        self.rejected += other.rejected;
        self.older.extend(other.older);
        self.times.extend(other.times);
        self.planned.create.extend(other.planned.create);
        self.planned.update.extend(other.planned.update);
        self.planned.reject.extend(other.planned.reject);
        self.planned.missing.extend(other.planned.missing);
    }
}

impl<'a> PageContext<'a> {
    /// Brings the mirror in sync with some users of a page, and notes who is missing in the stretch that the page lets judge.
    pub(super) async fn take<'p>(
        &self,
        quiet: &mut Deferred,
        page: &'p Page,
        users: Vec<&'p Raw>,
        judged: Option<Range>,
        mut carried: HashSet<String>,
        mut more: Batch<'_>,
    ) -> Result<PageOutcome, Failure> {
        let judged = judged.filter(|_| self.syncer.options.delete_mode != DeleteMode::Keep);
        let listed = self.listed(&users).await?;
        let (again, users): (Vec<_>, Vec<_>) = users.into_iter().partition(|raw| self.is_rejected(&listed, raw));
        carried.extend(again.into_iter().map(|raw| page::name(raw).into_owned()));
        let chosen = page::Chosen::new(page, users);
        let mut loaded = page::Loaded::new(self.mirror, &chosen, judged, carried).await?;
        let decoded = page::Decoded::new(&chosen, &loaded);
        let (mut batch, older) = page::batch(&chosen, &loaded, &decoded, &listed, self.trust());
        batch.found.append(&mut more.found);
        batch.found.append(&mut self.released(&chosen).await?);
        batch.missing.append(&mut more.missing);
        batch.checkpoint = more.checkpoint;
        batch.watermark = more.watermark;
        let mut brought = PageOutcome {
            older,
            ..PageOutcome::default()
        };
        if let Some(mirror) = self.mirror {
            while let Some(missing) = loaded.rest(mirror, &chosen).await? {
                let missing = Batch {
                    missing,
                    ..Batch::default()
                };
                brought.add(self.apply(quiet, missing).await?);
            }
        }
        brought.add(self.apply(quiet, batch).await?);
        Ok(brought)
    }

    /// Which of these users the mirror has: to be asked for by id.
    pub(super) async fn still_held(&self, ids: &[String]) -> Result<Vec<String>, Failure> {
        let Some(mirror) = self.mirror.filter(|_| !ids.is_empty()) else {
            return Ok(Vec::new());
        };
        if self.syncer.options.delete_mode == DeleteMode::Keep {
            return Ok(Vec::new());
        }
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let rows = mirror.rows().by_ids(&ids).await?;
        Ok(rows.into_iter().filter(|row| !row.deleted).map(|row| row.id).collect())
    }

    /// Carries out a batch, or puts it on paper.
    pub(super) async fn apply(&self, quiet: &mut Deferred, mut batch: Batch<'_>) -> Result<PageOutcome, Failure> {
        let mut brought = PageOutcome {
            unchanged: batch.unchanged + batch.refresh.len() as u64,
            ..PageOutcome::default()
        };
        let Target::Mirror { run, .. } = self.target else {
            plan(&mut brought, batch);
            return Ok(brought);
        };
        if batch.is_empty() && quiet.written.elapsed() < CHECKPOINT_EVERY {
            quiet.unchanged += batch.unchanged;
            return Ok(brought);
        }
        batch.unchanged += std::mem::take(&mut quiet.unchanged);
        let done = self.syncer.mirror.rows().apply(run, &batch).await?;
        quiet.written = Instant::now();
        page::warn_of_unexpected(&batch);
        if !run.is_import {
            brought.times = times(&batch, &done).collect();
        }
        brought.created = done.created;
        brought.updated = done.updated;
        brought.rejected = done.rejected.len() as u64;
        if !done.rejected.is_empty() {
            self.rejects.store(true, Ordering::Relaxed);
            warn_of(&done.rejected);
        }
        Ok(brought)
    }

    /// The time by the database's clock; none where nothing is written.
    pub(super) fn now(&self) -> Option<DateTime<Utc>> {
        match self.target {
            Target::Mirror { began: (now, then), .. } => Some(now + then.elapsed()),
            Target::DryRun => None,
        }
    }

    fn trust(&self) -> Trust<'a> {
        Trust {
            rechecks: &self.syncer.rechecks,
            is_by_id: self.is_by_id,
        }
    }

    /// Ids on the page whose deletion is held: Clerk shows their users again.
    async fn released(&self, chosen: &page::Chosen<'_>) -> Result<Vec<String>, Failure> {
        match self.mirror {
            Some(mirror) if self.holds.load(Ordering::Relaxed) => {
                Ok(mirror.missing().held_among(&chosen.ids()).await?)
            }
            _ => Ok(Vec::new()),
        }
    }

    /// Who of these is listed as rejected, with which document.
    async fn listed(&self, users: &[&Raw]) -> Result<HashMap<String, Option<Digest>>, Failure> {
        let names = || users.iter().map(|raw| page::name(raw).into_owned()).collect::<Vec<_>>();
        match self.mirror {
            Some(mirror) if self.rejects.load(Ordering::Relaxed) => Ok(mirror.rejected().digests(&names()).await?),
            _ => Ok(HashMap::new()),
        }
    }

    /// Whether this very document was rejected before, and is not tried again now.
    fn is_rejected(&self, listed: &HashMap<String, Option<Digest>>, raw: &Raw) -> bool {
        let is_full = matches!(self.target, Target::Mirror { run, .. } if run.kind == SyncKind::Full);
        !is_full
            && !self.is_by_id
            && !self.tries_rejected
            && !listed.is_empty()
            && listed.get(page::name(raw).as_ref()).copied().flatten() == Some(raw.digest)
    }
}

fn plan(brought: &mut PageOutcome, batch: Batch<'_>) {
    let (returning, update): (Vec<_>, Vec<_>) = batch.update.iter().partition(|write| write.returns);
    brought.created = (batch.create.len() + returning.len()) as u64;
    brought.updated = update.len() as u64;
    brought.rejected = batch.reject.len() as u64;
    let id = |write: &Write<'_>| write.user.id.to_string();
    brought.planned = Planned {
        create: batch.create.iter().chain(returning).map(id).collect(),
        update: update.iter().map(|write| (id(write), write.changed.clone())).collect(),
        reject: batch
            .reject
            .into_iter()
            .map(|user| (user.user_id, user.reason))
            .collect(),
        missing: batch.missing,
    };
}

/// When the users changed that are stored now.
fn times(batch: &Batch<'_>, done: &Committed) -> impl Iterator<Item = i64> {
    let refused: HashSet<&str> = done.rejected.iter().map(|user| &*user.user_id).collect();
    let moved = |write: &&Write<'_>| write.changed.iter().any(|field| field == "updated_at");
    let writes = batch.create.iter().chain(batch.update.iter().filter(moved));
    let stored = writes.filter(move |write| !refused.contains(&*write.user.id));
    stored.filter_map(|write| match write.user.get("updated_at") {
        Some(Value::Time(at)) => Some(*at),
        _ => None,
    })
}

/// Logs users that are rejected. Those that the sync tries again at its end are logged then.
pub(super) fn warn_of(rejected: &[Rejected]) {
    for user in rejected.iter().filter(|user| !user.is_blocked()) {
        warn_left_out(&user.user_id, &user.reason);
    }
}

pub(super) fn warn_left_out(id: &str, reason: &str) {
    warn!(user_id = id, reason, "left out");
}
