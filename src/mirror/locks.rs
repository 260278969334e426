//! Locks of the application: how long a transaction waits for them, and which rows they are on.

use std::time::{Duration, Instant};

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{Array, Bool, Text},
};
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};

use super::{
    quote::literal,
    session::{Fault, Session},
    sqlstate::LOCK_NOT_AVAILABLE,
    write_failure::WriteFailure,
};
use crate::resource::Resource;

/// How long a statement that writes rows waits for a lock at first. Most of the application's own
/// transactions are shorter.
const FIRST_WAIT: Duration = Duration::from_millis(300);

/// How long statements wait for locks in total, once some rows are known to be locked.
const WHOLE_WAIT: Duration = Duration::from_millis(500);

/// How long a statement waits when that time is used up, so that unlocked rows are still written.
const LEAST_WAIT: Duration = Duration::from_millis(2);

/// How long statements on clerk2pg's own tables wait for a lock, and how long any statement waits
/// for a lock on a whole table.
pub(super) const USUAL_WAIT: Duration = Duration::from_secs(30);

/// How long statements may still wait for locks of the application. Each failed wait reduces it, so
/// that many locked rows delay others hardly longer than one does.
#[derive(Debug)]
pub(super) struct LockBudget {
    left: Option<Duration>,
    began: Instant,
}

impl LockBudget {
    /// For a transaction that expects no locks.
    pub(super) fn new() -> Self {
        Self {
            left: None,
            began: Instant::now(),
        }
    }

    /// For a transaction that expects locks.
    pub(super) fn short() -> Self {
        Self {
            left: Some(WHOLE_WAIT),
            began: Instant::now(),
        }
    }

    /// Whether some rows are known to be locked.
    pub(super) fn expects_locks(&self) -> bool {
        self.left.is_some()
    }

    /// Sets how long the next statements of the transaction wait.
    pub(super) async fn begin(&mut self, conn: &mut Session) -> QueryResult<()> {
        let wait = self.left.map_or(FIRST_WAIT, |left| (left / 4).max(LEAST_WAIT));
        wait_at_most(conn, wait).await?;
        self.began = Instant::now();
        Ok(())
    }

    /// Records that a statement waited in vain.
    pub(super) fn spend(&mut self) {
        self.left = Some(match self.left {
            None => WHOLE_WAIT,
            Some(left) => left.saturating_sub(self.began.elapsed()),
        });
    }
}

/// Sets how long each statement of the transaction waits for a lock.
pub(super) async fn wait_at_most(conn: &mut Session, wait: Duration) -> QueryResult<()> {
    conn.batch_execute(&format!("SET LOCAL lock_timeout = {}", wait.as_millis()))
        .await
}

/// What is done with rows. It decides the lock mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Store,
    Mark,
    Delete,
}

/// How strongly a statement locks its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LockStrength {
    /// It updates columns that no foreign key can reference.
    NoKeyUpdate,
    /// It deletes rows or updates such columns. It also waits for inserts of rows that reference
    /// the row.
    Update,
}

impl LockStrength {
    pub(super) fn sql(self) -> &'static str {
        match self {
            LockStrength::NoKeyUpdate => "NO KEY UPDATE",
            LockStrength::Update => "UPDATE",
        }
    }
}

/// Returns those of these ids whose rows another transaction has locked. Does not wait for them,
/// and locks the others.
pub(super) async fn locked(
    conn: &mut Session,
    resource: &Resource,
    ids: &[&str],
    purpose: Purpose,
) -> Result<Vec<String>, WriteFailure> {
    #[derive(QueryableByName)]
    struct LockedId {
        #[diesel(sql_type = Text)]
        id: String,
    }
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let strength = match purpose {
        Purpose::Delete => LockStrength::Update,
        Purpose::Store if updates_keys(conn, resource).await? => LockStrength::Update,
        Purpose::Store | Purpose::Mark => LockStrength::NoKeyUpdate,
    };
    let strength = strength.sql();
    let table = resource.table;
    let rows: Vec<LockedId> = sql_query(format!(
        "WITH free AS MATERIALIZED (SELECT id FROM {table} WHERE id = ANY($1) FOR {strength} SKIP LOCKED)
         SELECT u.id FROM {table} u WHERE u.id = ANY($1) AND NOT EXISTS (SELECT FROM free f WHERE f.id = u.id)"
    ))
    .bind::<Array<Text>, _>(ids)
    .load(conn)
    .await?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}

#[derive(QueryableByName)]
struct HasKeys {
    #[diesel(sql_type = Bool)]
    has_keys: bool,
}

/// Whether storing a record updates columns that a foreign key could reference, because the
/// application has a unique index on them. Such an update also waits for inserts of rows that
/// reference the row.
async fn updates_keys(conn: &mut Session, resource: &Resource) -> QueryResult<bool> {
    let HasKeys { has_keys } = sql_query(format!(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_index
             WHERE indrelid = '{table}'::pg_catalog.regclass::pg_catalog.oid AND indisunique AND NOT indisprimary
               AND indexprs IS NULL AND indpred IS NULL) AS has_keys",
        table = resource.table
    ))
    .get_result(conn)
    .await?;
    Ok(has_keys)
}

/// How strongly an update of these columns of the application's table locks its rows. `table` is SQL.
pub(super) async fn strength(conn: &mut Session, table: &str, columns: &[&str]) -> QueryResult<LockStrength> {
    let table = literal(table);
    let HasKeys { has_keys } = sql_query(format!(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_index AS i
             JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey::pg_catalog.int2[])
             WHERE i.indrelid = {table}::pg_catalog.regclass::pg_catalog.oid AND i.indisunique
               AND i.indexprs IS NULL AND i.indpred IS NULL AND a.attname::pg_catalog.text = ANY ($1)) AS has_keys"
    ))
    .bind::<Array<Text>, _>(columns)
    .get_result(conn)
    .await?;
    Ok(match has_keys {
        true => LockStrength::Update,
        false => LockStrength::NoKeyUpdate,
    })
}

/// Whether a statement gave up waiting for a lock.
pub(super) fn is_lock(fault: &Fault) -> bool {
    fault.sqlstate() == Some(LOCK_NOT_AVAILABLE)
}
