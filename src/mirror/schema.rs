//! The schema `clerk`: whether it is ours, which migrations are applied, and applying the others.

use std::time::Duration;

use diesel::{
    migration::{Migration, MigrationSource},
    pg::Pg,
    prelude::*,
    sql_query,
    sql_types::{Bool, Text},
};
use diesel_async::{AsyncMigrationHarness, RunQueryDsl, SimpleAsyncConnection, TransactionManager};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use tokio_util::task::AbortOnDropHandle;

use super::{MirrorError, connect::Connection, error::SchemaError, locks, pool::ConnectionPool, session::Transactions};

/// The migrations under `migrations/`, embedded.
pub const MIGRATIONS: EmbeddedMigrations = embed_migrations!();

/// How long a migration waits for each lock.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// How often a migration that could not get a lock is tried again. The pauses are for those that
/// queue behind it. All attempts together take half a minute.
const MOST_RETRIES: usize = 10;
const PAUSE: Duration = Duration::from_secs(1);

/// What is in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
enum SchemaVersion {
    /// No schema `clerk`, or an empty one that was prepared for us.
    Empty { schema_exists: bool },
    /// Our schema, with this number of migrations to apply.
    Ours { pending: usize },
}

/// Checks and migrates the schema `clerk`.
#[derive(Debug, Clone)]
pub struct Schema(pub(super) ConnectionPool);

impl Schema {
    /// Returns whether there is a schema to read. Does not write.
    ///
    /// # Errors
    /// The schema is foreign, newer than this binary, or too old to be read.
    pub async fn exists(&self) -> Result<bool, MirrorError> {
        match state(&mut self.0.connection().await?).await? {
            SchemaVersion::Empty { .. } => Ok(false),
            SchemaVersion::Ours { pending: 0 } => Ok(true),
            SchemaVersion::Ours { .. } => Err(SchemaError::Outdated { missing: false }.into()),
        }
    }

    /// Makes sure that the schema is this binary's, and applies migrations if `migrate` allows it.
    /// Returns the versions applied.
    pub async fn prepare(&self, migrate: bool) -> Result<Vec<String>, MirrorError> {
        let mut connection = self.0.connection().await?;
        match state(&mut connection).await? {
            SchemaVersion::Ours { pending: 0 } => Ok(Vec::new()),
            _ if migrate => {
                // Diesel's harness blocks its task, and the daemon's heartbeat must go on.
                let applied = AbortOnDropHandle::new(tokio::spawn(apply(connection)));
                applied
                    .await
                    .map_err(|error| MirrorError::Database(error.to_string()))?
            }
            SchemaVersion::Empty { .. } => Err(SchemaError::Outdated { missing: true }.into()),
            SchemaVersion::Ours { .. } => Err(SchemaError::Outdated { missing: false }.into()),
        }
    }
}

fn versions() -> Result<Vec<String>, MirrorError> {
    let migrations: Vec<Box<dyn Migration<Pg>>> = MIGRATIONS
        .migrations()
        .map_err(|error| MirrorError::Database(error.to_string()))?;
    Ok(migrations
        .iter()
        .map(|migration| migration.name().version().to_string())
        .collect())
}

/// Returns what is in the database. Does not write.
async fn state(conn: &mut Connection) -> Result<SchemaVersion, MirrorError> {
    #[derive(QueryableByName)]
    struct SchemaObjects {
        #[diesel(sql_type = Bool)]
        schema: bool,
        #[diesel(sql_type = Bool)]
        tables: bool,
        #[diesel(sql_type = Bool)]
        bookkeeping: bool,
    }
    let found: SchemaObjects = sql_query(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'clerk') AS schema,
                EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'clerk') AS tables,
                pg_catalog.to_regclass('clerk.__diesel_schema_migrations') IS NOT NULL AS bookkeeping",
    )
    .get_result(conn)
    .await?;
    if !found.bookkeeping {
        return if found.tables {
            Err(SchemaError::Foreign.into())
        } else {
            Ok(SchemaVersion::Empty {
                schema_exists: found.schema,
            })
        };
    }

    #[derive(QueryableByName)]
    struct Applied {
        #[diesel(sql_type = Text)]
        version: String,
    }
    let applied: Vec<Applied> = sql_query("SELECT version FROM clerk.__diesel_schema_migrations ORDER BY version")
        .load(conn)
        .await?;
    let known = versions()?;
    if let Some(unknown) = applied.iter().find(|applied| !known.contains(&applied.version)) {
        // If an application keeps its own tables in a schema "clerk" through Diesel, all versions
        // are unknown to us.
        let ours = applied.iter().any(|applied| known.contains(&applied.version));
        return Err(match ours {
            true => SchemaError::Newer(unknown.version.clone()),
            false => SchemaError::Foreign,
        }
        .into());
    }
    Ok(SchemaVersion::Ours {
        pending: known.len() - applied.len(),
    })
}

/// Applies pending migrations, and returns their versions.
///
/// Each migration is a transaction of its own: one that locks the users' table must not block
/// readers while another one reads all rows. While a migration waits for such a lock, later readers
/// queue behind it. Therefore it gives up soon, and is tried again.
async fn apply(mut conn: Connection) -> Result<Vec<String>, MirrorError> {
    let mut applied = Vec::new();
    let mut retries = 0;
    loop {
        let before = state(&mut conn).await?;
        Transactions::begin_transaction(&mut *conn).await?;
        let tried;
        (conn, tried) = apply_next(conn).await;
        match tried {
            Ok(version) => {
                Transactions::commit_transaction(&mut *conn).await?;
                let Some(version) = version else { return Ok(applied) };
                applied.push(version);
                retries = 0;
            }
            Err(error) => {
                let undone = Transactions::rollback_transaction(&mut *conn).await;
                if undone.is_ok() && state(&mut conn).await? != before {
                    // Another process has created the schema meanwhile.
                    continue;
                }
                if !matches!(error, MirrorError::Locked(_)) || retries == MOST_RETRIES || undone.is_err() {
                    return Err(error);
                }
                retries += 1;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Applies the next migration in the open transaction, and returns its version; `None` if none is
/// pending. Diesel's harness takes the connection by value, so this returns it.
async fn apply_next(mut conn: Connection) -> (Connection, Result<Option<String>, MirrorError>) {
    match is_pending(&mut conn).await {
        Ok(true) => {}
        Ok(false) => return (conn, Ok(None)),
        Err(error) => return (conn, Err(error)),
    }
    // A fault from before is not about this migration.
    conn.take_fault();
    let mut harness = AsyncMigrationHarness::new(conn);
    let version = match harness.run_next_migration(MIGRATIONS) {
        Ok(version) => Ok(Some(version.to_string())),
        Err(error) => Err(format!("a migration failed: {error}")),
    };
    conn = harness.into_inner();
    // Diesel's error has the text only.
    let version = version.map_err(|text| conn.take_fault().map_or(MirrorError::Database(text), MirrorError::from));
    (conn, version)
}

/// Takes the lock against other migrations, and returns whether any migration is pending.
async fn is_pending(conn: &mut Connection) -> Result<bool, MirrorError> {
    match state(conn).await? {
        SchemaVersion::Empty { schema_exists: false } => conn.batch_execute("CREATE SCHEMA clerk").await?,
        SchemaVersion::Empty { schema_exists: true } => {}
        SchemaVersion::Ours { .. } => {
            // Two daemons may start at once, and migrations take no lock of their own. Only a role
            // that may write the table can hold this lock; any role can hold an advisory one.
            conn.batch_execute("LOCK TABLE clerk.__diesel_schema_migrations IN SHARE ROW EXCLUSIVE MODE")
                .await?;
            if state(conn).await? == (SchemaVersion::Ours { pending: 0 }) {
                return Ok(false);
            }
        }
    }
    // Diesel's bookkeeping goes where the search path points: into our schema, not among the
    // application's own migrations. `pg_catalog`, which is not listed, is searched first, before
    // anything that another role may have put into the schema.
    conn.batch_execute("SET LOCAL search_path = clerk").await?;
    locks::wait_at_most(conn, LOCK_WAIT).await?;
    Ok(true)
}
