//! Connections to PostgreSQL.

use anyhow::{Context, Result};
use tokio_postgres::{Client, NoTls};

/// Connects. A task drives the connection until the client is dropped.
pub async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls)
        .await
        .context("cannot connect to PostgreSQL")?;
    tokio::spawn(connection);
    Ok(client)
}
