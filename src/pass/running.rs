//! A pass under way: what it has seen so far, and where the plan of each page goes.

use std::{
    collections::{HashSet, VecDeque},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use tracing::warn;

use super::{DeleteMode, Line, Pass, Printer, Report, page};
use crate::{
    clerk,
    failure::Failure,
    mirror::{Batch, Checkpoint, Lease, Mirror, Rejected, Run},
    walk::{Interval, Position},
};

/// Pages without a change write nothing, except that the checkpoint follows at least this often.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(5);

/// Where the plan of a page goes: into the mirror, or onto paper.
pub(super) enum Sink<'a> {
    Mirror {
        lease: &'a Lease,
        run: &'a Run,
        /// When the walk began, by the database's clock.
        walk_started_at: DateTime<Utc>,
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
    /// Who is listed as rejected.
    pub(super) rejected: HashSet<String>,
    /// Users met on the last pages: they are known to exist.
    pub(super) witnesses: VecDeque<String>,
    pub(super) unchanged_uncommitted: u64,
    pub(super) checkpointed: Instant,
}

impl Running<'_> {
    pub(super) async fn whole(&mut self, lease: &Lease, run: &Run, position: Option<Position>) -> Result<(), Failure> {
        self.walk_list(position).await?;
        self.pass.mirror.close_walk(lease, run).await?;
        self.settle_deletions(lease, run).await
    }

    /// Brings the mirror in step with some users of a page, and notes who is missing in the stretch that the page lets judge.
    pub(super) async fn take<'p>(
        &mut self,
        page: &'p clerk::Page,
        users: impl IntoIterator<Item = &'p clerk::Raw>,
        judged: Option<Interval>,
        carried: HashSet<String>,
        mut more: Batch<'_>,
    ) -> Result<(), Failure> {
        let judged = judged.filter(|_| self.pass.options.delete_mode != DeleteMode::Keep);
        let chosen = page::Chosen::new(page, users);
        let mut loaded = page::Loaded::new(self.mirror, &chosen, judged, carried).await?;
        let decoded = page::Decoded::new(&chosen, &loaded);
        let mut batch = page::batch(&chosen, &loaded, &decoded, &self.rejected);
        batch.found.append(&mut more.found);
        batch.checkpoint = more.checkpoint;
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
                self.report.created += done.created;
                self.report.updated += done.updated;
                self.report.rejected += done.rejected.len() as u64;
                warn_of(&done.rejected);
                self.rejected.extend(done.rejected.into_iter().map(|user| user.user_id));
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
        let Sink::Mirror {
            run,
            walk_started_at,
            now,
            ..
        } = &self.sink
        else {
            return None;
        };
        Some(Checkpoint {
            walk: run.walk,
            started_at: *walk_started_at,
            judged: self.pass.options.delete_mode != DeleteMode::Keep,
            written_at: *now + self.started.elapsed(),
            position: position?.clone(),
        })
    }
}

pub(super) fn warn_of(rejected: &[Rejected]) {
    for user in rejected {
        warn!(user_id = user.user_id, reason = user.reason, "left out");
    }
}
