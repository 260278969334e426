//! `clerk.sync_runs` and the checkpoint: what a pass did so far, written in the transactions that did it.

use chrono::{DateTime, Utc};
use diesel::{
    prelude::*,
    sql_query,
    sql_types::{BigInt, Nullable, Text, Timestamptz},
};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use serde::{Deserialize, Serialize};

use super::{
    Batch, Committed, Error, Lease, Mirror,
    schema::{rejected_users, sync_runs, sync_state},
    signed, transaction,
};
use crate::walk::Position;

/// How long passes stay listed.
const KEPT: chrono::TimeDelta = chrono::TimeDelta::days(30);

/// A pass in progress.
#[derive(Debug, Clone)]
pub struct Run {
    /// Its row in `clerk.sync_runs`.
    pub id: i64,
    /// The run that began the walk: this one, or the one whose walk this one takes up again.
    pub walk: i64,
}

/// How far a walk has come; what came before it is committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The run that began the walk.
    pub walk: i64,
    /// When it began, by the database's clock.
    pub started_at: DateTime<Utc>,
    /// When this was written, by the database's clock as far as the daemon knows it.
    pub written_at: DateTime<Utc>,
    /// Whether missing users were looked for on the way.
    pub judged: bool,
    /// Where to go on.
    pub position: Position,
}

/// How a pass ended.
#[derive(Debug, Clone)]
pub struct Finish {
    /// As in the report.
    pub outcome: &'static str,
    /// Deletions that wait for a person.
    pub held: u64,
    /// Requests sent.
    pub requests: u64,
    /// The checksum of the held deletions.
    pub plan: Option<String>,
    /// Why it failed or is incomplete.
    pub error: Option<String>,
    /// The walk came to its end, so that its checkpoint has served.
    pub is_walked: bool,
    /// Nobody was left out, so that whoever is listed as rejected but was not met is gone.
    pub is_whole: bool,
}

impl Mirror {
    /// Opens a pass, and the walk it goes on with: one that was cut off less than `max_age` ago and began less than twice that ago, or a
    /// new one. A pass that `judges` who is missing does not go on with a walk that did not.
    pub async fn begin_run(
        &self,
        lease: &Lease,
        kind: &str,
        max_age: chrono::TimeDelta,
        judges: bool,
    ) -> Result<(Run, DateTime<Utc>, Option<Checkpoint>), Error> {
        let mut conn = self.connection().await?;
        conn.transaction(async |conn| {
            transaction::begin(conn, lease).await?;
            // Whoever is listed as running does not hold the lease any more.
            diesel::update(sync_runs::table.filter(sync_runs::outcome.eq("running")))
                .set((
                    sync_runs::outcome.eq("failed"),
                    sync_runs::ended_at.eq(diesel::dsl::now.into_sql::<Nullable<Timestamptz>>()),
                    sync_runs::error.eq("the process ended before the pass did"),
                ))
                .execute(conn)
                .await?;
            let (checkpoint, now): (Option<serde_json::Value>, DateTime<Utc>) = sync_state::table
                .select((sync_state::checkpoint, diesel::dsl::now.into_sql::<Timestamptz>()))
                .first(conn)
                .await?;
            // One that an older version wrote in another form starts anew.
            let checkpoint = checkpoint
                .and_then(|json| serde_json::from_value::<Checkpoint>(json).ok())
                .filter(|checkpoint| now - checkpoint.written_at < max_age && now - checkpoint.started_at < max_age * 2)
                .filter(|checkpoint| checkpoint.judged || !judges);
            diesel::delete(sync_runs::table.filter(sync_runs::started_at.lt(now - KEPT)))
                .execute(conn)
                .await?;
            let id: i64 = diesel::insert_into(sync_runs::table)
                .values((
                    sync_runs::kind.eq(kind),
                    sync_runs::holder.eq(&lease.holder),
                    sync_runs::resumed.eq(checkpoint.as_ref().map(|checkpoint| checkpoint.walk)),
                ))
                .returning(sync_runs::id)
                .get_result(conn)
                .await?;
            let walk = checkpoint.as_ref().map_or(id, |checkpoint| checkpoint.walk);
            Ok((Run { id, walk }, now, checkpoint))
        })
        .await
    }

    /// Closes a pass.
    pub async fn finish_run(&self, lease: &Lease, run: &Run, finish: &Finish) -> Result<(), Error> {
        let mut conn = self.connection().await?;
        conn.transaction(async |conn| {
            transaction::begin(conn, lease).await?;
            if finish.is_walked {
                diesel::update(sync_state::table)
                    .set(sync_state::checkpoint.eq(None::<serde_json::Value>))
                    .execute(conn)
                    .await?;
            }
            if finish.is_whole {
                let started_at: DateTime<Utc> = sync_runs::table
                    .find(run.walk)
                    .select(sync_runs::started_at)
                    .first(conn)
                    .await?;
                diesel::delete(rejected_users::table.filter(rejected_users::last_seen_at.lt(started_at)))
                    .execute(conn)
                    .await?;
            }
            diesel::update(sync_runs::table.find(run.id))
                .set((
                    sync_runs::ended_at.eq(diesel::dsl::now.into_sql::<Nullable<Timestamptz>>()),
                    sync_runs::outcome.eq(finish.outcome),
                    sync_runs::held.eq(signed(finish.held)),
                    sync_runs::requests.eq(signed(finish.requests)),
                    sync_runs::plan.eq(&finish.plan),
                    sync_runs::error.eq(&finish.error),
                ))
                .execute(conn)
                .await?;
            Ok(())
        })
        .await
    }

    /// Records a pass that failed before it could take the lease: a refused key, another instance's key.
    pub async fn record_failure(&self, kind: &str, holder: &str, requests: u64, error: &str) -> Result<(), Error> {
        diesel::insert_into(sync_runs::table)
            .values((
                sync_runs::kind.eq(kind),
                sync_runs::holder.eq(holder),
                sync_runs::ended_at.eq(diesel::dsl::now.into_sql::<Nullable<Timestamptz>>()),
                sync_runs::outcome.eq("failed"),
                sync_runs::requests.eq(signed(requests)),
                sync_runs::error.eq(error),
            ))
            .execute(&mut self.connection().await?)
            .await?;
        Ok(())
    }
}

/// Adds what a batch did to the pass's row, and moves the checkpoint.
pub(super) async fn progress(
    conn: &mut AsyncPgConnection,
    run: &Run,
    batch: &Batch<'_>,
    done: &Committed,
) -> Result<(), Error> {
    sql_query(
        "UPDATE clerk.sync_runs SET created = created + $2, updated = updated + $3, refreshed = refreshed + $4,
             unchanged = unchanged + $5, rejected = rejected + $6 WHERE id = $1",
    )
    .bind::<BigInt, _>(run.id)
    .bind::<BigInt, _>(signed(done.created))
    .bind::<BigInt, _>(signed(done.updated))
    .bind::<BigInt, _>(signed(done.refreshed))
    .bind::<BigInt, _>(signed(batch.unchanged + done.refreshed))
    .bind::<BigInt, _>(signed(done.rejected.len() as u64))
    .execute(conn)
    .await?;
    if let Some(checkpoint) = &batch.checkpoint {
        let json = serde_json::to_string(checkpoint).map_err(|error| Error::Database(error.to_string()))?;
        sql_query("UPDATE clerk.sync_state SET checkpoint = $1::jsonb")
            .bind::<Nullable<Text>, _>(Some(json))
            .execute(conn)
            .await?;
    }
    Ok(())
}

pub(super) async fn count_deletions(
    conn: &mut AsyncPgConnection,
    run: &Run,
    deleted: u64,
    kept: u64,
) -> QueryResult<()> {
    sql_query("UPDATE clerk.sync_runs SET deleted = deleted + $2, rejected = rejected + $3 WHERE id = $1")
        .bind::<BigInt, _>(run.id)
        .bind::<BigInt, _>(signed(deleted))
        .bind::<BigInt, _>(signed(kept))
        .execute(conn)
        .await?;
    Ok(())
}
