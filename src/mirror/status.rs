//! What `status` tells.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use diesel::{
    dsl::count_star,
    prelude::*,
    sql_query,
    sql_types::{BigInt, Nullable, Text, Timestamptz},
};
use diesel_async::RunQueryDsl;
use serde::Serialize;

use super::{
    Error, Freshness, Kind, Mirror, Replicas,
    schema::{missing_users, rejected_users, sync_runs, sync_state},
    unsigned,
};

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

/// The state of the mirror.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// The pinned Clerk instance.
    pub instance_id: Option<String>,
    /// Its kind.
    pub environment_type: Option<String>,
    /// The database's clock, that all ages are measured by.
    pub now: DateTime<Utc>,
    /// Users in the mirror.
    pub users: u64,
    /// Who syncs at this moment.
    pub lease_holder: Option<String>,
    /// The daemon that leads, or led last: one that is alone does not say so again and again.
    pub leader: Option<String>,
    /// Daemons that wait to take over.
    pub standbys: Vec<String>,
    /// When a full sync last ended in sync, or changed something and was whole.
    pub last_success_at: Option<DateTime<Utc>>,
    /// When a daemon of this role last used this database. Looks that find nothing to do write nothing, and leave this trace alone.
    pub last_seen_at: Option<DateTime<Utc>>,
    /// How old changes were when they were committed, in the last hour.
    pub freshness: Option<Freshness>,
    /// The last syncs, newest first.
    pub runs: Vec<LastRun>,
    /// Deletions that wait for a person.
    pub held: u64,
    /// Their checksum.
    pub plan: Option<String>,
    /// Deletions that a person approved and the next sync carries out.
    pub approved: u64,
    /// How many users are rejected.
    pub rejected: u64,
    /// The first of them, with their reasons.
    pub rejected_users: Vec<(String, String)>,
    /// How many users have a value of an unexpected type, by field.
    pub unexpected_values: BTreeMap<String, i64>,
}

impl Mirror {
    /// When another connection of this name and role last did something here.
    async fn last_seen(&self) -> Result<Option<DateTime<Utc>>, Error> {
        #[derive(QueryableByName)]
        struct Row {
            #[diesel(sql_type = Nullable<Timestamptz>)]
            at: Option<DateTime<Utc>>,
        }
        let Row { at } = sql_query(
            "SELECT pg_catalog.max(state_change) AS at FROM pg_catalog.pg_stat_activity
             WHERE datname = pg_catalog.current_database() AND application_name = pg_catalog.current_setting('application_name')
               AND usename = current_user AND pid <> pg_catalog.pg_backend_pid()",
        )
        .get_result(&mut self.connection().await?)
        .await?;
        Ok(at)
    }

    /// How many users have a value that does not fit its column, by field.
    async fn unexpected_values(&self) -> Result<BTreeMap<String, i64>, Error> {
        #[derive(QueryableByName)]
        struct Row {
            #[diesel(sql_type = Text)]
            field: String,
            #[diesel(sql_type = BigInt)]
            users: i64,
        }
        let rows: Vec<Row> = sql_query(
            "SELECT field, pg_catalog.count(*) AS users
             FROM clerk.users AS u CROSS JOIN LATERAL pg_catalog.unnest(u.unexpected) AS fields(field)
             WHERE u.unexpected IS NOT NULL GROUP BY field",
        )
        .load(&mut self.connection().await?)
        .await?;
        Ok(rows.into_iter().map(|row| (row.field, row.users)).collect())
    }

    /// Collects the state; `runs` and `rejected` say how many of each are wanted.
    pub async fn status(&self, runs: i64, rejected: i64) -> Result<Status, Error> {
        let lease_holder = self.lease_holder().await?;
        let Replicas { leader, standbys } = self.replicas().await?;
        let users = self.count().await?;
        let plan = self.held_checksum().await?;
        let freshness = self.freshness().await?;
        let last_seen_at = self.last_seen().await?;
        let unexpected_values = self.unexpected_values().await?;
        let conn = &mut self.connection().await?;
        let (instance_id, environment_type, now) = sync_state::table
            .select((
                sync_state::instance_id,
                sync_state::environment_type,
                diesel::dsl::now.into_sql::<Timestamptz>(),
            ))
            .first(conn)
            .await?;
        Ok(Status {
            instance_id,
            environment_type,
            now,
            users,
            lease_holder,
            leader,
            standbys,
            last_seen_at,
            freshness,
            last_success_at: sync_runs::table
                .select(diesel::dsl::max(sync_runs::ended_at))
                .filter(sync_runs::kind.eq(Kind::Full.name()))
                .filter(sync_runs::outcome.eq_any(["in_sync", "changed", "held"]))
                .first(conn)
                .await?,
            runs: sync_runs::table
                .select(LastRun::as_select())
                .order(sync_runs::id.desc())
                .limit(runs)
                .load(conn)
                .await?,
            held: missing_users::table
                .filter(
                    missing_users::held_at
                        .is_not_null()
                        .and(missing_users::approved_at.is_null()),
                )
                .select(count_star())
                .first(conn)
                .await
                .map(unsigned)?,
            plan,
            approved: missing_users::table
                .filter(missing_users::approved_at.is_not_null())
                .select(count_star())
                .first(conn)
                .await
                .map(unsigned)?,
            rejected: rejected_users::table
                .select(count_star())
                .first(conn)
                .await
                .map(unsigned)?,
            rejected_users: rejected_users::table
                .select((rejected_users::user_id, rejected_users::reason))
                .order(rejected_users::user_id)
                .limit(rejected)
                .load(conn)
                .await?,
            unexpected_values,
        })
    }
}
