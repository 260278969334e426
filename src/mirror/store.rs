//! Stores the records of a batch: as sets, or one by one behind savepoints if Postgres refuses one of
//! them or the application holds a lock.
//!
//! Values that the application declares unique are released before they are taken: changed
//! objects are written before new ones, and objects that block each other are written last,
//! together.

use std::marker::PhantomData;

use diesel_async::AsyncConnection;

use super::{
    Batch, MirrorError, Rejected, Write,
    exchange::{self, ExchangeTarget},
    isolation::{self, Isolated, Refused, RowWriter},
    locks::{self, Purpose},
    outbox,
    session::Session,
    sqlstate::{LOCK_NOT_AVAILABLE, NO_DATA},
    upsert::{self, Stored, UpsertStatements, WriteKind, upsert},
    write_failure::WriteFailure,
    write_job::WriteJob,
};
use crate::resource::Resource;

/// What became of the records of a batch.
#[derive(Default)]
pub(super) struct StoreOutcome<'w> {
    /// New, or changed.
    pub(super) changed: Vec<Stored<'w>>,
    /// Brought up to date without a change.
    pub(super) refreshed: Vec<Stored<'w>>,
    pub(super) rejected: Vec<Rejected>,
}

impl<'w> StoreOutcome<'w> {
    /// Inserts the events of objects that changed.
    pub(super) async fn publish(&self, conn: &mut Session, resource: &Resource) -> diesel::QueryResult<()> {
        let changes: Vec<_> = self.changed.iter().map(change).collect();
        outbox::stored(conn, resource, &changes).await
    }

    fn add(&mut self, job: WriteJob<'w>, stored: Stored<'w>) {
        match job.kind {
            WriteKind::Change => self.changed.push(stored),
            WriteKind::Refresh => self.refreshed.push(stored),
            WriteKind::Erase => {}
        }
    }

    fn stored(&self) -> usize {
        self.changed.len() + self.refreshed.len()
    }
}

fn change<'s>(stored: &'s Stored<'_>) -> (outbox::EventKind, &'s Write<'s>) {
    let kind = if stored.creates() {
        outbox::EventKind::Created
    } else {
        outbox::EventKind::Updated
    };
    (kind, stored.write)
}

/// Returns the records of a batch in the order in which they are written: first those that may
/// release a value.
fn jobs<'w>(batch: &'w Batch<'_>) -> Vec<WriteJob<'w>> {
    let changes = batch.update.iter().map(|write| (WriteKind::Change, write));
    let refreshes = batch.refresh.iter().map(|write| (WriteKind::Refresh, write));
    let creates = batch.create.iter().map(|write| (WriteKind::Change, write));
    let erasures = batch.erase.iter().map(|write| (WriteKind::Erase, write));
    let all = changes.chain(refreshes).chain(erasures).chain(creates);
    all.map(|(kind, write)| WriteJob { kind, write }).collect()
}

/// Stores the records of a batch as sets.
pub(super) async fn store_batch<'w>(
    conn: &mut Session,
    statements: &UpsertStatements,
    batch: &'w Batch<'_>,
) -> Result<StoreOutcome<'w>, WriteFailure> {
    Ok(write(conn, statements, &jobs(batch)).await?)
}

/// Stores the records of a batch behind savepoints, with `with_events` each set together with its
/// events. Records that Postgres refuses, and those whose rows the application has locked, are
/// rejected.
pub(super) async fn store_isolated<'w>(
    conn: &mut Session,
    statements: &UpsertStatements,
    batch: &'w Batch<'_>,
    with_events: bool,
) -> Result<StoreOutcome<'w>, WriteFailure> {
    let jobs = jobs(batch);
    for kind in WriteKind::ALL {
        // A statement that fails without rows fails for another reason: a missing privilege, table
        // or type.
        conn.transaction(async |conn| upsert(conn, statements, kind, &[]).await)
            .await
            .map_err(|error: diesel::result::Error| WriteFailure::Whole(error.into()))?;
    }
    let ids: Vec<&str> = jobs.iter().map(WriteJob::id).collect();
    let locked = locks::locked(conn, statements.resource, &ids, Purpose::Store).await?;
    let (locked, free): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|job| locked.iter().any(|id| id == job.id()));
    let writer = RecordWriter {
        statements,
        with_events,
        records: PhantomData,
    };
    let Isolated { done, refused, locked } = isolation::write(conn, &writer, free, locked).await?;
    let mut outcome = StoreOutcome::default();
    for done in done {
        outcome.changed.extend(done.changed);
        outcome.refreshed.extend(done.refreshed);
        outcome.rejected.extend(done.rejected);
    }
    outcome.rejected.extend(refused.into_iter().map(rejected));
    outcome.rejected.extend(locked.into_iter().map(rejected_as_locked));
    Ok(outcome)
}

fn rejected(Refused { job, fault }: Refused<WriteJob<'_>>) -> Rejected {
    let sqlstate = fault.sqlstate().unwrap_or_default().to_owned();
    let reason = MirrorError::refusal(fault);
    job.write.rejected(&sqlstate, reason)
}

fn rejected_as_locked(job: WriteJob<'_>) -> Rejected {
    let reason = "the application has locked the row; the next sync tries again".to_owned();
    job.write.rejected(LOCK_NOT_AVAILABLE, reason)
}

/// Writes records as sets. Those that a trigger of the application left out are rejected.
async fn write<'w>(
    conn: &mut Session,
    statements: &UpsertStatements,
    jobs: &[WriteJob<'w>],
) -> diesel::QueryResult<StoreOutcome<'w>> {
    let mut outcome = StoreOutcome::default();
    for kind in WriteKind::ALL {
        let of_kind: Vec<WriteJob<'w>> = jobs.iter().copied().filter(|job| job.kind == kind).collect();
        if of_kind.is_empty() {
            continue;
        }
        let writes: Vec<&'w Write<'w>> = of_kind.iter().map(|job| job.write).collect();
        let mut stored = upsert(conn, statements, kind, &writes).await?.into_iter().peekable();
        for job in of_kind {
            match stored.next_if(|stored| std::ptr::eq(stored.write, job.write)) {
                Some(stored) => outcome.add(job, stored),
                None => {
                    let reason = "a trigger of the application skipped the row without an error".to_owned();
                    outcome.rejected.push(job.write.rejected(NO_DATA, reason));
                }
            }
        }
    }
    Ok(outcome)
}

/// Columns that every row of the mirror must have.
const NEEDED: [&str; 3] = ["id", "created_at", "digest"];

/// Writes records behind savepoints, with `with_events` each set together with its events.
struct RecordWriter<'s, 'w> {
    statements: &'s UpsertStatements,
    with_events: bool,
    records: PhantomData<&'w Write<'w>>,
}

impl<'w> RowWriter for RecordWriter<'_, 'w> {
    type Done = StoreOutcome<'w>;
    type Job = WriteJob<'w>;

    async fn write(&self, conn: &mut Session, jobs: &[WriteJob<'w>]) -> Result<StoreOutcome<'w>, WriteFailure> {
        let outcome = write(conn, self.statements, jobs).await?;
        if self.with_events {
            outcome.publish(conn, self.statements.resource).await?;
        }
        Ok(outcome)
    }

    fn written(done: &StoreOutcome<'w>) -> usize {
        done.stored()
    }

    async fn release_values(
        &self,
        conn: &mut Session,
        blocked: &[Refused<WriteJob<'w>>],
    ) -> Result<bool, WriteFailure> {
        let resource = self.statements.resource;
        let (schema, table) = resource.table.split_once('.').unwrap_or(("public", resource.table));
        let target = ExchangeTarget {
            schema,
            table,
            key: "id",
            columns: upsert::columns(resource)
                .filter(|column| !NEEDED.contains(column))
                .collect(),
        };
        let ids: Vec<&str> = blocked.iter().map(|blocked| blocked.job.id()).collect();
        exchange::release_values(conn, &target, blocked, &ids).await
    }
}
