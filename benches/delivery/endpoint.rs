//! The endpoint that events are delivered to, as the daemon and the database know it.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tokio::{net::TcpListener, process::Command};

use crate::{server::Database, world::World};

/// A signing secret.
const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

/// The folder for files of this run.
pub fn scratch() -> Result<PathBuf> {
    let folder = std::env::var("BENCH_SCRATCH").context("BENCH_SCRATCH is not set: run `make bench-delivery`")?;
    Ok(PathBuf::from(folder))
}

/// A configuration with one endpoint, whose other settings are the defaults.
pub struct EndpointFile(PathBuf);

impl EndpointFile {
    pub fn write(address: SocketAddr) -> Result<Self> {
        let path = scratch()?.join("endpoint.toml");
        let url = format!("http://{address}/api/webhooks/clerk");
        fs::write(&path, format!("[[endpoints]]\nname = \"app\"\nurl = {url:?}\n"))?;
        Ok(Self(path))
    }

    pub fn configure(&self, command: &mut Command) {
        command
            .arg("--config")
            .arg(&self.0)
            .env("CLERK_WEBHOOK_SIGNING_SECRET", SECRET);
    }
}

/// How far the endpoint is.
pub struct EndpointState {
    /// Events after its position, and late ones.
    pub waiting: i64,
    pub is_paused: bool,
}

impl EndpointState {
    /// `None` if the endpoint is not registered yet.
    pub async fn read(database: &Database) -> Result<Option<Self>> {
        let sql = "SELECT paused_at IS NOT NULL, (SELECT count(*) FROM clerk.events WHERE id > p.position)
                + (SELECT count(*) FROM clerk.deliveries WHERE endpoint = p.name)
            FROM clerk.endpoints p WHERE name = 'app'";
        let row = database.client.query_opt(sql, &[]).await?;
        Ok(row.map(|row| Self {
            is_paused: row.get(0),
            waiting: row.get(1),
        }))
    }
}

/// An address where nobody listens.
pub async fn closed_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0").await?.local_addr()?)
}

/// Waits for a condition. Fails if the daemon ends, or after a time limit.
pub async fn wait_for(
    world: &mut World,
    what: &str,
    limit: Duration,
    mut is_met: impl AsyncFnMut(&World) -> Result<bool>,
) -> Result<()> {
    let started = Instant::now();
    while !is_met(world).await? {
        ensure!(started.elapsed() < limit, "{what}: not within {} s", limit.as_secs());
        world.sleep(Duration::from_millis(20)).await?;
    }
    Ok(())
}
