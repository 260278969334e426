//! The Postgres side: reads the mirror for a comparison, and writes what the comparison found.
//!
//! [`Mirror`] is the pool of connections, and the resource that it mirrors. What can be done with
//! it is divided into views: [`Rows`] for the resource's table, [`Runs`] for `clerk.sync_runs`, and
//! so on. A caller takes the view that it needs. Everything that writes asks for a proof: a [`Lease`], or the [`Run`] of a sync, which
//! holds one.
//!
//! Statements are raw SQL where they work on sets (`INSERT … SELECT`, `unnest`, aggregates), take
//! locks, need an operator or function of PostgreSQL's, or are generated. All others use Diesel's
//! query builder.

mod activity;
mod apply;
mod attention;
mod batch;
mod bookkeeping;
mod checkpoint;
mod connect;
mod convert;
mod counts;
mod delete;
mod delivery;
mod encoding;
mod erasure;
mod error;
mod exchange;
mod expected_minus_rows;
mod expiry;
mod freshness;
mod holds;
mod inspect;
mod instance;
mod isolation;
mod leadership;
mod lease;
mod locks;
mod missing;
mod notifications;
mod outbox;
mod outcome;
mod places;
mod pool;
mod privileges;
mod projection;
pub(crate) mod quote;
mod rejected;
mod rows;
mod runs;
mod schema;
mod schema_name;
mod session;
mod settings;
mod sqlstate;
mod store;
mod summary;
mod sync_kind;
mod sync_state;
mod tables;
mod transaction;
mod upsert;
mod write_failure;
mod write_job;

use std::time::Duration;

pub use activity::{Activity, Period};
pub use attention::{HeldItem, HeldSet, RejectionReason};
pub use batch::{Batch, Committed, Rejected, Write};
pub use checkpoint::{Checkpoint, Mark};
pub use counts::Counts;
pub use delete::Deleted;
pub use delivery::{
    DeadEvent, Deliveries, DeliveryProgress, EndpointStatus, EventObject, FROM_MIRROR, FailedDelivery, LastAttempt,
    LateEvent, LateEvents, Noted, PendingEvent, Redelivery, RegisteredEndpoint, Registration, Standing,
};
pub use erasure::{Erased, Erasure, ExclusionChange};
pub use error::{MirrorError, SchemaError};
pub use freshness::{AgeSummary, Ages, Freshness};
pub use holds::Holds;
pub use inspect::{Inspection, Link, PostgresServer};
pub use instance::PinnedInstance;
pub use leadership::{LeaderState, Leadership, Replicas, Wait};
pub use lease::{Lease, LeaseAttempt, Leases};
pub use missing::Missing;
pub use notifications::{ListenError, NotificationStream};
pub use outbox::Outbox;
pub use outcome::Outcome;
pub use privileges::Privileges;
pub use projection::{
    AppTables, ColumnFacts, DepartureReason, Expressions, HeldDepartures, MappingState, PlannedRow, Problem, RowChange,
    RowCounts, RowRemoval, RunTable, RunTables, Source, TableComparison, TableCounts, TableDetails, TableDifferences,
    TableError, TableFacts, TableIdentities, TableInspection, TableKey, TableMapping, TableState, TableStatus,
    departures_checksum, mapping_checksum,
};
pub use rejected::RejectedObjects;
pub use rows::{Document, Rows};
pub use runs::{Begin, Finish, Run, Runs};
pub use schema::{MIGRATIONS, Schema};
pub(crate) use schema_name::in_message;
pub use schema_name::{DEFAULT_SCHEMA, is_schema_name, schema, set_schema};
pub use settings::{MirrorSettings, Variables};
pub use summary::{Details, LastRun, Overview, RecentSyncs, ResourceStatus, Summary};
pub use sync_kind::SyncKind;
pub use sync_state::SyncState;

use crate::resource::Resource;
use pool::ConnectionPool;

/// The mirror of one Clerk instance in one database. Clones share the pool of connections.
#[derive(Debug, Clone)]
pub struct Mirror(ConnectionPool);

impl Mirror {
    /// Largest size of the pool of connections.
    pub const MOST_CONNECTIONS: usize = ConnectionPool::MOST_CONNECTIONS;

    /// Creates a mirror of a resource. It does not connect yet.
    ///
    /// # Errors
    /// The address, or a file that it names, cannot be used.
    pub fn new(settings: &MirrorSettings, resource: &'static Resource) -> Result<Self, MirrorError> {
        ConnectionPool::new(settings, resource).map(Self)
    }

    /// Returns the mirror of another resource in the same database, over the same connections.
    #[must_use]
    pub fn of(&self, resource: &'static Resource) -> Self {
        Self(self.0.of(resource))
    }

    /// Waits up to `patience` for a server that cannot be reached. A `connect_timeout` in the
    /// address takes precedence.
    ///
    /// # Errors
    /// The server could not be reached in time, or refuses the connection.
    pub async fn wait(&self, patience: Duration) -> Result<(), MirrorError> {
        self.0.wait(patience).await
    }

    /// Connections in the pool at most.
    pub fn max_connections(&self) -> usize {
        self.0.max_connections()
    }

    /// The schema and its migrations.
    pub fn schema(&self) -> Schema {
        Schema(self.0.clone())
    }

    /// The Clerk instance that the database mirrors.
    pub fn instance(&self) -> PinnedInstance {
        PinnedInstance(self.0.clone())
    }

    /// The rows of the resource's table.
    pub fn rows(&self) -> Rows {
        Rows(self.0.clone())
    }

    /// How many objects the mirror has, and how many it expects at Clerk.
    pub fn counts(&self) -> Counts {
        Counts(self.0.clone())
    }

    /// Objects that a sync did not meet.
    pub fn missing(&self) -> Missing {
        Missing(self.0.clone())
    }

    /// Deletions that are held.
    pub fn holds(&self) -> Holds {
        Holds(self.0.clone())
    }

    /// Objects that could not be stored.
    pub fn rejected(&self) -> RejectedObjects {
        RejectedObjects(self.0.clone())
    }

    /// The syncs.
    pub fn runs(&self) -> Runs {
        Runs(self.0.clone())
    }

    /// Fields that are not stored, and the erasure of what is stored of them.
    pub fn erasure(&self) -> Erasure {
        Erasure(self.0.clone())
    }

    /// The lease.
    pub fn leases(&self) -> Leases {
        Leases(self.0.clone())
    }

    /// Which daemon leads.
    pub fn leadership(&self) -> Leadership {
        Leadership(self.0.clone())
    }

    /// The application's tables that are kept in sync.
    pub fn app_tables(&self) -> AppTables {
        AppTables(self.0.clone())
    }

    /// The events.
    pub fn outbox(&self) -> Outbox {
        Outbox(self.0.clone())
    }

    /// How far events are delivered.
    pub fn deliveries(&self) -> Deliveries {
        Deliveries(self.0.clone())
    }

    /// What `clerk2pg status` and the status page show.
    pub fn overview(&self) -> Overview {
        Overview(self.0.clone())
    }
}
