//! The connections to the database, and what the views that use them are about.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use backon::{ExponentialBuilder, Retryable};
use diesel_async::pooled_connection::deadpool::Pool;
use tokio::sync::watch;
use tracing::info;

use super::{
    connect::{self, Connection, Connector},
    error::MirrorError,
    projection::{TableMapping, mappings_from},
    session::Session,
    settings::MirrorSettings,
    upsert::UpsertStatements,
};
use crate::{humanize::duration, resource::Resource};

/// A pool of connections, and a way to make others. Clones share the pool.
#[derive(Clone)]
pub(super) struct ConnectionPool {
    pool: Pool<Session>,
    /// Makes connections outside of the pool.
    connector: Arc<Connector>,
    /// The kind of objects that the views are about.
    pub(super) resource: &'static Resource,
    /// What writes these objects.
    pub(super) upserts: Arc<UpsertStatements>,
    /// Tables of the application that are kept in sync from the mirror.
    pub(super) mappings: Arc<[TableMapping]>,
    /// Changes when events were committed over the pool.
    pub(super) events: Arc<watch::Sender<()>>,
}

impl std::fmt::Debug for ConnectionPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectionPool").finish_non_exhaustive()
    }
}

impl ConnectionPool {
    /// Largest size of a pool.
    pub(super) const MOST_CONNECTIONS: usize = 1_000;

    /// Creates a pool. It does not connect yet.
    ///
    /// # Errors
    /// The address, or a file that it names, cannot be used.
    pub(super) fn new(settings: &MirrorSettings, resource: &'static Resource) -> Result<Self, MirrorError> {
        let connector = Arc::new(Connector::new(settings)?);
        Ok(Self {
            pool: connect::pool(
                connector.clone(),
                settings.max_connections.clamp(1, Self::MOST_CONNECTIONS),
            )?,
            connector,
            resource,
            upserts: Arc::new(UpsertStatements::new(resource)),
            mappings: settings.tables.clone().into(),
            events: Arc::default(),
        })
    }

    /// Returns the same pool with views that are about another resource.
    pub(super) fn of(&self, resource: &'static Resource) -> Self {
        Self {
            resource,
            upserts: Arc::new(UpsertStatements::new(resource)),
            ..self.clone()
        }
    }

    /// The tables that are kept in sync from the resource that the views are about.
    pub(super) fn own_mappings(&self) -> impl Iterator<Item = &TableMapping> {
        mappings_from(&self.mappings, self.resource)
    }

    /// Waits up to `patience` for a server that cannot be reached. A `connect_timeout` in the
    /// address takes precedence.
    ///
    /// # Errors
    /// The server could not be reached in time, or refuses the connection.
    pub(super) async fn wait(&self, patience: Duration) -> Result<(), MirrorError> {
        let started = Instant::now();
        let mut has_logged = false;
        let patience = self.connector.connect_timeout().unwrap_or(patience);
        (|| self.connection())
            .retry(
                ExponentialBuilder::default()
                    .with_min_delay(Duration::from_millis(200))
                    .with_max_delay(Duration::from_secs(3))
                    .without_max_times()
                    .with_jitter(),
            )
            .when(|error| matches!(error, MirrorError::Unavailable(_)) && started.elapsed() < patience)
            .notify(|error, _| {
                if !std::mem::replace(&mut has_logged, true) {
                    info!(%error, patience = duration(patience), "waiting for Postgres");
                }
            })
            .await
            .map(drop)
    }

    /// Closes the connections that are not in use.
    pub(super) fn close_idle(&self) {
        self.pool.retain(|_, _| false);
    }

    /// Returns the largest number of connections in the pool.
    pub(super) fn max_connections(&self) -> usize {
        self.pool.status().max_size
    }

    /// Returns what makes connections outside of the pool.
    pub(super) fn connector(&self) -> &Connector {
        &self.connector
    }

    /// Takes a connection from the pool.
    ///
    /// # Errors
    /// No connection could be made.
    pub(super) async fn connection(&self) -> Result<Connection, MirrorError> {
        // Boxed: otherwise every future that awaits it would contain its code and its state.
        Box::pin(connect::get(&self.pool)).await
    }
}
