//! The database server: databases for the daemon, and counters of the server.

use std::fmt;

use anyhow::{Context, Result};
use tokio_postgres::Client;

use crate::postgres::connect;

/// The role of the daemon. Its statements are counted by this role.
const ROLE: &str = "clerk2pg_bench";

/// The private server that scripts/bench starts.
pub struct Server {
    client: Client,
    address: String,
    password: String,
    version: String,
    counts_statements: bool,
}

/// A database that belongs to the role of the daemon.
pub struct Database {
    /// The URL for the daemon.
    pub url: String,
    /// The URL for the benchmark, with another role.
    pub own_url: String,
    pub client: Client,
}

/// A statement, and the number of its executions.
pub struct Statement {
    pub text: String,
    pub calls: i64,
}

impl Server {
    pub async fn connect() -> Result<Self> {
        let url = std::env::var("DATABASE_URL").context("DATABASE_URL is not set: run this by `make`")?;
        let client = connect(&url).await?;
        let password = format!("{:016x}", fastrand::u64(..));
        client
            .batch_execute(&format!("CREATE ROLE {ROLE} LOGIN PASSWORD '{password}'"))
            .await?;
        let version = client.query_one("SHOW server_version", &[]).await?.get::<_, String>(0);
        let loaded: String = client.query_one("SHOW shared_preload_libraries", &[]).await?.get(0);
        let counts_statements = loaded.contains("pg_stat_statements");
        if counts_statements {
            client.batch_execute("CREATE EXTENSION pg_stat_statements").await?;
        }
        Ok(Self {
            client,
            address: url.strip_suffix("/postgres").unwrap_or(&url).to_owned(),
            password,
            version,
            counts_statements,
        })
    }

    pub async fn create(&self, name: &str) -> Result<Database> {
        self.client
            .batch_execute(&format!("CREATE DATABASE {name} OWNER {ROLE}"))
            .await?;
        let host = self.address.rsplit_once('@').map_or("", |(_, host)| host);
        let own_url = format!("{}/{name}", self.address);
        Ok(Database {
            url: format!("postgres://{ROLE}:{}@{host}/{name}", self.password),
            client: connect(&own_url).await?,
            own_url,
        })
    }

    /// Resets the counters of statements.
    pub async fn reset_statements(&self) -> Result<()> {
        if self.counts_statements {
            self.client.batch_execute("SELECT pg_stat_statements_reset()").await?;
        }
        Ok(())
    }

    /// The statements of the daemon since then, the most frequent first. `None` if the server does
    /// not count them.
    pub async fn statements(&self) -> Result<Option<Vec<Statement>>> {
        if !self.counts_statements {
            return Ok(None);
        }
        let sql = "SELECT regexp_replace(query, '\\s+', ' ', 'g'), sum(calls)::bigint
            FROM pg_stat_statements JOIN pg_roles ON pg_roles.oid = userid WHERE rolname = $1 GROUP BY 1 ORDER BY 2 DESC, 1";
        let rows = self.client.query(sql, &[&ROLE]).await?;
        let statement = |row: &tokio_postgres::Row| Statement {
            text: row.get(0),
            calls: row.get(1),
        };
        Ok(Some(rows.iter().map(statement).collect()))
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgreSQL {}", self.version)
    }
}

impl Database {
    /// Rows written so far in the tables of the database. The catalog is left out, because
    /// autovacuum writes it at any time.
    pub async fn rows_written(&self) -> Result<i64> {
        let sql = "SELECT coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0)::bigint
            FROM pg_stat_all_tables WHERE schemaname <> 'pg_catalog'";
        Ok(self.client.query_one(sql, &[]).await?.get(0))
    }

    /// The number of users in the mirror.
    pub async fn users(&self) -> Result<i64> {
        let row = self.client.query_one("SELECT count(*) FROM clerk.users", &[]).await?;
        Ok(row.get(0))
    }

    /// Vacuums, as autovacuum would do later.
    pub async fn vacuum(&self) -> Result<()> {
        Ok(self.client.batch_execute("VACUUM ANALYZE clerk.users").await?)
    }

    /// The number of completed full syncs. 0 if there is no schema yet.
    pub async fn full_syncs(&self) -> Result<i64> {
        let exists = "SELECT to_regclass('clerk.sync_runs') IS NOT NULL";
        if !self.client.query_one(exists, &[]).await?.get::<_, bool>(0) {
            return Ok(0);
        }
        let sql = "SELECT count(*) FROM clerk.sync_runs WHERE kind = 'full' AND outcome IN ('in_sync', 'changed')";
        Ok(self.client.query_one(sql, &[]).await?.get(0))
    }

    /// A description of the last sync.
    pub async fn last_run(&self) -> Result<String> {
        let sql = "SELECT format('%s: %s %s', kind, outcome, error) FROM clerk.sync_runs ORDER BY id DESC LIMIT 1";
        let row = self.client.query_opt(sql, &[]).await?;
        Ok(row.map_or_else(|| "none".to_owned(), |row| row.get(0)))
    }
}
