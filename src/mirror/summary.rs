//! What `clerk2pg status`, the status page and the metrics show of the mirror.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use diesel::{
    prelude::*,
    sql_query,
    sql_types::{Array, BigInt, Bool, Nullable, Text, Timestamptz},
};
use diesel_async::RunQueryDsl;
use serde::Serialize;

use super::{
    AppTables, Deliveries, EndpointStatus, Freshness, Holds, MirrorError, Outcome, SyncKind, TableDetails, freshness,
    leadership, lease,
    pool::ConnectionPool,
    tables::{rejected_objects, sync_runs},
};
use crate::resource::RESOURCES;

/// State of the mirror, read at a cost that does not grow with it.
#[derive(Debug, Clone, Serialize, QueryableByName)]
pub struct Summary {
    /// The database's clock, which all ages are measured by.
    #[diesel(sql_type = Timestamptz)]
    pub now: DateTime<Utc>,
    /// The pinned Clerk instance.
    #[diesel(sql_type = Nullable<Text>)]
    pub instance_id: Option<String>,
    /// Its environment, as Clerk names it, for example `production`.
    #[diesel(sql_type = Nullable<Text>)]
    pub environment_type: Option<String>,
    /// Whether a full sync has imported the users.
    #[diesel(sql_type = Bool)]
    #[serde(skip)]
    pub is_imported: bool,
    /// Users in the mirror, without those marked as deleted.
    #[diesel(sql_type = BigInt)]
    pub users: i64,
    /// Deletions that wait for a person.
    #[diesel(sql_type = BigInt)]
    pub held: i64,
    /// Deletions that a person approved and that the next sync carries out.
    #[diesel(sql_type = BigInt)]
    pub approved: i64,
    /// Users that could not be stored, and rows that could not be deleted.
    #[diesel(sql_type = BigInt)]
    pub rejected: i64,
    /// Users with a value that does not fit its column; counted up to ten thousand.
    #[diesel(sql_type = BigInt)]
    #[serde(skip)]
    pub unexpected: i64,
    /// The process that syncs at this moment.
    #[diesel(sql_type = Nullable<Text>)]
    pub lease_holder: Option<String>,
    /// The daemon that leads, or led last. A leader that is alone does not renew its entry, so it
    /// may have gone without notice.
    #[diesel(sql_type = Nullable<Text>)]
    pub leader: Option<String>,
    /// Daemons that wait to take over, in the order of their names.
    #[diesel(sql_type = Array<Text>)]
    pub standbys: Vec<String>,
}

/// A row of `clerk.sync_runs`.
#[derive(Debug, Clone, Serialize, Queryable, Selectable)]
#[diesel(table_name = sync_runs)]
#[allow(missing_docs, reason = "each is the column of the same name")]
pub struct LastRun {
    pub id: i64,
    pub kind: String,
    pub started_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
    pub outcome: String,
    pub created: i64,
    pub updated: i64,
    pub deleted: i64,
    pub unchanged: i64,
    pub held: i64,
    pub rejected: i64,
    pub requests: i64,
    pub plan: Option<String>,
    pub error: Option<String>,
    pub freshness_ms: Option<i64>,
}

/// State of the mirror of one resource.
#[derive(Debug, Clone, Serialize, QueryableByName)]
pub struct ResourceStatus {
    /// Its name.
    #[diesel(sql_type = Text)]
    pub resource: String,
    /// Objects in the mirror, without those marked as deleted.
    #[diesel(sql_type = BigInt)]
    pub objects: i64,
    /// Deletions that wait for a person.
    #[diesel(sql_type = BigInt)]
    pub held: i64,
    /// Deletions that a person approved and that the next sync carries out.
    #[diesel(sql_type = BigInt)]
    pub approved: i64,
    /// Objects that could not be stored, and rows that could not be deleted.
    #[diesel(sql_type = BigInt)]
    pub rejected: i64,
    /// When a full sync last ended in sync, or changed something and was complete.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub last_success_at: Option<DateTime<Utc>>,
    /// Why the last sync failed or is incomplete.
    #[diesel(sql_type = Nullable<Text>)]
    pub error: Option<String>,
    /// The checksum of the held deletions. Only [`Overview::details`] reads it.
    #[diesel(sql_type = Nullable<Text>)]
    pub plan: Option<String>,
}

/// The last syncs, and how fresh their changes were.
#[derive(Debug, Clone, Serialize)]
pub struct RecentSyncs {
    /// When a full sync last ended in sync, or changed something and was complete.
    #[serde(rename = "last_success_at")]
    pub last_full_at: Option<DateTime<Utc>>,
    /// How old the changes of the last hour were when they were committed.
    pub freshness: Option<Freshness>,
    /// The last syncs, newest first.
    pub runs: Vec<LastRun>,
}

/// Everything that `clerk2pg status` prints.
#[derive(Debug, Clone, Serialize)]
pub struct Details {
    /// The state of the mirror.
    #[serde(flatten)]
    pub summary: Summary,
    /// The last syncs.
    #[serde(flatten)]
    pub recent: RecentSyncs,
    /// When another connection of this name and role last used this database. It is the only trace
    /// of an incremental sync that finds nothing to do.
    pub last_seen_at: Option<DateTime<Utc>>,
    /// The checksum of the held deletions.
    pub plan: Option<String>,
    /// The first rejected users, with their reasons.
    pub rejected_users: Vec<(String, String)>,
    /// How many users have a value that does not fit its column, by field.
    pub unexpected_values: BTreeMap<String, i64>,
    /// The other resources that were mirrored.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<ResourceStatus>,
    /// The application's tables.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<TableDetails>,
    /// The endpoints that events are delivered to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<EndpointStatus>,
}

/// Reads what `clerk2pg status`, the status page and the metrics show.
#[derive(Debug, Clone)]
pub struct Overview(pub(super) ConnectionPool);

impl Overview {
    /// Returns the state of the mirror, in one query.
    pub async fn summary(&self) -> Result<Summary, MirrorError> {
        Ok(sql_query(format!(
            "SELECT pg_catalog.now() AS now, instance_id, environment_type, objects AS users,
                    imported_at IS NOT NULL AS is_imported,
                    (SELECT pg_catalog.count(*) FROM clerk.missing WHERE resource = $1 AND hold = 'held') AS held,
                    (SELECT pg_catalog.count(*) FROM clerk.missing WHERE resource = $1 AND hold = 'approved') AS approved,
                    (SELECT pg_catalog.count(*) FROM clerk.rejected WHERE resource = $1) AS rejected,
                    (SELECT pg_catalog.count(*) FROM (SELECT FROM {table} WHERE unexpected IS NOT NULL LIMIT 10000) AS counted)
                        AS unexpected,
                    CASE WHEN {held} THEN lease_holder END AS lease_holder,
                    (SELECT holder FROM clerk.leader) AS leader,
                    ARRAY(SELECT holder FROM clerk.standbys WHERE {standby_lasts} ORDER BY holder) AS standbys
             FROM clerk.sync_state, clerk.resource_state WHERE resource = $1",
            table = self.0.resource.table,
            held = lease::held(),
            standby_lasts = leadership::standby_lasts(),
        ))
        .bind::<Text, _>(self.0.resource.name)
        .get_result(&mut self.0.connection().await?)
        .await?)
    }

    /// Returns the state of the other resources that were mirrored, in one query.
    pub async fn resources(&self) -> Result<Vec<ResourceStatus>, MirrorError> {
        Ok(sql_query(
            "SELECT s.resource, s.objects,
                    (SELECT pg_catalog.count(*) FROM clerk.missing AS m WHERE m.resource = s.resource AND m.hold = 'held') AS held,
                    (SELECT pg_catalog.count(*) FROM clerk.missing AS m WHERE m.resource = s.resource AND m.hold = 'approved')
                        AS approved,
                    (SELECT pg_catalog.count(*) FROM clerk.rejected AS r WHERE r.resource = s.resource) AS rejected,
                    last.ended_at AS last_success_at, latest.error, NULL::text AS plan
             FROM clerk.resource_state AS s
             LEFT JOIN LATERAL (SELECT r.ended_at FROM clerk.sync_runs AS r
                                WHERE r.resource = s.resource AND r.kind = 'full' AND r.outcome = ANY ($2)
                                ORDER BY r.id DESC LIMIT 1) AS last ON true
             LEFT JOIN LATERAL (SELECT r.error FROM clerk.sync_runs AS r WHERE r.resource = s.resource
                                ORDER BY r.id DESC LIMIT 1) AS latest ON true
             WHERE s.resource <> $1 AND s.imported_at IS NOT NULL
             ORDER BY pg_catalog.array_position($3, s.resource)",
        )
        .bind::<Text, _>(self.0.resource.name)
        .bind::<Array<Text>, _>(Outcome::SUCCESSFUL.map(Outcome::name).to_vec())
        .bind::<Array<Text>, _>(RESOURCES.map(|resource| resource.name).to_vec())
        .load(&mut self.0.connection().await?)
        .await?)
    }

    async fn resources_with_plans(&self) -> Result<Vec<ResourceStatus>, MirrorError> {
        let mut resources = self.resources().await?;
        for status in resources.iter_mut().filter(|status| status.held > 0) {
            if let Some(resource) = RESOURCES.iter().find(|resource| resource.name == status.resource) {
                status.plan = Holds(self.0.of(resource)).checksum().await?;
            }
        }
        Ok(resources)
    }

    /// Returns the last `runs` syncs.
    pub async fn recent(&self, runs: i64) -> Result<RecentSyncs, MirrorError> {
        let freshness = self.freshness().await?;
        let conn = &mut self.0.connection().await?;
        // By id rather than by time, which has no index: the first match is near the end.
        let last_full_at: Option<Option<DateTime<Utc>>> = sync_runs::table
            .select(sync_runs::ended_at)
            .filter(sync_runs::resource.eq(self.0.resource.name))
            .filter(sync_runs::kind.eq(SyncKind::Full.name()))
            .filter(sync_runs::outcome.eq_any(Outcome::SUCCESSFUL.map(Outcome::name)))
            .order(sync_runs::id.desc())
            .first(conn)
            .await
            .optional()?;
        Ok(RecentSyncs {
            last_full_at: last_full_at.flatten(),
            freshness,
            runs: sync_runs::table
                .select(LastRun::as_select())
                .filter(sync_runs::resource.eq(self.0.resource.name))
                .order(sync_runs::id.desc())
                .limit(runs)
                .load(conn)
                .await?,
        })
    }

    /// Returns the state with the last `runs` syncs, and the first `rejected` users and rows per table
    /// that are rejected.
    pub async fn details(&self, runs: i64, rejected: i64) -> Result<Details, MirrorError> {
        Ok(Details {
            summary: self.summary().await?,
            recent: self.recent(runs).await?,
            last_seen_at: self.last_seen().await?,
            plan: Holds(self.0.clone()).checksum().await?,
            unexpected_values: self.unexpected_values().await?,
            resources: self.resources_with_plans().await?,
            tables: AppTables(self.0.clone()).details(rejected).await?,
            endpoints: Deliveries(self.0.clone()).active().await?,
            rejected_users: rejected_objects::table
                .filter(rejected_objects::resource.eq(self.0.resource.name))
                .select((rejected_objects::object_id, rejected_objects::reason))
                .order(rejected_objects::object_id)
                .limit(rejected)
                .load(&mut self.0.connection().await?)
                .await?,
        })
    }

    /// Returns how fresh the changes of the last hour were; `None` without changes.
    pub async fn freshness(&self) -> Result<Option<Freshness>, MirrorError> {
        freshness::freshness(&mut *self.0.connection().await?).await
    }

    /// Returns when another connection of this name and role last used this database.
    async fn last_seen(&self) -> Result<Option<DateTime<Utc>>, MirrorError> {
        #[derive(QueryableByName)]
        struct LastSeen {
            #[diesel(sql_type = Nullable<Timestamptz>)]
            at: Option<DateTime<Utc>>,
        }
        let LastSeen { at } = sql_query(
            "SELECT pg_catalog.max(state_change) AS at FROM pg_catalog.pg_stat_activity
             WHERE datname = pg_catalog.current_database() AND application_name = pg_catalog.current_setting('application_name')
               AND usename = current_user AND pid <> pg_catalog.pg_backend_pid()",
        )
        .get_result(&mut self.0.connection().await?)
        .await?;
        Ok(at)
    }

    /// Returns how many users have a value that does not fit its column, by field.
    async fn unexpected_values(&self) -> Result<BTreeMap<String, i64>, MirrorError> {
        #[derive(QueryableByName)]
        struct FieldCount {
            #[diesel(sql_type = Text)]
            field: String,
            #[diesel(sql_type = BigInt)]
            users: i64,
        }
        let rows: Vec<FieldCount> = sql_query(format!(
            "SELECT field, pg_catalog.count(*) AS users
             FROM {table} AS u CROSS JOIN LATERAL pg_catalog.unnest(u.unexpected) AS fields(field)
             WHERE u.unexpected IS NOT NULL GROUP BY field",
            table = self.0.resource.table
        ))
        .load(&mut self.0.connection().await?)
        .await?;
        Ok(rows.into_iter().map(|row| (row.field, row.users)).collect())
    }
}
