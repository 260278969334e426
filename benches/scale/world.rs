//! A simulated Clerk instance, a database, and the program between them.

use std::{fmt, path::PathBuf, time::Instant};

use anyhow::{Context, Result};
use clerk_sim::{OrganizationOptions, RateLimit, Sim};
use tokio::process::Command;
use tokio_postgres::Client;

use crate::{
    postgres::connect,
    run::{Measurement, measure},
};

/// All settings are the defaults, except those of the rate limit, which nobody shares here.
///
/// The simulator enforces its own limit if a stage needs one.
const NO_LIMIT: (&str, &str) = ("CLERK2PG_CLERK__RATE_LIMIT", "1000000");
const WHOLE_BUDGET: (&str, &str) = ("CLERK2PG_CLERK__REQUEST_BUDGET", "1.0");

/// The folder for files of this run.
pub fn scratch() -> Result<PathBuf> {
    let folder = std::env::var("BENCH_SCRATCH").context("BENCH_SCRATCH is not set: run `make bench`")?;
    Ok(PathBuf::from(folder))
}

/// The private server that scripts/bench starts.
pub struct Server {
    client: Client,
    address: String,
    version: String,
}

/// A simulated instance with a database server.
pub struct World {
    pub sim: Sim,
    pub users: usize,
    server: Server,
}

impl Server {
    pub async fn connect() -> Result<Self> {
        let url = std::env::var("DATABASE_URL").context("DATABASE_URL is not set: run `make bench`")?;
        let client = connect(&url).await?;
        let version = client.query_one("SHOW server_version", &[]).await?.get(0);
        let address = url.strip_suffix("/postgres").unwrap_or(&url).to_owned();
        Ok(Self {
            client,
            address,
            version,
        })
    }

    /// Connects again.
    async fn reconnect(&self) -> Result<Self> {
        Ok(Self {
            client: connect(&self.url("postgres")).await?,
            address: self.address.clone(),
            version: self.version.clone(),
        })
    }

    /// Makes an empty database.
    ///
    /// A checkpoint writes everything to disk, so that no run pays for the one before it.
    pub async fn empty(&self, database: &str) -> Result<()> {
        for sql in [
            format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)"),
            format!("CREATE DATABASE {database}"),
            "CHECKPOINT".to_owned(),
        ] {
            self.client.batch_execute(&sql).await?;
        }
        Ok(())
    }

    pub fn url(&self, database: &str) -> String {
        format!("{}/{database}", self.address)
    }

    pub async fn execute(&self, database: &str, sql: &str) -> Result<()> {
        Ok(connect(&self.url(database)).await?.batch_execute(sql).await?)
    }

    pub async fn number(&self, database: &str, sql: &str) -> Result<i64> {
        Ok(connect(&self.url(database)).await?.query_one(sql, &[]).await?.get(0))
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgreSQL {}", self.version)
    }
}

impl World {
    pub async fn start(users: usize, rate_limit: RateLimit, server: &Server) -> Result<Self> {
        Self::with_organizations(users, OrganizationOptions::default(), rate_limit, server).await
    }

    pub async fn with_organizations(
        users: usize,
        organizations: OrganizationOptions,
        rate_limit: RateLimit,
        server: &Server,
    ) -> Result<Self> {
        println!("\nGenerating {users} users");
        let started = Instant::now();
        let options = clerk_sim::Options {
            users,
            rate_limit,
            organizations,
            secret_key: "sk_live_bench".to_owned(),
            ..clerk_sim::Options::default()
        };
        let sim = Sim::start(options).await.context("cannot start the simulator")?;
        println!("  generated in {:.1} s", started.elapsed().as_secs_f64());
        Ok(Self {
            sim,
            users,
            server: server.reconnect().await?,
        })
    }

    pub fn server(&self) -> &Server {
        &self.server
    }

    /// A command of `clerk2pg --once` without the environment of this process.
    pub fn command(&self, database: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_clerk2pg"));
        command
            .arg("--once")
            .env_clear()
            .env("DATABASE_URL", self.server.url(database))
            .env("CLERK_SECRET_KEY", self.sim.secret_key())
            .env("CLERK_API_URL", self.sim.url())
            .env("RUST_LOG", "warn")
            .envs([NO_LIMIT, WHOLE_BUDGET])
            // A folder without a config.toml.
            .current_dir("/");
        command
    }

    pub async fn once(&self, database: &str) -> Result<Measurement> {
        measure("clerk2pg", self.command(database)).await
    }

    pub async fn stop(self) {
        self.sim.stop().await;
    }
}
