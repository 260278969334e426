//! Notes what was delivered and what is late.

use std::{collections::BTreeSet, time::Duration};

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{Array, BigInt, Bool, Double, Integer, Nullable, Text},
};
use diesel_async::{AsyncConnection, RunQueryDsl};

use super::{
    Deliveries, EventObject,
    fencing::{begin, require_leader},
};
use crate::mirror::{MirrorError, session::Session};

/// How long a note waits for a lock. A redelivery of many events holds one for longer, and all
/// endpoints share a connection.
const LOCK_WAIT: Duration = Duration::from_millis(500);

/// How long a statement of a note may take.
const MOST_TIME: Duration = Duration::from_mins(1);

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

/// The first late event of each object that a note is about.
const HEADS: &str = "heads AS MATERIALIZED (
        SELECT t.resource, t.object_id, head.event_id FROM unnest($2, $3) AS t(resource, object_id)
        CROSS JOIN LATERAL (SELECT l.event_id FROM clerk.deliveries AS l
                            WHERE l.endpoint = $1 AND l.resource = t.resource AND l.object_id = t.object_id
                              AND l.dead_at IS NULL
                            ORDER BY l.event_id LIMIT 1) AS head)";

/// What became of a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    /// It is stored.
    Stored,
    /// Nothing is stored: somebody has redelivered events. What was read before may have to follow
    /// these, so that the work begins again.
    Redelivered(Standing),
}

/// How far an endpoint is noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, QueryableByName)]
pub struct Standing {
    /// All events up to this id are delivered or late.
    #[diesel(sql_type = BigInt)]
    pub position: i64,
    /// How often somebody has redelivered events.
    #[diesel(sql_type = BigInt)]
    pub redeliveries: i64,
}

impl Deliveries {
    /// Notes the progress of an endpoint. `redeliveries` is what its [`Standing`] was when the
    /// events were read.
    ///
    /// # Errors
    /// [`MirrorError::LeaseLost`] if `holder` does not lead, or the endpoint was removed.
    pub async fn note(
        &self,
        holder: &str,
        endpoint: &str,
        redeliveries: i64,
        progress: &DeliveryProgress,
    ) -> Result<Noted, MirrorError> {
        let mut conn = self.0.connection().await?;
        conn.transaction(async |conn| {
            begin(conn, LOCK_WAIT, MOST_TIME).await?;
            let is_stored = note_endpoint(conn, endpoint, redeliveries, progress).await?;
            require_leader(conn, holder).await?;
            if !is_stored {
                return Ok(Noted::Redelivered(standing(conn, endpoint).await?));
            }
            insert_blocked(conn, endpoint, &progress.blocked).await?;
            store_failed(conn, endpoint, &progress.failed).await?;
            delete_done(conn, endpoint, &progress.done).await?;
            let failed = progress.failed.iter().map(|failed| &failed.object);
            let others = progress.blocked.iter().chain(&progress.done).map(|(object, _)| object);
            let touched: BTreeSet<&EventObject> = failed.chain(others).collect();
            choose_heads(conn, endpoint, &touched).await?;
            Ok(Noted::Stored)
        })
        .await
    }

    /// Returns how far an endpoint is noted. If its `redeliveries` have not changed, nothing that
    /// was read before this was redelivered in the meantime.
    ///
    /// # Errors
    /// [`MirrorError::LeaseLost`] if the endpoint was removed.
    pub async fn standing(&self, endpoint: &str) -> Result<Standing, MirrorError> {
        standing(&mut *self.0.connection().await?, endpoint).await
    }
}

async fn standing(conn: &mut Session, endpoint: &str) -> Result<Standing, MirrorError> {
    let standing: Option<Standing> =
        sql_query("SELECT position, redeliveries FROM clerk.endpoints WHERE name = $1 AND removed_at IS NULL")
            .bind::<Text, _>(endpoint)
            .get_result(conn)
            .await
            .optional()?;
    standing.ok_or(MirrorError::LeaseLost)
}

/// Moves the position, never backwards. Returns false if it wrote nothing, because the endpoint was
/// removed or somebody has redelivered events.
async fn note_endpoint(
    conn: &mut Session,
    endpoint: &str,
    redeliveries: i64,
    progress: &DeliveryProgress,
) -> Result<bool, MirrorError> {
    let last = progress.last.as_ref();
    let rows = sql_query(
        "UPDATE clerk.endpoints SET position = greatest(position, $2),
             last_attempt_at = CASE WHEN $3 THEN greatest(last_attempt_at, pg_catalog.now()) ELSE last_attempt_at END,
             last_status = CASE WHEN $3 THEN $4 ELSE last_status END,
             last_error = CASE WHEN $3 THEN $5 ELSE last_error END,
             delivered_at = CASE WHEN $6 THEN pg_catalog.now() ELSE delivered_at END,
             paused_at = CASE WHEN $7 IS NOT NULL THEN coalesce(paused_at, pg_catalog.now()) END,
             next_attempt_at = pg_catalog.now() + $7 * interval '1 second'
         WHERE name = $1 AND removed_at IS NULL AND redeliveries = $8",
    )
    .bind::<Text, _>(endpoint)
    .bind::<BigInt, _>(progress.position)
    .bind::<Bool, _>(last.is_some())
    .bind::<Nullable<Integer>, _>(last.and_then(|last| last.status).map(i32::from))
    .bind::<Nullable<Text>, _>(last.and_then(|last| last.error.as_deref()))
    .bind::<Bool, _>(last.is_some_and(|last| last.has_delivered))
    .bind::<Nullable<Double>, _>(progress.paused_for.map(|pause| pause.as_secs_f64()))
    .bind::<BigInt, _>(redeliveries)
    .execute(conn)
    .await?;
    Ok(rows == 1)
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

/// Stores attempts that failed. One that did not count leaves an earlier time for the next attempt as
/// it is.
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
        "INSERT INTO clerk.deliveries AS d (endpoint, resource, object_id, event_id, waiting_since, attempts, next_attempt_at, last_attempt_at,
                                       last_status, last_error, dead_at)
         SELECT $1, t.resource, t.object_id, t.event_id, coalesce(e.recorded_at, pg_catalog.now()), attempts,
                pg_catalog.now() + retry * interval '1 second', pg_catalog.now(), status, error,
                CASE WHEN retry IS NULL THEN pg_catalog.now() END
         FROM unnest($2, $3, $4, $5, $6, $7, $8) AS t(resource, object_id, event_id, attempts, retry, status, error)
         LEFT JOIN clerk.events AS e ON e.id = t.event_id
         ON CONFLICT (endpoint, resource, object_id, event_id) DO UPDATE
         SET attempts = excluded.attempts, next_attempt_at = CASE
                 WHEN excluded.attempts = d.attempts AND excluded.dead_at IS NULL THEN least(d.next_attempt_at, excluded.next_attempt_at)
                 ELSE excluded.next_attempt_at END,
             last_attempt_at = excluded.last_attempt_at,
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

/// Makes the first late event of each object the one that is tried next, at once if it was not that
/// before.
///
/// There may be many late events of an object. Both statements read its first one, and those that
/// have a time, which are few. With `>` instead of `<>`, PostgreSQL may read all of them.
async fn choose_heads(conn: &mut Session, endpoint: &str, objects: &BTreeSet<&EventObject>) -> Result<(), MirrorError> {
    if objects.is_empty() {
        return Ok(());
    }
    let resources: Vec<&str> = objects.iter().map(|object| object.resource.as_str()).collect();
    let ids: Vec<&str> = objects.iter().map(|object| object.id.as_str()).collect();
    for change in [
        "SET next_attempt_at = NULL FROM heads
         WHERE d.endpoint = $1 AND d.resource = heads.resource AND d.object_id = heads.object_id
           AND d.event_id <> heads.event_id AND d.next_attempt_at IS NOT NULL",
        "SET next_attempt_at = '-infinity'::timestamptz FROM heads
         WHERE d.endpoint = $1 AND d.resource = heads.resource AND d.object_id = heads.object_id
           AND d.event_id = heads.event_id AND d.next_attempt_at IS NULL",
    ] {
        sql_query(format!("WITH {HEADS} UPDATE clerk.deliveries AS d {change}"))
            .bind::<Text, _>(endpoint)
            .bind::<Array<Text>, _>(&resources)
            .bind::<Array<Text>, _>(&ids)
            .execute(conn)
            .await?;
    }
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
