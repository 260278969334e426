//! Delivers events once more.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::{
    sql_query,
    sql_types::{Array, BigInt, Double, Text, Timestamptz},
};
use diesel_async::{AsyncConnection, RunQueryDsl};

use super::{
    Deliveries, FROM_MIRROR, all_objects,
    fencing::{MOST_TIME_FOR_ALL, begin},
};
use crate::{
    mirror::{MirrorError, locks::USUAL_WAIT, session::Session},
    resource::RESOURCES,
};

/// What is delivered once more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redelivery {
    /// Events whose last attempt failed. Somebody has repaired what receives them, so that late
    /// events are tried at once, too.
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
    next_attempt_at = CASE WHEN d.next_attempt_at IS NOT NULL THEN '-infinity'::timestamptz END";

impl Deliveries {
    /// Marks events as late, so that the leader delivers them again. Returns how many; `None` if
    /// there is no such endpoint. Events that the endpoint has not got yet are left out, because it
    /// gets them anyway.
    pub async fn redeliver(&self, endpoint: &str, what: &Redelivery) -> Result<Option<u64>, MirrorError> {
        let mut conn = self.0.connection().await?;
        conn.transaction(async |conn| {
            begin(conn, USUAL_WAIT, MOST_TIME_FOR_ALL).await?;
            if !lock(conn, endpoint).await? {
                return Ok(None);
            }
            let rows = match what {
                Redelivery::Dead => {
                    hasten_all(conn, endpoint).await?;
                    revive(conn, endpoint).await?
                }
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
                Redelivery::Everything => repeat_everything(conn, endpoint).await?,
            };
            choose_all_heads(conn, endpoint).await?;
            Ok(Some(rows as u64))
        })
        .await
    }
}

/// Lets dead events be tried again that the endpoint still gets.
async fn revive(conn: &mut Session, endpoint: &str) -> Result<usize, MirrorError> {
    let types =
        RESOURCES.map(|resource| format!("WHEN '{}'::text THEN '{}.created'::text", resource.name, resource.event));
    Ok(sql_query(format!(
        "UPDATE clerk.deliveries AS d SET {AGAIN} FROM clerk.endpoints AS p
         WHERE p.name = $1 AND d.endpoint = $1 AND d.dead_at IS NOT NULL
           AND CASE d.event_id WHEN {FROM_MIRROR}::bigint THEN CASE d.resource {types} END
               ELSE (SELECT e.type FROM clerk.events AS e WHERE e.id = d.event_id) END = ANY (p.types)",
        types = types.join(" ")
    ))
    .bind::<Text, _>(endpoint)
    .execute(conn)
    .await?)
}

async fn repeat_everything(conn: &mut Session, endpoint: &str) -> Result<usize, MirrorError> {
    Ok(sql_query(format!(
        "INSERT INTO clerk.deliveries AS d (endpoint, resource, object_id, event_id)
         SELECT p.name, o.resource, o.id, {FROM_MIRROR}::bigint FROM {objects} AS o JOIN clerk.endpoints AS p ON p.name = $1
         WHERE o.type = ANY (p.types)
         ON CONFLICT (endpoint, resource, object_id, event_id) DO UPDATE SET {AGAIN}",
        objects = all_objects()
    ))
    .bind::<Text, _>(endpoint)
    .execute(conn)
    .await?)
}

/// Locks an endpoint against the leader's notes, which write the same rows in another order, and lets
/// the leader begin again from there. Otherwise events that it has in memory, or that it has
/// delivered and not noted, would come before older ones that are delivered again. Returns whether
/// there is such an endpoint.
async fn lock(conn: &mut Session, endpoint: &str) -> Result<bool, MirrorError> {
    let rows = sql_query(
        "UPDATE clerk.endpoints SET redeliveries = redeliveries + 1::bigint WHERE name = $1 AND removed_at IS NULL",
    )
    .bind::<Text, _>(endpoint)
    .execute(conn)
    .await?;
    Ok(rows == 1)
}

/// Makes all late events due that wait for the time of their next attempt.
async fn hasten_all(conn: &mut Session, endpoint: &str) -> Result<(), MirrorError> {
    sql_query(
        "UPDATE clerk.deliveries SET next_attempt_at = '-infinity'::timestamptz
         WHERE endpoint = $1 AND next_attempt_at > pg_catalog.now()",
    )
    .bind::<Text, _>(endpoint)
    .execute(conn)
    .await?;
    Ok(())
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
         SET next_attempt_at = CASE WHEN d.next_attempt_at IS NULL THEN '-infinity'::timestamptz END
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
