//! A PostgreSQL server that a test starts, with TLS, and can stop, crash, copy and promote.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::{
    authority::Authority,
    database::connect,
    wait::{eventually, within},
};

/// A running server with TLS, which ends with the test and with the test's process.
pub struct Postgres {
    pub authority: Authority,
    pub port: u16,
    /// Files for clients, for example certificates.
    pub files: TempDir,
    directory: TempDir,
    server: Child,
}

/// How long a server may take to start, which includes recovery after a crash.
pub const RECOVERY: Duration = Duration::from_secs(120);

/// Which role may connect how. All have the password `hidden`.
const RULES: &str = "\
local all all trust
host all postgres all trust
host replication postgres all trust
hostssl all encrypted all scram-sha-256
hostnossl all plain all scram-sha-256
hostssl all certified all cert
host all anyway all scram-sha-256
";

const ROLES: [&str; 4] = ["encrypted", "plain", "certified", "anyway"];

impl Postgres {
    /// Starts a server with a certificate for `localhost`.
    pub async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), "").await
    }

    /// Starts a server whose data is in this folder, with some more lines of configuration.
    pub async fn start_in(directory: TempDir, more: &str) -> Self {
        let authority = Authority::new("the test's authority");
        let files = tempfile::tempdir().unwrap();
        give_to_server_user(directory.path());
        let data = directory.path().join("data");
        let made = program("initdb")
            .arg("--pgdata")
            .arg(&data)
            .args([
                "--username=postgres",
                "--auth=trust",
                "--encoding=UTF8",
                "--no-locale",
                "--no-sync",
                // Megabytes. Most tests write little.
                "--wal-segsize=4",
            ])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let (certificate, key) = authority.sign(&["localhost"], "localhost");
        write_like(&data, "server.crt", &certificate);
        write_like(&data, "server.key", &key);
        write_like(&data, "root.crt", &authority.certificate);
        write_like(&data, "pg_hba.conf", RULES);
        // The socket is in the server's own folder, where nothing else writes.
        let settings = format!(
            "listen_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\nfsync = off\nmax_connections = 40\n\
             ssl = on\nssl_cert_file = 'server.crt'\nssl_key_file = 'server.key'\nssl_ca_file = 'root.crt'\n{more}",
            directory.path().display()
        );
        write_like(&data, "postgresql.conf", &settings);
        let (server, port) = run(&data).await;
        let started = Self {
            authority,
            port,
            files,
            directory,
            server,
        };
        let client = connect(&started.admin()).await;
        for role in ROLES {
            let sql = format!("CREATE ROLE {role} LOGIN SUPERUSER PASSWORD 'hidden'");
            client.batch_execute(&sql).await.unwrap();
        }
        started
    }

    /// Returns the URL for the test itself.
    pub fn admin(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    pub fn socket(&self) -> &Path {
        self.directory.path()
    }

    /// Returns the server's log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("data.log")).unwrap()
    }

    /// Writes a file for clients, readable by its owner only.
    pub fn file(&self, name: &str, text: &str) -> String {
        let file = self.files.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        file.display().to_string()
    }

    /// Replaces the server's certificate.
    pub async fn set_certificate(&self, certificate: &str, key: &str) {
        let data = self.directory.path().join("data");
        write_like(&data, "server.crt", certificate);
        write_like(&data, "server.key", key);
        self.reload().await;
    }

    /// Changes a setting.
    pub async fn set(&self, setting: &str) {
        let client = connect(&self.admin()).await;
        client
            .batch_execute(&format!("ALTER SYSTEM SET {setting}"))
            .await
            .unwrap();
        self.reload().await;
    }

    /// Waits until new connections see the new configuration.
    async fn reload(&self) {
        let loaded = async || {
            let sql = "SELECT pg_conf_load_time()::text";
            let row = connect(&self.admin()).await.query_one(sql, &[]).await.unwrap();
            row.get::<_, String>(0)
        };
        let before = loaded().await;
        let client = connect(&self.admin()).await;
        client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        eventually("the server has reloaded", async || loaded().await != before).await;
    }
}

impl Postgres {
    /// Stops the server: SIGINT is an orderly shutdown, SIGQUIT a crash.
    pub fn stop(&mut self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.server.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
        let _ = self.server.wait();
    }

    /// Whether the server has ended by itself.
    #[allow(dead_code, reason = "the histories use it")]
    pub fn has_ended(&mut self) -> bool {
        self.server.try_wait().unwrap().is_some()
    }

    /// Starts the server again on the same port.
    pub async fn restart(&mut self) {
        let server = run_at(&self.directory.path().join("data"), self.port).await;
        self.server = server.expect("another program has the port");
    }

    /// Starts a standby of this server, which is stopped while it is copied.
    pub async fn standby(&mut self) -> Self {
        let directory = tempfile::tempdir().unwrap();
        give_to_server_user(directory.path());
        let (from, data) = (self.directory.path().join("data"), directory.path().join("data"));
        self.stop(Signal::INT);
        let copied = Command::new("cp").arg("-a").arg(&from).arg(&data).output().unwrap();
        assert!(copied.status.success(), "{copied:?}");
        self.restart().await;
        let follow = format!(
            "primary_conninfo = 'host=127.0.0.1 port={} user=postgres'\nunix_socket_directories = '{}'\n",
            self.port,
            directory.path().display()
        );
        write_like(&data, "postgresql.auto.conf", &follow);
        write_like(&data, "standby.signal", "");
        let (server, port) = run(&data).await;
        Self {
            authority: Authority::new("an unused authority"),
            port,
            files: tempfile::tempdir().unwrap(),
            directory,
            server,
        }
    }

    /// Promotes a standby.
    pub async fn promote(&self) {
        let client = connect(&self.admin()).await;
        client.batch_execute("SELECT pg_promote()").await.unwrap();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Skips the checkpoint, as the data is not needed any more.
        self.stop(Signal::QUIT);
    }
}

/// Starts the server on a port that it binds itself, as a port that was free a moment ago may be
/// taken.
async fn run(data: &Path) -> (Child, u16) {
    for _ in 0..20 {
        let port = any_port();
        if let Some(server) = run_at(data, port).await {
            return (server, port);
        }
    }
    panic!("no port is free");
}

/// `None` if another program has the port.
async fn run_at(data: &Path, port: u16) -> Option<Child> {
    let log = fs::File::create(data.with_extension("log")).unwrap();
    let mut server = program("postgres")
        .arg("-D")
        .arg(data)
        .args(["-p", &port.to_string()])
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut is_ready = false;
    within(RECOVERY, "the server is ready, or has ended", async || {
        let state = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
        let lines: Vec<_> = state.lines().map(str::trim).collect();
        is_ready = lines.first() == Some(&server.id().to_string().as_str())
            && matches!(lines.get(7), Some(&("ready" | "standby")));
        is_ready || server.try_wait().unwrap().is_some()
    })
    .await;
    if is_ready {
        return Some(server);
    }
    let log = fs::read_to_string(data.with_extension("log")).unwrap();
    assert!(log.contains("Address already in use"), "{log}");
    None
}

/// Returns a port that may be free, below the range that the system assigns to clients.
pub fn any_port() -> u16 {
    20_000 + fastrand::u16(..12_000)
}

/// Returns a command of one of PostgreSQL's programs.
fn program(name: &str) -> Command {
    let folder = std::env::var("CLERK2PG_PG_BIN").expect("CLERK2PG_PG_BIN is not set: run the tests with `make test`");
    server_program(&PathBuf::from(folder).join(name), "QUIT")
}

/// Returns a command that runs a server as another user if the test runs as root, as servers refuse
/// that. A signal ends it with the thread that started it.
pub fn server_program(file: &Path, signal: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", signal]);
    if let Some(owner) = owner() {
        command.args([
            format!("--reuid={owner}"),
            format!("--regid={owner}"),
            "--clear-groups".to_owned(),
        ]);
    }
    command.arg(file);
    command.env_clear().current_dir("/").stdin(Stdio::null());
    command
}

/// Gives a file or folder to the user that runs servers.
pub fn give_to_server_user(path: &Path) {
    if let Some(owner) = owner() {
        chown(path, Some(owner), Some(owner)).unwrap();
    }
}

/// Returns the user that runs servers if the test runs as root.
fn owner() -> Option<u32> {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let id = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        line.split(':').nth(2)?.parse().ok()
    };
    Some(
        id("postgres")
            .or(id("nobody"))
            .expect("neither postgres nor nobody is a user"),
    )
}

/// Writes a file with the owner of the server's folder.
fn write_like(data: &Path, name: &str, text: &str) {
    let (file, folder) = (data.join(name), fs::metadata(data).unwrap());
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    chown(&file, Some(folder.uid()), Some(folder.gid())).unwrap();
}

/// Returns an address that refuses connections for as long as the socket lives.
pub fn unused_address() -> (tokio::net::TcpSocket, SocketAddr) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}
