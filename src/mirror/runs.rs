//! `clerk.sync_runs` and the checkpoint: what a sync did so far, written in the transactions that did it.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::{
    prelude::*,
    sql_query,
    sql_types::{BigInt, Nullable, Text, Timestamptz},
};
use diesel_async::{AsyncConnection, RunQueryDsl};
use serde::{Deserialize, Serialize};

use super::{
    AgeSummary, Batch, Committed, Error, Lease, Mirror, encoding,
    read::timestamp,
    schema::{rejected_users, sync_runs, sync_state},
    session::Session,
    signed, transaction,
};
use crate::reconcile::partition::Partition;

/// How long full syncs stay listed.
const KEPT: TimeDelta = TimeDelta::days(30);

/// How long the others do, of which there may be one a second.
const OTHERS_KEPT: TimeDelta = TimeDelta::days(2);

/// The largest difference between two times if the clock was not set in between.
const SAME_CLOCK: TimeDelta = TimeDelta::seconds(1);

/// What a sync looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Everybody.
    Full,
    /// Recent changes, and whether somebody is gone.
    Incremental,
    /// Users that were asked for by id.
    OnDemand,
}

impl Kind {
    /// As in `clerk.sync_runs`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Full => "full",
            Kind::Incremental => "incremental",
            Kind::OnDemand => "on_demand",
        }
    }
}

/// How to open a sync.
#[derive(Debug, Clone, Copy)]
pub struct Begin {
    /// What it looks at; only a full sync goes on with a walk that was cut off.
    pub kind: Kind,
    /// How long ago a walk may have been cut off to be gone on with; it may have begun twice that ago.
    pub max_age: TimeDelta,
    /// Whether the sync looks for who is missing. Then it does not go on with a walk that did not.
    pub judges: bool,
    /// Whether the first import makes events too.
    pub initial_events: bool,
}

/// A sync in progress: the proof that its process has the lease, asked for by everything that a sync writes.
#[derive(Debug, Clone)]
pub struct Run {
    lease: Lease,
    /// Its row in `clerk.sync_runs`.
    pub id: i64,
    /// The run that began the walk: this one, or the one whose walk this one takes up again.
    pub walk: i64,
    /// What it looks at.
    pub kind: Kind,
    /// No full sync was ever done before.
    pub is_import: bool,
    /// Whether changes make events.
    pub(super) tells: bool,
}

impl Run {
    /// The lease that the sync writes under.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }
}

/// How far a walk has come; what came before that is committed.
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
    /// The newest `updated_at` at Clerk when the walk began, in Unix milliseconds; none where the server does not tell.
    #[serde(default)]
    pub watermark: Option<i64>,
    /// Where to go on: the parts of the list, which are walked side by side.
    pub parts: Vec<Partition>,
}

/// How far the walk over one part has come.
#[derive(Debug)]
pub struct Mark {
    /// Which of the checkpoint's parts.
    pub number: usize,
    /// How it stands.
    pub part: Partition,
    /// It is walked to its end, which is written even where nothing changed.
    pub is_end: bool,
    /// When this is written, by the database's clock as far as the daemon knows it.
    pub written_at: DateTime<Utc>,
}

/// How a sync ended.
#[derive(Debug, Clone)]
pub struct Finish {
    /// As in the report.
    pub outcome: &'static str,
    /// Deletions that wait for a person.
    pub held: u64,
    /// Users that could not be stored or deleted by the end of the sync; those rejected only for a moment do not count.
    pub rejected: u64,
    /// Requests sent.
    pub requests: u64,
    /// The checksum of the held deletions.
    pub plan: Option<String>,
    /// Why it failed or is incomplete.
    pub error: Option<String>,
    /// How old its changes were when they were committed.
    pub ages: AgeSummary,
    /// The walk came to its end, so that its checkpoint has served.
    pub is_walked: bool,
    /// Nobody was left out, so that whoever is listed as rejected but was not met is gone.
    pub is_whole: bool,
    /// What the database's clock should say by now, unless it was set during the sync.
    pub expected_now: DateTime<Utc>,
}

impl Mirror {
    /// Opens a sync, and the walk it goes on with, if there is one. Returns the time by the database's clock besides.
    pub async fn begin_run(
        &self,
        lease: &Lease,
        begin: Begin,
    ) -> Result<(Run, DateTime<Utc>, Option<Checkpoint>), Error> {
        let Begin {
            kind,
            max_age,
            judges,
            initial_events,
        } = begin;
        let mut conn = self.connection().await?;
        conn.transaction(async |conn| {
            transaction::begin(conn, lease).await?;
            // Whoever is listed as running does not hold the lease any more.
            diesel::update(sync_runs::table.filter(sync_runs::outcome.eq("running")))
                .set((
                    sync_runs::outcome.eq("failed"),
                    sync_runs::ended_at.eq(diesel::dsl::now.into_sql::<Nullable<Timestamptz>>()),
                    sync_runs::error.eq("the process ended before the sync did"),
                ))
                .execute(conn)
                .await?;
            let (checkpoint, imported_at, now): (Option<serde_json::Value>, Option<DateTime<Utc>>, DateTime<Utc>) =
                sync_state::table
                    .select((
                        sync_state::checkpoint,
                        sync_state::imported_at,
                        diesel::dsl::now.into_sql::<Timestamptz>(),
                    ))
                    .first(conn)
                    .await?;
            // One that an older version wrote in another form starts anew.
            let checkpoint = checkpoint
                .filter(|_| kind == Kind::Full)
                .and_then(|json| serde_json::from_value::<Checkpoint>(json).ok())
                // A time in the future was written before the clock went back: its age is unknown.
                .filter(|checkpoint| checkpoint.written_at.max(checkpoint.started_at) <= now + SAME_CLOCK)
                .filter(|checkpoint| now - checkpoint.written_at < max_age && now - checkpoint.started_at < max_age * 2)
                .filter(|checkpoint| checkpoint.judged || !judges);
            let id: i64 = diesel::insert_into(sync_runs::table)
                .values((
                    sync_runs::kind.eq(kind.name()),
                    sync_runs::holder.eq(&lease.holder),
                    sync_runs::resumed.eq(checkpoint.as_ref().map(|checkpoint| checkpoint.walk)),
                ))
                .returning(sync_runs::id)
                .get_result(conn)
                .await?;
            let walk = checkpoint.as_ref().map_or(id, |checkpoint| checkpoint.walk);
            let is_import = imported_at.is_none();
            let run = Run {
                lease: lease.clone(),
                id,
                walk,
                kind,
                is_import,
                tells: initial_events || !is_import,
            };
            Ok((run, now, checkpoint))
        })
        .await
    }

    /// Notes that a walk begins, and over which parts.
    pub async fn begin_walk(&self, lease: &Lease, checkpoint: &Checkpoint) -> Result<(), Error> {
        let json = serde_json::to_value(checkpoint).map_err(|error| Error::Database(error.to_string()))?;
        let mut conn = self.connection().await?;
        conn.transaction(async |conn| {
            transaction::begin(conn, lease).await?;
            diesel::update(sync_state::table)
                .set(sync_state::checkpoint.eq(Some(json)))
                .execute(conn)
                .await?;
            Ok(())
        })
        .await
    }

    /// Removes syncs that are listed for long enough.
    pub async fn prune_runs(&self, lease: &Lease) -> Result<(), Error> {
        let mut conn = self.connection().await?;
        conn.transaction(async |conn| {
            transaction::begin(conn, lease).await?;
            let now: DateTime<Utc> = diesel::select(diesel::dsl::now.into_sql::<Timestamptz>())
                .get_result(conn)
                .await?;
            // A clock that has jumped ahead, ours or the database's, makes nothing old.
            let now = now.min(Utc::now());
            let is_old = sync_runs::started_at.lt(now - KEPT).or(sync_runs::started_at
                .lt(now - OTHERS_KEPT)
                .and(sync_runs::kind.ne(Kind::Full.name())));
            diesel::delete(sync_runs::table.filter(is_old)).execute(conn).await?;
            Ok(())
        })
        .await
    }

    /// Closes a sync.
    pub async fn finish_run(&self, run: &Run, finish: &Finish) -> Result<(), Error> {
        let mut conn = self.connection().await?;
        conn.transaction(async |conn| {
            transaction::begin(conn, &run.lease).await?;
            if finish.is_walked {
                diesel::update(sync_state::table)
                    .set(sync_state::checkpoint.eq(None::<serde_json::Value>))
                    .execute(conn)
                    .await?;
                // Not before the end: a reader of events may begin from here on, and what this sync did was silent to its last batch.
                diesel::update(sync_state::table.filter(sync_state::imported_at.is_null()))
                    .set(sync_state::imported_at.eq(diesel::dsl::now.into_sql::<Nullable<Timestamptz>>()))
                    .execute(conn)
                    .await?;
            }
            let now: DateTime<Utc> = diesel::select(diesel::dsl::now.into_sql::<Timestamptz>())
                .get_result(conn)
                .await?;
            // If the clock went back, users that this sync met seem to be met before it.
            if finish.is_whole && now + SAME_CLOCK >= finish.expected_now {
                let started_at: DateTime<Utc> = sync_runs::table
                    .find(run.walk)
                    .select(sync_runs::started_at)
                    .first(conn)
                    .await?;
                diesel::delete(rejected_users::table.filter(rejected_users::last_seen_at.lt(started_at)))
                    .execute(conn)
                    .await?;
            }
            let error = finish.error.as_deref().map(|error| encoding::message(conn, error));
            diesel::update(sync_runs::table.find(run.id))
                .set((
                    sync_runs::ended_at.eq(diesel::dsl::now.into_sql::<Nullable<Timestamptz>>()),
                    sync_runs::outcome.eq(finish.outcome),
                    sync_runs::held.eq(signed(finish.held)),
                    sync_runs::rejected.eq(signed(finish.rejected)),
                    sync_runs::requests.eq(signed(finish.requests)),
                    sync_runs::plan.eq(&finish.plan),
                    sync_runs::error.eq(&error),
                    sync_runs::freshness_ms.eq(finish.ages.median_ms),
                    sync_runs::age_count.eq(finish.ages.count),
                    sync_runs::ages_ms.eq(&finish.ages.ages_ms),
                ))
                .execute(conn)
                .await?;
            Ok(())
        })
        .await
    }

    /// Records a sync that failed before it could take the lease: a refused key, another instance's key.
    pub async fn record_failure(&self, kind: Kind, holder: &str, requests: u64, error: &str) -> Result<(), Error> {
        let mut conn = self.connection().await?;
        let error = encoding::message(&conn, error).into_owned();
        diesel::insert_into(sync_runs::table)
            .values((
                sync_runs::kind.eq(kind.name()),
                sync_runs::holder.eq(holder),
                sync_runs::ended_at.eq(diesel::dsl::now.into_sql::<Nullable<Timestamptz>>()),
                sync_runs::outcome.eq("failed"),
                sync_runs::requests.eq(signed(requests)),
                sync_runs::error.eq(error),
            ))
            .execute(&mut conn)
            .await?;
        Ok(())
    }
}

/// Adds what a batch did to the sync's row.
pub(super) async fn progress(conn: &mut Session, run: &Run, batch: &Batch<'_>, done: &Committed) -> Result<(), Error> {
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
    Ok(())
}

/// Keeps the number of users, and moves the watermark and the checkpoint.
pub(super) async fn follow(
    conn: &mut Session,
    more: i64,
    watermark: Option<i64>,
    mark: Option<&Mark>,
) -> Result<(), Error> {
    if more == 0 && watermark.is_none() && mark.is_none() {
        return Ok(());
    }
    let json = |value| serde_json::to_string(value).map_err(|error| Error::Database(error.to_string()));
    let part = mark.map(|mark| json(&mark.part)).transpose()?;
    sql_query(
        "UPDATE clerk.sync_state SET users = users + $1, watermark = greatest(watermark, $2),
             checkpoint = CASE WHEN $3 IS NULL THEN checkpoint
                 ELSE pg_catalog.jsonb_set(pg_catalog.jsonb_set(checkpoint, ARRAY['parts', $4::text], $3::jsonb), '{written_at}'::text[], pg_catalog.to_jsonb($5)) END",
    )
    .bind::<BigInt, _>(more)
    .bind::<Nullable<Timestamptz>, _>(watermark.map(timestamp))
    .bind::<Nullable<Text>, _>(part)
    .bind::<BigInt, _>(signed(mark.map_or(0, |mark| mark.number as u64)))
    .bind::<Nullable<Timestamptz>, _>(mark.map(|mark| mark.written_at))
    .execute(conn)
    .await?;
    Ok(())
}

/// Adds deletions to the sync's row, those that a person approved among them, and rows that could not go.
pub(super) async fn count_deletions(
    conn: &mut Session,
    run: &Run,
    deleted: u64,
    approved: u64,
    kept: u64,
) -> QueryResult<()> {
    let unapproved = deleted.saturating_sub(approved);
    if unapproved > 0 {
        sql_query(
            "WITH old AS (
                 DELETE FROM clerk.recent_deletions
                 WHERE deleted_at < pg_catalog.clock_timestamp() - interval '1 hour')
             INSERT INTO clerk.recent_deletions (users) VALUES ($1)",
        )
        .bind::<BigInt, _>(signed(unapproved))
        .execute(conn)
        .await?;
    }
    sql_query(
        "UPDATE clerk.sync_runs SET deleted = deleted + $2, approved = approved + $3, rejected = rejected + $4 WHERE id = $1",
    )
    .bind::<BigInt, _>(run.id)
    .bind::<BigInt, _>(signed(deleted))
    .bind::<BigInt, _>(signed(approved))
    .bind::<BigInt, _>(signed(kept))
    .execute(conn)
    .await?;
    Ok(())
}
