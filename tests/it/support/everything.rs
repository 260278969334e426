//! Runs everything that a daemon and its commands do, with one database URL.

use std::fs;

use rustix::process::Signal;
use tempfile::NamedTempFile;

use crate::support::{
    fixture::Fixture,
    process::{EVERY_SECOND, NEVER, Process},
    receiver::{Receiver, Reply},
    summary::{Exit, changed, held, planned},
    wait::eventually,
};

/// Runs each command and a daemon with this database URL.
pub async fn do_everything(fixture: &Fixture, url: &str, environment: &[(&str, &str)]) {
    let all = [environment, &[("DATABASE_URL", url)]].concat();
    let once = async || fixture.run_with(&["--once", "--format", "json"], &all).await;
    let db = &fixture.db;

    once().await.assert(Exit::Ok, changed().created(60));
    // A user that the application refuses, and old events.
    db.execute("ALTER TABLE clerk.users ADD CHECK (first_name <> 'Unwanted')")
        .await;
    db.execute(
        "INSERT INTO clerk.events (resource, type, object_id, occurred_at, payload, recorded_at)
         VALUES ('users', 'user.created', 'user_old', now(), '{}', now() - interval '31 days')",
    )
    .await;
    let ids = fixture.sim.user_ids();
    fixture
        .sim
        .update(&ids[3], |user| user["first_name"] = "Unwanted".into());
    fixture
        .sim
        .update(&ids[4], |user| user["first_name"] = "Changed".into());
    fixture.sim.delete(&ids[5]);
    fixture.sim.create_random();
    once().await.assert(
        Exit::Ok,
        changed().created(1).updated(1).deleted(1).unchanged(57).rejected(1),
    );
    let events = "SELECT string_agg(type, ' ' ORDER BY type) FROM clerk.user_events";
    let expected = "user.created user.deleted user.updated";
    assert_eq!(
        db.text(events).await.as_deref(),
        Some(expected),
        "the old one is pruned"
    );
    fixture.sim.update(&ids[3], |user| user["first_name"] = "Wanted".into());
    once().await.assert(Exit::Ok, changed().updated(1).unchanged(59));

    for id in &ids[10..25] {
        fixture.sim.delete(id);
    }
    let plan = fixture.run_with(&["--dry-run", "--format", "json"], &all).await;
    plan.assert(Exit::Ok, planned().unchanged(45).held(15));
    let ran = once().await;
    ran.assert(Exit::Held, held(15).unchanged(45));
    let sum = ran.json()["plan"].as_str().unwrap().to_owned();
    let status = fixture.run_with(&["status"], &all).await;
    assert!(
        status.stdout.contains(&format!("clerk2pg approve {sum}")),
        "{status:#?}"
    );
    let approved = fixture.run_with(&["approve", &sum], &all).await;
    approved.assert_exit(Exit::Ok);
    once().await.assert(Exit::Ok, changed().deleted(15).unchanged(45));

    let daemon = Process::new(fixture.daemon(&[&all[..], &[NEVER, EVERY_SECOND]].concat()));
    fixture.wait_until_mirrored().await;
    fixture.sim.create_random();
    fixture.sim.update_random();
    fixture.sim.delete_random();
    fixture.wait_until_mirrored().await;
    let id = fixture.sim.create_random();
    fixture.notify(&id).await;
    eventually("the user's row", async || fixture.has_user(&id).await).await;
    let ran = daemon.stop(Signal::TERM).await;
    ran.assert_exit(Exit::Ok);
    assert!(
        !ran.stderr.contains("WARN") && !ran.stderr.contains("ERROR"),
        "{ran:#?}"
    );
    assert_eq!(fixture.lease_holder().await, None);
    fixture.assert_in_sync().await;

    let marking = [&all[..], &[("CLERK2PG_DELETES__MODE", "mark")]].concat();
    fixture.sim.delete_random();
    let marked = fixture.run_with(&["--once", "--format", "json"], &marking).await;
    marked.assert(Exit::Ok, changed().deleted(1).unchanged(45));
    deliver_everything(fixture, &all).await;
}

/// A configuration with an endpoint, and what runs with it.
struct DeliveryScene<'f> {
    fixture: &'f Fixture,
    environment: &'f [(&'f str, &'f str)],
    receiver: Receiver,
    config: NamedTempFile,
}

/// Everything is delivered, except dead events.
const IS_DONE: &str = "SELECT count(*) FROM clerk.endpoints WHERE paused_at IS NULL AND removed_at IS NULL
    AND position = (SELECT max(id) FROM clerk.events)
    AND NOT EXISTS (SELECT FROM clerk.deliveries WHERE dead_at IS NULL)";

/// Delivers events: late ones, dead ones, those of a paused endpoint, and again. Then the endpoint
/// is renamed and removed.
async fn deliver_everything(fixture: &Fixture, environment: &[(&str, &str)]) {
    let refused = fixture.sim.user_ids()[0].clone();
    let receiver = Receiver::answering(move |event| match event.object() == refused {
        true => Reply::status(500),
        false => Reply::ok(),
    })
    .await;
    let scene = DeliveryScene {
        fixture,
        environment,
        receiver,
        config: NamedTempFile::with_suffix(".toml").unwrap(),
    };
    scene.configure(&format!("{}start = \"everything\"\n", scene.receiver.endpoint("app")));
    let daemon = scene.start();
    scene.fail_in_every_way().await;
    scene.redeliver_everything().await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);

    scene.configure(&scene.receiver.endpoint("shop"));
    let daemon = scene.start();
    let renamed = "SELECT count(*) FROM clerk.endpoints WHERE name = 'shop' AND delivered_at IS NOT NULL";
    scene.becomes("it is renamed", renamed, 1).await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    scene.configure("");
    let daemon = scene.start();
    let removed = "SELECT count(removed_at) FROM clerk.endpoints";
    scene.becomes("it is removed", removed, 1).await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    // The first full sync of a daemon may have been cut off.
    scene.run(&["--once"]).await;
}

impl DeliveryScene<'_> {
    fn path(&self) -> &str {
        self.config.path().to_str().unwrap()
    }

    fn configure(&self, endpoints: &str) {
        fs::write(self.path(), endpoints).unwrap();
    }

    fn start(&self) -> Process {
        let mut command = self.fixture.command(&["--config", self.path()]);
        command
            .envs(self.environment.iter().copied())
            .envs([NEVER, EVERY_SECOND]);
        Process::spawn(command)
    }

    async fn run(&self, arguments: &[&str]) {
        let arguments = [&["--config", self.path()], arguments].concat();
        let ran = self.fixture.run_with(&arguments, self.environment).await;
        ran.assert_exit(Exit::Ok);
    }

    async fn becomes(&self, what: &str, sql: &str, count: i64) {
        eventually(what, async || self.fixture.db.number(sql).await == count).await;
    }

    fn rename(&self, id: &str, name: &str) {
        self.fixture.sim.update(id, |user| user["first_name"] = name.into());
    }

    /// Makes events late, blocked and dead, and the endpoint paused.
    async fn fail_in_every_way(&self) {
        let ids = self.fixture.sim.user_ids();
        let late = "SELECT count(*) FROM clerk.deliveries WHERE dead_at IS NULL";
        self.becomes("all but one are delivered", late, 1).await;
        self.rename(&ids[0], "Blocked");
        self.becomes("an event is blocked", late, 2).await;
        let seventh =
            "UPDATE clerk.deliveries SET attempts = 7, next_attempt_at = now() WHERE next_attempt_at IS NOT NULL";
        self.fixture.db.execute(seventh).await;
        self.becomes("an event is dead", "SELECT count(dead_at) FROM clerk.deliveries", 1)
            .await;
        self.receiver.answer(|_| Reply::status(500));
        for id in &ids[1..8] {
            self.rename(id, "Refused");
        }
        let paused = "SELECT count(paused_at) FROM clerk.endpoints";
        self.becomes("the endpoint is paused", paused, 1).await;
        self.receiver.answer(|_| Reply::ok());
        self.becomes("it works again", IS_DONE, 1).await;
    }

    /// Runs every command about deliveries.
    async fn redeliver_everything(&self) {
        self.run(&["redeliver", "app"]).await;
        self.becomes("the dead event is delivered", IS_DONE, 1).await;
        self.run(&["redeliver", "app", "--since", "1h"]).await;
        self.run(&["redeliver", "app", "--since", "2026-01-01T00:00:00Z"]).await;
        self.run(&["redeliver", "app", "--id", "1"]).await;
        self.run(&["redeliver", "app", "--everything"]).await;
        self.run(&["endpoints"]).await;
        self.run(&["status"]).await;
        self.run(&["send-test", "app"]).await;
        self.becomes("everything is delivered again", IS_DONE, 1).await;
    }
}
