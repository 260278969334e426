//! A table of an application, and a mapping that fills it.

use std::path::PathBuf;

use tempfile::TempDir;

use crate::support::{
    fixture::Fixture,
    monitored::{ANY, MonitoredDaemon},
    organizations::ALL,
    process::{NEVER, Process},
    program::ProgramOutput,
};

/// A table as Prisma makes it.
pub const USER_TABLE: &str = r#"
    CREATE TYPE "Role" AS ENUM ('USER', 'ADMIN');
    CREATE TABLE "User" (
        id text PRIMARY KEY,
        "clerkId" text UNIQUE NOT NULL,
        email text NOT NULL,
        name varchar(64) NOT NULL,
        role "Role" NOT NULL,
        "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
        "updatedAt" timestamp(3) NOT NULL
    );"#;

/// A mapping that fills it.
pub const USER_MAPPING: &str = r#"
    [[tables]]
    name = "User"
    key = "clerkId"
    [tables.set]
    email = "coalesce(u.primary_email, '')"
    name = "coalesce(u.full_name, u.username, '')"
    [tables.insert]
    id = "clerk.cuid()"
    role = "'USER'"
    [tables.touch]
    updatedAt = "now()"
"#;

/// A fixture with a table of an application, and a configuration that maps it.
pub struct AppTable {
    pub fixture: Fixture,
    directory: TempDir,
    /// Further variables of the program's environment.
    environment: &'static [(&'static str, &'static str)],
}

impl AppTable {
    /// Creates the application's schema with `sql`, and writes the mapping.
    pub async fn new(users: usize, sql: &str, mapping: &str) -> Self {
        Self::with(Fixture::migrated_with(users).await, sql, mapping).await
    }

    /// The same for an existing fixture.
    pub async fn with(fixture: Fixture, sql: &str, mapping: &str) -> Self {
        fixture.db.execute(sql).await;
        let app = Self {
            fixture,
            directory: TempDir::new().unwrap(),
            environment: &[],
        };
        app.set_mapping(mapping);
        app
    }

    /// The same with organizations and what belongs to them.
    pub async fn with_organizations(fixture: Fixture, sql: &str, mapping: &str) -> Self {
        Self {
            environment: &[ALL],
            ..Self::with(fixture, sql, mapping).await
        }
    }

    /// Returns the fixture, and the folder of the configuration.
    pub fn into_parts(self) -> (Fixture, TempDir) {
        (self.fixture, self.directory)
    }

    /// Replaces the mapping.
    pub fn set_mapping(&self, mapping: &str) {
        std::fs::write(self.config(), mapping).unwrap();
    }

    /// The configuration's path.
    pub fn config(&self) -> PathBuf {
        self.directory.path().join("config.toml")
    }

    /// Runs the program with the configuration.
    pub async fn run(&self, arguments: &[&str]) -> ProgramOutput {
        let config = self.config();
        let with_config = ["--config", config.to_str().unwrap()];
        let all: Vec<&str> = with_config.iter().chain(arguments).copied().collect();
        self.fixture.run_with(&all, self.environment).await
    }

    /// Starts a daemon with the configuration: its first full sync is due, and what the environment
    /// schedules.
    pub fn start_daemon(&self, environment: &[(&str, &str)]) -> Process {
        let config = self.config();
        let mut command = self.fixture.command(&["--config", config.to_str().unwrap()]);
        command.envs(self.environment.iter().chain(environment).copied());
        Process::spawn(command)
    }

    /// Starts a full sync with the configuration, and does not wait for it.
    pub fn start_once(&self) -> Process {
        let config = self.config();
        let mut command = self.fixture.command(&["--once", "--config", config.to_str().unwrap()]);
        command.envs(self.environment.iter().copied());
        Process::spawn(command)
    }

    /// Makes all departures old enough for Clerk's answers to count.
    pub async fn age_departures(&self) {
        self.fixture
            .db
            .execute("UPDATE clerk.departures SET found_at = found_at - interval '1 minute'")
            .await;
    }

    /// Starts a daemon with the configuration and an HTTP listener, that runs one full sync and then
    /// syncs only on request.
    pub async fn monitored(&self) -> MonitoredDaemon {
        MonitoredDaemon::new(self.start_daemon(&[NEVER, ("CLERK2PG_SCHEDULE__INCREMENTAL", ""), ANY])).await
    }

    /// Runs one full sync.
    pub async fn once(&self) -> ProgramOutput {
        self.run(&["--once", "--format", "json"]).await
    }
}
