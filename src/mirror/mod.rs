//! The Postgres side: reads the mirror for the comparison, and applies what the comparison found, a batch a transaction.

mod apply;
mod batch;
mod connect;
mod counts;
mod delete;
mod deletions;
mod encoding;
mod error;
mod events;
mod exchange;
mod expiry;
mod freshness;
mod inspect;
mod leader;
mod lease;
mod locks;
mod migrations;
mod notifications;
mod read;
mod rejected;
mod rights;
mod runs;
mod schema;
mod session;
mod status;
mod store;
mod summary;
mod transaction;
mod upsert;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use backon::{ExponentialBuilder, Retryable};
use diesel::prelude::*;
use diesel_async::{AsyncConnection, RunQueryDsl, pooled_connection::deadpool::Pool};

pub use batch::{Batch, Committed, Rejected, Write};
pub use counts::State;
pub use delete::Deleted;
pub use error::{Error, SchemaError};
pub use freshness::{AgeSummary, Ages, Freshness};
pub use inspect::{Inspection, Link, Server};
pub use leader::{Kept, Replicas, Wait};
pub use lease::{Held, Lease};
pub use migrations::MIGRATIONS;
pub use notifications::{Listener, NotHeard};
pub use read::Document;
pub use rights::Rights;
pub use runs::{Begin, Checkpoint, Finish, Kind, Mark, Run};
pub use status::{LastRun, Status};
pub use summary::{History, Stretch, Summary};

use crate::{resource::DigestKey, secret::Secret};
use connect::{Connection, Connector};
use schema::sync_state;
use session::Session;

/// Variables of the environment by id: libpq's, and `HOME`.
pub type Variables = BTreeMap<String, Secret>;

/// How to reach the database.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `postgres://…` or libpq's `key=value` form.
    pub url: Secret,
    /// They stand in for what `url` leaves out.
    pub variables: Variables,
    /// Most connections at a time, from 1 to [`Mirror::MOST_CONNECTIONS`]; a value outside is replaced by the nearest one inside.
    pub max_connections: usize,
    /// What the connections of the pool are called at the server, where the address does not say.
    pub application_name: &'static str,
}

/// The mirror of one Clerk instance in one database. Clones share the pool.
#[derive(Clone)]
pub struct Mirror {
    pool: Pool<Session>,
    /// For connections beside the pool.
    connector: Arc<Connector>,
}

impl std::fmt::Debug for Mirror {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mirror").finish_non_exhaustive()
    }
}

impl Mirror {
    /// The largest number of connections that can be asked for: more than a server is set up for.
    pub const MOST_CONNECTIONS: usize = 1_000;

    /// A mirror; nothing is connected yet.
    ///
    /// # Errors
    /// The address, or a file that it names, cannot be used.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let connector = Arc::new(Connector::new(settings)?);
        Ok(Self {
            pool: connect::pool(
                connector.clone(),
                settings.max_connections.clamp(1, Self::MOST_CONNECTIONS),
            )?,
            connector,
        })
    }

    /// Waits for a server that is away, at most this long; a `connect_timeout` in the address stands above it.
    pub async fn wait(&self, patience: Duration) -> Result<(), Error> {
        let started = Instant::now();
        let patience = self.connector.connect_timeout().unwrap_or(patience);
        (|| self.connection())
            .retry(
                ExponentialBuilder::default()
                    .with_min_delay(Duration::from_millis(200))
                    .with_max_delay(Duration::from_secs(3))
                    .without_max_times()
                    .with_jitter(),
            )
            .when(|error| matches!(error, Error::Unavailable(_)) && started.elapsed() < patience)
            .await
            .map(drop)
    }

    /// Most connections at a time.
    pub fn max_connections(&self) -> usize {
        self.pool.status().max_size
    }

    async fn connection(&self) -> Result<Connection, Error> {
        // Boxed: otherwise every future that awaits it would contain its code and its state.
        Box::pin(connect::get(&self.pool)).await
    }

    /// Whether there is a schema to read. Touches nothing.
    ///
    /// # Errors
    /// The schema is foreign or newer than this binary, or older and therefore not readable.
    pub async fn exists(&self) -> Result<bool, Error> {
        match migrations::state(&mut self.connection().await?).await? {
            migrations::State::Empty { .. } => Ok(false),
            migrations::State::Ours { pending: 0 } => Ok(true),
            migrations::State::Ours { .. } => Err(SchemaError::Outdated { missing: false }.into()),
        }
    }

    /// Makes sure that the schema is this binary's, applying migrations where `migrate` allows. Returns those applied.
    pub async fn prepare(&self, migrate: bool) -> Result<Vec<String>, Error> {
        let mut connection = self.connection().await?;
        match migrations::state(&mut connection).await? {
            migrations::State::Ours { pending: 0 } => Ok(Vec::new()),
            _ if migrate => migrations::apply(connection).await,
            migrations::State::Empty { .. } => Err(SchemaError::Outdated { missing: true }.into()),
            migrations::State::Ours { .. } => Err(SchemaError::Outdated { missing: false }.into()),
        }
    }

    /// The id of the Clerk instance that this database mirrors; none before the first sync.
    pub async fn instance(&self) -> Result<Option<String>, Error> {
        Ok(sync_state::table
            .select(sync_state::instance_id)
            .first(&mut self.connection().await?)
            .await?)
    }

    /// The key of the digests that are stored here.
    pub async fn digest_key(&self) -> Result<DigestKey, Error> {
        let key: Vec<u8> = sync_state::table
            .select(sync_state::digest_key)
            .first(&mut self.connection().await?)
            .await?;
        Ok(DigestKey::new(&key))
    }

    /// Ties the database to a Clerk instance, for good.
    pub async fn pin(&self, lease: &Lease, id: &str, environment: &str) -> Result<(), Error> {
        let mut conn = self.connection().await?;
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

    /// Ties the database to another Clerk instance. Every row is held, and no approval stays: they were about users of the
    /// other instance. Returns how many rows are held.
    pub async fn repin(&self, lease: &Lease, id: &str, environment: &str) -> Result<u64, Error> {
        let mut conn = self.connection().await?;
        conn.transaction(async |conn| {
            transaction::begin(conn, lease).await?;
            diesel::update(sync_state::table)
                .set((
                    sync_state::instance_id.eq(id),
                    sync_state::environment_type.eq(environment),
                    sync_state::pinned_at.eq(diesel::dsl::now),
                    sync_state::watermark.eq(None::<chrono::DateTime<chrono::Utc>>),
                    sync_state::checkpoint.eq(None::<serde_json::Value>),
                ))
                .execute(conn)
                .await?;
            // No replica of the new instance lags behind this moment: what it shows first is released.
            let held = diesel::sql_query(
                "INSERT INTO clerk.missing_users AS m (user_id, walk, absent, held_at)
                 SELECT id, 0::bigint, true, pg_catalog.now() - interval '10 seconds' FROM clerk.users WHERE deleted_at IS NULL
                 ON CONFLICT (user_id) DO UPDATE
                 SET absent = true, held_at = coalesce(m.held_at, excluded.held_at)",
            )
            .execute(conn)
            .await?;
            diesel::sql_query("UPDATE clerk.missing_users SET approved_at = NULL WHERE approved_at IS NOT NULL")
                .execute(conn)
                .await?;
            Ok(held as u64)
        })
        .await
    }

    /// Users in the mirror, those marked as deleted aside.
    pub async fn count(&self) -> Result<u64, Error> {
        let count: i64 = sync_state::table
            .select(sync_state::users)
            .first(&mut self.connection().await?)
            .await?;
        Ok(unsigned(count))
    }
}

/// Postgres counts in `bigint`; a count is never negative.
fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or_default()
}

/// The other way round; nothing that is counted here comes near the limit.
fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
