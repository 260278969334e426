//! Stores the records of a batch: as sets, or one by one behind savepoints if Postgres refuses one of
//! them or the application holds a lock.
//!
//! Values that the application declares unique are released before they are taken: changed
//! objects are written before new ones, and objects that block each other are written last,
//! together.

use diesel_async::{AsyncConnection, SimpleAsyncConnection};

use super::{
    Batch, MirrorError, Rejected, Write, exchange,
    locks::{self, LockBudget, Purpose, is_lock},
    outbox,
    session::{Fault, Session},
    sqlstate::{LOCK_NOT_AVAILABLE, NO_DATA, is_conflict},
    transaction,
    upsert::{Stored, UpsertStatements, WriteKind, upsert},
    write_failure::WriteFailure,
    write_job::{Blocked, WriteJob},
};
use crate::resource::Resource;

/// How often objects that block each other are tried one after the other before they are written
/// together.
const ROUNDS: usize = 8;

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
    let all = changes.chain(refreshes).chain(creates);
    all.map(|(kind, write)| WriteJob { kind, write }).collect()
}

/// Stores the records of a batch as sets.
pub(super) async fn store_batch<'w>(
    conn: &mut Session,
    statements: &UpsertStatements,
    batch: &'w Batch<'_>,
) -> Result<StoreOutcome<'w>, WriteFailure> {
    let jobs = jobs(batch);
    let mut outcome = StoreOutcome::default();
    write(conn, statements, &jobs, &mut outcome).await?;
    Ok(outcome)
}

/// How long a set of records may take behind savepoints. A larger set that takes longer is halved.
/// A single record that takes longer is rejected: an expression or trigger of the application would
/// hardly finish.
const MOST_TIME: &str = "SET LOCAL statement_timeout = '5s'";

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
    let mut isolated = IsolatedWrites::new(statements, with_events);
    conn.batch_execute(MOST_TIME).await?;
    isolated.lock_budget.begin(conn).await?;
    let ids: Vec<&str> = jobs.iter().map(WriteJob::id).collect();
    let locked = locks::locked(conn, statements.resource, &ids, Purpose::Store).await?;
    let (locked, free): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|job| locked.iter().any(|id| id == job.id()));
    locked.into_iter().for_each(|job| isolated.reject_locked(job));
    isolated.write_by_halves(conn, free).await?;
    isolated.unblock(conn).await?;
    conn.batch_execute(transaction::MOST_TIME).await?;
    Ok(isolated.outcome)
}

/// Writes records as sets. Those that a trigger of the application left out are rejected.
async fn write<'w>(
    conn: &mut Session,
    statements: &UpsertStatements,
    jobs: &[WriteJob<'w>],
    outcome: &mut StoreOutcome<'w>,
) -> diesel::QueryResult<()> {
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
    Ok(())
}

/// Records that are written behind savepoints.
struct IsolatedWrites<'s, 'w> {
    statements: &'s UpsertStatements,
    with_events: bool,
    lock_budget: LockBudget,
    outcome: StoreOutcome<'w>,
    blocked: Vec<Blocked<'w>>,
}

impl<'s, 'w> IsolatedWrites<'s, 'w> {
    fn new(statements: &'s UpsertStatements, with_events: bool) -> Self {
        Self {
            statements,
            with_events,
            lock_budget: LockBudget::short(),
            outcome: StoreOutcome::default(),
            blocked: Vec::new(),
        }
    }

    /// Writes records, and isolates those that are refused by halving.
    async fn write_by_halves(&mut self, conn: &mut Session, jobs: Vec<WriteJob<'w>>) -> Result<(), WriteFailure> {
        let mut pending = vec![jobs];
        while let Some(part) = pending.pop() {
            if part.is_empty() {
                continue;
            }
            let written = conn.transaction(async |conn| {
                let mut outcome = StoreOutcome::default();
                write(conn, self.statements, &part, &mut outcome).await?;
                if self.with_events {
                    outcome.publish(conn, self.statements.resource).await?;
                }
                Ok::<_, diesel::result::Error>(outcome)
            });
            let fault = match written.await.map_err(WriteFailure::from) {
                Ok(outcome) => {
                    self.outcome.changed.extend(outcome.changed);
                    self.outcome.refreshed.extend(outcome.refreshed);
                    self.outcome.rejected.extend(outcome.rejected);
                    continue;
                }
                Err(WriteFailure::OneRow(fault)) => fault,
                Err(WriteFailure::TooLong(fault)) => {
                    if is_lock(&fault) {
                        self.lock_budget.spend();
                        self.lock_budget.begin(conn).await?;
                    }
                    fault
                }
                Err(failure) => return Err(failure),
            };
            match part.as_slice() {
                [only] if is_lock(&fault) => self.reject_locked(*only),
                [only] if fault.sqlstate().is_some_and(is_conflict) => self.blocked.push(Blocked { job: *only, fault }),
                [only] => self.reject(*only, fault),
                part => {
                    let (left, right) = part.split_at(part.len() / 2);
                    pending.extend([right.to_vec(), left.to_vec()]);
                }
            }
        }
        Ok(())
    }

    /// Tries blocked records again as long as some of them get stored. The rest may exchange values
    /// among themselves.
    async fn unblock(&mut self, conn: &mut Session) -> Result<(), WriteFailure> {
        let mut has_stored = self.outcome.stored() > 0;
        for _ in 0..ROUNDS {
            if self.blocked.is_empty() || !has_stored {
                break;
            }
            let stored = self.outcome.stored();
            // In reverse order: in a chain, the record that is written last has released the value
            // that the one before it needs.
            let again = std::mem::take(&mut self.blocked);
            let again = again.into_iter().rev().map(|blocked| blocked.job).collect();
            self.write_by_halves(conn, again).await?;
            has_stored = self.outcome.stored() > stored;
        }
        self.exchange(conn).await
    }

    /// Writes blocked records together, after their existing rows have released their values.
    /// Records that are still refused are rejected, and their rows stay as they were.
    async fn exchange(&mut self, conn: &mut Session) -> Result<(), WriteFailure> {
        for _ in 0..ROUNDS {
            // A single record cannot block itself.
            if self.blocked.len() < 2 {
                break;
            }
            let mut within = IsolatedWrites::new(self.statements, self.with_events);
            let (resource, blocked, isolated) = (self.statements.resource, &self.blocked, &mut within);
            let exchanged = conn.transaction(async |conn| {
                if !exchange::release_values(conn, resource, blocked).await? {
                    return Err(ExchangeFailure::NothingReleased);
                }
                isolated
                    .write_by_halves(conn, blocked.iter().map(|blocked| blocked.job).collect())
                    .await?;
                let IsolatedWrites { outcome, blocked, .. } = &*isolated;
                if outcome.rejected.is_empty() && blocked.is_empty() {
                    Ok(())
                } else {
                    Err(ExchangeFailure::Refused)
                }
            });
            match exchanged.await {
                Ok(()) => {
                    self.blocked.clear();
                    self.outcome.changed.append(&mut within.outcome.changed);
                    self.outcome.refreshed.append(&mut within.outcome.refreshed);
                    return Ok(());
                }
                Err(ExchangeFailure::NothingReleased) => break,
                // Records that are still refused are rejected, and the others are tried without them.
                Err(ExchangeFailure::Refused) => {
                    let refused = |id: &str| within.outcome.rejected.iter().find(|row| row.object_id == id).cloned();
                    for blocked in std::mem::take(&mut self.blocked) {
                        let id = blocked.job.id();
                        if let Some(rejected) = refused(id) {
                            self.outcome.rejected.push(rejected);
                        } else if within.blocked.iter().any(|again| again.job.id() == id) {
                            self.reject(blocked.job, blocked.fault);
                        } else {
                            self.blocked.push(blocked);
                        }
                    }
                }
                Err(ExchangeFailure::Failed(failure)) => return Err(failure),
            }
        }
        for Blocked { job, fault } in std::mem::take(&mut self.blocked) {
            self.reject(job, fault);
        }
        Ok(())
    }

    fn reject(&mut self, job: WriteJob<'w>, fault: Fault) {
        let sqlstate = fault.sqlstate().unwrap_or_default().to_owned();
        let reason = format!("Postgres refused it: {}", MirrorError::from(fault));
        self.outcome.rejected.push(job.write.rejected(&sqlstate, reason));
    }

    fn reject_locked(&mut self, job: WriteJob<'w>) {
        let reason = "the application has locked the row; the next sync tries again".to_owned();
        self.outcome
            .rejected
            .push(job.write.rejected(LOCK_NOT_AVAILABLE, reason));
    }
}

/// Why an exchange is undone.
enum ExchangeFailure {
    /// No row released a value.
    NothingReleased,
    /// Some records were still refused.
    Refused,
    Failed(WriteFailure),
}

impl From<WriteFailure> for ExchangeFailure {
    fn from(failure: WriteFailure) -> Self {
        ExchangeFailure::Failed(failure)
    }
}

impl From<diesel::result::Error> for ExchangeFailure {
    fn from(error: diesel::result::Error) -> Self {
        ExchangeFailure::Failed(error.into())
    }
}
