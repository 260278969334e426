//! What happened in the last minutes, hours or days, in periods of equal length.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::{
    prelude::*,
    sql_query,
    sql_types::{BigInt, Bool, Double, Nullable, Text, Timestamptz},
};
use diesel_async::RunQueryDsl;

use super::{MirrorError, Overview};

/// Syncs that [`Overview::activity`] reads at most: one every five seconds for a week, and some more.
const MAX_SYNCS: i64 = 150_000;

/// The longest time over which each stored age of a change counts. Over a longer one, the median of
/// each sync stands for its changes: a hundred ages a sync would be millions.
const MAX_EXACT: Duration = Duration::from_hours(24);

/// What happened in the last periods.
#[derive(Debug, Clone)]
pub struct Activity {
    /// When the first sync began that can count; `None` without syncs. Earlier periods are empty
    /// because nothing is known about them.
    pub begins_at: Option<DateTime<Utc>>,
    /// The periods in which syncs began, the latest first.
    pub periods: Vec<Period>,
}

/// The syncs that began in one period of time.
#[derive(Debug, Clone, QueryableByName)]
pub struct Period {
    /// How many periods ago it was; the latest is 0.
    #[diesel(sql_type = BigInt)]
    pub ago: i64,
    /// The median age of the changes when they were committed, in milliseconds.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub median_ms: Option<i64>,
    /// The greatest of these ages, in milliseconds.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub worst_ms: Option<i64>,
    /// Users new to the mirror.
    #[diesel(sql_type = BigInt)]
    pub created: i64,
    /// Users that changed.
    #[diesel(sql_type = BigInt)]
    pub updated: i64,
    /// Users deleted, or marked as deleted.
    #[diesel(sql_type = BigInt)]
    pub deleted: i64,
}

impl Overview {
    /// Returns what happened in the last `periods`, each as long as `period`.
    pub async fn activity(&self, periods: u32, period: Duration) -> Result<Activity, MirrorError> {
        #[derive(QueryableByName)]
        struct FirstSync {
            #[diesel(sql_type = Timestamptz)]
            started_at: DateTime<Utc>,
        }
        let conn = &mut self.0.connection().await?;
        let first: Option<FirstSync> = sql_query(
            "SELECT started_at FROM clerk.sync_runs
             WHERE id > (SELECT pg_catalog.max(id) FROM clerk.sync_runs) - $1 ORDER BY id LIMIT 1",
        )
        .bind::<BigInt, _>(MAX_SYNCS)
        .get_result(conn)
        .await
        .optional()?;
        let periods = sql_query(
            "WITH runs AS (
                 SELECT pg_catalog.floor(extract(epoch FROM pg_catalog.now() - started_at)::pg_catalog.float8 / $2)::pg_catalog.int8 AS ago,
                        created, updated, deleted, age_count, ages_ms[pg_catalog.cardinality(ages_ms)] AS worst_ms,
                        CASE WHEN $5 OR ages_ms IS NULL THEN ages_ms ELSE ARRAY[freshness_ms] END AS ages_ms
                 FROM clerk.sync_runs
                 WHERE id > (SELECT pg_catalog.max(id) FROM clerk.sync_runs) - $3 AND resource = $4
                   AND started_at > pg_catalog.now() - $1 * $2 * interval '1 second'
                   AND started_at <= pg_catalog.now()
             ), ages AS (
                 SELECT ago, age,
                        pg_catalog.sum(age_count::pg_catalog.float8 / pg_catalog.cardinality(ages_ms)::pg_catalog.float8) AS weight
                 FROM runs, pg_catalog.unnest(ages_ms) AS age GROUP BY ago, age
             ), ranked AS (
                 SELECT ago, age, pg_catalog.sum(weight) OVER (PARTITION BY ago ORDER BY age) AS up_to,
                        pg_catalog.sum(weight) OVER (PARTITION BY ago) AS total
                 FROM ages
             ), medians AS (
                 SELECT ago, pg_catalog.min(age) FILTER (WHERE up_to >= total * 0.5::pg_catalog.float8) AS median_ms
                 FROM ranked GROUP BY ago
             ), sums AS (
                 SELECT ago, pg_catalog.max(worst_ms) AS worst_ms, pg_catalog.sum(created)::pg_catalog.int8 AS created,
                        pg_catalog.sum(updated)::pg_catalog.int8 AS updated, pg_catalog.sum(deleted)::pg_catalog.int8 AS deleted
                 FROM runs GROUP BY ago
             )
             SELECT ago, median_ms, worst_ms, created, updated, deleted FROM sums LEFT JOIN medians USING (ago) ORDER BY ago",
        )
        .bind::<Double, _>(f64::from(periods))
        .bind::<Double, _>(period.as_secs_f64())
        .bind::<BigInt, _>(MAX_SYNCS)
        .bind::<Text, _>(self.0.resource.name)
        .bind::<Bool, _>(period * periods <= MAX_EXACT)
        .load(conn)
        .await?;
        Ok(Activity {
            begins_at: first.map(|first| first.started_at),
            periods,
        })
    }
}
