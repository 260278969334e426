//! The lease, which lets one process write at a time.
//!
//! Each takeover raises the epoch, and every writing transaction begins by checking its own epoch.
//! So a holder that slept through the end of its lease cannot write when it wakes.

use std::time::Duration;

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{BigInt, Double, Nullable, Text},
};
use diesel_async::RunQueryDsl;
use tracing::warn;

use super::{
    MirrorError,
    expiry::{UNKNOWN, lasts},
    pool::ConnectionPool,
    session::Session,
};

/// The least time after which a silent transaction is ended: this machine may be busy.
pub(super) const LEAST_SILENCE: Duration = Duration::from_secs(5);

/// The time to live, which a statement gets as its second value, in seconds.
const OWN: &str = "($2 * interval '1 second')";

/// How long to wait for a lock on the row.
const ROW_WAIT: &str = "5s";

/// Returns a condition in SQL: the lease has not expired.
pub(super) fn held() -> String {
    lasts("lease_expires_at", "lease_ttl", UNKNOWN)
}

/// The proof that this process is the one writer. Everything that writes asks for it.
#[derive(Debug, Clone)]
pub struct Lease {
    /// The name of the process, for `clerk2pg status` and messages.
    pub holder: String,
    epoch: i64,
    ttl: Duration,
}

/// Result of asking for the lease.
#[derive(Debug, Clone)]
pub enum LeaseAttempt {
    /// The lease is taken.
    Acquired(Lease),
    /// Another process has it.
    Held {
        /// The name of that process.
        holder: String,
    },
}

/// Takes, renews and releases the lease.
#[derive(Debug, Clone)]
pub struct Leases(pub(super) ConnectionPool);

impl Leases {
    /// Takes the lease if it is free or has expired, by the database's clock. With `epoch`, takes
    /// it only if no process has had it since then.
    ///
    /// # Errors
    /// [`MirrorError::Locked`] if its row is locked although no process has the lease.
    pub async fn acquire(&self, holder: &str, ttl: Duration, epoch: Option<i64>) -> Result<LeaseAttempt, MirrorError> {
        let conn = &mut self.0.connection().await?;
        let mut has_ended = false;
        loop {
            match take(conn, holder, ttl, epoch).await.map_err(MirrorError::from) {
                Ok(Some(epoch)) => {
                    return Ok(LeaseAttempt::Acquired(Lease {
                        holder: holder.to_owned(),
                        epoch,
                        ttl,
                    }));
                }
                Ok(None) => {
                    let holder = lease_holder(conn, &held()).await?.unwrap_or_default();
                    return Ok(LeaseAttempt::Held { holder });
                }
                Err(MirrorError::Locked(why)) => {
                    let has_expired = format!("NOT EXISTS (SELECT FROM clerk.sync_state WHERE {})", held());
                    let silence = ttl.max(LEAST_SILENCE);
                    if !has_ended && end_cut_off(conn, "clerk.sync_state", silence, &has_expired).await {
                        has_ended = true;
                        continue;
                    }
                    // A holder extends its lease within its transaction, where others do not see
                    // it.
                    let holder = lease_holder(conn, "true").await?;
                    return holder.map_or(Err(MirrorError::Locked(why)), |holder| {
                        Ok(LeaseAttempt::Held { holder })
                    });
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Renews the lease.
    pub async fn renew(&self, lease: &Lease) -> Result<(), MirrorError> {
        lease.fence(&mut *self.0.connection().await?).await
    }

    /// Releases the lease. Does nothing if another process has taken it. The epoch grows, so that
    /// others notice that this one may have written.
    pub async fn release(&self, lease: &Lease) -> Result<(), MirrorError> {
        sql_query(
            "WITH mine AS (SELECT only_row FROM clerk.sync_state WHERE lease_epoch = $1 FOR UPDATE)
             UPDATE clerk.sync_state AS state SET lease_epoch = lease_epoch + 1, lease_holder = NULL,
                 lease_expires_at = NULL, lease_ttl = NULL
             FROM mine WHERE state.only_row = mine.only_row",
        )
        .bind::<BigInt, _>(lease.epoch)
        .execute(&mut self.0.connection().await?)
        .await?;
        Ok(())
    }

    /// Returns the holder of a lease that has not expired.
    pub async fn holder(&self) -> Result<Option<String>, MirrorError> {
        Ok(lease_holder(&mut *self.0.connection().await?, &held()).await?)
    }
}

/// Returns the stored holder, if a condition holds.
async fn lease_holder(conn: &mut Session, condition: &str) -> QueryResult<Option<String>> {
    #[derive(QueryableByName)]
    struct Holder {
        #[diesel(sql_type = Nullable<Text>)]
        lease_holder: Option<String>,
    }
    let holder: Option<Holder> = sql_query(format!("SELECT lease_holder FROM clerk.sync_state WHERE {condition}"))
        .get_result(conn)
        .await
        .optional()?;
    Ok(holder.and_then(|holder| holder.lease_holder))
}

/// Takes the lease and returns its epoch; `None` if another process has it.
async fn take(conn: &mut Session, holder: &str, ttl: Duration, epoch: Option<i64>) -> QueryResult<Option<i64>> {
    #[derive(QueryableByName)]
    struct Epoch {
        #[diesel(sql_type = BigInt)]
        lease_epoch: i64,
    }
    // The statement itself sets the timeout before it reads the row: a transaction of several round
    // trips could be cut off between two.
    let epoch: Option<Epoch> = sql_query(format!(
        "WITH free AS (
             SELECT only_row FROM clerk.sync_state
             WHERE (SELECT pg_catalog.set_config('lock_timeout', '{ROW_WAIT}', true)) IS NOT NULL
               AND (lease_holder IS NULL OR {lasts} IS NOT TRUE) AND lease_epoch = coalesce($3, lease_epoch)
             FOR UPDATE)
         UPDATE clerk.sync_state AS state
         SET lease_holder = $1, lease_epoch = lease_epoch + 1, lease_ttl = {OWN},
             lease_expires_at = pg_catalog.clock_timestamp() + {OWN}
         FROM free WHERE state.only_row = free.only_row
         RETURNING lease_epoch",
        lasts = lasts("lease_expires_at", "lease_ttl", OWN),
    ))
    .bind::<Text, _>(holder)
    .bind::<Double, _>(ttl.as_secs_f64())
    .bind::<Nullable<BigInt>, _>(epoch)
    .get_result(conn)
    .await
    .optional()?;
    Ok(epoch.map(|epoch| epoch.lease_epoch))
}

/// Ends the sessions that lock a table of clerk2pg and whose client was cut off within a message, if
/// a condition holds. Returns whether there was one.
///
/// Postgres considers the statement started and waits for the rest of the message, for hours if
/// need be; its own timeouts do not count meanwhile. A client that sends rows with `COPY` is not
/// clerk2pg.
pub(super) async fn end_cut_off(conn: &mut Session, table: &str, silence: Duration, if_true: &str) -> bool {
    let ended = sql_query(format!(
        "SELECT pg_catalog.pg_terminate_backend(a.pid) FROM pg_catalog.pg_stat_activity a
         WHERE a.datname = pg_catalog.current_database() AND a.usename = session_user
           AND a.state = 'active' AND a.wait_event = 'ClientRead' AND a.query NOT ILIKE 'copy%'
           AND a.state_change < pg_catalog.clock_timestamp() - $1 * interval '1 second'
           AND EXISTS (
               SELECT FROM pg_catalog.pg_locks l
               WHERE l.pid = a.pid AND l.relation = '{table}'::pg_catalog.regclass::pg_catalog.oid
                 AND l.mode IN ('RowShareLock', 'RowExclusiveLock'))
           AND {if_true}"
    ))
    .bind::<Double, _>(silence.as_secs_f64())
    .execute(conn)
    .await;
    match ended {
        Ok(0) => false,
        Ok(_) => {
            warn!("ended the session of a clerk2pg that was cut off, so that others can go on");
            true
        }
        Err(error) => {
            warn!(error = %MirrorError::from(error), "cannot check whether a clerk2pg that was cut off blocks the others");
            false
        }
    }
}

impl Lease {
    /// Checks the epoch and renews the lease. Within a transaction, the row stays locked until the
    /// end, so that a takeover waits.
    pub(super) async fn fence(&self, conn: &mut Session) -> Result<(), MirrorError> {
        let rows = sql_query(format!(
            "UPDATE clerk.sync_state SET lease_expires_at = pg_catalog.clock_timestamp() + {OWN}, lease_ttl = {OWN}
             WHERE lease_epoch = $1"
        ))
        .bind::<BigInt, _>(self.epoch)
        .bind::<Double, _>(self.ttl.as_secs_f64())
        .execute(conn)
        .await?;
        if rows == 1 { Ok(()) } else { Err(MirrorError::LeaseLost) }
    }

    /// Checks the epoch, and makes takeovers wait until the end of the transaction. Other
    /// transactions under the same lease do not wait.
    pub(super) async fn hold(&self, conn: &mut Session) -> Result<(), MirrorError> {
        let rows = sql_query("SELECT FROM clerk.sync_state WHERE lease_epoch = $1 FOR KEY SHARE")
            .bind::<BigInt, _>(self.epoch)
            .execute(conn)
            .await?;
        if rows == 1 { Ok(()) } else { Err(MirrorError::LeaseLost) }
    }

    /// How long the lease lasts without renewal.
    pub(super) fn ttl(&self) -> Duration {
        self.ttl
    }

    /// How often to renew: three attempts before the lease expires.
    pub fn renewal(&self) -> Duration {
        self.ttl / 3
    }
}
