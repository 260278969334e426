//! Reads the events that an endpoint still has to get.

use std::time::Duration;

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{Array, BigInt, Bool, Double, Integer, Nullable, Text},
};
use diesel_async::RunQueryDsl;

use super::{Deliveries, EventObject, FROM_MIRROR};
use crate::{
    mirror::MirrorError,
    resource::{RESOURCES, Resource},
};

/// Stored size of the payloads that are read at a time, in bytes. A larger one is read alone.
const MAX_BYTES: i64 = 256 * 1024;

/// Late events that were tried in the future, if the endpoint's last attempt is in the future, too.
const TRIED_IN_FUTURE: &str = "next_attempt_at IS NOT NULL AND last_attempt_at > pg_catalog.now()
    AND (SELECT p.last_attempt_at > pg_catalog.now() FROM clerk.endpoints AS p WHERE p.name = $1)";

/// An event after an endpoint's position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingEvent {
    /// Its id.
    pub id: i64,
    /// What it is about.
    pub object: EventObject,
    /// The event as JSON; `None` if the endpoint does not get events of this type.
    pub payload: Option<String>,
    /// Whether it has to wait for a late event of its object.
    pub is_blocked: bool,
}

/// A late event that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LateEvent {
    /// Its id; 0 for a `created` event that is made from the mirror's row.
    pub id: i64,
    /// What it is about.
    pub object: EventObject,
    /// When it was recorded or last asked for, in Unix microseconds.
    pub asked_at: i64,
    /// The event as JSON; `None` if the event or the row does not exist any more, or if the
    /// endpoint does not get events of this type.
    pub payload: Option<String>,
    /// How often it was tried.
    pub attempts: u32,
}

#[derive(QueryableByName)]
struct PendingRow {
    #[diesel(sql_type = BigInt)]
    id: i64,
    #[diesel(sql_type = Text)]
    resource: String,
    #[diesel(sql_type = Text)]
    object_id: String,
    #[diesel(sql_type = Nullable<Text>)]
    payload: Option<String>,
    #[diesel(sql_type = Bool)]
    is_blocked: bool,
    #[diesel(sql_type = BigInt)]
    found: i64,
}

#[derive(QueryableByName)]
struct LateRow {
    #[diesel(sql_type = BigInt)]
    event_id: i64,
    #[diesel(sql_type = Text)]
    resource: String,
    #[diesel(sql_type = Text)]
    object_id: String,
    #[diesel(sql_type = Nullable<Text>)]
    payload: Option<String>,
    #[diesel(sql_type = BigInt)]
    asked_at: i64,
    #[diesel(sql_type = Integer)]
    attempts: i32,
    #[diesel(sql_type = BigInt)]
    found: i64,
}

#[derive(QueryableByName)]
struct WaitRow {
    #[diesel(sql_type = Nullable<Double>)]
    seconds: Option<f64>,
}

/// Which late events are read.
#[derive(Debug, Clone, Copy)]
pub struct LateEvents<'e> {
    /// Events up to this id.
    pub up_to: i64,
    /// Not those of these objects.
    pub except: &'e [EventObject],
    /// At most as many, and fewer if they are large.
    pub limit: usize,
}

impl Deliveries {
    /// Returns the events after an id in their order, at most `limit`, and fewer if they are large,
    /// and whether there may be more.
    pub async fn pending(
        &self,
        endpoint: &str,
        types: &[String],
        after: i64,
        limit: usize,
    ) -> Result<(Vec<PendingEvent>, bool), MirrorError> {
        // Not EXISTS, for which PostgreSQL may read all rows of the endpoint at once, if it has no
        // statistics yet.
        let rows: Vec<PendingRow> = sql_query(
            "SELECT id, resource, object_id, CASE WHEN type = ANY ($2) THEN payload::text END AS payload,
                    coalesce((SELECT true FROM clerk.deliveries d
                              WHERE d.endpoint = $1 AND d.resource = page.resource AND d.object_id = page.object_id
                                AND d.dead_at IS NULL LIMIT 1), false) AS is_blocked, found
             FROM (SELECT id, resource, object_id, type, payload,
                          pg_catalog.sum(pg_catalog.pg_column_size(payload)) OVER (ORDER BY id)
                              - pg_catalog.pg_column_size(payload)::bigint AS bytes_before, pg_catalog.count(*) OVER () AS found
                   FROM (SELECT id, resource, object_id, type, payload FROM clerk.events
                         WHERE id > $3 ORDER BY id LIMIT $4) AS next) AS page
             WHERE bytes_before < $5 ORDER BY id",
        )
        .bind::<Text, _>(endpoint)
        .bind::<Array<Text>, _>(types)
        .bind::<BigInt, _>(after)
        .bind::<BigInt, _>(limit as i64)
        .bind::<BigInt, _>(MAX_BYTES)
        .load(&mut self.0.connection().await?)
        .await?;
        let found = <[_]>::first(&rows).map_or(0, |row| row.found);
        let has_more = found == limit as i64 || found > rows.len() as i64;
        let events = rows
            .into_iter()
            .map(|row| PendingEvent {
                id: row.id,
                object: EventObject {
                    resource: row.resource,
                    id: row.object_id,
                },
                payload: row.payload,
                is_blocked: row.is_blocked,
            })
            .collect();
        Ok((events, has_more))
    }

    /// Returns late events that are due, and whether there may be more.
    pub async fn due(
        &self,
        endpoint: &str,
        types: &[String],
        which: LateEvents<'_>,
    ) -> Result<(Vec<LateEvent>, bool), MirrorError> {
        let due = self
            .late(endpoint, types, which, "next_attempt_at <= pg_catalog.now()")
            .await?;
        if !due.0.is_empty() {
            return Ok(due);
        }
        // If the database's clock has gone back, nobody knows when these are due.
        self.late(endpoint, types, which, TRIED_IN_FUTURE).await
    }

    /// Returns the late events that are due first, whether they are due now or not.
    pub async fn next(
        &self,
        endpoint: &str,
        types: &[String],
        which: LateEvents<'_>,
    ) -> Result<(Vec<LateEvent>, bool), MirrorError> {
        self.late(endpoint, types, which, "next_attempt_at IS NOT NULL").await
    }

    async fn late(
        &self,
        endpoint: &str,
        types: &[String],
        LateEvents { up_to, except, limit }: LateEvents<'_>,
        condition: &str,
    ) -> Result<(Vec<LateEvent>, bool), MirrorError> {
        let rows: Vec<LateRow> = sql_query(late_sql(condition))
            .bind::<Text, _>(endpoint)
            .bind::<Array<Text>, _>(types)
            .bind::<BigInt, _>(limit as i64)
            .bind::<BigInt, _>(up_to)
            .bind::<Array<Text>, _>(except.iter().map(|object| object.resource.as_str()).collect::<Vec<_>>())
            .bind::<Array<Text>, _>(except.iter().map(|object| object.id.as_str()).collect::<Vec<_>>())
            .bind::<BigInt, _>(MAX_BYTES)
            .load(&mut self.0.connection().await?)
            .await?;
        let found = <[_]>::first(&rows).map_or(0, |row| row.found);
        let has_more = found == limit as i64 || found > rows.len() as i64;
        let events = rows
            .into_iter()
            .map(|row| LateEvent {
                id: row.event_id,
                object: EventObject {
                    resource: row.resource,
                    id: row.object_id,
                },
                asked_at: row.asked_at,
                payload: row.payload,
                attempts: u32::try_from(row.attempts).unwrap_or_default(),
            })
            .collect();
        Ok((events, has_more))
    }

    /// Returns after how long another late event is due than those up to `up_to` that are due now;
    /// `None` if there is none.
    pub async fn next_due(&self, endpoint: &str, up_to: i64) -> Result<Option<Duration>, MirrorError> {
        let WaitRow { seconds } = sql_query(
            "SELECT extract(epoch FROM pg_catalog.min(greatest(next_attempt_at, pg_catalog.now())) - pg_catalog.now())::double precision AS seconds
             FROM clerk.deliveries
             WHERE endpoint = $1 AND next_attempt_at IS NOT NULL AND (next_attempt_at > pg_catalog.now() OR event_id > $2)",
        )
        .bind::<Text, _>(endpoint)
        .bind::<BigInt, _>(up_to)
        .get_result(&mut self.0.connection().await?)
        .await?;
        Ok(seconds.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default()))
    }
}

/// Returns the statement that reads late events with their payloads.
fn late_sql(condition: &str) -> String {
    format!(
        "SELECT event_id, resource, object_id, asked_at, attempts, payload::text AS payload, found
         FROM (SELECT event_id, resource, object_id, asked_at, attempts, payload, place,
                      pg_catalog.sum(pg_catalog.pg_column_size(payload)) OVER (ORDER BY place)
                          - coalesce(pg_catalog.pg_column_size(payload), 0)::bigint AS bytes_before,
                      pg_catalog.count(*) OVER () AS found
               FROM (SELECT d.event_id, d.resource, d.object_id, d.asked_at, d.attempts, d.place,
                            CASE WHEN e.type = ANY ($2) THEN e.payload WHEN d.event_id = {FROM_MIRROR}::bigint THEN {created} END AS payload
                     FROM (SELECT event_id, resource, object_id, attempts,
                                  (extract(epoch FROM waiting_since) * 1000000::numeric)::bigint AS asked_at,
                                  pg_catalog.row_number() OVER (ORDER BY next_attempt_at, event_id, object_id) AS place
                           FROM clerk.deliveries
                           WHERE endpoint = $1 AND event_id <= $4 AND {condition}
                             AND (resource, object_id) NOT IN (SELECT resource, object_id FROM unnest($5, $6) AS t(resource, object_id))
                           ORDER BY next_attempt_at, event_id, object_id LIMIT $3) AS d
                     CROSS JOIN clerk.sync_state AS s
                     LEFT JOIN clerk.events AS e ON e.id = d.event_id
                     OFFSET 0) AS made) AS page
         WHERE coalesce(bytes_before, 0::bigint) < $7 ORDER BY place",
        created = created_from_row(),
    )
}

/// Returns the `created` event that is made from the row of a late event (`d`). It has the time when
/// the object was created. A row whose deletion is held may be one of another instance.
fn created_from_row() -> String {
    let of_resource = |resource: &&Resource| {
        let Resource {
            name,
            event,
            table,
            document,
            ..
        } = resource;
        format!(
            "WHEN '{name}'::text THEN (
                 SELECT pg_catalog.jsonb_build_object('object', 'event', 'type', '{event}.created', 'instance_id', s.instance_id,
                            'data', {document}(u)::jsonb, 'timestamp', (extract(epoch FROM u.created_at) * 1000::numeric)::bigint)
                 FROM {table} AS u
                 WHERE u.id = d.object_id AND u.deleted_at IS NULL AND '{event}.created'::text = ANY ($2)
                   AND NOT EXISTS (SELECT FROM clerk.missing AS m
                                   WHERE m.resource = '{name}'::text AND m.object_id = d.object_id AND m.hold = 'held'))"
        )
    };
    let cases: Vec<String> = RESOURCES.iter().map(of_resource).collect();
    format!("CASE d.resource {} END", cases.join(" "))
}
