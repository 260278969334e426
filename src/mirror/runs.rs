//! `clerk.sync_runs`: opens and closes syncs.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use diesel::{
    prelude::*,
    sql_types::{Nullable, Timestamptz},
};
use diesel_async::{AsyncConnection, RunQueryDsl};

use super::{
    AgeSummary, Lease, MirrorError, Outcome, SyncKind, SyncState,
    checkpoint::Checkpoint,
    convert::signed,
    encoding,
    pool::ConnectionPool,
    projection::{RunTable, RunTables},
    tables::{rejected_objects, resource_state, sync_runs},
    transaction,
};
use crate::resource::Resource;

/// How long full syncs stay listed.
const KEPT: TimeDelta = TimeDelta::days(30);

/// How long other syncs stay listed: as far back as the status page looks. There may be one a second.
const OTHERS_KEPT: TimeDelta = TimeDelta::days(7);

/// The largest difference between two readings of a clock that was not set in between.
const SAME_CLOCK: TimeDelta = TimeDelta::seconds(1);

/// The outcome in `clerk.sync_runs` of a sync that has not ended.
const RUNNING: &str = "running";

/// How to open a sync.
#[derive(Debug, Clone, Copy)]
pub struct Begin {
    /// What the sync examines. Only a full sync continues an interrupted walk.
    pub kind: SyncKind,
    /// A walk that was interrupted longer ago than this, or began longer ago than twice this, is
    /// not continued.
    pub max_age: TimeDelta,
    /// Whether the sync looks for missing objects. Then it does not continue a walk that did not.
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
    /// Tables of the application that are kept in sync.
    pub(super) tables: Arc<RunTables>,
}

impl Run {
    /// The lease that the sync writes under.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// The same sync, to erase fields in rows of a resource: that is no change of an object, and the
    /// application's tables follow when the sync reads the objects.
    pub(super) fn erasing(&self, resource: &'static Resource) -> Self {
        Self {
            resource,
            emits_events: false,
            tables: Arc::default(),
            ..self.clone()
        }
    }

    /// The tables of the application whose mappings can be carried out.
    pub fn tables(&self) -> &[RunTable] {
        &self.tables.tables
    }

    /// The tables of the application that cannot be kept in sync, with the reasons.
    pub fn broken_tables(&self) -> &[(String, String)] {
        &self.tables.broken
    }
}

/// How to close a sync.
#[derive(Debug, Clone)]
pub struct Finish {
    /// How it ended.
    pub outcome: Outcome,
    /// Deletions that wait for a person.
    pub held: u64,
    /// Objects that could not be stored or deleted by the end of the sync. Those that were rejected
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
    /// Whether no object was left out. Then a rejected object that the sync did not meet is gone.
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
        SyncState::read(self.0.connection().await?, self.0.resource).await
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
        let tables = match self.0.own_mappings().next() {
            None => RunTables::default(),
            Some(_) => {
                RunTables::load(
                    &mut conn,
                    lease,
                    &self.0.mappings,
                    self.0.resource,
                    begin.initial_events,
                )
                .await?
            }
        };
        let tables = Arc::new(tables);
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
                    sync_runs::resource.eq(self.0.resource.name),
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
                tables: tables.clone(),
            };
            Ok((run, now, checkpoint))
        })
        .await
    }

    /// Stores that there is nothing to import: what is created from now on is new.
    pub async fn note_nothing_to_import(&self) -> Result<(), MirrorError> {
        diesel::update(
            resource_state::table
                .find(self.0.resource.name)
                .filter(resource_state::imported_at.is_null()),
        )
        .set(resource_state::imported_at.eq(diesel::dsl::now.into_sql::<Nullable<Timestamptz>>()))
        .execute(&mut self.0.connection().await?)
        .await?;
        Ok(())
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
                    .set((
                        resource_state::checkpoint.eq(None::<serde_json::Value>),
                        resource_state::rereads.eq(false),
                    ))
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
            // If the clock went back, objects that this sync met would seem to be met before it.
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
                sync_runs::resource.eq(self.0.resource.name),
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
