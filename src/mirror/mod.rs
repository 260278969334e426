//! The Postgres side: reads the mirror for a comparison, and writes what the comparison found.
//!
//! [`Mirror`] is the pool of connections. What can be done with it is divided into views: [`Rows`]
//! for `clerk.users`, [`Runs`] for `clerk.sync_runs`, and so on. A caller takes the view that it
//! needs. Everything that writes asks for a proof: a [`Lease`], or the [`Run`] of a sync, which
//! holds one.
//!
//! Statements are raw SQL where they work on sets (`INSERT … SELECT`, `unnest`, aggregates), take
//! locks, need an operator or function of PostgreSQL's, or are generated. All others use Diesel's
//! query builder.

mod apply;
mod batch;
mod connect;
mod counts;
mod delete;
mod encoding;
mod error;
mod exchange;
mod expiry;
mod freshness;
mod inspect;
mod instance;
mod leadership;
mod lease;
mod locks;
mod missing;
mod notifications;
mod outbox;
mod progress;
mod rejected;
mod rights;
mod rows;
mod runs;
mod schema;
mod session;
mod sqlstate;
mod store;
mod summary;
mod tables;
mod transaction;
mod upsert;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use backon::{ExponentialBuilder, Retryable};
use diesel_async::pooled_connection::deadpool::Pool;

pub use batch::{Batch, Committed, Rejected, Write};
pub use counts::UserCounts;
pub use delete::Deleted;
pub use error::{MirrorError, SchemaError};
pub use freshness::{AgeSummary, Ages, Freshness};
pub use inspect::{Inspection, Link, PostgresServer};
pub use instance::PinnedInstance;
pub use leadership::{LeaderState, Leadership, Replicas, Wait};
pub use lease::{Lease, LeaseAttempt, Leases};
pub use missing::Missing;
pub use notifications::{ListenError, NotificationStream};
pub use outbox::Outbox;
pub use progress::{Checkpoint, Mark};
pub use rejected::RejectedUsers;
pub use rights::Rights;
pub use rows::{Document, Rows};
pub use runs::{Begin, Finish, Outcome, Run, Runs, SyncKind, SyncState};
pub use schema::{MIGRATIONS, Schema};
pub use summary::{Details, History, LastRun, Overview, Period, Summary};

use crate::secret::Secret;
use connect::{Connection, Connector};
use session::Session;

/// Environment variables by name: those of libpq, and `HOME`.
pub type Variables = BTreeMap<String, Secret>;

/// How to reach the database.
#[derive(Debug, Clone)]
pub struct MirrorSettings {
    /// `postgres://…` or libpq's `key=value` form.
    pub url: Secret,
    /// Values for what `url` leaves out.
    pub variables: Variables,
    /// Connections in the pool, from 1 to [`Mirror::MOST_CONNECTIONS`]. A value outside is replaced
    /// by the nearest limit.
    pub max_connections: usize,
    /// `application_name` of the connections, if the address has none.
    pub application_name: &'static str,
}

/// The mirror of one Clerk instance in one database. Clones share the pool of connections.
#[derive(Clone)]
pub struct Mirror {
    pool: Pool<Session>,
    /// Makes connections outside of the pool.
    connector: Arc<Connector>,
}

impl std::fmt::Debug for Mirror {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mirror").finish_non_exhaustive()
    }
}

impl Mirror {
    /// The largest pool that can be asked for.
    pub const MOST_CONNECTIONS: usize = 1_000;

    /// Creates a mirror. It does not connect yet.
    ///
    /// # Errors
    /// The address, or a file that it names, cannot be used.
    pub fn new(settings: &MirrorSettings) -> Result<Self, MirrorError> {
        let connector = Arc::new(Connector::new(settings)?);
        Ok(Self {
            pool: connect::pool(
                connector.clone(),
                settings.max_connections.clamp(1, Self::MOST_CONNECTIONS),
            )?,
            connector,
        })
    }

    /// Waits up to `patience` for a server that cannot be reached. A `connect_timeout` in the
    /// address takes precedence.
    ///
    /// # Errors
    /// The server could not be reached in time, or refuses the connection.
    pub async fn wait(&self, patience: Duration) -> Result<(), MirrorError> {
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
            .when(|error| matches!(error, MirrorError::Unavailable(_)) && started.elapsed() < patience)
            .await
            .map(drop)
    }

    /// Connections in the pool at most.
    pub fn max_connections(&self) -> usize {
        self.pool.status().max_size
    }

    /// The schema and its migrations.
    pub fn schema(&self) -> Schema {
        Schema(self.clone())
    }

    /// The Clerk instance that the database mirrors.
    pub fn instance(&self) -> PinnedInstance {
        PinnedInstance(self.clone())
    }

    /// The rows of `clerk.users`.
    pub fn rows(&self) -> Rows {
        Rows(self.clone())
    }

    /// How many users the mirror has, and how many it expects at Clerk.
    pub fn counts(&self) -> UserCounts {
        UserCounts(self.clone())
    }

    /// Users that a sync did not meet.
    pub fn missing(&self) -> Missing {
        Missing(self.clone())
    }

    /// Users that could not be stored.
    pub fn rejected(&self) -> RejectedUsers {
        RejectedUsers(self.clone())
    }

    /// The syncs.
    pub fn runs(&self) -> Runs {
        Runs(self.clone())
    }

    /// The lease.
    pub fn leases(&self) -> Leases {
        Leases(self.clone())
    }

    /// Which daemon leads.
    pub fn leadership(&self) -> Leadership {
        Leadership(self.clone())
    }

    /// The events.
    pub fn outbox(&self) -> Outbox {
        Outbox(self.clone())
    }

    /// What `clerk2pg status` and the status page show.
    pub fn overview(&self) -> Overview {
        Overview(self.clone())
    }

    async fn connection(&self) -> Result<Connection, MirrorError> {
        // Boxed: otherwise every future that awaits it would contain its code and its state.
        Box::pin(connect::get(&self.pool)).await
    }
}

/// Converts a count from Postgres, where it is a `bigint`. A count is never negative.
fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or_default()
}

/// Converts a count for Postgres. No count comes near the limit.
fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
