//! Delivers events once more.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::{
    sql_query,
    sql_types::{Array, BigInt, Double, Text, Timestamptz},
};
use diesel_async::{AsyncConnection, RunQueryDsl};

use super::{Deliveries, FROM_MIRROR};
use crate::mirror::{MirrorError, session::Session};

/// What is delivered once more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redelivery {
    /// Events whose last attempt failed.
    Dead,
    /// Events that were recorded at this time or later.
    Since(DateTime<Utc>),
    /// Events that were recorded within this time, by the database's clock.
    Within(Duration),
    /// Events with these ids.
    Ids(Vec<i64>),
    /// A `created` event for each object of the mirror, if the endpoint gets such events.
    Everything,
}

/// What makes a row late once more. A head is tried at once.
const AGAIN: &str = "attempts = 0, dead_at = NULL, waiting_since = pg_catalog.now(),
    next_attempt_at = CASE WHEN d.next_attempt_at IS NOT NULL THEN pg_catalog.now() END";

impl Deliveries {
    /// Marks events as late, so that the leader delivers them again. Returns how many; `None` if
    /// there is no such endpoint. Events that the endpoint has not got yet are left out, because it
    /// gets them anyway.
    pub async fn redeliver(&self, endpoint: &str, what: &Redelivery) -> Result<Option<u64>, MirrorError> {
        let mut conn = self.0.connection().await?;
        conn.transaction(async |conn| {
            if !lock(conn, endpoint).await? {
                return Ok(None);
            }
            let rows = match what {
                Redelivery::Dead => revive(conn, endpoint).await?,
                Redelivery::Since(at) => {
                    sql_query(repeat_sql("e.recorded_at >= $2"))
                        .bind::<Text, _>(endpoint)
                        .bind::<Timestamptz, _>(at)
                        .execute(conn)
                        .await?
                }
                Redelivery::Within(time) => {
                    sql_query(repeat_sql(
                        "e.recorded_at >= pg_catalog.now() - $2 * interval '1 second'",
                    ))
                    .bind::<Text, _>(endpoint)
                    .bind::<Double, _>(time.as_secs_f64())
                    .execute(conn)
                    .await?
                }
                Redelivery::Ids(ids) => {
                    sql_query(repeat_sql("e.id = ANY ($2)"))
                        .bind::<Text, _>(endpoint)
                        .bind::<Array<BigInt>, _>(ids)
                        .execute(conn)
                        .await?
                }
                Redelivery::Everything => self.repeat_everything(conn, endpoint).await?,
            };
            choose_all_heads(conn, endpoint).await?;
            Ok(Some(rows as u64))
        })
        .await
    }

    async fn repeat_everything(&self, conn: &mut Session, endpoint: &str) -> Result<usize, MirrorError> {
        Ok(sql_query(format!(
            "INSERT INTO clerk.deliveries AS d (endpoint, resource, object_id, event_id)
             SELECT p.name, $2, u.id, {FROM_MIRROR}::bigint FROM {table} AS u JOIN clerk.endpoints AS p ON p.name = $1
             WHERE u.deleted_at IS NULL AND $3 || '.created'::text = ANY (p.types)
             ON CONFLICT (endpoint, resource, object_id, event_id) DO UPDATE SET {AGAIN}",
            table = self.0.resource.table
        ))
        .bind::<Text, _>(endpoint)
        .bind::<Text, _>(self.0.resource.name)
        .bind::<Text, _>(self.0.resource.event)
        .execute(conn)
        .await?)
    }
}

/// Locks an endpoint against the leader's notes, which write the same rows in another order. Returns
/// whether there is one.
async fn lock(conn: &mut Session, endpoint: &str) -> Result<bool, MirrorError> {
    let rows = sql_query("SELECT FROM clerk.endpoints WHERE name = $1 AND removed_at IS NULL FOR NO KEY UPDATE")
        .bind::<Text, _>(endpoint)
        .execute(conn)
        .await?;
    Ok(rows == 1)
}

/// Lets dead events be tried again.
async fn revive(conn: &mut Session, endpoint: &str) -> Result<usize, MirrorError> {
    Ok(sql_query(format!(
        "UPDATE clerk.deliveries AS d SET {AGAIN} WHERE endpoint = $1 AND dead_at IS NOT NULL"
    ))
    .bind::<Text, _>(endpoint)
    .execute(conn)
    .await?)
}

/// Returns the statement that marks events as late again.
fn repeat_sql(which: &str) -> String {
    format!(
        "INSERT INTO clerk.deliveries AS d (endpoint, resource, object_id, event_id)
         SELECT p.name, e.resource, e.object_id, e.id FROM clerk.events e JOIN clerk.endpoints p ON p.name = $1
         WHERE e.id <= p.position AND e.type = ANY (p.types) AND {which}
         ON CONFLICT (endpoint, resource, object_id, event_id) DO UPDATE SET {AGAIN}"
    )
}

/// Makes the first late event of each object the one that is tried next, at once if it was not that
/// before.
///
/// The head of each row is looked up in the index. A join would be planned with statistics from
/// before a million rows were inserted, and compare each row with each other one.
async fn choose_all_heads(conn: &mut Session, endpoint: &str) -> Result<(), MirrorError> {
    sql_query(
        "UPDATE clerk.deliveries AS d
         SET next_attempt_at = CASE WHEN d.next_attempt_at IS NULL THEN pg_catalog.now() END
         WHERE d.endpoint = $1 AND d.dead_at IS NULL
           AND (d.next_attempt_at IS NULL) = (d.event_id = (
               SELECT pg_catalog.min(l.event_id) FROM clerk.deliveries AS l
               WHERE l.endpoint = d.endpoint AND l.resource = d.resource AND l.object_id = d.object_id AND l.dead_at IS NULL))",
    )
    .bind::<Text, _>(endpoint)
    .execute(conn)
    .await?;
    Ok(())
}
