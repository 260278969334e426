//! Applies a batch: records, rejections, missing objects, progress and counts, in one transaction
//! that begins by checking the lease.

use diesel_async::AsyncConnection;
use tracing::{debug, warn};

use super::{
    Batch, Committed, MirrorError, Run, bookkeeping,
    convert::signed,
    locks::{self, LockBudget, USUAL_WAIT},
    missing, projection, rejected,
    session::Session,
    sqlstate::BLOCKED,
    store::{self, StoreOutcome},
    transaction,
    upsert::UpsertStatements,
    write_failure::WriteFailure,
};

/// Applies a batch completely or not at all.
///
/// A row that Postgres refuses, that takes too long or that the application has locked costs only
/// its own object: the batch is applied again with savepoints.
pub(super) async fn apply(
    conn: &mut Session,
    run: &Run,
    statements: &UpsertStatements,
    batch: &Batch<'_>,
) -> Result<Committed, MirrorError> {
    let fault = match attempt(conn, run, statements, batch, Savepoints::None).await {
        Err(WriteFailure::OneRow(fault) | WriteFailure::TooLong(fault)) => fault,
        result => return result.map_err(WriteFailure::into_error),
    };
    let is_blocked = fault.sqlstate().is_some_and(|code| BLOCKED.contains(&code));
    let error = MirrorError::from(fault);
    if is_blocked {
        debug!(%error, "a user cannot be stored now; searching for it");
    } else {
        warn!(%error, "a user cannot be stored; searching for it");
    }
    let result = match attempt(conn, run, statements, batch, Savepoints::Records).await {
        // A trigger or an index of the application on the events may refuse one of them, or wait
        // for a lock.
        Err(WriteFailure::OneRow(_) | WriteFailure::TooLong(_)) if run.emits_events => {
            attempt(conn, run, statements, batch, Savepoints::Events).await
        }
        result => result,
    };
    result.map_err(WriteFailure::into_error)
}

/// What an attempt puts behind savepoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Savepoints {
    None,
    /// Records. Their events are inserted together, in the order in which the changes happened.
    Records,
    /// Records, each with its event.
    Events,
}

async fn attempt(
    conn: &mut Session,
    run: &Run,
    statements: &UpsertStatements,
    batch: &Batch<'_>,
    savepoints: Savepoints,
) -> Result<Committed, WriteFailure> {
    conn.transaction(async |conn| {
        // Events must be inserted in one order. Without them, batches may be written side by side.
        let writes = batch.writes_rows().then_some(run.resource);
        transaction::begin_for(conn, run.lease(), writes, !run.emits_events).await?;
        let mut outcome = StoreOutcome::default();
        if batch.writes_rows() {
            outcome = match savepoints {
                Savepoints::None => {
                    LockBudget::new().begin(conn).await?;
                    store::store_batch(conn, statements, batch).await?
                }
                Savepoints::Records | Savepoints::Events => {
                    let with_events = run.emits_events && savepoints == Savepoints::Events;
                    store::store_isolated(conn, statements, batch, with_events).await?
                }
            };
        }
        let stored = outcome.changed.iter().chain(&outcome.refreshed);
        let stored: Vec<&str> = stored.map(|stored| stored.write.record.id.as_ref()).collect();
        let tables = projection::project(conn, &run.tables, run.id, &stored).await?;
        if run.emits_events && savepoints != Savepoints::Events {
            outcome.publish(conn, run.resource).await?;
        }
        if batch.writes_rows() {
            locks::wait_at_most(conn, USUAL_WAIT).await?;
        }
        let StoreOutcome {
            changed,
            refreshed,
            rejected,
        } = outcome;
        let mut done = Committed {
            created: changed.iter().filter(|stored| stored.creates()).count() as u64,
            refreshed: refreshed.len() as u64,
            rejected: batch.reject.iter().cloned().chain(rejected).collect(),
            tables,
            ..Committed::default()
        };
        done.updated = changed.len() as u64 - done.created;
        let more = changed
            .iter()
            .chain(&refreshed)
            .filter(|stored| stored.creates())
            .count();
        rejected::reject(conn, run, &done.rejected).await?;
        rejected::unreject(conn, run, &batch.unreject, &done.rejected).await?;
        missing::note_missing(conn, run, &batch.missing).await?;
        // An object whose `created_at` changed is missed at its old place and met at its new one.
        let met = batch.update.iter().map(|write| write.record.id.as_ref());
        let met: Vec<&str> = met.chain(batch.found.iter().map(String::as_str)).collect();
        missing::release(conn, run.resource, &met).await?;
        bookkeeping::advance(
            conn,
            run.resource,
            signed(more as u64),
            batch.watermark,
            batch.checkpoint.as_ref(),
        )
        .await?;
        bookkeeping::record(conn, run, batch, &done).await?;
        Ok(done)
    })
    .await
}
