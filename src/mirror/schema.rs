//! The embedded migrations: which are applied, whether the schema is ours, and applying what is pending.

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

use super::{Error, Mirror, connect::Connection, error::SchemaError, locks, session::Transactions};

/// Everything under `migrations/`.
pub const MIGRATIONS: EmbeddedMigrations = embed_migrations!();

/// Two daemons may start at once, and migrations take no lock of their own. Any constant will do, as long as it is ours.
const LOCK: i64 = 0x636c_6572_6b32_7067;

/// How long a migration waits for each lock.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// How often a migration that was locked out is tried again, with pauses for those who waited behind it: for half a minute in all.
const MOST_RETRIES: usize = 10;
const PAUSE: Duration = Duration::from_secs(1);

/// What is in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
enum SchemaState {
    /// No schema `clerk`, or an empty one prepared for us.
    Empty { schema_exists: bool },
    /// Ours, with this many migrations to come.
    Ours { pending: usize },
}

/// The schema `clerk` and its migrations.
#[derive(Debug, Clone)]
pub struct Schema(pub(super) Mirror);

impl Schema {
    /// Whether there is a schema to read. Touches nothing.
    ///
    /// # Errors
    /// The schema is foreign or newer than this binary, or older and therefore not readable.
    pub async fn exists(&self) -> Result<bool, Error> {
        match state(&mut self.0.connection().await?).await? {
            SchemaState::Empty { .. } => Ok(false),
            SchemaState::Ours { pending: 0 } => Ok(true),
            SchemaState::Ours { .. } => Err(SchemaError::Outdated { missing: false }.into()),
        }
    }

    /// Makes sure that the schema is this binary's, applying migrations where `migrate` allows. Returns those applied.
    pub async fn prepare(&self, migrate: bool) -> Result<Vec<String>, Error> {
        let mut connection = self.0.connection().await?;
        match state(&mut connection).await? {
            SchemaState::Ours { pending: 0 } => Ok(Vec::new()),
            _ if migrate => apply(connection).await,
            SchemaState::Empty { .. } => Err(SchemaError::Outdated { missing: true }.into()),
            SchemaState::Ours { .. } => Err(SchemaError::Outdated { missing: false }.into()),
        }
    }
}

fn versions() -> Result<Vec<String>, Error> {
    let migrations: Vec<Box<dyn Migration<Pg>>> = MIGRATIONS
        .migrations()
        .map_err(|error| Error::Database(error.to_string()))?;
    Ok(migrations
        .iter()
        .map(|migration| migration.name().version().to_string())
        .collect())
}

/// Looks without touching.
async fn state(conn: &mut Connection) -> Result<SchemaState, Error> {
    #[derive(QueryableByName)]
    struct SchemaContents {
        #[diesel(sql_type = Bool)]
        schema: bool,
        #[diesel(sql_type = Bool)]
        tables: bool,
        #[diesel(sql_type = Bool)]
        bookkeeping: bool,
    }
    let found: SchemaContents = sql_query(
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
            Ok(SchemaState::Empty {
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
        // An application that keeps its own tables in a schema "clerk" through diesel has versions that are all strange to us.
        let ours = applied.iter().any(|applied| known.contains(&applied.version));
        return Err(match ours {
            true => SchemaError::Newer(unknown.version.clone()),
            false => SchemaError::Foreign,
        }
        .into());
    }
    Ok(SchemaState::Ours {
        pending: known.len() - applied.len(),
    })
}

/// Applies what is pending, and returns the versions applied. Each migration is a transaction: one that locks the users' table must not
/// keep readers out while another one goes through all rows. While it waits for such a lock, later readers wait behind it; therefore it gives up
/// soon, and is tried again.
async fn apply(mut conn: Connection) -> Result<Vec<String>, Error> {
    let mut applied = Vec::new();
    let mut retries = 0;
    loop {
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
                if !matches!(error, Error::Locked(_)) || retries == MOST_RETRIES || undone.is_err() {
                    return Err(error);
                }
                retries += 1;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Applies the next migration in the transaction that is open, and returns its version; none where nothing is pending. diesel's harness takes the
/// connection by value, so that it is handed back.
async fn apply_next(mut conn: Connection) -> (Connection, Result<Option<String>, Error>) {
    match is_pending(&mut conn).await {
        Ok(true) => {}
        Ok(false) => return (conn, Ok(None)),
        Err(error) => return (conn, Err(error)),
    }
    // One from before is none of this migration's.
    conn.take_fault();
    let mut harness = AsyncMigrationHarness::new(conn);
    let version = match harness.run_next_migration(MIGRATIONS) {
        Ok(version) => Ok(Some(version.to_string())),
        Err(error) => Err(format!("a migration failed: {error}")),
    };
    conn = harness.into_inner();
    // diesel's error has the text alone.
    let version = version.map_err(|text| conn.take_fault().map_or(Error::Database(text), Error::from));
    (conn, version)
}

/// Makes sure that nobody else migrates, and says whether anything is pending.
async fn is_pending(conn: &mut Connection) -> Result<bool, Error> {
    // It lasts as long as the transaction, and so works through a pooler that gives out transactions.
    sql_query(format!("SELECT pg_catalog.pg_advisory_xact_lock({LOCK})"))
        .execute(conn)
        .await?;
    match state(conn).await? {
        SchemaState::Ours { pending: 0 } => return Ok(false),
        SchemaState::Empty { schema_exists: false } => conn.batch_execute("CREATE SCHEMA clerk").await?,
        _ => {}
    }
    // diesel's bookkeeping goes where the search path points: into our schema, not among the application's own migrations. `pg_catalog`,
    // which is not named, is the first one in which names are found, before what somebody may have put into the schema.
    conn.batch_execute("SET LOCAL search_path = clerk").await?;
    locks::wait_at_most(conn, LOCK_WAIT).await?;
    Ok(true)
}
