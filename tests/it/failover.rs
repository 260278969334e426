//! The server restarts, crashes or fails over during syncs: they continue, each user is counted
//! once, and none is lost.

use std::time::Duration;

use clerk_sim::{Options, Sim};
use rustix::process::Signal;

use crate::support::{
    database::{Database, connect},
    faults::slow_pages,
    fixture::Fixture,
    monitored::{ANY, MonitoredDaemon},
    postgres::Postgres,
    process::{NEVER, Process},
    summary::Exit,
    wait::eventually,
};

const USERS: usize = 1000;

/// Users per page, so that a full sync reads 40 pages.
const PAGE: usize = 25;
const AWAY: &str = "waiting until it can be reached";
const BACK: &str = "back to normal";
const NO_WRITES: &str = "this Postgres server takes no writes";

/// Returns users whose full sync takes about a second.
async fn fixture(url: String) -> Fixture {
    let options = Options {
        users: USERS,
        latency: Duration::from_millis(20),
        secret_key: "sk_live_test".to_owned(),
        ..Options::default()
    };
    let (db, sim) = tokio::join!(Database::on_server(url), Sim::start(options));
    let fixture = Fixture { db, sim: sim.unwrap() };
    fixture.sim.set_faults(slow_pages(PAGE, 0));
    fixture
}

impl Fixture {
    /// The test loses its own connection as well.
    async fn reconnect(&mut self) {
        self.db.client = connect(&self.db.url).await;
    }

    /// Waits until a full sync has stored some more pages.
    async fn walks_on(&self) {
        eventually("the sync begins", async || self.runs("true").await > 0).await;
        let before = self.checkpoint().await;
        eventually("pages are stored", async || self.checkpoint().await > before + 50).await;
    }

    /// Asserts that every user is mirrored and was counted once, over all syncs.
    async fn has_everybody_once(&self) {
        let whole = "outcome IN ('changed', 'in_sync') AND ended_at IS NOT NULL";
        eventually("a full sync is over", async || self.runs(whole).await > 0).await;
        self.assert_in_sync().await;
        let counted =
            "SELECT concat_ws(' ', sum(created), sum(updated), sum(deleted), sum(rejected)) FROM clerk.sync_runs";
        assert_eq!(self.db.text(counted).await.unwrap(), format!("{USERS} 0 0 0"));
        assert_eq!(
            self.db
                .number("SELECT objects FROM clerk.resource_state WHERE resource = 'users'")
                .await,
            USERS as i64
        );
    }
}

async fn assert_clean_stop(daemon: Process) {
    let is_back = async || daemon.count_in_log(AWAY) == daemon.count_in_log(BACK);
    eventually("each outage is logged twice", is_back).await;
    let ran = daemon.stop(Signal::TERM).await;
    ran.assert_exit(Exit::Ok);
    assert!(!ran.stderr.contains("ERROR"), "{ran:#?}");
}

async fn restarted_between_pages(signal: Signal) {
    let mut server = Postgres::start().await;
    let mut fixture = fixture(server.admin()).await;
    let daemon = fixture.start_daemon(&[NEVER]);
    for _ in 0..3 {
        fixture.walks_on().await;
        server.stop(signal);
        server.restart().await;
        fixture.reconnect().await;
    }
    fixture.has_everybody_once().await;
    assert!(fixture.runs("resumed IS NOT NULL").await > 0);
    assert_clean_stop(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_survives_a_restart_of_the_server() {
    restarted_between_pages(Signal::INT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_survives_a_crash_of_the_server() {
    restarted_between_pages(Signal::QUIT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_while_a_batch_is_written_loses_nothing() {
    for signal in [Signal::INT, Signal::QUIT] {
        let mut server = Postgres::start().await;
        let mut fixture = fixture(server.admin()).await;
        let daemon = fixture.start_daemon(&[NEVER]);
        fixture.walks_on().await;
        // A batch has written its users before it updates the row of its sync.
        let lock = connect(&fixture.db.url).await;
        lock.batch_execute("BEGIN; LOCK clerk.sync_runs IN SHARE MODE")
            .await
            .unwrap();
        let waiting =
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'UPDATE%sync_runs%'";
        eventually("a batch waits", async || fixture.db.number(waiting).await > 0).await;
        server.stop(signal);
        server.restart().await;
        fixture.reconnect().await;
        fixture.has_everybody_once().await;
        assert_clean_stop(daemon).await;
    }
}

/// A primary and a standby, and a database on both.
struct Pair {
    // Dropped first, while the server still runs.
    fixture: Fixture,
    primary: Postgres,
    standby: Postgres,
}

impl Pair {
    async fn new() -> Self {
        let mut primary = Postgres::start().await;
        let standby = primary.standby().await;
        let url = format!(
            "postgres://postgres@127.0.0.1:{},127.0.0.1:{}/postgres?target_session_attrs=read-write",
            primary.port, standby.port
        );
        let fixture = fixture(url).await;
        Self {
            fixture,
            primary,
            standby,
        }
    }

    /// Reads a number at the standby.
    async fn seen(&self, sql: &str) -> i64 {
        let url = self.fixture.db.url.replace("read-write", "any");
        let url = url.replace(&format!("127.0.0.1:{},", self.primary.port), "");
        connect(&url).await.query_one(sql, &[]).await.unwrap().get(0)
    }

    /// Starts a daemon whose first full sync does not end before [`Self::speed_up`], except on a
    /// machine that needs half a minute for what happens until then. The sync has stored some
    /// pages, which the standby has received.
    async fn start_walk(&self) -> Process {
        self.fixture.sim.set_faults(slow_pages(PAGE, 1000));
        let daemon = self.fixture.start_daemon(&[NEVER, ("CLERK2PG_CLERK__TIMEOUT", "30s")]);
        self.fixture.walks_on().await;
        self.has_followed(1).await;
        daemon
    }

    fn speed_up(&self) {
        self.fixture.sim.set_faults(slow_pages(PAGE, 0));
    }

    async fn has_followed(&self, users: i64) {
        let sql = "SELECT count(*) FROM clerk.users";
        eventually("the standby has followed", async || self.seen(sql).await >= users).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_continues_on_a_promoted_standby() {
    let mut pair = Pair::new().await;
    let daemon = pair.start_walk().await;
    // Commits that were not sent yet are lost, the checkpoint together with the users.
    pair.primary.stop(Signal::QUIT);
    daemon.wait_for_log(AWAY).await;
    pair.speed_up();
    pair.standby.promote().await;
    pair.fixture.reconnect().await;
    pair.fixture.has_everybody_once().await;
    assert!(pair.fixture.runs("resumed IS NOT NULL").await > 0);
    assert_clean_stop(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demoted_primary_is_left() {
    let mut pair = Pair::new().await;
    let daemon = pair.start_walk().await;
    // All connections stay open, but are read-only from now on.
    pair.primary.set("default_transaction_read_only = on").await;
    pair.standby.promote().await;
    pair.fixture.reconnect().await;
    // It is no outage for the daemon if only the renewal of the lease met the old primary.
    let ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'clerk2pg%'";
    eventually("the daemon uses the new primary", async || {
        pair.fixture.db.number(ours).await > 0
    })
    .await;
    pair.speed_up();
    pair.fixture.has_everybody_once().await;
    let old = pair.fixture.db.url.replace("read-write", "any");
    let old = connect(&old.replace(&format!(",127.0.0.1:{}", pair.standby.port), "")).await;
    let users = old.query_one("SELECT count(*) FROM clerk.users", &[]).await.unwrap();
    assert!(
        users.get::<_, i64>(0) < USERS as i64,
        "the sync ended before the failover"
    );
    assert_clean_stop(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_connections_do_not_outlive_a_failover() {
    let mut pair = Pair::new().await;
    let watched = MonitoredDaemon::new(pair.fixture.start_incremental(&[ANY]).await).await;
    // The page reads over its own connection.
    watched.metrics().await;
    pair.has_followed(USERS as i64).await;
    pair.primary.set("default_transaction_read_only = on").await;
    pair.standby.promote().await;
    pair.fixture.reconnect().await;
    // The daemon notices it at the first change.
    for _ in 0..2 {
        pair.fixture.sim.create_random();
        pair.fixture.sim.delete_random();
        pair.fixture.wait_until_mirrored().await;
    }
    let ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'clerk2pg%'";
    let before = connect(&pair.primary.admin()).await;
    let left = async || {
        watched.metrics().await;
        before.query_one(ours, &[]).await.unwrap().get::<_, i64>(0) == 0
    };
    eventually("nothing is connected to the old primary", left).await;
    assert_clean_stop(watched.daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_a_standby_did_not_receive_are_mirrored_again() {
    let mut pair = Pair::new().await;
    let daemon = pair.fixture.start_incremental(&[]).await;
    pair.has_followed(USERS as i64).await;
    // More than an incremental sync sees in any case.
    let ids = pair.fixture.sim.user_ids()[100..160].to_vec();
    let rename = |name: &str| ids.iter().for_each(|id| pair.fixture.rename(id, name));
    let named = |name: &str| format!("SELECT count(*) FROM clerk.users WHERE first_name = '{name}'");
    let has = async |name: &str| pair.fixture.db.number(&named(name)).await == 60;
    rename("Before");
    eventually("the first changes", async || has("Before").await).await;
    eventually("the standby has followed", async || {
        pair.seen(&named("Before")).await == 60
    })
    .await;
    pair.standby.stop(Signal::INT);
    rename("After");
    eventually("the second changes", async || has("After").await).await;
    // Long enough that incremental syncs no longer reach these changes.
    let syncs = pair.fixture.incremental_syncs().len();
    eventually("more incremental syncs", async || {
        pair.fixture.incremental_syncs().len() >= syncs + 15
    })
    .await;
    pair.primary.stop(Signal::QUIT);
    pair.standby.restart().await;
    assert_eq!(pair.seen(&named("Before")).await, 60, "the changes are to be lost");
    pair.standby.promote().await;
    pair.fixture.reconnect().await;
    let found = async || pair.fixture.db.number(&named("After")).await == 60;
    eventually("the changes are found again", found).await;
    pair.fixture.assert_in_sync().await;
    assert_eq!(pair.fixture.runs("kind = 'full'").await, 1);
    assert_clean_stop(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_server_is_waited_for() {
    let server = Postgres::start().await;
    let fixture = fixture(server.admin()).await;
    let daemon = fixture.start_incremental(&[]).await;
    server.set("default_transaction_read_only = on").await;
    let id = fixture.sim.create_random();
    daemon.wait_for_log(NO_WRITES).await;
    let once = fixture.once().await;
    once.assert_exit(Exit::Failed);
    assert!(once.stderr.contains("target_session_attrs=read-write"), "{once:#?}");
    assert!(!fixture.has_user(&id).await);
    server.set("default_transaction_read_only = off").await;
    eventually("the new user", async || fixture.has_user(&id).await).await;
    fixture.assert_in_sync().await;
    assert_eq!(fixture.runs("rejected > 0").await, 0);
    assert_clean_stop(daemon).await;
}
