//! Notes which endpoints are configured.

use std::time::Duration;

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{Array, BigInt, Binary, Bool, Double, Nullable, Text},
};
use diesel_async::{AsyncConnection, RunQueryDsl};

use super::{
    Deliveries, FROM_MIRROR, all_objects,
    fencing::{MOST_TIME_FOR_ALL, begin, require_leader},
};
use crate::mirror::{
    MirrorError,
    lease::{LEAST_SILENCE, end_cut_off},
    session::Session,
};

/// How long a registration waits for a lock, before it is tried again.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// The longest pause that an endpoint can ask for.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

/// An endpoint as it is configured.
#[derive(Debug, Clone)]
pub struct Registration {
    /// Its name.
    pub name: String,
    /// A digest of its URL.
    pub url_digest: String,
    /// The types of events that it gets.
    pub types: Vec<String>,
    /// Whether it begins with a `created` event for each object of the mirror when it is new;
    /// otherwise with the next event.
    pub starts_with_objects: bool,
}

/// Where an endpoint stands.
#[derive(Debug, Clone)]
pub struct RegisteredEndpoint {
    /// Its name.
    pub name: String,
    /// All events up to this id are delivered or late.
    pub position: i64,
    /// For how long it is still paused, if the process that delivered before has paused it; 0 if
    /// it is to be tried now.
    pub paused_for: Option<Duration>,
    /// How often somebody has redelivered events. [`Deliveries::note`] takes it.
    pub redeliveries: i64,
}

#[derive(QueryableByName)]
struct RegisteredRow {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = BigInt)]
    position: i64,
    #[diesel(sql_type = BigInt)]
    redeliveries: i64,
    #[diesel(sql_type = Nullable<Double>)]
    paused_for: Option<f64>,
}

impl Deliveries {
    /// Whether the first import of all these resources is done. Before, the objects that an endpoint
    /// begins with are not there yet.
    pub async fn are_imported(&self, resources: &[&str]) -> Result<bool, MirrorError> {
        #[derive(QueryableByName)]
        struct ImportedRow {
            #[diesel(sql_type = Bool)]
            are_imported: bool,
        }
        let row: ImportedRow = sql_query(
            "SELECT NOT EXISTS (SELECT FROM clerk.resource_state
                                WHERE resource OPERATOR(pg_catalog.=) ANY ($1) AND imported_at IS NULL) AS are_imported",
        )
        .bind::<Array<Text>, _>(resources)
        .get_result(self.0.connection().await?.autocommit())
        .await?;
        Ok(row.are_imported)
    }

    /// Returns the names of the endpoints that are or were configured.
    pub async fn known(&self) -> Result<Vec<String>, MirrorError> {
        #[derive(QueryableByName)]
        struct NameRow {
            #[diesel(sql_type = Text)]
            name: String,
        }
        let rows: Vec<NameRow> = sql_query("SELECT name FROM clerk.endpoints")
            .load(&mut self.0.connection().await?)
            .await?;
        Ok(rows.into_iter().map(|row| row.name).collect())
    }

    /// Closes the connections that are not in use.
    pub fn disconnect(&self) {
        self.0.close_idle();
    }

    /// Returns a key for the ids of messages, which is secret to this database.
    pub async fn message_key(&self) -> Result<[u8; 32], MirrorError> {
        #[derive(QueryableByName)]
        struct KeyBytes {
            #[diesel(sql_type = Binary)]
            key: Vec<u8>,
        }
        let KeyBytes { key } = sql_query("SELECT digest_key AS key FROM clerk.sync_state")
            .get_result(self.0.connection().await?.autocommit())
            .await?;
        Ok(blake3::derive_key("clerk2pg 2026-11-29 message ids", &key))
    }

    /// Notes which endpoints are configured now, and returns where they stand. A new one begins at
    /// the last event. One with the URL of a single endpoint that is not configured any more is
    /// that one, renamed. Events do not wait for endpoints that are not configured.
    ///
    /// # Errors
    /// [`MirrorError::LeaseLost`] if `holder` does not lead.
    pub async fn register(
        &self,
        holder: &str,
        endpoints: &[Registration],
    ) -> Result<Vec<RegisteredEndpoint>, MirrorError> {
        let mut conn = self.0.connection().await?;
        let registered = conn.transaction(async |conn| {
            begin(conn, LOCK_WAIT, MOST_TIME_FOR_ALL).await?;
            require_leader(conn, holder).await?;
            let names: Vec<&str> = endpoints.iter().map(|endpoint| endpoint.name.as_str()).collect();
            for endpoint in endpoints {
                rename(conn, endpoint, &names).await?;
                insert(conn, endpoint).await?;
            }
            sql_query(
                "UPDATE clerk.endpoints SET removed_at = pg_catalog.now()
                 WHERE removed_at IS NULL AND name <> ALL ($1)",
            )
            .bind::<Array<Text>, _>(&names)
            .execute(conn)
            .await?;
            // Now that the rows are locked.
            require_leader(conn, holder).await?;
            let rows: Vec<RegisteredRow> = sql_query(
                // A pause that begins in the future is from before the database's clock was set back.
                "SELECT name, position, redeliveries, CASE WHEN paused_at > pg_catalog.now() THEN 0::double precision
                     WHEN paused_at IS NOT NULL THEN
                     coalesce(extract(epoch FROM next_attempt_at - pg_catalog.now()), 0::numeric)::double precision END AS paused_for
                 FROM clerk.endpoints WHERE name = ANY ($1) ORDER BY name",
            )
            .bind::<Array<Text>, _>(&names)
            .load(conn)
            .await?;
            Ok(rows.into_iter().map(RegisteredEndpoint::from).collect())
        })
        .await;
        if let Err(MirrorError::Locked(_)) = registered {
            // The leader before may have been cut off within a note.
            end_cut_off(&mut conn, "clerk.endpoints", LEAST_SILENCE, "true").await;
        }
        registered
    }
}

/// Inserts an endpoint, with all objects that it begins with, or updates it. One statement, so that
/// its position and these objects are of one moment.
async fn insert(conn: &mut Session, endpoint: &Registration) -> Result<(), MirrorError> {
    sql_query(format!(
        "WITH stored AS (
             INSERT INTO clerk.endpoints AS e (name, url_digest, types, position)
             SELECT $1, $2, $3, coalesce(pg_catalog.max(id), 0::bigint) FROM clerk.events
             ON CONFLICT (name) DO UPDATE SET url_digest = excluded.url_digest, types = excluded.types, removed_at = NULL
             WHERE e.url_digest <> excluded.url_digest OR e.types OPERATOR(pg_catalog.<>) excluded.types OR e.removed_at IS NOT NULL
             RETURNING xmax = '0'::pg_catalog.xid AS is_new)
         INSERT INTO clerk.deliveries (endpoint, resource, object_id, event_id, next_attempt_at)
         SELECT $1, o.resource, o.id, {FROM_MIRROR}::bigint, '-infinity'::timestamptz FROM {objects} AS o
         WHERE $4 AND o.type = ANY ($3) AND EXISTS (SELECT FROM stored WHERE is_new)",
        objects = all_objects()
    ))
    .bind::<Text, _>(&endpoint.name)
    .bind::<Text, _>(&endpoint.url_digest)
    .bind::<Array<Text>, _>(&endpoint.types)
    .bind::<Bool, _>(endpoint.starts_with_objects)
    .execute(conn)
    .await?;
    Ok(())
}

impl From<RegisteredRow> for RegisteredEndpoint {
    fn from(row: RegisteredRow) -> Self {
        // The database's clock may have been set back by less than the pause has lasted.
        let paused_for = |seconds| {
            Duration::try_from_secs_f64(seconds)
                .unwrap_or_default()
                .min(LONGEST_PAUSE)
        };
        Self {
            name: row.name,
            position: row.position,
            redeliveries: row.redeliveries,
            paused_for: row.paused_for.map(paused_for),
        }
    }
}

/// Gives an endpoint's row its new name, if it was renamed.
async fn rename(conn: &mut Session, endpoint: &Registration, names: &[&str]) -> Result<(), MirrorError> {
    sql_query(
        "UPDATE clerk.endpoints SET name = $1
         WHERE name = (SELECT pg_catalog.min(name) FROM clerk.endpoints
                       WHERE url_digest = $2 AND name <> ALL ($3) HAVING pg_catalog.count(*) = 1)
           AND NOT EXISTS (SELECT FROM clerk.endpoints WHERE name = $1)",
    )
    .bind::<Text, _>(&endpoint.name)
    .bind::<Text, _>(&endpoint.url_digest)
    .bind::<Array<Text>, _>(names)
    .execute(conn)
    .await?;
    Ok(())
}
