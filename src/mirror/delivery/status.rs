//! What is shown of endpoints.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::{
    prelude::*,
    sql_query,
    sql_types::{BigInt, Bool, Double, Integer, Nullable, Text, Timestamptz},
};
use diesel_async::RunQueryDsl;
use serde::Serialize;

use super::Deliveries;
use crate::mirror::MirrorError;

/// Events after an endpoint's position that are looked at. If there are more, their number is
/// estimated: counting millions of them would read as many documents.
const MAX_COUNTED: i64 = 10_000;

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
    /// Whether that number is an estimate.
    #[diesel(sql_type = Bool)]
    pub is_estimate: bool,
    /// Of these, the events that are late: they failed, or follow one that failed, or somebody
    /// asked for them again.
    #[diesel(sql_type = BigInt)]
    pub late: i64,
    /// Events whose last attempt failed. They are not tried again.
    #[diesel(sql_type = BigInt)]
    pub dead: i64,
    /// For how long the oldest event has been waiting: since it was recorded, or since somebody
    /// asked for it again. 0 if none waits.
    #[diesel(sql_type = Double)]
    pub lag_seconds: f64,
    /// When a daemon met it first.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub started_at: Option<DateTime<Utc>>,
    /// When a daemon noticed that it is not configured any more.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub removed_at: Option<DateTime<Utc>>,
    /// Since when it is paused: it does not work, or has asked for a pause.
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
    /// The database's clock, which all ages are measured by.
    #[diesel(sql_type = Timestamptz)]
    #[serde(skip)]
    pub now: DateTime<Utc>,
}

impl EndpointStatus {
    /// The status of an endpoint that is not in the database.
    pub fn unknown(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            position: 0,
            waiting: 0,
            is_estimate: false,
            late: 0,
            dead: 0,
            lag_seconds: 0.0,
            started_at: None,
            removed_at: None,
            paused_at: None,
            next_attempt_at: None,
            last_attempt_at: None,
            last_status: None,
            last_error: None,
            delivered_at: None,
            now: Utc::now(),
        }
    }

    /// For how long the oldest event has been waiting.
    pub fn lag(&self) -> TimeDelta {
        // It is finite, and far less than the maximum.
        TimeDelta::milliseconds((self.lag_seconds * 1000.0) as i64)
    }
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
    /// Returns how far each endpoint is that is in the database, in the order of their names. For
    /// endpoints that are not configured any more, nothing is counted.
    ///
    /// It reads 10,000 events for each endpoint, and all rows of late and dead events once.
    pub async fn status(&self) -> Result<Vec<EndpointStatus>, MirrorError> {
        Ok(sql_query(
            "SELECT p.name, p.position, coalesce(late.events, 0::bigint) + ahead.events + ahead.beyond AS waiting,
                    ahead.beyond > 0::bigint AS is_estimate, coalesce(late.events, 0::bigint) AS late, coalesce(late.dead, 0::bigint) AS dead,
                    greatest(extract(epoch FROM pg_catalog.now() - least(ahead.oldest, late.oldest)), 0::numeric)::double precision AS lag_seconds,
                    p.started_at, p.removed_at, p.paused_at, p.next_attempt_at, p.last_attempt_at, p.last_status, p.last_error, p.delivered_at,
                    pg_catalog.now() AS now
             FROM clerk.endpoints AS p
             CROSS JOIN LATERAL (
                 SELECT n.events, n.oldest, coalesce((newest.id - n.last) * n.events / nullif(n.found, 0::bigint), 0::bigint) AS beyond
                 FROM (SELECT pg_catalog.count(*) AS found, pg_catalog.max(e.id) AS last,
                              pg_catalog.count(*) FILTER (WHERE e.type = ANY (p.types)) AS events,
                              pg_catalog.min(e.recorded_at) FILTER (WHERE e.type = ANY (p.types)) AS oldest
                       FROM (SELECT id, type, recorded_at FROM clerk.events
                             WHERE id > p.position AND p.removed_at IS NULL ORDER BY id LIMIT $1) AS e) AS n
                 CROSS JOIN (SELECT pg_catalog.max(id) AS id FROM clerk.events) AS newest) AS ahead
             LEFT JOIN (
                 SELECT endpoint, pg_catalog.count(*) FILTER (WHERE dead_at IS NULL) AS events, pg_catalog.count(dead_at) AS dead,
                        pg_catalog.min(waiting_since) FILTER (WHERE dead_at IS NULL) AS oldest
                 FROM clerk.deliveries GROUP BY endpoint) AS late ON late.endpoint = p.name AND p.removed_at IS NULL
             ORDER BY p.name",
        )
        .bind::<BigInt, _>(MAX_COUNTED)
        .load(&mut self.0.connection().await?)
        .await?)
    }

    /// Returns the same without endpoints that are not configured any more.
    pub async fn active(&self) -> Result<Vec<EndpointStatus>, MirrorError> {
        let mut all = self.status().await?;
        all.retain(|endpoint| endpoint.removed_at.is_none());
        Ok(all)
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
