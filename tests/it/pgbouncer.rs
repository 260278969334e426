//! Everything through a real PgBouncer in transaction mode with very few server connections: it
//! works as without one, and leaves nothing behind on shared connections.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Child,
    time::Duration,
};

use clerk_sim::{Options, Quirks};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::support::{
    database::connect,
    fixture::Fixture,
    on_demand::DEBUG,
    postgres::{any_port, give_to_server_user, server_program},
    process::{EVERY_SECOND, NEVER, Process},
    summary::{Exit, changed, held, in_sync},
    wait::eventually,
};

/// A running PgBouncer, which ends with the test and with the test's process.
struct PgBouncer {
    port: u16,
    directory: TempDir,
    server: Child,
}

impl PgBouncer {
    /// Starts one before a server, with `connections` server connections for each database.
    async fn before(url: &str, connections: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        give_to_server_user(directory.path());
        for _ in 0..20 {
            let port = any_port();
            let file = directory.path().join("pgbouncer.ini");
            fs::write(&file, settings(url, port, connections)).unwrap();
            give_to_server_user(&file);
            if let Some(server) = start(directory.path()).await {
                return Self {
                    port,
                    directory,
                    server,
                };
            }
        }
        panic!("no port is free");
    }

    fn stop(&mut self) {
        if let Some(pid) = i32::try_from(self.server.id()).ok().and_then(Pid::from_raw) {
            // Ends at once, even with open connections.
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.server.wait();
    }

    /// Starts again on the same port.
    async fn restart(&mut self) {
        self.server = start(self.directory.path())
            .await
            .expect("another program has the port");
    }

    /// Returns a database's URL through the pooler.
    fn url(&self, url: &str) -> String {
        let database = url.rsplit('/').next().unwrap().split('?').next().unwrap();
        format!("postgres://anybody@127.0.0.1:{}/{database}", self.port)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// `None` if another program has the port.
async fn start(directory: &Path) -> Option<Child> {
    let log = directory.join("log");
    let output = fs::File::create(&log).unwrap();
    let mut server = server_program(&program(), "TERM")
        .arg(directory.join("pgbouncer.ini"))
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .spawn()
        .unwrap();
    let said = || fs::read_to_string(&log).unwrap();
    eventually("PgBouncer is up, or has ended", async || {
        said().contains("process up") || server.try_wait().unwrap().is_some()
    })
    .await;
    if said().contains("process up") {
        return Some(server);
    }
    assert!(said().contains("in use"), "{}", said());
    None
}

/// All other settings are PgBouncer's defaults, above all the number of prepared statements that it
/// keeps.
fn settings(url: &str, port: u16, connections: usize) -> String {
    let server: tokio_postgres::Config = url.parse().unwrap();
    let [tokio_postgres::config::Host::Tcp(host)] = server.get_hosts() else {
        panic!("the tests' server has one name");
    };
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let password = server
        .get_password()
        .map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
    let password = password.map_or_else(String::new, |password| format!("password={}", quoted(&password)));
    let user = quoted(server.get_user().unwrap());
    let server_port = server.get_ports().first().copied().unwrap_or(5432);
    format!(
        "[databases]\n* = host={host} port={server_port} user={user} {password}\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
         pool_mode = transaction\ndefault_pool_size = {connections}\n"
    )
}

fn program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let given = std::env::var_os("CLERK2PG_PGBOUNCER").map(PathBuf::from);
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    given
        .into_iter()
        .chain(folders.map(|folder| folder.join("pgbouncer")))
        .find(|file| file.is_file())
        .expect(
            "there is no pgbouncer in PATH or /usr/sbin, and CLERK2PG_PGBOUNCER names none: `make test` installs it",
        )
}

/// clerk2pg reaches this database through a pooler. The test itself does not.
struct Pooled {
    fixture: Fixture,
    pooler: PgBouncer,
    /// The number of server connections.
    connections: usize,
    /// What a client finds on a new connection without the pooler.
    fresh: Vec<String>,
}

impl Pooled {
    async fn new(options: Options, connections: usize) -> Self {
        let mut fixture = Fixture::with(options).await;
        let fresh = found(&connect(&fixture.db.url).await).await;
        let pooler = PgBouncer::before(&fixture.db.url, connections).await;
        fixture.db.url = pooler.url(&fixture.db.url);
        Self {
            fixture,
            pooler,
            connections,
            fresh,
        }
    }

    async fn with_users(users: usize, connections: usize) -> Self {
        let options = Options {
            users,
            ..Options::default()
        };
        Self::new(options, connections).await
    }

    /// Does something while other clients use the same server connections in turn, and asserts that
    /// they find nothing on them.
    async fn beside_others<T>(&self, work: impl Future<Output = T>) -> T {
        let others = async {
            let client = connect(&self.fixture.db.url).await;
            loop {
                assert_eq!(found(&client).await, self.fresh);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            worked = work => worked,
            () = others => unreachable!("it never ends"),
        }
    }

    /// Asserts that clerk2pg leaves nothing on any server connection.
    async fn assert_nothing_is_left(&self) {
        let mut holding = Vec::new();
        for _ in 0..self.connections {
            let client = connect(&self.fixture.db.url).await;
            client.batch_execute("BEGIN").await.unwrap();
            assert_eq!(found(&client).await, self.fresh);
            holding.push(client);
        }
    }
}

/// Returns the state of a server connection: relevant settings, and everything that outlives a
/// transaction.
async fn found(client: &Client) -> Vec<String> {
    let sql = "
        SELECT name || ' = ' || setting FROM pg_settings WHERE name IN ('search_path', 'TimeZone', 'statement_timeout', 'lock_timeout',
            'idle_in_transaction_session_timeout', 'session_replication_role', 'default_transaction_read_only', 'role')
        UNION ALL SELECT 'prepared ' || statement FROM pg_prepared_statements
        UNION ALL SELECT 'listening to ' || channel FROM pg_listening_channels() AS channel
        UNION ALL SELECT 'advisory lock' FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
        UNION ALL SELECT 'temporary ' || relname FROM pg_class WHERE relpersistence = 't'";
    let messages = client.simple_query(sql).await.unwrap();
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap().to_owned()),
        _ => None,
    });
    rows.collect()
}

async fn migrations_and_syncs(users: usize, connections: usize) {
    let pooled = Pooled::with_users(users, connections).await;
    let fixture = &pooled.fixture;
    pooled
        .beside_others(async {
            let ran = fixture.run(&["migrate"]).await;
            ran.assert_exit(Exit::Ok);
            fixture.once().await.assert(Exit::Ok, changed().created(users));
            fixture.sim.create_random();
            fixture.sim.delete_random();
            fixture.sim.update_random();
            fixture.once().await.assert(
                Exit::Ok,
                changed().created(1).updated(1).deleted(1).unchanged(users - 2),
            );
            fixture.once().await.assert(Exit::Ok, in_sync().unchanged(users));
            fixture.assert_in_sync().await;
        })
        .await;
    pooled.assert_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn full_syncs_over_two_connections() {
    // Enough users for partitions, which are written concurrently.
    migrations_and_syncs(9000, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn full_syncs_over_one_connection() {
    migrations_and_syncs(300, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_syncs_and_reports_missing_notifications_once() {
    const DEAF: &str = "NOTIFY clerk2pg does not arrive";
    for connections in [2, 1] {
        let pooled = Pooled::with_users(50, connections).await;
        let fixture = &pooled.fixture;
        let ran = pooled
            .beside_others(async {
                let daemon = fixture.start_incremental(&[DEBUG]).await;
                daemon.wait_for_log(DEAF).await;
                for _ in 0..3 {
                    fixture.sim.create_random();
                    fixture.sim.update_random();
                    fixture.sim.delete_random();
                    fixture.wait_until_mirrored().await;
                }
                daemon.stop(Signal::TERM).await
            })
            .await;
        ran.assert_exit(Exit::Ok);
        assert_eq!(ran.stderr.matches(DEAF).count(), 1, "{ran:#?}");
        assert_eq!(ran.stderr.matches("WARN").count(), 1, "{ran:#?}");
        assert!(!ran.stderr.contains("ERROR"), "{ran:#?}");
        assert_eq!(fixture.runs("outcome NOT IN ('changed', 'in_sync')").await, 0);
        pooled.assert_nothing_is_left().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_sync_is_resumed() {
    const USERS: usize = 1000;
    let options = Options {
        users: USERS,
        latency: Duration::from_millis(20),
        ..Options::default()
    };
    let pooled = Pooled::new(options, 2).await;
    let fixture = &pooled.fixture;
    fixture.sim.set_faults(Quirks {
        max_page: Some(50),
        ..Quirks::default()
    });
    for kills in 1..=3 {
        let run = fixture.start_full_sync(&[]);
        eventually("the run begins", async || fixture.runs("true").await >= kills).await;
        let before = fixture.checkpoint().await;
        eventually("a page is stored", async || fixture.checkpoint().await > before).await;
        run.kill().await;
    }
    let ran = fixture.once().await;
    ran.assert_exit(Exit::Ok);
    fixture.assert_in_sync().await;
    assert_eq!(fixture.runs("resumed IS NOT NULL").await, 3);
    let created = "SELECT sum(created) FROM clerk.sync_runs";
    assert_eq!(fixture.db.number(created).await, USERS as i64);
    fixture.assert_one_at_a_time().await;
    pooled.assert_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_daemons_leads_and_the_other_takes_over() {
    let pooled = Pooled::with_users(100, 2).await;
    let fixture = &pooled.fixture;
    pooled
        .beside_others(async {
            let (one, two) = (
                fixture.start_incremental(&[]).await,
                fixture.start_daemon(&[NEVER, EVERY_SECOND]),
            );
            // A leader that is alone does not renew its lead, so that a later one may take it when
            // it starts.
            let stands_by = |daemon: &Process| daemon.count_in_log("standing by") > 0;
            eventually("one of them stands by", async || stands_by(&one) || stands_by(&two)).await;
            let (leader, standby) = if stands_by(&two) { (one, two) } else { (two, one) };
            for _ in 0..3 {
                fixture.sim.create_random();
                fixture.sim.delete_random();
                fixture.wait_until_mirrored().await;
            }
            leader.kill().await;
            standby.wait_for_log("this daemon leads now").await;
            fixture.sim.create_random();
            fixture.wait_until_mirrored().await;
            let ran = standby.stop(Signal::TERM).await;
            ran.assert_exit(Exit::Ok);
            assert!(!ran.stderr.contains("ERROR"), "{ran:#?}");
        })
        .await;
    fixture.assert_one_at_a_time().await;
    pooled.assert_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn held_deletions_are_shown_and_approved() {
    let pooled = Pooled::with_users(60, 1).await;
    let fixture = &pooled.fixture;
    fixture.once().await.assert(Exit::Ok, changed().created(60));
    for id in fixture.sim.user_ids().iter().take(15) {
        fixture.sim.delete(id);
    }
    let ran = fixture.once().await;
    ran.assert(Exit::Held, held(15).unchanged(45));
    let sum = ran.json()["plan"].as_str().unwrap().to_owned();
    let status = fixture.run(&["status"]).await;
    assert!(
        status.stdout.contains(&format!("clerk2pg approve {sum}")),
        "{status:#?}"
    );
    let approved = fixture.run(&["approve", &sum]).await;
    approved.assert_exit(Exit::Ok);
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().deleted(15).unchanged(45));
    fixture.assert_in_sync().await;
    pooled.assert_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarting_pooler_is_waited_for() {
    let mut pooled = Pooled::with_users(50, 2).await;
    let daemon = pooled.fixture.start_incremental(&[]).await;
    pooled.pooler.stop();
    pooled.fixture.sim.create_random();
    daemon.wait_for_log("waiting until it can be reached").await;
    pooled.pooler.restart().await;
    pooled.fixture.wait_until_mirrored().await;
    daemon.wait_for_log("back to normal").await;
    let ran = daemon.stop(Signal::TERM).await;
    ran.assert_exit(Exit::Ok);
    assert!(!ran.stderr.contains("ERROR"), "{ran:#?}");
}
