//! A daemon that delivers events to receivers.

use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    fixture::{Fixture, mirrored},
    monitored::{ANY, MonitoredDaemon},
    process::{EVERY_SECOND, NEVER, Process},
    program::ProgramOutput,
    receiver::Receiver,
    summary::Exit,
    wait::eventually,
};

/// A fixture whose users are mirrored, and a configuration with endpoints.
pub struct Delivering {
    pub fixture: Fixture,
    directory: TempDir,
}

impl Delivering {
    /// Mirrors some users, and configures endpoints.
    pub async fn new(users: usize, endpoints: &str) -> Self {
        Self::with(mirrored(users).await, endpoints)
    }

    /// Configures endpoints for a fixture.
    pub fn with(fixture: Fixture, endpoints: &str) -> Self {
        let delivering = Self {
            fixture,
            directory: TempDir::new().unwrap(),
        };
        delivering.configure(endpoints);
        delivering
    }

    /// Replaces the endpoints.
    pub fn configure(&self, endpoints: &str) {
        std::fs::write(self.config(), endpoints).unwrap();
    }

    /// The configuration's path.
    pub fn config(&self) -> PathBuf {
        self.directory.path().join("config.toml")
    }

    /// Starts a daemon with an incremental sync every second, and waits until its endpoints are
    /// registered and its first sync is done.
    pub async fn start(&self) -> Process {
        let before = self.fixture.runs("outcome IN ('in_sync', 'changed')").await;
        let daemon = self.spawn(&[]);
        eventually("the daemon delivers and has synced", async || {
            daemon.count_in_log("delivering events") > 0
                && self.fixture.runs("outcome IN ('in_sync', 'changed')").await > before
        })
        .await;
        daemon
    }

    /// Starts a daemon with an incremental sync every second.
    pub fn spawn(&self, environment: &[(&str, &str)]) -> Process {
        let config = self.config();
        let mut command = self.fixture.command(&["--config", config.to_str().unwrap()]);
        command
            .envs([NEVER, EVERY_SECOND])
            .env("CLERK2PG_HTTP__LISTEN", "")
            .envs(environment.iter().copied());
        Process::spawn(command)
    }

    /// Runs a command with the configuration.
    pub async fn run(&self, arguments: &[&str]) -> ProgramOutput {
        let config = self.config();
        let with_config = ["--config", config.to_str().unwrap()];
        let all: Vec<&str> = with_config.iter().chain(arguments).copied().collect();
        self.fixture.run(&all).await
    }

    /// Starts the same with an HTTP listener.
    pub async fn monitored(&self) -> MonitoredDaemon {
        MonitoredDaemon::new(self.spawn(&[ANY])).await
    }

    /// Returns what `clerk2pg endpoints` says of one endpoint, as JSON.
    pub async fn endpoint(&self, name: &str) -> Value {
        let ran = self.run(&["endpoints", "--format", "json"]).await;
        ran.assert_exit(Exit::Ok);
        let listed = ran.json()["endpoints"].as_array().unwrap().clone();
        let found = listed.iter().find(|endpoint| endpoint["name"] == name);
        found.unwrap_or_else(|| panic!("no {name} in {ran:#?}")).clone()
    }

    /// Waits until `clerk2pg endpoints` says this of an endpoint, and returns it.
    pub async fn wait_for_endpoint(&self, name: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let mut endpoint = Value::Null;
        eventually(&format!("{name} is as expected"), async || {
            endpoint = self.endpoint(name).await;
            holds(&endpoint)
        })
        .await;
        endpoint
    }

    /// Writes an event about an object, as a sync would, and returns its id. A daemon finds it at
    /// the next sync that writes events, or by itself within seconds.
    pub async fn insert_event(&self, object: &str, kind: &str) -> i64 {
        let sql = format!(
            "INSERT INTO clerk.events (resource, type, object_id, occurred_at, payload)
             SELECT 'users', 'user.{kind}', '{object}', now(),
                    jsonb_build_object('object', 'event', 'type', 'user.{kind}', 'data', jsonb_build_object('id', '{object}'))
             RETURNING id"
        );
        self.fixture.db.number(&sql).await
    }

    /// Writes `events` events in one transaction, about `objects` objects in turn: `user_0`, `user_1`
    /// and so on.
    pub async fn insert_events(&self, events: usize, objects: usize) {
        let sql = format!(
            "INSERT INTO clerk.events (resource, type, object_id, occurred_at, payload)
             SELECT 'users', 'user.updated', 'user_' || n % {objects}, now(),
                    jsonb_build_object('object', 'event', 'type', 'user.updated',
                        'data', jsonb_build_object('id', 'user_' || n % {objects}))
             FROM generate_series(0, {events} - 1) AS n ORDER BY n"
        );
        self.fixture.db.execute(&sql).await;
    }

    /// Makes all late events due.
    pub async fn make_due(&self) {
        let sql = "UPDATE clerk.deliveries SET next_attempt_at = now() WHERE next_attempt_at IS NOT NULL";
        self.fixture.db.execute(sql).await;
    }

    /// Waits until an endpoint has got everything.
    pub async fn wait_until_delivered(&self, endpoint: &str) {
        let sql = format!(
            "SELECT count(*) FROM clerk.endpoints WHERE name = '{endpoint}'
               AND position >= (SELECT coalesce(max(id), 0) FROM clerk.events)
               AND NOT EXISTS (SELECT FROM clerk.deliveries d WHERE d.endpoint = name AND d.dead_at IS NULL)"
        );
        eventually("everything is delivered", async || {
            self.fixture.db.number(&sql).await == 1
        })
        .await;
    }

    /// Asserts that a receiver accepted the events of each object in the order of their ids, that
    /// it got no event under two ids, and that all events after `after` were accepted.
    pub async fn assert_complete(&self, receiver: &Receiver, after: i64) {
        let accepted = receiver.accepted();
        let sql = "SELECT id, object_id FROM clerk.events WHERE id > $1 ORDER BY id";
        let rows = self.fixture.db.client.query(sql, &[&after]).await.unwrap();
        for row in &rows {
            let (id, object): (i64, String) = (row.get(0), row.get(1));
            let is_accepted = accepted
                .iter()
                .any(|event| event.number() == id && event.object() == object);
            assert!(is_accepted, "the event {id} about {object} was not accepted");
        }
        let mut last = std::collections::HashMap::new();
        let mut seen = std::collections::HashSet::new();
        for event in &accepted {
            let is_new = seen.insert(event.id().to_owned());
            let previous = last.get(&event.object()).copied().unwrap_or(0);
            if is_new {
                assert!(event.number() > previous, "{} came after {previous}", event.number());
                last.insert(event.object(), event.number());
            }
        }
    }
}
