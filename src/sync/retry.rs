//! Tries again at the end of a sync what Postgres refused or the application had locked: the
//! obstacle may be gone by now.

use std::collections::HashSet;

use tracing::{debug, info};

use super::{
    DeleteMode, SyncContext,
    by_id::{BATCH, ByIds},
    page_worker::PageSource,
};
use crate::{
    clerk::RawObject,
    failure::Failure,
    mirror::{Batch, Run, SyncKind},
};

/// Rounds in which a sync tries the same users again, as long as each round stores some of them.
const ROUNDS: usize = 3;

/// Users that are tried again if the server cannot be asked for many at once.
const MAX_ONE_BY_ONE: usize = 10;

impl SyncContext<'_> {
    /// Notes users as missing whose deletion a lock of the application prevented, so that this sync
    /// settles them. Returns whether there are any.
    pub(super) async fn resume_deletions(&mut self) -> Result<bool, Failure> {
        if self.syncer.options.delete_mode == DeleteMode::Keep {
            return Ok(false);
        }
        let missing = self.syncer.mirror.rejected().locked_deletions().await?;
        if missing.is_empty() {
            return Ok(false);
        }
        self.apply(Batch {
            missing,
            ..Batch::default()
        })
        .await?;
        Ok(true)
    }

    /// Tries users again that Postgres refused. If this sync stored, deleted or refused users, that
    /// may help all of them; otherwise only users whose rows were locked are tried. A full sync has
    /// met all users, so it tries only those that other users or locks blocked. The other syncs ask
    /// for as many users as fit in one request.
    pub(super) async fn retry_refused(&mut self) -> Result<(), Failure> {
        let Some(run) = self.mode.run() else { return Ok(()) };
        for _ in 0..ROUNDS {
            let before = self.stored();
            let has_news = before + self.report.deleted + self.report.rejected > 0;
            if run.kind != SyncKind::Full {
                let ids = self.syncer.mirror.rejected().refused(run, !has_news, BATCH).await?;
                self.retry(run, &ids).await?;
            } else if has_news {
                let mut after = String::new();
                loop {
                    let ids = self.syncer.mirror.rejected().blocked(&after, BATCH).await?;
                    let Some(last) = ids.last() else { break };
                    after.clone_from(last);
                    self.retry(run, &ids).await?;
                }
            }
            let stored = self.stored() - before;
            if stored == 0 {
                break;
            }
            info!(users = stored, "users that were left out before are stored now");
        }
        Ok(())
    }

    /// Users that this sync has stored.
    fn stored(&self) -> u64 {
        self.report.created + self.report.updated
    }

    /// Asks for these users, and stores them.
    async fn retry(&mut self, run: &Run, ids: &[String]) -> Result<(), Failure> {
        if ids.is_empty() {
            return Ok(());
        }
        let page = match self.by_ids(ids).await? {
            ByIds::Answered(page) => page,
            ByIds::Ignored => return self.look_up_and_store(&ids[..ids.len().min(MAX_ONE_BY_ONE)]).await,
            ByIds::Void(why) => {
                debug!(why, "rejected users could not be asked for");
                return Ok(());
            }
        };
        let asked: HashSet<&str> = ids.iter().map(String::as_str).collect();
        let is_asked = |raw: &&RawObject| raw.id.as_deref().is_some_and(|id| asked.contains(id));
        let found: Vec<&RawObject> = page.objects().iter().filter(is_asked).collect();
        let found_ids: HashSet<&str> = found.iter().filter_map(|raw| raw.id.as_deref()).collect();
        let left_out: Vec<String> = ids
            .iter()
            .filter(|id| !found_ids.contains(id.as_str()))
            .cloned()
            .collect();
        if !left_out.is_empty() && !self.witnesses.is_empty() {
            self.syncer
                .mirror
                .rejected()
                .note_left_out(run.lease(), &left_out)
                .await?;
        }
        self.store(PageSource::Retry, &page, found, None, Batch::default())
            .await
    }
}
