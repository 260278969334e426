//! A database, a simulated Clerk and the program for one test.

use std::collections::BTreeSet;

use clerk_sim::{Options, Sim};
use tokio::process::Command;

use crate::support::{
    compare::comparable,
    database::Database,
    program::{ProgramOutput, command},
    summary::Exit,
    wait::PATIENCE,
};

/// What one test works with: a database and a simulated Clerk.
pub struct Fixture {
    pub db: Database,
    pub sim: Sim,
}

impl Fixture {
    pub async fn new(users: usize) -> Self {
        Self::with(Options {
            users,
            ..Options::default()
        })
        .await
    }

    /// Starts with these options but a production key, so that the request budget does not slow the
    /// test down.
    pub async fn with(options: Options) -> Self {
        Self::exactly(Options {
            secret_key: "sk_live_test".to_owned(),
            ..options
        })
        .await
    }

    /// The same with the mirror's schema. In all other fixtures, the program's first run creates it.
    pub async fn migrated(options: Options) -> Self {
        let secret_key = "sk_live_test".to_owned();
        let (db, sim) = tokio::join!(Database::migrated(), Sim::start(Options { secret_key, ..options }));
        Self { db, sim: sim.unwrap() }
    }

    /// The same with this number of users.
    pub async fn migrated_with(users: usize) -> Self {
        Self::migrated(Options {
            users,
            ..Options::default()
        })
        .await
    }

    /// Starts with exactly these options, with their key.
    pub async fn exactly(options: Options) -> Self {
        let (db, sim) = tokio::join!(Database::new(), Sim::start(options));
        Self { db, sim: sim.unwrap() }
    }

    /// Returns a command of the program that uses this database and this Clerk.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command();
        command
            .args(arguments)
            .env("DATABASE_URL", &self.db.url)
            .env("CLERK_SECRET_KEY", self.sim.secret_key())
            .env("CLERK_API_URL", self.sim.url())
            // Proxies between the program and Postgres read what is sent.
            .env("PGSSLMODE", "disable")
            .env("CLERK2PG_CLERK__REQUEST_BUDGET", "1.0")
            // Tests of organizations ask for more.
            .env("CLERK2PG_MIRROR__RESOURCES", "users")
            .env("CLERK2PG_LEASE__TTL", "1s");
        command
    }

    pub async fn run(&self, arguments: &[&str]) -> ProgramOutput {
        self.run_with(arguments, &[]).await
    }

    pub async fn run_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> ProgramOutput {
        let output = self.command(arguments).envs(environment.iter().copied()).output();
        let output = tokio::time::timeout(PATIENCE, output)
            .await
            .expect("the program does not end");
        output.unwrap().into()
    }

    /// Runs one full sync and returns its report as JSON.
    pub async fn once(&self) -> ProgramOutput {
        self.run(&["--once", "--format", "json"]).await
    }

    pub async fn once_with(&self, environment: &[(&str, &str)]) -> ProgramOutput {
        self.run_with(&["--once", "--format", "json"], environment).await
    }

    /// Makes all rows and held deletions old enough for Clerk's next answer to count.
    pub async fn age_rows(&self) {
        self.db
            .execute(
                "UPDATE clerk.users
                 SET first_seen_at = first_seen_at - interval '1 hour', changed_at = changed_at - interval '1 hour';
                 UPDATE clerk.missing SET held_at = held_at - interval '1 hour'",
            )
            .await;
    }

    /// Makes held deletions old enough for Clerk's next answer to count.
    pub async fn age_held(&self) {
        self.db
            .execute("UPDATE clerk.missing SET held_at = held_at - interval '1 hour'")
            .await;
    }

    /// Asserts that the mirror equals Clerk, document by document.
    pub async fn assert_in_sync(&self) {
        let mirror = self.db.documents().await;
        let ids: Vec<String> = self.sim.user_ids();
        let mut expected: Vec<&String> = ids.iter().collect();
        expected.sort();
        assert_eq!(mirror.keys().collect::<Vec<_>>(), expected, "other users than at Clerk");
        for id in &ids {
            let (mirror, clerk) = (mirror[id].clone(), self.sim.document(id).unwrap());
            assert_eq!(comparable(mirror), comparable(clerk), "{id}");
        }
    }

    pub async fn users(&self) -> i64 {
        self.db.number("SELECT count(*) FROM clerk.users").await
    }

    pub async fn has_user(&self, id: &str) -> bool {
        self.db
            .number(&format!("SELECT count(*) FROM clerk.users WHERE id = '{id}'"))
            .await
            == 1
    }

    pub async fn first_name(&self, id: &str) -> String {
        let sql = format!("SELECT first_name FROM clerk.users WHERE id = '{id}'");
        self.db.text(&sql).await.unwrap()
    }
}

/// Returns a fixture whose users are mirrored already.
pub async fn mirrored(users: usize) -> Fixture {
    let fixture = Fixture::migrated_with(users).await;
    let ran = fixture.once().await;
    ran.assert_exit(Exit::Ok);
    fixture.age_rows().await;
    fixture
}

pub async fn mirrored_ids(fixture: &Fixture) -> BTreeSet<String> {
    fixture.db.documents().await.into_keys().collect()
}
