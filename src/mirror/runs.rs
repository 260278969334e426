//! `clerk.sync_runs`: opens and closes syncs, and says what a sync starts from.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::{
    prelude::*,
    sql_query,
    sql_types::{BigInt, Bool, Nullable, Text, Timestamptz},
};
use diesel_async::{AsyncConnection, RunQueryDsl};
use serde::{Serialize, Serializer};

use super::{
    AgeSummary, Lease, MirrorError,
    checkpoint::Checkpoint,
    convert::signed,
    encoding,
    expected_minus_rows::expected_minus_rows,
    lease,
    pool::ConnectionPool,
    tables::{rejected_objects, resource_state, sync_runs},
    transaction,
};
use crate::resource::Resource;

/// How long full syncs stay listed.
const KEPT: TimeDelta = TimeDelta::days(30);

/// How long other syncs stay listed. There may be one a second.
const OTHERS_KEPT: TimeDelta = TimeDelta::days(2);

/// The largest difference between two readings of a clock that was not set in between.
const SAME_CLOCK: TimeDelta = TimeDelta::seconds(1);

/// What a sync examines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncKind {
    /// All users.
    Full,
    /// Recent changes, and whether users are gone.
    Incremental,
    /// Users that were asked for by id.
    OnDemand,
}

impl SyncKind {
    /// As in `clerk.sync_runs`.
    pub fn name(self) -> &'static str {
        match self {
            SyncKind::Full => "full",
            SyncKind::Incremental => "incremental",
            SyncKind::OnDemand => "on_demand",
        }
    }
}

/// The outcome in `clerk.sync_runs` of a sync that has not ended.
const RUNNING: &str = "running";

/// How a sync ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing had to change.
    InSync,
    /// Something changed, and now the mirror is in sync.
    Changed,
    /// Done, but deletions wait for a person.
    Held,
    /// Some of Clerk's users could not be seen or judged.
    Incomplete,
    /// A dry run, which is not stored.
    Planned,
    /// It failed.
    Failed,
}

impl Outcome {
    /// Outcomes after which the mirror is in sync, except for held deletions.
    pub(super) const SUCCESSFUL: [Self; 3] = [Outcome::InSync, Outcome::Changed, Outcome::Held];

    /// As in the report and in `clerk.sync_runs`.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::InSync => "in_sync",
            Outcome::Changed => "changed",
            Outcome::Held => "held",
            Outcome::Incomplete => "incomplete",
            Outcome::Planned => "planned",
            Outcome::Failed => "failed",
        }
    }
}

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// How to open a sync.
#[derive(Debug, Clone, Copy)]
pub struct Begin {
    /// What the sync examines. Only a full sync continues an interrupted walk.
    pub kind: SyncKind,
    /// A walk that was interrupted longer ago than this, or began longer ago than twice this, is
    /// not continued.
    pub max_age: TimeDelta,
    /// Whether the sync looks for missing users. Then it does not continue a walk that did not.
    pub judges: bool,
    /// Whether the first import emits events.
    pub initial_events: bool,
}

impl Begin {
    /// Whether the sync continues an interrupted walk.
    fn continues(&self, checkpoint: &Checkpoint, now: DateTime<Utc>) -> bool {
        // A time in the future was written before the clock went back. Its age is unknown.
        let has_age = checkpoint.written_at.max(checkpoint.started_at) <= now + SAME_CLOCK;
        let is_recent = now - checkpoint.written_at < self.max_age && now - checkpoint.started_at < self.max_age * 2;
        self.kind == SyncKind::Full && has_age && is_recent && (checkpoint.judged || !self.judges)
    }
}

/// What an incremental sync starts from.
#[derive(Debug, Clone, QueryableByName)]
pub struct SyncState {
    /// The pinned Clerk instance.
    #[diesel(sql_type = Nullable<Text>)]
    pub instance_id: Option<String>,
    /// Whether a full sync was ever done.
    #[diesel(sql_type = Bool)]
    pub is_imported: bool,
    /// Every user that was updated at Clerk before this time, less the overlap, is in the mirror.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub watermark: Option<DateTime<Utc>>,
    /// How many users the mirror expects at Clerk, by the stored number of rows.
    #[diesel(sql_type = BigInt)]
    pub expected: i64,
    /// Whether users are to be stored again because the application had locked their rows.
    #[diesel(sql_type = Bool)]
    pub has_put_off_users: bool,
    /// Whether rows are to be deleted again because the application had locked them, without
    /// waiting for an approval.
    #[diesel(sql_type = Bool)]
    pub has_put_off_deletions: bool,
    /// The process that holds the lease at this moment.
    #[diesel(sql_type = Nullable<Text>)]
    pub lease_holder: Option<String>,
    /// Grows with every lease. Who takes the lease at this epoch knows that no other process wrote
    /// since.
    #[diesel(sql_type = BigInt)]
    pub lease_epoch: i64,
}

/// A sync in progress: the proof that its process holds the lease. Everything that a sync writes
/// asks for it.
#[derive(Debug, Clone)]
pub struct Run {
    lease: Lease,
    /// Its id in `clerk.sync_runs`.
    pub id: i64,
    /// The run that began the walk: this run, or the one whose walk this run continues.
    pub walk: i64,
    /// What the sync examines.
    pub kind: SyncKind,
    /// The kind of objects that the sync is about.
    pub(super) resource: &'static Resource,
    /// Whether no full sync was completed before.
    pub is_import: bool,
    /// Whether changes emit events.
    pub(super) emits_events: bool,
}

impl Run {
    /// The lease that the sync writes under.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }
}

/// How to close a sync.
#[derive(Debug, Clone)]
pub struct Finish {
    /// How it ended.
    pub outcome: Outcome,
    /// Deletions that wait for a person.
    pub held: u64,
    /// Users that could not be stored or deleted by the end of the sync. Those that were rejected
    /// only for a while do not count.
    pub rejected: u64,
    /// Requests sent to Clerk.
    pub requests: u64,
    /// The checksum of the held deletions.
    pub plan: Option<String>,
    /// Why the sync failed or is incomplete.
    pub error: Option<String>,
    /// How old the changes of the sync were when they were committed.
    pub ages: AgeSummary,
    /// Whether the walk was completed, so that its checkpoint is no longer needed.
    pub is_walked: bool,
    /// Whether no user was left out. Then a rejected user that the sync did not meet is gone.
    pub is_whole: bool,
    /// What the database's clock should say now, if it was not set during the sync.
    pub expected_now: DateTime<Utc>,
}

/// Opens and closes syncs.
#[derive(Debug, Clone)]
pub struct Runs(pub(super) ConnectionPool);

impl Runs {
    /// Returns what an incremental sync starts from, in one query.
    pub async fn state(&self) -> Result<SyncState, MirrorError> {
        let sql = format!(
            "SELECT instance_id, imported_at IS NOT NULL AS is_imported, objects OPERATOR(pg_catalog.+) {difference} AS expected,
                    watermark, lease_epoch,
                    EXISTS (SELECT FROM clerk.rejected
                            WHERE resource OPERATOR(pg_catalog.=) '{resource}' AND sqlstate OPERATOR(pg_catalog.=) '55P03'
                                AND document IS NOT NULL) AS has_put_off_users,
                    EXISTS (SELECT FROM clerk.rejected r
                            WHERE r.resource OPERATOR(pg_catalog.=) '{resource}' AND r.sqlstate OPERATOR(pg_catalog.=) '55P03'
                                AND r.document IS NULL AND NOT EXISTS (
                                SELECT FROM clerk.missing m WHERE m.resource OPERATOR(pg_catalog.=) r.resource
                                    AND m.object_id OPERATOR(pg_catalog.=) r.object_id AND m.hold OPERATOR(pg_catalog.=) 'held'
                            )) AS has_put_off_deletions,
                    CASE WHEN {held} THEN lease_holder END AS lease_holder
             FROM clerk.sync_state, clerk.resource_state AS state
             WHERE state.resource OPERATOR(pg_catalog.=) '{resource}'",
            difference = expected_minus_rows(self.0.resource, "true", "true"),
            held = lease::held(),
            resource = self.0.resource.name,
        );
        let mut conn = self.0.connection().await?;
        Ok(sql_query(sql).get_result(conn.autocommit()).await?)
    }

    /// Opens a sync. Returns it, the time by the database's clock, and the checkpoint of the walk
    /// to continue, if there is one.
    pub async fn begin(
        &self,
        lease: &Lease,
        begin: Begin,
    ) -> Result<(Run, DateTime<Utc>, Option<Checkpoint>), MirrorError> {
        let kind = begin.kind;
        let mut conn = self.0.connection().await?;
        conn.transaction(async |conn| {
            transaction::begin(conn, lease).await?;
            // A run that is listed as running no longer holds the lease.
            diesel::update(sync_runs::table.filter(sync_runs::outcome.eq(RUNNING)))
                .set((
                    sync_runs::outcome.eq(Outcome::Failed.name()),
                    sync_runs::ended_at.eq(diesel::dsl::now.into_sql::<Nullable<Timestamptz>>()),
                    sync_runs::error.eq("the process ended before the sync did"),
                ))
                .execute(conn)
                .await?;
            let (checkpoint, imported_at, now): (Option<serde_json::Value>, Option<DateTime<Utc>>, DateTime<Utc>) =
                resource_state::table
                    .find(self.0.resource.name)
                    .select((
                        resource_state::checkpoint,
                        resource_state::imported_at,
                        diesel::dsl::now.into_sql::<Timestamptz>(),
                    ))
                    .first(conn)
                    .await?;
            // A checkpoint in another form is from an older version; the walk starts over.
            let checkpoint = checkpoint
                .and_then(|json| serde_json::from_value::<Checkpoint>(json).ok())
                .filter(|checkpoint| begin.continues(checkpoint, now));
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
                resource: self.0.resource,
                is_import,
                emits_events: begin.initial_events || !is_import,
            };
            Ok((run, now, checkpoint))
        })
        .await
    }

    /// Stores that a walk begins, and with which partitions.
    pub async fn begin_walk(&self, lease: &Lease, checkpoint: &Checkpoint) -> Result<(), MirrorError> {
        let json = serde_json::to_value(checkpoint).map_err(|error| MirrorError::Database(error.to_string()))?;
        let mut conn = self.0.connection().await?;
        conn.transaction(async |conn| {
            transaction::begin(conn, lease).await?;
            diesel::update(resource_state::table.find(self.0.resource.name))
                .set(resource_state::checkpoint.eq(Some(json)))
                .execute(conn)
                .await?;
            Ok(())
        })
        .await
    }

    /// Removes syncs that have been listed for long enough.
    pub async fn prune(&self, lease: &Lease) -> Result<(), MirrorError> {
        let mut conn = self.0.connection().await?;
        conn.transaction(async |conn| {
            transaction::begin(conn, lease).await?;
            let now: DateTime<Utc> = diesel::select(diesel::dsl::now.into_sql::<Timestamptz>())
                .get_result(conn)
                .await?;
            // A clock that has jumped ahead, ours or the database's, must not make anything old.
            let now = now.min(Utc::now());
            let is_old = sync_runs::started_at.lt(now - KEPT).or(sync_runs::started_at
                .lt(now - OTHERS_KEPT)
                .and(sync_runs::kind.ne(SyncKind::Full.name())));
            diesel::delete(sync_runs::table.filter(is_old)).execute(conn).await?;
            Ok(())
        })
        .await
    }

    /// Closes a sync.
    pub async fn finish(&self, run: &Run, finish: &Finish) -> Result<(), MirrorError> {
        let mut conn = self.0.connection().await?;
        conn.transaction(async |conn| {
            transaction::begin(conn, &run.lease).await?;
            if finish.is_walked {
                diesel::update(resource_state::table.find(run.resource.name))
                    .set(resource_state::checkpoint.eq(None::<serde_json::Value>))
                    .execute(conn)
                    .await?;
                // At the end, not earlier: readers of events may start from this moment, and no
                // change of this sync emitted an event.
                diesel::update(
                    resource_state::table
                        .find(run.resource.name)
                        .filter(resource_state::imported_at.is_null()),
                )
                .set(resource_state::imported_at.eq(diesel::dsl::now.into_sql::<Nullable<Timestamptz>>()))
                .execute(conn)
                .await?;
            }
            let now: DateTime<Utc> = diesel::select(diesel::dsl::now.into_sql::<Timestamptz>())
                .get_result(conn)
                .await?;
            // If the clock went back, users that this sync met would seem to be met before it.
            if finish.is_whole && now + SAME_CLOCK >= finish.expected_now {
                let started_at: DateTime<Utc> = sync_runs::table
                    .find(run.walk)
                    .select(sync_runs::started_at)
                    .first(conn)
                    .await?;
                diesel::delete(
                    rejected_objects::table
                        .filter(rejected_objects::resource.eq(run.resource.name))
                        .filter(rejected_objects::last_seen_at.lt(started_at)),
                )
                .execute(conn)
                .await?;
            }
            let error = finish.error.as_deref().map(|error| encoding::message(conn, error));
            diesel::update(sync_runs::table.find(run.id))
                .set((
                    sync_runs::ended_at.eq(diesel::dsl::now.into_sql::<Nullable<Timestamptz>>()),
                    sync_runs::outcome.eq(finish.outcome.name()),
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

    /// Records a sync that failed before it could take the lease, as with a refused key or another
    /// instance's key.
    pub async fn record_failure(
        &self,
        kind: SyncKind,
        holder: &str,
        requests: u64,
        error: &str,
    ) -> Result<(), MirrorError> {
        let mut conn = self.0.connection().await?;
        let error = encoding::message(&conn, error).into_owned();
        diesel::insert_into(sync_runs::table)
            .values((
                sync_runs::kind.eq(kind.name()),
                sync_runs::holder.eq(holder),
                sync_runs::ended_at.eq(diesel::dsl::now.into_sql::<Nullable<Timestamptz>>()),
                sync_runs::outcome.eq(Outcome::Failed.name()),
                sync_runs::requests.eq(signed(requests)),
                sync_runs::error.eq(error),
            ))
            .execute(&mut conn)
            .await?;
        Ok(())
    }
}
