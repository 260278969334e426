//! What is shown of endpoints.

use chrono::{DateTime, Utc};
use diesel::{
    prelude::*,
    sql_query,
    sql_types::{BigInt, Double, Integer, Nullable, Text, Timestamptz},
};
use diesel_async::RunQueryDsl;
use serde::Serialize;

use super::Deliveries;
use crate::mirror::MirrorError;

/// How far an endpoint is.
#[derive(Debug, Clone, Serialize, QueryableByName)]
pub struct EndpointStatus {
    /// Its name.
    #[diesel(sql_type = Text)]
    pub name: String,
    /// All events up to this id are delivered, or are late.
    #[diesel(sql_type = BigInt)]
    pub position: i64,
    /// Events that it still has to get, without dead ones.
    #[diesel(sql_type = BigInt)]
    pub waiting: i64,
    /// Of these, the events that are late: they failed, or follow one that failed, or somebody
    /// asked for them again.
    #[diesel(sql_type = BigInt)]
    pub late: i64,
    /// Events whose last attempt failed. They are not tried again.
    #[diesel(sql_type = BigInt)]
    pub dead: i64,
    /// How long ago the oldest event was recorded that it still has to get; 0 without one.
    #[diesel(sql_type = Double)]
    pub lag_seconds: f64,
    /// When it was configured first.
    #[diesel(sql_type = Timestamptz)]
    pub started_at: DateTime<Utc>,
    /// Since when it is paused because it does not work.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub paused_at: Option<DateTime<Utc>>,
    /// When it is tried again, if it is paused.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub next_attempt_at: Option<DateTime<Utc>>,
    /// When an attempt was last made.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub last_attempt_at: Option<DateTime<Utc>>,
    /// Its HTTP status, if there was an answer.
    #[diesel(sql_type = Nullable<Integer>)]
    pub last_status: Option<i32>,
    /// Why it failed, if it failed.
    #[diesel(sql_type = Nullable<Text>)]
    pub last_error: Option<String>,
    /// When an event was last delivered.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub delivered_at: Option<DateTime<Utc>>,
}

/// An event whose last attempt failed.
#[derive(Debug, Clone, Serialize, QueryableByName)]
pub struct DeadEvent {
    /// The event's id; 0 for a `created` event that is made from the mirror's row.
    #[diesel(sql_type = BigInt)]
    pub event_id: i64,
    /// The id of the object that it is about.
    #[diesel(sql_type = Text)]
    pub object_id: String,
    /// When the last attempt failed.
    #[diesel(sql_type = Timestamptz)]
    pub dead_at: DateTime<Utc>,
    /// Its HTTP status, if there was an answer.
    #[diesel(sql_type = Nullable<Integer>)]
    pub last_status: Option<i32>,
    /// Why it failed.
    #[diesel(sql_type = Nullable<Text>)]
    pub last_error: Option<String>,
}

impl Deliveries {
    /// Returns how far the configured endpoints are, in the order of their names.
    pub async fn status(&self) -> Result<Vec<EndpointStatus>, MirrorError> {
        Ok(sql_query(
            "SELECT p.name, p.position, coalesce(fresh.events, 0::bigint) + coalesce(late.events, 0::bigint) AS waiting,
                    coalesce(late.events, 0::bigint) AS late, coalesce(late.dead, 0::bigint) AS dead,
                    greatest(extract(epoch FROM pg_catalog.now() - least(fresh.oldest, late.oldest)), 0::numeric)::double precision AS lag_seconds,
                    p.started_at, p.paused_at, p.next_attempt_at, p.last_attempt_at, p.last_status, p.last_error, p.delivered_at
             FROM clerk.endpoints AS p
             CROSS JOIN LATERAL (SELECT pg_catalog.count(*) AS events, pg_catalog.min(e.recorded_at) AS oldest FROM clerk.events AS e
                                 WHERE e.id > p.position AND e.type = ANY (p.types)) AS fresh
             CROSS JOIN LATERAL (SELECT pg_catalog.count(*) FILTER (WHERE d.dead_at IS NULL) AS events,
                                        pg_catalog.count(*) FILTER (WHERE d.dead_at IS NOT NULL) AS dead,
                                        pg_catalog.min(e.recorded_at) FILTER (WHERE d.dead_at IS NULL) AS oldest
                                 FROM clerk.deliveries AS d LEFT JOIN clerk.events AS e ON e.id = d.event_id
                                 WHERE d.endpoint = p.name) AS late
             WHERE p.removed_at IS NULL ORDER BY p.name",
        )
        .load(&mut self.0.connection().await?)
        .await?)
    }

    /// Returns the dead events of an endpoint, the latest first, at most `limit`.
    pub async fn dead(&self, endpoint: &str, limit: i64) -> Result<Vec<DeadEvent>, MirrorError> {
        Ok(sql_query(
            "SELECT event_id, object_id, dead_at, last_status, last_error FROM clerk.deliveries
             WHERE endpoint = $1 AND dead_at IS NOT NULL ORDER BY dead_at DESC, event_id DESC, object_id LIMIT $2",
        )
        .bind::<Text, _>(endpoint)
        .bind::<BigInt, _>(limit)
        .load(&mut self.0.connection().await?)
        .await?)
    }
}
