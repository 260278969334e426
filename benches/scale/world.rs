//! A simulated Clerk, a database, and the program between them.

use std::{fmt, time::Instant};

use anyhow::{Context, Result};
use clerk_sim::{RateLimit, Sim};
use tokio::process::Command;
use tokio_postgres::Client;

use crate::{
    postgres::connect,
    run::{Took, measure},
};

/// Settings as they come, but for Clerk's rate limit, which is nobody else's here. The simulator keeps its own where a stage wants one.
const NO_LIMIT: (&str, &str) = ("CLERK2PG_CLERK__RATE_LIMIT", "1000000");
const WHOLE_BUDGET: (&str, &str) = ("CLERK2PG_CLERK__REQUEST_BUDGET", "1.0");

/// A server of this benchmark's own, from scripts/bench.
pub struct Server {
    client: Client,
    address: String,
    version: String,
}

pub struct World {
    pub sim: Sim,
    pub users: usize,
    server: Server,
}

impl Server {
    pub async fn connect() -> Result<Self> {
        let url = std::env::var("DATABASE_URL").context("run it with `make bench`, which starts a server")?;
        let client = connect(&url).await?;
        let version = client.query_one("SHOW server_version", &[]).await?.get(0);
        let address = url.strip_suffix("/postgres").unwrap_or(&url).to_owned();
        Ok(Self {
            client,
            address,
            version,
        })
    }

    /// Another connection.
    async fn again(&self) -> Result<Self> {
        Ok(Self {
            client: connect(&self.url("postgres")).await?,
            address: self.address.clone(),
            version: self.version.clone(),
        })
    }

    /// An empty database with everything that was written before on disk, so that nobody pays for the one before.
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
        println!("\nMaking {users} users");
        let begun = Instant::now();
        let options = clerk_sim::Options {
            users,
            rate_limit,
            secret_key: "sk_live_bench".to_owned(),
            ..clerk_sim::Options::default()
        };
        let sim = Sim::start(options).await.context("the simulator does not start")?;
        println!("  made in {:.1} s", begun.elapsed().as_secs_f64());
        Ok(Self {
            sim,
            users,
            server: server.again().await?,
        })
    }

    pub fn server(&self) -> &Server {
        &self.server
    }

    /// `clerk2pg --once`, with nothing of this process's environment.
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
            // Not where a config.toml may lie.
            .current_dir("/");
        command
    }

    pub async fn once(&self, database: &str) -> Result<Took> {
        measure("clerk2pg", self.command(database)).await
    }

    pub async fn stop(self) {
        self.sim.stop().await;
    }
}
