//! A pass under way: what it has seen so far, and where the plan of each page goes.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use tracing::warn;

use super::{DeleteMode, Line, Memory, Pass, Printer, Report, page};
use crate::{
    clerk,
    failure::Failure,
    mirror::{Batch, Checkpoint, Kind, Lease, Mirror, Rejected, Run, Write},
    user::{Digest, Value},
    walk::{Interval, Position},
};

/// Pages without a change write nothing, except that the checkpoint follows at least this often.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(5);

/// Where the plan of a page goes: into the mirror, or onto paper.
pub(super) enum Sink<'a> {
    Mirror {
        lease: &'a Lease,
        run: &'a Run,
        /// The walk to go on with.
        resumed: Option<Checkpoint>,
        /// When this run began, by the database's clock.
        now: DateTime<Utc>,
    },
    Paper {
        print: Printer<'a>,
        /// Whom the walk did not meet.
        missing: Vec<String>,
        /// Who was met and would be updated: with another `created_at` at another place than the mirror has them.
        updated: HashSet<String>,
    },
}

/// A pass under way.
pub(super) struct Running<'a> {
    pub(super) pass: &'a Pass,
    pub(super) sink: Sink<'a>,
    /// The mirror to compare with; none in a dry run where there is no schema yet.
    pub(super) mirror: Option<&'a Mirror>,
    pub(super) report: Report,
    pub(super) started: Instant,
    pub(super) memory: &'a mut Memory,
    /// Who is listed as rejected, with which document.
    pub(super) rejected: HashMap<String, Option<Digest>>,
    /// Users met on the last pages: they are known to exist.
    pub(super) witnesses: VecDeque<String>,
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
    pub(super) unchanged_uncommitted: u64,
    pub(super) checkpointed: Instant,
    /// `updated_at` of the newest change so far, and its age when it was committed, in milliseconds.
    newest_change: Option<(i64, i64)>,
}

impl<'a> Running<'a> {
    pub(super) fn new(
        pass: &'a Pass,
        sink: Sink<'a>,
        mirror: Option<&'a Mirror>,
        report: Report,
        started: Instant,
        memory: &'a mut Memory,
    ) -> Self {
        Self {
            pass,
            sink,
            mirror,
            report,
            started,
            memory,
            rejected: HashMap::new(),
            witnesses: VecDeque::new(),
            watermark: None,
            walk_started_at: None,
            looks_between: true,
            has_looked: false,
            created_between: 0,
            unchanged_uncommitted: 0,
            checkpointed: started,
            newest_change: None,
        }
    }

    /// How old the newest change was when it was committed, in milliseconds.
    pub(super) fn freshness_ms(&self) -> Option<i64> {
        self.newest_change.map(|(_, age)| age)
    }

    /// Whether this very document was rejected before; only a full sync tries it again.
    fn is_rejected(&self, raw: &clerk::Raw) -> bool {
        let is_full = matches!(self.sink, Sink::Mirror { run, .. } if run.kind == Kind::Full);
        let listed = self.rejected.get(&page::name(raw)).copied().flatten();
        !is_full && listed == Some(raw.digest)
    }

    /// Brings the mirror in step with some users of a page, and notes who is missing in the stretch that the page lets judge.
    pub(super) async fn take<'p>(
        &mut self,
        page: &'p clerk::Page,
        users: impl IntoIterator<Item = &'p clerk::Raw>,
        judged: Option<Interval>,
        mut carried: HashSet<String>,
        mut more: Batch<'_>,
    ) -> Result<(), Failure> {
        let judged = judged.filter(|_| self.pass.options.delete_mode != DeleteMode::Keep);
        let (again, users): (Vec<_>, Vec<_>) = users.into_iter().partition(|raw| self.is_rejected(raw));
        carried.extend(again.into_iter().map(page::name));
        let chosen = page::Chosen::new(page, users);
        let mut loaded = page::Loaded::new(self.mirror, &chosen, judged, carried).await?;
        let decoded = page::Decoded::new(&chosen, &loaded);
        let mut batch = page::batch(&chosen, &loaded, &decoded, &self.rejected);
        batch.found.append(&mut more.found);
        batch.checkpoint = more.checkpoint;
        batch.watermark = more.watermark;
        if let Some(mirror) = self.mirror {
            while let Some(missing) = loaded.rest(mirror).await? {
                self.apply(Batch {
                    missing,
                    ..Batch::default()
                })
                .await?;
            }
        }
        self.apply(batch).await
    }

    pub(super) async fn apply(&mut self, mut batch: Batch<'_>) -> Result<(), Failure> {
        self.report.unchanged += batch.unchanged + batch.refresh.len() as u64;
        match &mut self.sink {
            Sink::Mirror { lease, run, .. } => {
                let is_due = self.checkpointed.elapsed() >= CHECKPOINT_EVERY;
                if batch.is_empty() && !is_due {
                    self.unchanged_uncommitted += batch.unchanged;
                    return Ok(());
                }
                batch.unchanged += std::mem::take(&mut self.unchanged_uncommitted);
                let done = self.pass.mirror.commit(lease, run, &batch).await?;
                self.checkpointed = Instant::now();
                if let Some(newest) = newest_change(&batch).filter(|_| !run.is_import)
                    && self.newest_change.is_none_or(|(before, _)| newest > before)
                {
                    self.newest_change = Some((newest, (self.memory.now() - newest).max(0)));
                }
                self.report.created += done.created;
                self.report.updated += done.updated;
                self.report.rejected += done.rejected.len() as u64;
                warn_of(&done.rejected);
                self.rejected
                    .extend(done.rejected.into_iter().map(|user| (user.user_id, user.digest)));
            }
            Sink::Paper {
                print,
                missing,
                updated,
            } => {
                self.report.created += batch.create.len() as u64;
                self.report.updated += batch.update.len() as u64;
                self.report.rejected += batch.reject.len() as u64;
                batch
                    .create
                    .iter()
                    .for_each(|write| print(Line::Create(&write.user.id)));
                batch
                    .update
                    .iter()
                    .for_each(|write| print(Line::Update(&write.user.id, &write.changed)));
                batch
                    .reject
                    .iter()
                    .for_each(|user| print(Line::Reject(&user.user_id, &user.reason)));
                missing.append(&mut batch.missing);
                updated.extend(batch.update.iter().map(|write| write.user.id.to_string()));
            }
        }
        Ok(())
    }

    /// Writes what quiet pages left unwritten.
    pub(super) async fn flush(&mut self) -> Result<(), Failure> {
        if let Sink::Mirror { lease, run, .. } = &self.sink
            && self.unchanged_uncommitted > 0
        {
            let batch = Batch {
                unchanged: std::mem::take(&mut self.unchanged_uncommitted),
                ..Batch::default()
            };
            self.pass.mirror.commit(lease, run, &batch).await?;
        }
        Ok(())
    }

    pub(super) fn checkpoint(&self, position: Option<&Position>) -> Option<Checkpoint> {
        let Sink::Mirror { run, now, .. } = &self.sink else {
            return None;
        };
        Some(Checkpoint {
            walk: run.walk,
            started_at: self.walk_started_at?,
            judged: self.pass.options.delete_mode != DeleteMode::Keep,
            written_at: *now + self.started.elapsed(),
            watermark: self.watermark,
            position: position?.clone(),
        })
    }
}

/// The newest `updated_at` among users who are new, or whose `updated_at` moved.
fn newest_change(batch: &Batch<'_>) -> Option<i64> {
    let moved = |write: &&Write<'_>| write.changed.iter().any(|field| field == "updated_at");
    let writes = batch.create.iter().chain(batch.update.iter().filter(moved));
    let times = writes.filter_map(|write| match write.user.get("updated_at") {
        Some(Value::Time(at)) => Some(*at),
        _ => None,
    });
    times.max()
}

pub(super) fn warn_of(rejected: &[Rejected]) {
    for user in rejected {
        warn!(user_id = user.user_id, reason = user.reason, "left out");
    }
}
