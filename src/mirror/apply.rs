//! Applies a batch: users, rejections, missing ones, progress and counts in one transaction that begins by checking the lease.

use diesel_async::AsyncConnection;
use tracing::warn;

use super::{
    Batch, Committed, Error, Lease, Mirror, Run, Write, deletions, events, rejected, runs,
    session::Session,
    signed,
    transaction::{self, Failure},
    upsert::{REFRESH, Stored, UPSERT, store},
};

impl Mirror {
    /// Applies a batch, all of it or nothing. A row that Postgres refuses costs its user only: the batch is applied again with each
    /// suspect behind a savepoint.
    pub async fn commit(&self, lease: &Lease, run: &Run, batch: &Batch<'_>) -> Result<Committed, Error> {
        let mut conn = self.connection().await?;
        match attempt(&mut conn, lease, run, batch, false).await {
            Err(Failure::OneRow(error)) => {
                warn!(error = %Error::from(error), "a user cannot be stored; looking for which");
                attempt(&mut conn, lease, run, batch, true)
                    .await
                    .map_err(Failure::into_error)
            }
            result => result.map_err(Failure::into_error),
        }
    }
}

async fn attempt(
    conn: &mut Session,
    lease: &Lease,
    run: &Run,
    batch: &Batch<'_>,
    isolate: bool,
) -> Result<Committed, Failure> {
    conn.transaction(async |conn| {
        // What is told has to be told in one order. What is silent may be written side by side.
        if run.tells {
            transaction::begin(conn, lease).await?;
        } else {
            transaction::begin_beside(conn, lease).await?;
        }
        let mut done = Committed {
            rejected: batch.reject.clone(),
            ..Committed::default()
        };
        let created = store(conn, &UPSERT, &batch.create, isolate, &mut done.rejected).await?;
        let updated = store(conn, &UPSERT, &batch.update, isolate, &mut done.rejected).await?;
        let refreshed = store(conn, &REFRESH, &batch.refresh, isolate, &mut done.rejected).await?;
        let new = created.iter().chain(&updated).filter(|stored| stored.creates());
        done.created = new.count() as u64;
        done.updated = (created.len() + updated.len()) as u64 - done.created;
        done.refreshed = refreshed.len() as u64;
        if run.tells {
            let changes: Vec<_> = created.iter().chain(&updated).map(change).collect();
            events::stored(conn, &changes).await?;
        }
        let all = || created.iter().chain(&updated).chain(&refreshed);
        let more = all().filter(|stored| stored.creates()).count();
        rejected::reject(conn, &done.rejected).await?;
        rejected::heal(conn, &batch.heal, &done.rejected).await?;
        deletions::note_missing(conn, run, &batch.missing).await?;
        // A user whose `created_at` was moved is missed at the old place and met at the new one.
        let met = batch.update.iter().map(|write| write.user.id.as_ref());
        let met: Vec<&str> = met.chain(batch.found.iter().map(String::as_str)).collect();
        deletions::forget_missing(conn, &met).await?;
        runs::follow(conn, signed(more as u64), batch.watermark, batch.checkpoint.as_ref()).await?;
        runs::progress(conn, run, batch, &done).await?;
        Ok(done)
    })
    .await
}

fn change<'s>(stored: &'s Stored<'_>) -> (events::Type, &'s Write<'s>) {
    let kind = if stored.creates() {
        events::Type::Created
    } else {
        events::Type::Updated
    };
    (kind, stored.write)
}
