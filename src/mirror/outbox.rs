//! `clerk.events`: what changed, in the form of Clerk's own webhook events, written in the
//! transaction that changed it.
//!
//! Every transaction that writes events locks the lease's row until its end, so that ids are given
//! and committed in the same order.

use std::time::Duration;

use chrono::Utc;
use diesel::{
    QueryResult, QueryableByName, sql_query,
    sql_types::{Array, BigInt, Double, Nullable, Text, Timestamptz},
};
use diesel_async::{AsyncConnection, RunQueryDsl};
use tokio::sync::watch;

use super::{
    Lease, MirrorError, Write, convert::timestamp, delivery, pool::ConnectionPool, session::Session, transaction,
};
use crate::resource::{FieldValue, Resource};

/// Events that are looked at per transaction, and removed if no endpoint waits for them.
const PRUNED_AT_ONCE: i64 = 1_000;

/// How many such transactions there may be for a batch that is to be removed.
const PAGES_PER_BATCH: u32 = 5;

/// What happened to an object that was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EventKind {
    Created,
    Updated,
}

impl EventKind {
    fn name(self) -> &'static str {
        match self {
            EventKind::Created => "created",
            EventKind::Updated => "updated",
        }
    }
}

/// Inserts events for objects that were stored.
pub(super) async fn stored(
    conn: &mut Session,
    resource: &Resource,
    changes: &[(EventKind, &Write<'_>)],
) -> QueryResult<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let writes = || changes.iter().map(|(_, write)| write);
    let types: Vec<_> = changes
        .iter()
        .map(|(kind, write)| format!("{}.{}", resource.event, what_happened(resource, *kind, write)))
        .collect();
    let ids: Vec<_> = writes().map(|write| write.record.id.as_ref()).collect();
    let times: Vec<_> = changes
        .iter()
        .map(|(kind, write)| happened_at(*kind, write).map(timestamp))
        .collect();
    let changed: Vec<_> = changes
        .iter()
        .map(|(kind, write)| match kind {
            EventKind::Created => "[]".to_owned(),
            EventKind::Updated => serde_json::Value::from(write.changed.clone()).to_string(),
        })
        .collect();
    let documents: Vec<_> = writes()
        .map(|write| write.record.storable.as_deref().unwrap_or(write.document))
        .collect();
    // The oldest first, as webhooks would have sent them.
    sql_query(
        "INSERT INTO clerk.events (resource, type, object_id, occurred_at, changed, payload)
         SELECT $6, type, object_id, coalesce(at, pg_catalog.now()), ARRAY(SELECT pg_catalog.jsonb_array_elements_text(changed::jsonb)),
                pg_catalog.jsonb_build_object('object', 'event', 'type', type, 'instance_id', instance_id, 'data', document::jsonb,
                    'timestamp', (extract(epoch FROM coalesce(at, pg_catalog.now())) * 1000::numeric)::bigint)
         FROM unnest($1, $2, $3, $4, $5) AS t(type, object_id, at, changed, document), clerk.sync_state
         ORDER BY coalesce(at, pg_catalog.now()), object_id",
    )
    .bind::<Array<Text>, _>(types)
    .bind::<Array<Text>, _>(ids)
    .bind::<Array<Nullable<Timestamptz>>, _>(times)
    .bind::<Array<Text>, _>(changed)
    .bind::<Array<Text>, _>(documents)
    .bind::<Text, _>(resource.name)
    .execute(conn)
    .await?;
    notify(conn, resource).await
}

/// Returns the part of an event's type behind the dot.
fn what_happened<'w>(resource: &Resource, kind: EventKind, write: &'w Write<'_>) -> &'w str {
    let has_moved = kind == EventKind::Updated && write.changed.iter().any(|field| field == "status");
    match write.record.get("status") {
        Some(FieldValue::Text(status)) if has_moved && resource.status_events.contains(&status.as_ref()) => status,
        _ => kind.name(),
    }
}

/// Returns when a change happened, in Unix milliseconds, if the document says it. A ban, for
/// example, does not change `updated_at`.
fn happened_at(kind: EventKind, write: &Write<'_>) -> Option<i64> {
    let moved = kind == EventKind::Created || write.changed.iter().any(|field| field == "updated_at");
    match write.record.get("updated_at") {
        Some(FieldValue::Time(at)) if moved => Some(*at),
        _ => None,
    }
}

/// Inserts events for objects that are gone: their ids, with what the events tell as JSON. They have
/// the current time: when the objects were deleted is not known.
pub(super) async fn deleted(conn: &mut Session, resource: &Resource, gone: &[(String, String)]) -> QueryResult<()> {
    if gone.is_empty() {
        return Ok(());
    }
    let (ids, data): (Vec<_>, Vec<_>) = gone.iter().map(|(id, data)| (id, data)).unzip();
    sql_query(
        "INSERT INTO clerk.events (resource, type, object_id, occurred_at, payload)
         SELECT $3, $4 || '.deleted'::text, object_id, pg_catalog.now(),
                pg_catalog.jsonb_build_object('object', 'event', 'type', $4 || '.deleted'::text, 'instance_id', instance_id,
                    'timestamp', (extract(epoch FROM pg_catalog.now()) * 1000::numeric)::bigint, 'data', data::jsonb)
         FROM unnest($1, $2) AS t(object_id, data), clerk.sync_state ORDER BY object_id",
    )
    .bind::<Array<Text>, _>(ids)
    .bind::<Array<Text>, _>(data)
    .bind::<Text, _>(resource.name)
    .bind::<Text, _>(resource.event)
    .execute(conn)
    .await?;
    notify(conn, resource).await
}

/// Sends one notification per channel and transaction, with the last id. Postgres sends a
/// notification that repeats within a transaction only once.
async fn notify(conn: &mut Session, resource: &Resource) -> QueryResult<()> {
    sql_query(
        "SELECT pg_catalog.pg_notify('clerk_events', last), pg_catalog.pg_notify('clerk_'::text || $1 || '_events'::text, last)
         FROM (SELECT pg_catalog.max(id)::text AS last FROM clerk.events) AS events",
    )
    .bind::<Text, _>(resource.event)
    .execute(conn)
    .await
    .map(drop)
}

/// The events of changes, for the application to read.
#[derive(Debug, Clone)]
pub struct Outbox(pub(super) ConnectionPool);

impl Outbox {
    /// Returns a receiver that changes when events were committed over this pool of connections.
    pub fn committed(&self) -> watch::Receiver<()> {
        self.0.events.subscribe()
    }

    /// Removes events older than `keep`, at most `batches` of a thousand, each in a transaction of
    /// its own. Events that an endpoint waits for stay, and dead ones until `keep` after their last
    /// attempt. Returns how many were removed.
    pub async fn prune(&self, lease: &Lease, keep: Duration, batches: u32) -> Result<u64, MirrorError> {
        let mut conn = self.0.connection().await?;
        let (mut pruned, mut after) = (0, 0);
        // Pages that are all waited for take little time, but not none.
        for _ in 0..batches.saturating_mul(PAGES_PER_BATCH) {
            let page = conn
                .transaction(async |conn| {
                    transaction::begin(conn, lease).await?;
                    prune_page(conn, keep, after).await
                })
                .await?;
            pruned += page.pruned;
            match page.last {
                Some(last) if page.expired == PRUNED_AT_ONCE && pruned < i64::from(batches) * PRUNED_AT_ONCE => {
                    after = last
                }
                _ => break,
            }
        }
        for _ in 0..batches {
            let rows = conn
                .transaction(async |conn| {
                    transaction::begin(conn, lease).await?;
                    delivery::prune_deliveries(conn, keep).await
                })
                .await?;
            if rows == 0 {
                break;
            }
        }
        Ok(pruned.unsigned_abs())
    }
}

/// A page of the oldest events.
#[derive(QueryableByName)]
struct PrunedPage {
    /// How many of them are older than is kept.
    #[diesel(sql_type = BigInt)]
    expired: i64,
    /// How many of these were removed: no endpoint waits for them.
    #[diesel(sql_type = BigInt)]
    pruned: i64,
    /// The last one that is older than is kept.
    #[diesel(sql_type = Nullable<BigInt>)]
    last: Option<i64>,
}

/// Removes those of the first thousand events after an id that are older than `keep`.
async fn prune_page(conn: &mut Session, keep: Duration, after: i64) -> Result<PrunedPage, MirrorError> {
    // Older events have smaller ids, so the first ones show whether there is anything to remove. A
    // clock that has jumped ahead, ours or the database's, must not make anything old. The writers
    // wait meanwhile: OFFSET makes PostgreSQL look up each event in the index, whatever it knows
    // about the tables.
    Ok(sql_query(
        "WITH page AS MATERIALIZED (
             SELECT id, recorded_at < least(pg_catalog.now(), $4) - $1 * interval '1 second' AS is_expired FROM clerk.events
             WHERE id > $2 AND id <= coalesce((SELECT pg_catalog.min(position) FROM clerk.endpoints WHERE removed_at IS NULL),
                                              9223372036854775807::bigint)
             ORDER BY id LIMIT $3),
         gone AS (
             DELETE FROM clerk.events WHERE id = ANY (ARRAY(
                 SELECT id FROM page
                 WHERE is_expired AND NOT EXISTS (
                     SELECT FROM clerk.deliveries AS d JOIN clerk.endpoints AS p ON p.name = d.endpoint
                     WHERE d.event_id = page.id AND d.event_id > 0::bigint AND p.removed_at IS NULL
                       AND (d.dead_at IS NULL OR d.dead_at >= least(pg_catalog.now(), $4) - $1 * interval '1 second') OFFSET 0)))
             RETURNING id)
         SELECT (SELECT pg_catalog.count(*) FROM page WHERE is_expired) AS expired, (SELECT pg_catalog.count(*) FROM gone) AS pruned,
                (SELECT pg_catalog.max(id) FROM page WHERE is_expired) AS last",
    )
    .bind::<Double, _>(keep.as_secs_f64())
    .bind::<BigInt, _>(after)
    .bind::<BigInt, _>(PRUNED_AT_ONCE)
    .bind::<Timestamptz, _>(Utc::now())
    .get_result(conn)
    .await?)
}
