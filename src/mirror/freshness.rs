//! How old changes were when they were committed: stored per sync, and summed up over an hour.

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{BigInt, Nullable},
};
use diesel_async::RunQueryDsl;
use serde::Serialize;

use super::{MirrorError, convert::signed, session::Session};

/// Ages stored per sync at most.
const SAMPLES: usize = 100;

/// Collects how old the changes of a sync were when they were committed, in milliseconds.
#[derive(Debug, Clone, Default)]
pub struct Ages(Vec<i64>);

impl Ages {
    /// Adds the age of a change.
    pub fn add(&mut self, age_ms: i64) {
        self.0.push(age_ms);
    }

    /// Returns what is stored.
    pub fn summary(mut self) -> AgeSummary {
        self.0.sort_unstable();
        let ages = self.0;
        let kept = match ages.len() {
            0..=SAMPLES => ages.clone(),
            many => (0..SAMPLES)
                .map(|sample| ages[(sample * (many - 1) + (SAMPLES - 1) / 2) / (SAMPLES - 1)])
                .collect(),
        };
        AgeSummary {
            count: signed(ages.len() as u64),
            median_ms: ages.get(ages.len().saturating_sub(1) / 2).copied(),
            ages_ms: (!kept.is_empty()).then_some(kept),
        }
    }
}

/// The ages of a sync's changes, as they are stored.
#[derive(Debug, Clone)]
pub struct AgeSummary {
    /// Changes that have a time of their own.
    pub count: i64,
    /// The median of their ages; `None` without such changes.
    pub median_ms: Option<i64>,
    /// Their ages, ascending. Of more than a hundred, a hundred evenly spaced ones, including the
    /// least and the greatest.
    pub ages_ms: Option<Vec<i64>>,
}

/// How old the changes of the last hour were when they were committed. Each change counts once,
/// whichever sync committed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Freshness {
    /// The median, in milliseconds.
    pub p50_ms: i64,
    /// The 99th percentile, in milliseconds.
    pub p99_ms: i64,
    /// The number of changes.
    pub changes: i64,
}

/// Returns how fresh the changes of the last hour were; `None` without changes.
pub(super) async fn freshness(conn: &mut Session) -> Result<Option<Freshness>, MirrorError> {
    #[derive(QueryableByName)]
    struct FreshnessRow {
        #[diesel(sql_type = Nullable<BigInt>)]
        p50: Option<i64>,
        #[diesel(sql_type = Nullable<BigInt>)]
        p99: Option<i64>,
        #[diesel(sql_type = Nullable<BigInt>)]
        changes: Option<i64>,
    }
    // A stored age stands for an equal share of its sync's changes.
    let FreshnessRow { p50, p99, changes } = sql_query(
        "WITH ages AS (
             SELECT age, pg_catalog.sum(age_count::pg_catalog.float8 / pg_catalog.cardinality(ages_ms)::pg_catalog.float8) AS weight
             FROM clerk.sync_runs, pg_catalog.unnest(ages_ms) AS age
             WHERE started_at > pg_catalog.now() - interval '1 hour'
             GROUP BY age
         ), ranked AS (
             SELECT age, pg_catalog.sum(weight) OVER (ORDER BY age) AS up_to, pg_catalog.sum(weight) OVER () AS total FROM ages
         )
         SELECT pg_catalog.min(age) FILTER (WHERE up_to >= total * 0.5::pg_catalog.float8) AS p50,
                pg_catalog.min(age) FILTER (WHERE up_to >= total * 0.99::pg_catalog.float8) AS p99,
                pg_catalog.round(pg_catalog.max(total))::pg_catalog.int8 AS changes
         FROM ranked",
    )
    .get_result(conn)
    .await?;
    Ok(match (p50, p99, changes) {
        (Some(p50_ms), Some(p99_ms), Some(changes)) => Some(Freshness {
            p50_ms,
            p99_ms,
            changes,
        }),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(ages: impl IntoIterator<Item = i64>) -> AgeSummary {
        let mut all = Ages::default();
        ages.into_iter().for_each(|age| all.add(age));
        all.summary()
    }

    #[test]
    fn a_hundred_ages_are_kept_as_they_are() {
        let none = summary([]);
        assert_eq!((none.count, none.median_ms, none.ages_ms), (0, None, None));
        let few = summary([30, 10, 20, 20]);
        assert_eq!((few.count, few.median_ms), (4, Some(20)));
        assert_eq!(few.ages_ms, Some(vec![10, 20, 20, 30]));
        let hundred = summary((0..100).rev());
        assert_eq!(hundred.ages_ms, Some((0..100).collect()));
        assert_eq!(hundred.median_ms, Some(49));
    }

    #[test]
    fn of_many_ages_evenly_spaced_ones_are_kept() {
        for count in [101, 150, 1_000, 123_457] {
            let many = summary((0..count).rev());
            let kept = many.ages_ms.unwrap();
            assert_eq!((many.count, kept.len()), (count, 100));
            assert_eq!((kept[0], kept[99]), (0, count - 1), "the ends");
            let even = |rank: usize| (count - 1) * i64::try_from(rank).unwrap() / 99;
            for (rank, age) in kept.iter().enumerate() {
                assert!((age - even(rank)).abs() <= 1, "{count}: {rank}: {age}");
            }
        }
    }
}
