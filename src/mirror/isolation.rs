//! Writes rows as sets, and isolates those that Postgres refuses or that the application has
//! locked, so that they cost only themselves.

use diesel_async::{AsyncConnection, SimpleAsyncConnection};

use super::{
    MirrorError,
    locks::{LockBudget, is_lock},
    session::{Fault, Session},
    sqlstate::is_conflict,
    transaction,
    write_failure::WriteFailure,
};

/// How often rows that block each other are tried one after the other before they are written
/// together.
const ROUNDS: usize = 8;

/// How long a set of rows may take behind savepoints. A larger set that takes longer is halved. A
/// single row that takes longer is refused: an expression or trigger of the application would
/// hardly finish.
const MOST_TIME: &str = "SET LOCAL statement_timeout = '5s'";

/// Writes rows of one table.
pub(super) trait RowWriter: Sync {
    /// What one row is written from.
    type Job: Clone + PartialEq + Send + Sync;
    /// What became of the rows of a set.
    type Done: Send;

    /// Writes a set of rows. The caller undoes everything if it fails.
    fn write(
        &self,
        conn: &mut Session,
        jobs: &[Self::Job],
    ) -> impl Future<Output = Result<Self::Done, WriteFailure>> + Send;

    /// How many rows a set has written.
    fn written(done: &Self::Done) -> usize;

    /// Takes the conflicting values from the existing rows of jobs that block each other. Returns
    /// whether any row changed.
    fn release_values(
        &self,
        conn: &mut Session,
        blocked: &[Refused<Self::Job>],
    ) -> impl Future<Output = Result<bool, WriteFailure>> + Send;
}

/// A row that Postgres refused, and why.
#[derive(Debug)]
pub(super) struct Refused<J> {
    pub(super) job: J,
    pub(super) fault: Fault,
}

/// What became of rows that were written behind savepoints.
pub(super) struct Isolated<W: RowWriter> {
    /// What became of the sets that were written.
    pub(super) done: Vec<W::Done>,
    pub(super) refused: Vec<Refused<W::Job>>,
    /// Rows that the application has locked.
    pub(super) locked: Vec<W::Job>,
}

/// Rows that are being written behind savepoints.
struct Isolation<'w, W: RowWriter> {
    writer: &'w W,
    lock_budget: LockBudget,
    isolated: Isolated<W>,
    blocked: Vec<Refused<W::Job>>,
}

/// Writes rows behind savepoints.
///
/// # Errors
/// Something failed that no single row explains.
pub(super) async fn write<W: RowWriter>(
    conn: &mut Session,
    writer: &W,
    jobs: Vec<W::Job>,
    locked: Vec<W::Job>,
) -> Result<Isolated<W>, WriteFailure> {
    let mut isolation = Isolation::new(writer);
    isolation.isolated.locked = locked;
    conn.batch_execute(MOST_TIME).await?;
    isolation.lock_budget.begin(conn).await?;
    isolation.write_by_halves(conn, jobs).await?;
    isolation.unblock(conn).await?;
    conn.batch_execute(transaction::MOST_TIME).await?;
    Ok(isolation.isolated)
}

impl<'w, W: RowWriter> Isolation<'w, W> {
    fn new(writer: &'w W) -> Self {
        Self {
            writer,
            lock_budget: LockBudget::short(),
            isolated: Isolated {
                done: Vec::new(),
                refused: Vec::new(),
                locked: Vec::new(),
            },
            blocked: Vec::new(),
        }
    }

    fn written(&self) -> usize {
        self.isolated.done.iter().map(W::written).sum()
    }

    /// Writes rows, and isolates those that are refused by halving.
    async fn write_by_halves(&mut self, conn: &mut Session, jobs: Vec<W::Job>) -> Result<(), WriteFailure> {
        let mut pending = vec![jobs];
        while let Some(part) = pending.pop() {
            if part.is_empty() {
                continue;
            }
            let written = conn.transaction(async |conn| self.writer.write(conn, &part).await);
            let fault = match written.await {
                Ok(done) => {
                    self.isolated.done.push(done);
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
                [only] if is_lock(&fault) => self.isolated.locked.push(only.clone()),
                [only] => {
                    let refused = Refused {
                        job: only.clone(),
                        fault,
                    };
                    match refused.fault.sqlstate().is_some_and(is_conflict) {
                        true => self.blocked.push(refused),
                        false => self.isolated.refused.push(refused),
                    }
                }
                part => {
                    let (left, right) = part.split_at(part.len() / 2);
                    pending.extend([right.to_vec(), left.to_vec()]);
                }
            }
        }
        Ok(())
    }

    /// Tries blocked rows again as long as some of them get written. The rest may exchange values
    /// among themselves.
    async fn unblock(&mut self, conn: &mut Session) -> Result<(), WriteFailure> {
        // Even if nothing was written, another transaction may have been in the way, and be done.
        let mut has_written = true;
        for _ in 0..ROUNDS {
            if self.blocked.is_empty() || !has_written {
                break;
            }
            let before = self.written();
            // In reverse order: in a chain, the row that is written last has released the value
            // that the one before it needs.
            let again = std::mem::take(&mut self.blocked);
            let again = again.into_iter().rev().map(|blocked| blocked.job).collect();
            self.write_by_halves(conn, again).await?;
            has_written = self.written() > before;
        }
        self.exchange(conn).await
    }

    /// Writes blocked rows together, after their existing rows have released their values. Rows
    /// that are still refused stay as they were.
    async fn exchange(&mut self, conn: &mut Session) -> Result<(), WriteFailure> {
        for _ in 0..ROUNDS {
            // A single row cannot block itself.
            if self.blocked.len() < 2 {
                break;
            }
            let mut within = Isolation::new(self.writer);
            let (blocked, inner) = (&self.blocked, &mut within);
            let exchanged = conn.transaction(async |conn| {
                if !inner.writer.release_values(conn, blocked).await? {
                    return Err(ExchangeFailure::NothingReleased);
                }
                let jobs = blocked.iter().map(|blocked| blocked.job.clone()).collect();
                inner.write_by_halves(conn, jobs).await?;
                let Isolation { isolated, blocked, .. } = &*inner;
                match isolated.refused.is_empty() && isolated.locked.is_empty() && blocked.is_empty() {
                    true => Ok(()),
                    false => Err(ExchangeFailure::Refused),
                }
            });
            match exchanged.await {
                Ok(()) => {
                    self.blocked.clear();
                    self.isolated.done.append(&mut within.isolated.done);
                    return Ok(());
                }
                Err(ExchangeFailure::NothingReleased) => break,
                // The others are tried without the rows that are still refused.
                Err(ExchangeFailure::Refused) => self.give_up(within),
                Err(ExchangeFailure::Failed(failure)) => return Err(failure),
            }
        }
        self.isolated.refused.append(&mut self.blocked);
        Ok(())
    }

    /// Takes the rows that an exchange could not write out of those that block each other.
    fn give_up(&mut self, within: Self) {
        let Isolation { isolated, blocked, .. } = within;
        let mut refused = isolated.refused;
        let mut locked = isolated.locked;
        for row in std::mem::take(&mut self.blocked) {
            if let Some(at) = refused.iter().position(|other| other.job == row.job) {
                self.isolated.refused.push(refused.swap_remove(at));
            } else if let Some(at) = locked.iter().position(|job| *job == row.job) {
                self.isolated.locked.push(locked.swap_remove(at));
            } else if blocked.iter().any(|other| other.job == row.job) {
                self.isolated.refused.push(row);
            } else {
                self.blocked.push(row);
            }
        }
    }
}

/// Why an exchange is undone.
enum ExchangeFailure {
    /// No row released a value.
    NothingReleased,
    /// Some rows were still refused.
    Refused,
    Failed(WriteFailure),
}

impl From<WriteFailure> for ExchangeFailure {
    fn from(failure: WriteFailure) -> Self {
        ExchangeFailure::Failed(failure)
    }
}

impl From<MirrorError> for ExchangeFailure {
    fn from(error: MirrorError) -> Self {
        ExchangeFailure::Failed(error.into())
    }
}

impl From<diesel::result::Error> for ExchangeFailure {
    fn from(error: diesel::result::Error) -> Self {
        ExchangeFailure::Failed(error.into())
    }
}
