//! What the status page and the metrics show of the mirror, at a price that does not grow with it.

use chrono::{DateTime, Utc};
use diesel::{
    prelude::*,
    sql_query,
    sql_types::{BigInt, Double, Nullable, Text, Timestamptz},
};
use diesel_async::RunQueryDsl;

use super::{Error, Freshness, Kind, LastRun, Mirror, leader, lease, schema::sync_runs};

/// So many of the last syncs are looked at, as more are not made in the time that is shown: one a second for six hours, and some.
const MAX_SYNCS: i64 = 25_000;

/// How the mirror stands.
#[derive(Debug, Clone, QueryableByName)]
pub struct Summary {
    /// The database's clock.
    #[diesel(sql_type = Timestamptz)]
    pub now: DateTime<Utc>,
    /// The pinned Clerk instance.
    #[diesel(sql_type = Nullable<Text>)]
    pub instance_id: Option<String>,
    /// Its kind.
    #[diesel(sql_type = Nullable<Text>)]
    pub environment_type: Option<String>,
    /// Users in the mirror.
    #[diesel(sql_type = BigInt)]
    pub users: i64,
    /// Deletions that wait for a person.
    #[diesel(sql_type = BigInt)]
    pub held: i64,
    /// Users that could not be stored, and rows that could not be deleted.
    #[diesel(sql_type = BigInt)]
    pub rejected: i64,
    /// Users with a value that does not fit its column; more than ten thousand are not counted.
    #[diesel(sql_type = BigInt)]
    pub unexpected: i64,
    /// Who syncs at this moment.
    #[diesel(sql_type = Nullable<Text>)]
    pub lease_holder: Option<String>,
    /// Who leads, or led last.
    #[diesel(sql_type = Nullable<Text>)]
    pub leader: Option<String>,
    /// How many stand by.
    #[diesel(sql_type = BigInt)]
    pub standbys: i64,
}

/// What happened lately.
#[derive(Debug, Clone)]
pub struct History {
    /// When a full sync last ended in sync, or changed something and was whole.
    pub last_full_at: Option<DateTime<Utc>>,
    /// How old changes were when they were committed, in the last hour.
    pub freshness: Option<Freshness>,
    /// The last syncs, newest first.
    pub runs: Vec<LastRun>,
    /// The stretches in which there were syncs, the last first.
    pub stretches: Vec<Stretch>,
}

/// The syncs that began in a stretch of time.
#[derive(Debug, Clone, QueryableByName)]
pub struct Stretch {
    /// How many stretches ago that was; the last is 0.
    #[diesel(sql_type = BigInt)]
    pub ago: i64,
    /// How old changes were when they were committed, in milliseconds: the median over the changes.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub median_ms: Option<i64>,
    /// The oldest of them.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub worst_ms: Option<i64>,
    /// Users new to the mirror.
    #[diesel(sql_type = BigInt)]
    pub created: i64,
    /// Users that changed.
    #[diesel(sql_type = BigInt)]
    pub updated: i64,
    /// Users deleted, or marked so.
    #[diesel(sql_type = BigInt)]
    pub deleted: i64,
}

impl Mirror {
    /// How the mirror stands, in one query.
    pub async fn glance(&self) -> Result<Summary, Error> {
        Ok(sql_query(format!(
            "SELECT pg_catalog.now() AS now, instance_id, environment_type, users,
                    (SELECT pg_catalog.count(*) FROM clerk.missing_users WHERE held_at IS NOT NULL AND approved_at IS NULL) AS held,
                    (SELECT pg_catalog.count(*) FROM clerk.rejected_users) AS rejected,
                    (SELECT pg_catalog.count(*) FROM (SELECT FROM clerk.users WHERE unexpected IS NOT NULL LIMIT 10000) AS counted)
                        AS unexpected,
                    CASE WHEN {held} THEN lease_holder END AS lease_holder,
                    (SELECT holder FROM clerk.leader) AS leader,
                    (SELECT pg_catalog.count(*) FROM clerk.standbys WHERE {there}) AS standbys
             FROM clerk.sync_state",
            held = lease::held(),
            there = leader::there(),
        ))
        .get_result(&mut self.connection().await?)
        .await?)
    }

    /// What happened in the last `stretches` times `seconds`, with so many `runs`.
    pub async fn lately(&self, runs: i64, stretches: i64, seconds: f64) -> Result<History, Error> {
        let freshness = self.freshness().await?;
        let conn = &mut self.connection().await?;
        let stretches = sql_query(
            "WITH runs AS (
                 SELECT pg_catalog.floor(extract(epoch FROM pg_catalog.now() - started_at)::pg_catalog.float8 / $2)::pg_catalog.int8 AS ago,
                        created, updated, deleted, ages_ms,
                        age_count::pg_catalog.float8 / pg_catalog.cardinality(ages_ms)::pg_catalog.float8 AS weight
                 FROM clerk.sync_runs
                 WHERE id > (SELECT pg_catalog.max(id) FROM clerk.sync_runs) - $3
                   AND started_at > pg_catalog.now() - $1::pg_catalog.float8 * $2 * interval '1 second'
                   AND started_at <= pg_catalog.now()
             ), ages AS (
                 SELECT ago, age, pg_catalog.sum(weight) AS weight FROM runs, pg_catalog.unnest(ages_ms) AS age GROUP BY ago, age
             ), ranked AS (
                 SELECT ago, age, pg_catalog.sum(weight) OVER (PARTITION BY ago ORDER BY age) AS up_to,
                        pg_catalog.sum(weight) OVER (PARTITION BY ago) AS total
                 FROM ages
             ), medians AS (
                 SELECT ago, pg_catalog.min(age) FILTER (WHERE up_to >= total * 0.5::pg_catalog.float8) AS median_ms,
                        pg_catalog.max(age) AS worst_ms
                 FROM ranked GROUP BY ago
             ), sums AS (
                 SELECT ago, pg_catalog.sum(created)::pg_catalog.int8 AS created, pg_catalog.sum(updated)::pg_catalog.int8 AS updated,
                        pg_catalog.sum(deleted)::pg_catalog.int8 AS deleted
                 FROM runs GROUP BY ago
             )
             SELECT ago, median_ms, worst_ms, created, updated, deleted FROM sums LEFT JOIN medians USING (ago) ORDER BY ago",
        )
        .bind::<BigInt, _>(stretches)
        .bind::<Double, _>(seconds)
        .bind::<BigInt, _>(MAX_SYNCS)
        .load(conn)
        .await?;
        // By number rather than by time, which no index knows: the first that fits is not far from the end.
        let last_full_at: Option<Option<DateTime<Utc>>> = sync_runs::table
            .select(sync_runs::ended_at)
            .filter(sync_runs::kind.eq(Kind::Full.name()))
            .filter(sync_runs::outcome.eq_any(["in_sync", "changed", "held"]))
            .order(sync_runs::id.desc())
            .first(conn)
            .await
            .optional()?;
        Ok(History {
            last_full_at: last_full_at.flatten(),
            freshness,
            runs: sync_runs::table
                .select(LastRun::as_select())
                .order(sync_runs::id.desc())
                .limit(runs)
                .load(conn)
                .await?,
            stretches,
        })
    }
}
