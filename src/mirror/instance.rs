//! The Clerk instance that the database mirrors, and the key of the digests stored for it.

use diesel::{prelude::*, sql_types::Text};
use diesel_async::{AsyncConnection, RunQueryDsl};

use super::{
    Lease, MirrorError,
    pool::ConnectionPool,
    tables::{resource_state, sync_state},
    transaction,
};
use crate::resource::{DigestKey, RESOURCES, Resource};

/// The Clerk instance that the database mirrors.
#[derive(Debug, Clone)]
pub struct PinnedInstance(pub(super) ConnectionPool);

impl PinnedInstance {
    /// Returns the id of the Clerk instance that this database mirrors; `None` before the first
    /// sync.
    pub async fn id(&self) -> Result<Option<String>, MirrorError> {
        Ok(sync_state::table
            .select(sync_state::instance_id)
            .first(&mut self.0.connection().await?)
            .await?)
    }

    /// Returns the key of the digests that are stored here.
    pub async fn digest_key(&self) -> Result<DigestKey, MirrorError> {
        let key: Vec<u8> = sync_state::table
            .select(sync_state::digest_key)
            .first(&mut self.0.connection().await?)
            .await?;
        Ok(DigestKey::new(&key))
    }

    /// Ties the database to a Clerk instance.
    pub async fn pin(&self, lease: &Lease, id: &str, environment: &str) -> Result<(), MirrorError> {
        let mut conn = self.0.connection().await?;
        conn.transaction(async |conn| {
            transaction::begin(conn, lease).await?;
            diesel::update(sync_state::table.filter(sync_state::instance_id.is_null()))
                .set((
                    sync_state::instance_id.eq(id),
                    sync_state::environment_type.eq(environment),
                    sync_state::pinned_at.eq(diesel::dsl::now),
                ))
                .execute(conn)
                .await?;
            Ok(())
        })
        .await
    }

    /// Ties the database to another Clerk instance. Every row is held, and no approval stays,
    /// because all of them are about objects of the other instance. Returns how many rows are held.
    pub async fn repin(&self, lease: &Lease, id: &str, environment: &str) -> Result<u64, MirrorError> {
        let mut conn = self.0.connection().await?;
        conn.transaction(async |conn| {
            transaction::begin(conn, lease).await?;
            diesel::update(sync_state::table)
                .set((
                    sync_state::instance_id.eq(id),
                    sync_state::environment_type.eq(environment),
                    sync_state::pinned_at.eq(diesel::dsl::now),
                ))
                .execute(conn)
                .await?;
            diesel::update(resource_state::table)
                .set((
                    resource_state::watermark.eq(None::<chrono::DateTime<chrono::Utc>>),
                    resource_state::checkpoint.eq(None::<serde_json::Value>),
                ))
                .execute(conn)
                .await?;
            // No replica of the new instance lags behind this moment. Dating the hold back releases
            // an object as soon as it is shown.
            let mut held = 0;
            for Resource { name, table, .. } in RESOURCES {
                held += diesel::sql_query(format!(
                    "INSERT INTO clerk.missing AS m (resource, object_id, walk, state, hold, held_at)
                     SELECT $1, id, 0::bigint, 'absent', 'held', pg_catalog.now() - interval '10 seconds'
                     FROM {table} WHERE deleted_at IS NULL
                     ON CONFLICT (resource, object_id) DO UPDATE
                     SET state = 'absent', hold = 'held', held_at = coalesce(m.held_at, excluded.held_at), approved_at = NULL",
                ))
                .bind::<Text, _>(name)
                .execute(conn)
                .await?;
            }
            diesel::sql_query(
                "UPDATE clerk.missing SET hold = 'held', approved_at = NULL WHERE hold = 'approved'",
            )
            .execute(conn)
            .await?;
            Ok(held as u64)
        })
        .await
    }
}
