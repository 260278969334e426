//! What a service manager receives over a real notification socket.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use clerk_sim::{Effect, Rule};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::net::UnixDatagram;

use crate::migrations::{PRIMARY_PHONE_VERIFIED, revert_from};
use crate::support::{
    database::connect,
    fixture::{Fixture, mirrored},
    process::{EVERY_SECOND, NEVER, Process},
    summary::Exit,
    wait::eventually,
};

/// The service manager's end of the socket.
struct Manager {
    folder: TempDir,
    messages: Arc<Mutex<VecDeque<String>>>,
}

impl Manager {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        let messages = Arc::<Mutex<VecDeque<String>>>::default();
        let received = messages.clone();
        tokio::spawn(async move {
            let mut datagram = [0; 4096];
            while let Ok(length) = socket.recv(&mut datagram).await {
                let text = String::from_utf8(datagram[..length].to_vec()).unwrap();
                received.lock().unwrap().extend(text.lines().map(str::to_owned));
            }
        });
        Self { folder, messages }
    }

    fn socket(&self) -> String {
        self.folder.path().join("notify").to_str().unwrap().to_owned()
    }

    /// Waits for a message with this beginning and returns it. Earlier messages are discarded.
    async fn wait_for(&self, beginning: &str) -> String {
        let mut received = None;
        eventually(&format!("the manager receives {beginning}"), async || {
            let mut messages = self.messages.lock().unwrap();
            while let Some(message) = messages.pop_front() {
                if message.starts_with(beginning) {
                    received = Some(message);
                    return true;
                }
            }
            false
        })
        .await;
        received.unwrap()
    }
}

fn managed(fixture: &Fixture, manager: &Manager, more: &[(&str, &str)]) -> Process {
    let socket = manager.socket();
    fixture.start_daemon(&[&[("NOTIFY_SOCKET", socket.as_str())], more].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_manager_is_notified_from_start_to_stop() {
    let fixture = Fixture::new(30).await;
    let manager = Manager::new();
    let daemon = managed(&fixture, &manager, &[NEVER]);
    manager.wait_for("READY=1").await;
    manager.wait_for("STATUS=first full sync running").await;
    let status = manager.wait_for("STATUS=changed; last full sync at ").await;
    let totals = ": 30 created, 0 updated, 0 deleted, 0 unchanged";
    assert!(status.ends_with(totals), "{status}");

    daemon.signal(Signal::HUP);
    manager.wait_for("RELOADING=1").await;
    manager.wait_for("READY=1").await;
    manager.wait_for("STATUS=in sync; last full sync at ").await;

    let (ran, _) = tokio::join!(daemon.stop(Signal::TERM), manager.wait_for("STOPPING=1"));
    ran.assert_exit(Exit::Ok);
    let messages = manager.messages.lock().unwrap();
    assert!(
        messages.iter().all(|message| !message.starts_with("WATCHDOG")),
        "{messages:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watchdog_is_notified_while_clerk_is_slow() {
    let fixture = Fixture::new(30).await;
    fixture.sim.set_faults(Rule::new(Effect::LatencyMs(3_000)));
    let manager = Manager::new();
    let daemon = managed(&fixture, &manager, &[("WATCHDOG_USEC", "300000")]);
    manager.wait_for("READY=1").await;
    for _ in 0..10 {
        manager.wait_for("WATCHDOG=1").await;
    }
    let table = fixture.db.text("SELECT to_regclass('clerk.users')::text").await;
    assert_eq!(table, None, "Clerk has answered already");
    daemon.stop(Signal::TERM).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watchdog_is_notified_while_a_migration_waits() {
    let fixture = mirrored(3).await;
    revert_from(&fixture.db, PRIMARY_PHONE_VERIFIED).await;
    // The migration waits for this row, to derive its columns.
    let application = connect(&fixture.db.url).await;
    let lock = "UPDATE clerk.users SET primary_email = 'other'; BEGIN; SELECT FROM clerk.users FOR UPDATE";
    application.batch_execute(lock).await.unwrap();
    let manager = Manager::new();
    let daemon = managed(&fixture, &manager, &[NEVER, ("WATCHDOG_USEC", "300000")]);
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually("the migration waits", async || fixture.db.number(waiting).await > 0).await;
    manager.messages.lock().unwrap().clear();
    for _ in 0..10 {
        manager.wait_for("WATCHDOG=1").await;
    }
    assert!(fixture.db.number(waiting).await > 0);
    application.batch_execute("ROLLBACK").await.unwrap();
    let status = manager.wait_for("STATUS=in sync; last full sync at ").await;
    assert!(status.ends_with(" 3 unchanged"), "{status}");
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_in_the_status_text() {
    let fixture = Fixture::new(3).await;
    let manager = Manager::new();
    let daemon = managed(&fixture, &manager, &[EVERY_SECOND, ("CLERK2PG_CLERK__TIMEOUT", "1s")]);
    manager.wait_for("STATUS=changed").await;
    fixture.sim.set_faults(Rule::new(Effect::DropBefore));
    manager.wait_for("STATUS=failing: Clerk cannot be reached").await;
    fixture.sim.clear_faults();
    manager
        .wait_for("STATUS=back to normal; changed; last full sync at ")
        .await;
    daemon.stop(Signal::TERM).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn standing_by_is_in_the_status_text() {
    let fixture = Fixture::new(3).await;
    let manager = Manager::new();
    let daemon = managed(&fixture, &manager, &[NEVER, EVERY_SECOND]);
    manager.wait_for("STATUS=changed").await;
    fixture
        .db
        .execute(
            "UPDATE clerk.sync_state SET lease_holder = 'other:1', lease_epoch = lease_epoch + 1,
                 lease_ttl = '1 hour', lease_expires_at = now() + interval '1 hour'",
        )
        .await;
    manager.wait_for("STATUS=standing by: ").await;
    let free =
        "UPDATE clerk.sync_state SET lease_holder = NULL, lease_epoch = lease_epoch + 1, lease_expires_at = NULL";
    fixture.db.execute(free).await;
    manager.wait_for("STATUS=changed; last full sync at ").await;
    daemon.stop(Signal::TERM).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_reports_the_leader_and_its_own_takeover() {
    let fixture = Fixture::new(30).await;
    // A daemon that starts replaces a leader that was alone for longer than this.
    let (managers, lease) = ([Manager::new(), Manager::new()], ("CLERK2PG_LEASE__TTL", "30s"));
    let leader = managed(&fixture, &managers[0], &[NEVER, EVERY_SECOND, lease]);
    managers[0].wait_for("STATUS=changed; last full sync").await;
    let standby = managed(&fixture, &managers[1], &[NEVER, EVERY_SECOND, lease]);
    let name = fixture.db.text("SELECT holder FROM clerk.leader").await.unwrap();
    managers[1].wait_for(&format!("STATUS=standing by: {name} leads")).await;
    leader.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    managers[1].wait_for("STATUS=leads now; full sync running").await;
    managers[1].wait_for("STATUS=in sync; last full sync").await;
    standby.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}
