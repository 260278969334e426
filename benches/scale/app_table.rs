//! A table of an application, as Prisma makes it, and the mapping that fills it.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use tokio::process::Command;

use crate::world::{Server, World, scratch};

/// The name as SQL has it.
pub const NAME: &str = r#"public."User""#;

/// Creates it.
pub const CREATE: &str = include_str!("../peers/node/app/table.sql");

const CONFIG: &str = r#"
[log]
format = "json"

[[tables]]
name = "User"
key = "clerkId"
[tables.set]
email = "coalesce(u.primary_email, '')"
name = "coalesce(u.full_name, u.username, '')"
[tables.insert]
id = "clerk.cuid()"
[tables.touch]
updatedAt = "now() AT TIME ZONE 'UTC'"
"#;

/// The rows that are missing, differ, or are without a user, by a statement that compares all.
pub const DIFFERENT: &str = r#"SELECT count(*) FROM clerk.users u FULL JOIN public."User" t ON t."clerkId" = u.id
    WHERE u.id IS NULL OR t."clerkId" IS NULL
        OR t.email IS DISTINCT FROM coalesce(u.primary_email, '')
        OR t.name IS DISTINCT FROM coalesce(u.full_name, u.username, '')"#;

/// A checksum of what users have in the table.
pub const CONTENT: &str = r#"SELECT sum(hashtext(concat_ws(' ', "clerkId", email, name)))::bigint FROM public."User""#;

/// The table, mapped by a configuration file.
pub struct AppTable {
    config: PathBuf,
}

impl AppTable {
    pub fn new() -> Result<Self> {
        let config = scratch()?.join("tables.toml");
        std::fs::write(&config, CONFIG)?;
        Ok(Self { config })
    }

    /// Makes a database that has the table only.
    pub async fn empty(&self, server: &Server, database: &str) -> Result<()> {
        server.empty(database).await?;
        server.execute(database, CREATE).await
    }

    /// A command of `clerk2pg --once` that fills the table, too.
    pub fn command(&self, world: &World, database: &str) -> Command {
        let mut command = world.command(database);
        command.arg("--config").arg(&self.config);
        command
    }

    /// Fails if the mirror or the table does not have all users.
    pub async fn ensure_equal(&self, world: &World, database: &str) -> Result<()> {
        let rows = world
            .server()
            .number(database, "SELECT count(*) FROM clerk.users")
            .await?;
        ensure!(usize::try_from(rows) == Ok(world.users), "the mirror has {rows} users");
        let different = world.server().number(database, DIFFERENT).await?;
        ensure!(different == 0, "{different} rows of {NAME} are not those of the mirror");
        Ok(())
    }
}
