//! Connections to PostgreSQL.

use anyhow::{Context, Result};
use tokio_postgres::{Client, NoTls};

/// A connection that is driven until its client is dropped.
pub async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls)
        .await
        .context("PostgreSQL cannot be reached")?;
    tokio::spawn(connection);
    Ok(client)
}
