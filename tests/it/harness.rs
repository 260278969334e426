//! A database, a simulated Clerk and the binary for one test.

use std::{
    collections::BTreeMap,
    process::{Output, Stdio},
    time::Duration,
};

use clerk_sim::{Options, Sim};
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio_postgres::{Client, NoTls};

/// How long anything that is waited for may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A database of the test's own, dropped at its end.
pub struct Database {
    pub url: String,
    pub client: Client,
    name: String,
    admin: String,
}

/// The server's address, from `make test`.
fn admin_url() -> String {
    std::env::var("DATABASE_URL")
        .expect("DATABASE_URL is not set: run the tests with `make test`, which starts a server")
}

pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

impl Database {
    pub async fn new() -> Self {
        Self::at(admin_url()).await
    }

    /// On another server than that of most tests.
    pub async fn at(admin: String) -> Self {
        Self::made(admin, "").await
    }

    /// With options of `CREATE DATABASE`.
    pub async fn with(options: &str) -> Self {
        Self::made(admin_url(), options).await
    }

    async fn made(admin: String, options: &str) -> Self {
        let name = format!("clerk2pg_test_{:016x}", fastrand_u64());
        connect(&admin)
            .await
            .batch_execute(&format!("CREATE DATABASE {name} {options}"))
            .await
            .unwrap();
        let url = with_database(&admin, &name);
        Self {
            client: connect(&url).await,
            url,
            name,
            admin,
        }
    }

    /// One value of the first column of the first row, as text.
    pub async fn text(&self, sql: &str) -> Option<String> {
        let rows = self
            .client
            .simple_query(sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        rows.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        })
    }

    pub async fn number(&self, sql: &str) -> i64 {
        self.text(sql)
            .await
            .unwrap_or_else(|| panic!("{sql}: no row"))
            .parse()
            .unwrap()
    }

    pub async fn execute(&self, sql: &str) {
        self.client
            .batch_execute(sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// The mirror's documents by id, as `clerk.user_document` gives them; those marked as deleted aside.
    pub async fn documents(&self) -> BTreeMap<String, Value> {
        let sql = "SELECT id, clerk.user_document(u)::text FROM clerk.users u WHERE deleted_at IS NULL";
        let rows = self.client.query(sql, &[]).await.unwrap();
        rows.iter()
            .map(|row| (row.get(0), serde_json::from_str(row.get::<_, &str>(1)).unwrap()))
            .collect()
    }

    /// Which version of each row is there: changes with every write of the row.
    pub async fn versions(&self) -> BTreeMap<String, String> {
        let rows = self
            .client
            .query("SELECT id, xmin::text FROM clerk.users", &[])
            .await
            .unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (admin, name) = (self.admin.clone(), self.name.clone());
        // A runtime of its own: the test's may be gone, or be the one this runs in.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let client = connect(&admin).await;
                client
                    .batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)"))
                    .await
            })
        });
        let _ = dropped.join();
    }
}

fn fastrand_u64() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

/// The same server, another database.
pub fn with_database(url: &str, name: &str) -> String {
    let (base, query) = url
        .split_once('?')
        .map_or((url, None), |(base, query)| (base, Some(query)));
    let scheme = base.find("://").map_or(0, |at| at + 3);
    let host_end = base[scheme..].find('/').map_or(base.len(), |at| scheme + at);
    let query = query.map_or_else(String::new, |query| format!("?{query}"));
    format!("{}/{name}{query}", &base[..host_end])
}

/// A database and a simulated Clerk.
pub struct World {
    pub db: Database,
    pub sim: Sim,
}

/// What a run of the binary gave.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    /// The object on stdout, which must be alone there.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Outcome, created, updated, deleted, unchanged, held and rejected of a report, as text.
    pub fn summary(&self) -> String {
        let json = self.json();
        let field = |name: &str| json[name].to_string();
        format!(
            "{} +{} ~{} -{} ={} held {} rejected {}",
            json["outcome"].as_str().unwrap(),
            field("created"),
            field("updated"),
            field("deleted"),
            field("unchanged"),
            field("held"),
            field("rejected"),
        )
    }

    #[track_caller]
    pub fn assert(&self, code: i32, summary: &str) {
        assert_eq!((self.code, self.summary().as_str()), (Some(code), summary), "{self:#?}");
    }
}

/// The binary with an environment of nothing but what is given here, in a directory without a `config.toml`. Nobody can watch it, as many run at
/// once.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clerk2pg"));
    command
        .env_clear()
        .env("CLERK2PG_HTTP__LISTEN", "")
        .current_dir(std::env::temp_dir())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

impl World {
    pub async fn new(users: usize) -> Self {
        Self::with(Options {
            users,
            ..Options::default()
        })
        .await
    }

    /// Whatever the options say, the key is a production one, so that the budget does not slow the test down.
    pub async fn with(options: Options) -> Self {
        Self::exactly(Options {
            secret_key: "sk_live_test".to_owned(),
            ..options
        })
        .await
    }

    /// With the options as they are, the key among them.
    pub async fn exactly(options: Options) -> Self {
        let (db, sim) = tokio::join!(Database::new(), Sim::start(options));
        Self { db, sim: sim.unwrap() }
    }

    /// The binary, told where everything is.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command();
        command
            .args(arguments)
            .env("DATABASE_URL", &self.db.url)
            .env("CLERK_SECRET_KEY", self.sim.secret_key())
            .env("CLERK_API_URL", self.sim.url())
            // Proxies before Postgres look at what is sent, whatever the server that the tests were given offers.
            .env("PGSSLMODE", "disable")
            .env("CLERK2PG_CLERK__REQUEST_BUDGET", "1.0")
            .env("CLERK2PG_LEASE__TTL", "1s");
        command
    }

    pub async fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, &[]).await
    }

    pub async fn run_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Ran {
        let output = self.command(arguments).envs(environment.iter().copied()).output();
        let output = tokio::time::timeout(PATIENCE, output)
            .await
            .expect("the program does not end");
        output.unwrap().into()
    }

    /// One full sync with its report as JSON.
    pub async fn once(&self) -> Ran {
        self.run(&["--once", "--format", "json"]).await
    }

    pub async fn once_with(&self, environment: &[(&str, &str)]) -> Ran {
        self.run_with(&["--once", "--format", "json"], environment).await
    }

    /// A daemon with full syncs every second, and nothing else.
    pub fn daemon(&self, environment: &[(&str, &str)]) -> Child {
        self.command(&[])
            .env("CLERK2PG_SCHEDULE__FULL", "* * * * * *")
            .env("CLERK2PG_SCHEDULE__INCREMENTAL", "")
            .env("CLERK2PG_CLERK__TIMEOUT", "2s")
            .envs(environment.iter().copied())
            .spawn()
            .unwrap()
    }

    /// Makes all rows and held deletions so old that Clerk's next answer counts.
    pub async fn age_rows(&self) {
        self.db
            .execute(
                "UPDATE clerk.users
                 SET first_seen_at = first_seen_at - interval '1 hour', changed_at = changed_at - interval '1 hour';
                 UPDATE clerk.missing_users SET held_at = held_at - interval '1 hour'",
            )
            .await;
    }

    /// Makes held deletions so old that Clerk's next answer counts.
    pub async fn age_held(&self) {
        self.db
            .execute("UPDATE clerk.missing_users SET held_at = held_at - interval '1 hour'")
            .await;
    }

    /// Holds the mirror against Clerk, document by document.
    pub async fn assert_in_step(&self) {
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
}

/// A document in the form in which it can be compared.
pub fn comparable(mut document: Value) -> Value {
    // It counts down with every read.
    if document["lockout_expires_in_seconds"].is_number() {
        document["lockout_expires_in_seconds"] = Value::from(1);
    }
    normal(document)
}

/// Numbers as jsonb writes them.
pub fn normal(value: Value) -> Value {
    match value {
        Value::Number(number) if number.to_string().contains(['e', 'E']) => {
            // Only small exponents occur in the data.
            number
                .as_f64()
                .and_then(|number| serde_json::from_str(&format!("{number}")).ok())
                .unwrap()
        }
        Value::Array(list) => list.into_iter().map(normal).collect(),
        Value::Object(object) => object.into_iter().map(|(key, value)| (key, normal(value))).collect(),
        other => other,
    }
}

/// Waits until a condition holds.
pub async fn eventually(what: &str, holds: impl AsyncFnMut() -> bool) {
    within(PATIENCE, what, holds).await;
}

/// Waits for so long until a condition holds.
pub async fn within(patience: Duration, what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(patience, waiting)
        .await
        .unwrap_or_else(|_| panic!("never happened: {what}"));
}

/// Sends a signal to a child.
pub fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = child.id().expect("the process is gone already");
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Waits for a child's end.
pub async fn ended(child: Child) -> Ran {
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    output.expect("the program does not end").unwrap().into()
}
