//! Notes which endpoints are configured.

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{Array, BigInt, Binary, Bool, Text},
};
use diesel_async::{AsyncConnection, RunQueryDsl};

use super::{
    Deliveries, FROM_MIRROR,
    fencing::{begin, require_leader},
};
use crate::mirror::{MirrorError, session::Session};

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
#[derive(Debug, Clone, QueryableByName)]
pub struct RegisteredEndpoint {
    /// Its name.
    #[diesel(sql_type = Text)]
    pub name: String,
    /// All events up to this id are delivered or late.
    #[diesel(sql_type = BigInt)]
    pub position: i64,
    /// Whether it was paused by the process that delivered before.
    #[diesel(sql_type = Bool)]
    pub is_paused: bool,
}

impl Deliveries {
    /// Whether an endpoint may be registered: the first import is done, or writes events itself.
    /// Otherwise the objects that an endpoint begins with would not be there yet.
    pub async fn is_imported(&self) -> Result<bool, MirrorError> {
        #[derive(QueryableByName)]
        struct ImportedRow {
            #[diesel(sql_type = Bool)]
            is_imported: bool,
        }
        let row: ImportedRow = sql_query(
            "SELECT imported_at IS NOT NULL AS is_imported FROM clerk.resource_state WHERE resource OPERATOR(pg_catalog.=) $1",
        )
        .bind::<Text, _>(self.0.resource.name)
        .get_result(self.0.connection().await?.autocommit())
        .await?;
        Ok(row.is_imported)
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
        conn.transaction(async |conn| {
            begin(conn, None).await?;
            require_leader(conn, holder).await?;
            let names: Vec<&str> = endpoints.iter().map(|endpoint| endpoint.name.as_str()).collect();
            for endpoint in endpoints {
                rename(conn, endpoint, &names).await?;
                self.insert(conn, endpoint).await?;
            }
            sql_query(
                "UPDATE clerk.endpoints SET removed_at = pg_catalog.now()
                 WHERE removed_at IS NULL AND name <> ALL ($1)",
            )
            .bind::<Array<Text>, _>(&names)
            .execute(conn)
            .await?;
            let rows = sql_query(
                "SELECT name, position, paused_at IS NOT NULL AS is_paused FROM clerk.endpoints
                 WHERE name = ANY ($1) ORDER BY name",
            )
            .bind::<Array<Text>, _>(&names)
            .load(conn)
            .await?;
            Ok(rows)
        })
        .await
    }

    /// Inserts an endpoint, with all objects that it begins with, or updates it. One statement, so
    /// that its position and these objects are of one moment.
    async fn insert(&self, conn: &mut Session, endpoint: &Registration) -> Result<(), MirrorError> {
        sql_query(format!(
            "WITH stored AS (
                 INSERT INTO clerk.endpoints AS e (name, url_digest, types, position)
                 SELECT $1, $2, $3, coalesce(pg_catalog.max(id), 0::bigint) FROM clerk.events
                 ON CONFLICT (name) DO UPDATE SET url_digest = excluded.url_digest, types = excluded.types, removed_at = NULL
                 WHERE e.url_digest <> excluded.url_digest OR e.types OPERATOR(pg_catalog.<>) excluded.types OR e.removed_at IS NOT NULL
                 RETURNING xmax = '0'::pg_catalog.xid AS is_new)
             INSERT INTO clerk.deliveries (endpoint, resource, object_id, event_id, next_attempt_at)
             SELECT $1, $5, id, {FROM_MIRROR}::bigint, pg_catalog.now()
             FROM {table} WHERE deleted_at IS NULL AND $4 AND EXISTS (SELECT FROM stored WHERE is_new)",
            table = self.0.resource.table
        ))
        .bind::<Text, _>(&endpoint.name)
        .bind::<Text, _>(&endpoint.url_digest)
        .bind::<Array<Text>, _>(&endpoint.types)
        .bind::<Bool, _>(endpoint.starts_with_objects)
        .bind::<Text, _>(self.0.resource.name)
        .execute(conn)
        .await?;
        Ok(())
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
