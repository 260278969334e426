//! Notes what was delivered and what is late.

use std::{collections::BTreeSet, time::Duration};

use diesel::{
    sql_query,
    sql_types::{Array, BigInt, Bool, Double, Integer, Nullable, Text},
};
use diesel_async::{AsyncConnection, RunQueryDsl};

use super::{Deliveries, EventObject, fencing::begin};
use crate::mirror::{MirrorError, session::Session};

/// How long a note waits for a lock. A redelivery of many events holds one for longer.
const LOCK_WAIT: Duration = Duration::from_millis(500);

/// What happened to an endpoint's events since it was noted last.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeliveryProgress {
    /// All events up to this id are delivered, or are late.
    pub position: i64,
    /// Events that have become late without an attempt, because they follow a late event of their
    /// object.
    pub blocked: Vec<(EventObject, i64)>,
    /// Attempts that failed.
    pub failed: Vec<FailedDelivery>,
    /// Late events that need no further attempt.
    pub done: Vec<(EventObject, i64)>,
    /// The last attempt.
    pub last: Option<LastAttempt>,
    /// After how long a paused endpoint is tried again; `None` if it is not paused.
    pub paused_for: Option<Duration>,
    /// If an endpoint resumes: all heads that were last tried within this time are due, unless they
    /// had failed before. Otherwise an object that is always refused would use up its attempts
    /// within minutes, whenever its failures pause the endpoint and another object's success
    /// resumes it.
    pub hastens: Option<Duration>,
}

/// An attempt that failed.
#[derive(Debug, Clone, PartialEq)]
pub struct FailedDelivery {
    /// What the event is about.
    pub object: EventObject,
    /// The event's id.
    pub event_id: i64,
    /// How often it was tried.
    pub attempts: u32,
    /// When it is tried again; `None` if it is dead.
    pub retry_in: Option<Duration>,
    /// HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// Why it failed.
    pub error: String,
}

/// How the last attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub struct LastAttempt {
    /// HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// Why it failed; `None` if it succeeded.
    pub error: Option<String>,
    /// Whether any attempt succeeded since the progress was noted last.
    pub has_delivered: bool,
}

impl Deliveries {
    /// Notes the progress of an endpoint.
    ///
    /// # Errors
    /// [`MirrorError::LeaseLost`] if `holder` does not lead, or the endpoint was removed.
    pub async fn note(&self, holder: &str, endpoint: &str, progress: &DeliveryProgress) -> Result<(), MirrorError> {
        let mut conn = self.0.connection().await?;
        conn.transaction(async |conn| {
            begin(conn, Some(LOCK_WAIT)).await?;
            note_endpoint(conn, holder, endpoint, progress).await?;
            insert_blocked(conn, endpoint, &progress.blocked).await?;
            store_failed(conn, endpoint, &progress.failed).await?;
            delete_done(conn, endpoint, &progress.done).await?;
            let failed = progress.failed.iter().map(|failed| &failed.object);
            let others = progress.blocked.iter().chain(&progress.done).map(|(object, _)| object);
            let touched: BTreeSet<&EventObject> = failed.chain(others).collect();
            choose_heads(conn, endpoint, &touched).await?;
            if let Some(within) = progress.hastens {
                hasten(conn, endpoint, within).await?;
            }
            Ok(())
        })
        .await
    }
}

/// Moves the position, never backwards.
async fn note_endpoint(
    conn: &mut Session,
    holder: &str,
    endpoint: &str,
    progress: &DeliveryProgress,
) -> Result<(), MirrorError> {
    let last = progress.last.as_ref();
    let rows = sql_query(
        "UPDATE clerk.endpoints SET position = greatest(position, $3),
             last_attempt_at = CASE WHEN $4 THEN pg_catalog.now() ELSE last_attempt_at END,
             last_status = CASE WHEN $4 THEN $5 ELSE last_status END,
             last_error = CASE WHEN $4 THEN $6 ELSE last_error END,
             delivered_at = CASE WHEN $7 THEN pg_catalog.now() ELSE delivered_at END,
             paused_at = CASE WHEN $8 IS NOT NULL THEN coalesce(paused_at, pg_catalog.now()) END,
             next_attempt_at = pg_catalog.now() + $8 * interval '1 second'
         WHERE name = $1 AND removed_at IS NULL AND EXISTS (SELECT FROM clerk.leader WHERE holder = $2)",
    )
    .bind::<Text, _>(endpoint)
    .bind::<Text, _>(holder)
    .bind::<BigInt, _>(progress.position)
    .bind::<Bool, _>(last.is_some())
    .bind::<Nullable<Integer>, _>(last.and_then(|last| last.status).map(i32::from))
    .bind::<Nullable<Text>, _>(last.and_then(|last| last.error.as_deref()))
    .bind::<Bool, _>(last.is_some_and(|last| last.has_delivered))
    .bind::<Nullable<Double>, _>(progress.paused_for.map(|pause| pause.as_secs_f64()))
    .execute(conn)
    .await?;
    match rows {
        0 => Err(MirrorError::LeaseLost),
        _ => Ok(()),
    }
}

async fn insert_blocked(conn: &mut Session, endpoint: &str, blocked: &[(EventObject, i64)]) -> Result<(), MirrorError> {
    if blocked.is_empty() {
        return Ok(());
    }
    let (resources, ids, events) = columns(blocked);
    sql_query(
        "INSERT INTO clerk.deliveries (endpoint, resource, object_id, event_id, waiting_since)
         SELECT $1, t.resource, t.object_id, t.event_id, coalesce(e.recorded_at, pg_catalog.now())
         FROM unnest($2, $3, $4) AS t(resource, object_id, event_id) LEFT JOIN clerk.events AS e ON e.id = t.event_id
         ON CONFLICT (endpoint, resource, object_id, event_id) DO NOTHING",
    )
    .bind::<Text, _>(endpoint)
    .bind::<Array<Text>, _>(resources)
    .bind::<Array<Text>, _>(ids)
    .bind::<Array<BigInt>, _>(events)
    .execute(conn)
    .await?;
    Ok(())
}

async fn store_failed(conn: &mut Session, endpoint: &str, failed: &[FailedDelivery]) -> Result<(), MirrorError> {
    if failed.is_empty() {
        return Ok(());
    }
    let attempts: Vec<i32> = failed
        .iter()
        .map(|failed| i32::try_from(failed.attempts).unwrap_or(i32::MAX))
        .collect();
    let retries: Vec<Option<f64>> = failed
        .iter()
        .map(|failed| failed.retry_in.map(|retry| retry.as_secs_f64()))
        .collect();
    let statuses: Vec<Option<i32>> = failed.iter().map(|failed| failed.status.map(i32::from)).collect();
    let errors: Vec<&str> = failed.iter().map(|failed| failed.error.as_str()).collect();
    sql_query(
        "INSERT INTO clerk.deliveries (endpoint, resource, object_id, event_id, waiting_since, attempts, next_attempt_at, last_attempt_at,
                                       last_status, last_error, dead_at)
         SELECT $1, t.resource, t.object_id, t.event_id, coalesce(e.recorded_at, pg_catalog.now()), attempts,
                pg_catalog.now() + retry * interval '1 second', pg_catalog.now(), status, error,
                CASE WHEN retry IS NULL THEN pg_catalog.now() END
         FROM unnest($2, $3, $4, $5, $6, $7, $8) AS t(resource, object_id, event_id, attempts, retry, status, error)
         LEFT JOIN clerk.events AS e ON e.id = t.event_id
         ON CONFLICT (endpoint, resource, object_id, event_id) DO UPDATE
         SET attempts = excluded.attempts, next_attempt_at = excluded.next_attempt_at, last_attempt_at = excluded.last_attempt_at,
             last_status = excluded.last_status, last_error = excluded.last_error, dead_at = excluded.dead_at",
    )
    .bind::<Text, _>(endpoint)
    .bind::<Array<Text>, _>(failed.iter().map(|failed| failed.object.resource.as_str()).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(failed.iter().map(|failed| failed.object.id.as_str()).collect::<Vec<_>>())
    .bind::<Array<BigInt>, _>(failed.iter().map(|failed| failed.event_id).collect::<Vec<_>>())
    .bind::<Array<Integer>, _>(attempts)
    .bind::<Array<Nullable<Double>>, _>(retries)
    .bind::<Array<Nullable<Integer>>, _>(statuses)
    .bind::<Array<Text>, _>(errors)
    .execute(conn)
    .await?;
    Ok(())
}

async fn delete_done(conn: &mut Session, endpoint: &str, done: &[(EventObject, i64)]) -> Result<(), MirrorError> {
    if done.is_empty() {
        return Ok(());
    }
    let (resources, ids, events) = columns(done);
    sql_query(
        "DELETE FROM clerk.deliveries AS d USING unnest($2, $3, $4) AS t(resource, object_id, event_id)
         WHERE d.endpoint = $1 AND d.resource = t.resource AND d.object_id = t.object_id AND d.event_id = t.event_id",
    )
    .bind::<Text, _>(endpoint)
    .bind::<Array<Text>, _>(resources)
    .bind::<Array<Text>, _>(ids)
    .bind::<Array<BigInt>, _>(events)
    .execute(conn)
    .await?;
    Ok(())
}

/// Makes the first late event of each object the one that is tried next.
async fn choose_heads(conn: &mut Session, endpoint: &str, objects: &BTreeSet<&EventObject>) -> Result<(), MirrorError> {
    if objects.is_empty() {
        return Ok(());
    }
    sql_query(
        "UPDATE clerk.deliveries AS d
         SET next_attempt_at = CASE WHEN d.event_id = head.event_id THEN pg_catalog.now() END
         FROM unnest($2, $3) AS t(resource, object_id)
         CROSS JOIN LATERAL (SELECT pg_catalog.min(l.event_id) AS event_id FROM clerk.deliveries AS l
                             WHERE l.endpoint = $1 AND l.resource = t.resource AND l.object_id = t.object_id
                               AND l.dead_at IS NULL) AS head
         WHERE d.endpoint = $1 AND d.resource = t.resource AND d.object_id = t.object_id AND d.dead_at IS NULL
           AND (d.event_id = head.event_id) = (d.next_attempt_at IS NULL)",
    )
    .bind::<Text, _>(endpoint)
    .bind::<Array<Text>, _>(
        objects
            .iter()
            .map(|object| object.resource.as_str())
            .collect::<Vec<_>>(),
    )
    .bind::<Array<Text>, _>(objects.iter().map(|object| object.id.as_str()).collect::<Vec<_>>())
    .execute(conn)
    .await?;
    Ok(())
}

/// Makes all heads due that were tried for the first time within a time.
async fn hasten(conn: &mut Session, endpoint: &str, within: Duration) -> Result<(), MirrorError> {
    sql_query(
        "UPDATE clerk.deliveries SET next_attempt_at = pg_catalog.now()
         WHERE endpoint = $1 AND next_attempt_at > pg_catalog.now() AND attempts <= 1
           AND last_attempt_at >= pg_catalog.now() - $2 * interval '1 second'",
    )
    .bind::<Text, _>(endpoint)
    .bind::<Double, _>(within.as_secs_f64())
    .execute(conn)
    .await?;
    Ok(())
}

/// Returns events as columns.
fn columns(events: &[(EventObject, i64)]) -> (Vec<&str>, Vec<&str>, Vec<i64>) {
    let objects = || events.iter().map(|(object, _)| object);
    (
        objects().map(|object| object.resource.as_str()).collect(),
        objects().map(|object| object.id.as_str()).collect(),
        events.iter().map(|(_, id)| *id).collect(),
    )
}
