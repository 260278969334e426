//! Which of several daemons leads and asks Clerk, while the others stand by. This saves requests.
//! The lease, not leadership, keeps writers apart.

use std::time::Duration;

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{Bool, Double, Nullable, Text},
};
use diesel_async::RunQueryDsl;

use super::{
    MirrorError,
    expiry::{UNKNOWN, lasts},
    pool::ConnectionPool,
};

/// The time to live, which a statement gets as its second value, in seconds.
const OWN: &str = "($2 OPERATOR(pg_catalog.*) interval '1 second')";

/// Returns a condition in SQL: a standby has not expired.
pub(super) fn standby_lasts() -> String {
    lasts("expires_at", "ttl", UNKNOWN)
}

/// What a leader learns about its role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaderState {
    /// It leads, and no standby waits.
    Alone,
    /// It leads, and others stand by.
    Watched,
    /// Another daemon leads.
    Lost,
}

/// What a standby waits for.
#[derive(Debug, Clone)]
pub struct Wait {
    /// The leader; `None` if the last one has stopped.
    pub leader: Option<String>,
    /// After how long the leader counts as gone if it does not renew.
    pub remaining: Duration,
}

/// The daemons of a database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replicas {
    /// The daemon that leads, or led last. A leader that is alone does not renew its entry, so it
    /// may have gone without notice.
    pub leader: Option<String>,
    /// The standbys, in the order of their names.
    pub standbys: Vec<String>,
}

/// Leads or stands by.
#[derive(Debug, Clone)]
pub struct Leadership(pub(super) ConnectionPool);

impl Leadership {
    /// Leads if no other daemon does: the last leader has stopped, or did not renew within `ttl`,
    /// by the database's clock. Returns whether this daemon leads.
    pub async fn lead(&self, holder: &str, ttl: Duration) -> Result<bool, MirrorError> {
        let rows = sql_query(format!(
            "WITH taken AS (
                 UPDATE clerk.leader SET holder = $1, expires_at = pg_catalog.clock_timestamp() + {OWN}, ttl = {OWN}
                 WHERE holder IS NULL OR holder = $1 OR {lasts} IS NOT TRUE
                 RETURNING holder),
             gone AS (
                 DELETE FROM clerk.standbys
                 WHERE (holder = $1 OR expires_at < pg_catalog.clock_timestamp() - interval '1 hour'
                        OR expires_at > pg_catalog.clock_timestamp() + coalesce(ttl, {OWN}) + interval '1 hour')
                   AND EXISTS (SELECT FROM taken))
             SELECT FROM taken",
            lasts = lasts("expires_at", "ttl", OWN),
        ))
        .bind::<Text, _>(holder)
        .bind::<Double, _>(ttl.as_secs_f64())
        .execute(&mut self.0.connection().await?)
        .await?;
        Ok(rows == 1)
    }

    /// Continues to lead. Writes only while others stand by.
    pub async fn keep(&self, holder: &str, ttl: Duration) -> Result<LeaderState, MirrorError> {
        #[derive(QueryableByName)]
        struct LeaderRow {
            #[diesel(sql_type = Bool)]
            leads: bool,
            #[diesel(sql_type = Bool)]
            is_watched: bool,
        }
        let mut conn = self.0.connection().await?;
        let row: LeaderRow = sql_query(format!(
            "SELECT coalesce(holder OPERATOR(pg_catalog.=) $1, false) AS leads,
                    EXISTS (SELECT FROM clerk.standbys WHERE {standby_lasts}) AS is_watched
             FROM clerk.leader",
            standby_lasts = lasts("expires_at", "ttl", OWN),
        ))
        .bind::<Text, _>(holder)
        .bind::<Double, _>(ttl.as_secs_f64())
        .get_result(conn.autocommit())
        .await?;
        match (row.leads, row.is_watched) {
            (false, _) => return Ok(LeaderState::Lost),
            (true, false) => return Ok(LeaderState::Alone),
            (true, true) => {}
        }
        let kept = sql_query(format!(
            "UPDATE clerk.leader SET expires_at = pg_catalog.clock_timestamp() + {OWN}, ttl = {OWN} WHERE holder = $1"
        ))
        .bind::<Text, _>(holder)
        .bind::<Double, _>(ttl.as_secs_f64())
        .execute(&mut conn)
        .await?;
        Ok(if kept == 1 {
            LeaderState::Watched
        } else {
            LeaderState::Lost
        })
    }

    /// Waits to take over, and is visible to the leader for the next `ttl`.
    pub async fn stand_by(&self, holder: &str, ttl: Duration) -> Result<Wait, MirrorError> {
        #[derive(QueryableByName)]
        struct StandbyRow {
            #[diesel(sql_type = Nullable<Text>)]
            leader: Option<String>,
            #[diesel(sql_type = Double)]
            remaining: f64,
        }
        let StandbyRow { leader, remaining } = sql_query(format!(
            // `since` is set again if the clock may have jumped, so that the leader has the time of
            // a lease to renew its expiry by the clock as it is now.
            "WITH standby AS (
                 INSERT INTO clerk.standbys AS mine (holder, expires_at, ttl)
                 VALUES ($1, pg_catalog.clock_timestamp() + {OWN}, {OWN})
                 ON CONFLICT (holder) DO UPDATE
                 SET expires_at = excluded.expires_at, ttl = excluded.ttl,
                     since = CASE WHEN {mine} AND mine.since <= pg_catalog.clock_timestamp()
                         THEN mine.since ELSE excluded.since END
                 RETURNING since)
             SELECT leader.holder AS leader,
                    CASE WHEN leader.holder IS NULL THEN 0 ELSE
                        extract(epoch FROM greatest(CASE WHEN {lasts} THEN leader.expires_at END, since + {OWN})
                            - pg_catalog.clock_timestamp())
                    END::double precision AS remaining
             FROM clerk.leader AS leader, standby",
            mine = lasts("mine.expires_at", "mine.ttl", OWN),
            lasts = lasts("leader.expires_at", "leader.ttl", OWN),
        ))
        .bind::<Text, _>(holder)
        .bind::<Double, _>(ttl.as_secs_f64())
        .get_result(&mut self.0.connection().await?)
        .await?;
        Ok(Wait {
            leader,
            remaining: Duration::try_from_secs_f64(remaining).unwrap_or_default(),
        })
    }

    /// Stops leading or standing by.
    pub async fn resign(&self, holder: &str) -> Result<(), MirrorError> {
        sql_query(
            "WITH gone AS (DELETE FROM clerk.standbys WHERE holder = $1)
             UPDATE clerk.leader SET holder = NULL, expires_at = NULL, ttl = NULL WHERE holder = $1",
        )
        .bind::<Text, _>(holder)
        .execute(&mut self.0.connection().await?)
        .await?;
        Ok(())
    }

    /// Returns which daemon leads, and which stand by.
    pub async fn replicas(&self) -> Result<Replicas, MirrorError> {
        #[derive(QueryableByName)]
        struct ReplicaRow {
            #[diesel(sql_type = Text)]
            holder: String,
            #[diesel(sql_type = Bool)]
            leads: bool,
        }
        let rows: Vec<ReplicaRow> = sql_query(format!(
            "SELECT holder, true AS leads FROM clerk.leader WHERE holder IS NOT NULL
             UNION ALL SELECT holder, false FROM clerk.standbys WHERE {} ORDER BY holder",
            standby_lasts()
        ))
        .load(&mut self.0.connection().await?)
        .await?;
        let mut replicas = Replicas::default();
        for row in rows {
            if row.leads {
                replicas.leader = Some(row.holder);
            } else {
                replicas.standbys.push(row.holder);
            }
        }
        Ok(replicas)
    }
}
