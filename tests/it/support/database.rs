//! A database for one test, dropped at its end.

use std::{
    collections::BTreeMap,
    sync::mpsc::{self, RecvTimeoutError},
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls, error::SqlState};

use crate::support::{program::command, wait::PATIENCE};

/// A database with the mirror's schema, of which [`Database::migrated`] makes copies.
static MIGRATED: OnceCell<String> = OnceCell::const_new();

/// A database of one test, dropped at its end.
pub struct Database {
    pub url: String,
    pub client: Client,
    name: String,
    admin: String,
}

/// Returns the server's URL, which `make test` provides.
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
        Self::on_server(admin_url()).await
    }

    /// Creates a database with the mirror's schema. On a server that is not the tests' own, where nothing
    /// may be left behind, it is empty instead: the program's first run migrates it.
    pub async fn migrated() -> Self {
        if std::env::var_os("CLERK2PG_TEST_SERVER_IS_PRIVATE").is_none() {
            return Self::new().await;
        }
        let template = MIGRATED.get_or_init(migrated_template).await;
        Self::with_options(&format!("TEMPLATE {template}")).await
    }

    /// Creates a database on another server than that of most tests.
    pub async fn on_server(admin: String) -> Self {
        Self::create(admin, "").await
    }

    /// Creates a database with these options of `CREATE DATABASE`.
    pub async fn with_options(options: &str) -> Self {
        Self::create(admin_url(), options).await
    }

    async fn create(admin: String, options: &str) -> Self {
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

    /// Returns the first column of the first row as text.
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

    /// Returns the mirror's documents by id, as `clerk.user_document` builds them, without users
    /// marked as deleted.
    pub async fn documents(&self) -> BTreeMap<String, Value> {
        let sql = "SELECT id, clerk.user_document(u)::text FROM clerk.users u WHERE deleted_at IS NULL";
        let rows = self.client.query(sql, &[]).await.unwrap();
        rows.iter()
            .map(|row| (row.get(0), serde_json::from_str(row.get::<_, &str>(1)).unwrap()))
            .collect()
    }

    /// Returns the version of each row, which changes with every write of the row.
    pub async fn versions(&self) -> BTreeMap<String, String> {
        let rows = self
            .client
            .query("SELECT id, xmin::text FROM clerk.users", &[])
            .await
            .unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    /// Returns the tables and row versions of the whole database, so that any write shows.
    pub async fn snapshot(&self) -> String {
        let relations = |kinds| {
            format!(
                "SELECT string_agg(c.oid::regclass::text, ' ' ORDER BY c.oid) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
                 WHERE nspname !~ '^(pg_|information_schema)' AND relkind IN ({kinds})"
            )
        };
        let mut state = self
            .text(&relations("'r', 'i', 'S', 'v', 'm'"))
            .await
            .unwrap_or_default();
        let tables = self.text(&relations("'r'")).await.unwrap_or_default();
        for table in tables.split_whitespace() {
            let rows = format!("SELECT string_agg(xmin || ' ' || ctid, ',' ORDER BY ctid) FROM {table}");
            state += &format!("\n{table}: {}", self.text(&rows).await.unwrap_or_default());
        }
        state
    }
}

/// Creates the database that others are copies of, and returns its name.
async fn migrated_template() -> String {
    let name = format!("clerk2pg_test_template_{}", std::process::id());
    let client = connect(&admin_url()).await;
    client.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    let url = with_database(&admin_url(), &name);
    let ran = command()
        .arg("migrate")
        .env("DATABASE_URL", url)
        .output()
        .await
        .unwrap();
    assert!(ran.status.success(), "{ran:?}");
    name
}

/// PostgreSQL drops no database while a session is being authenticated. If the thread that drops
/// this one is the session's client, it must go on.
const DROP_WAIT: Duration = Duration::from_secs(5);

impl Drop for Database {
    fn drop(&mut self) {
        let (admin, name) = (self.admin.clone(), self.name.clone());
        let (done, dropped) = mpsc::channel();
        // The test's runtime may be gone, or may be the one that runs this.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(drop_database(&admin, &name));
            let _ = done.send(());
        });
        let failed = dropped.recv_timeout(DROP_WAIT) == Err(RecvTimeoutError::Disconnected);
        assert!(!failed || std::thread::panicking(), "{} was not dropped", self.name);
    }
}

/// Drops a database, unless its server is gone or read-only. PostgreSQL gives the database's
/// sessions five seconds to end, and slow machines need more.
async fn drop_database(admin: &str, name: &str) {
    let until = Instant::now() + PATIENCE;
    let sql = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
    loop {
        let error = match tokio_postgres::connect(admin, NoTls).await {
            Ok((client, connection)) => {
                tokio::spawn(connection);
                client.batch_execute(&sql).await.err()
            }
            Err(error) => Some(error),
        };
        let Some(error) = error else { return };
        match error.code() {
            Some(&SqlState::OBJECT_IN_USE | &SqlState::TOO_MANY_CONNECTIONS) if Instant::now() < until => {}
            None
            | Some(&SqlState::READ_ONLY_SQL_TRANSACTION | &SqlState::CANNOT_CONNECT_NOW | &SqlState::ADMIN_SHUTDOWN) => {
                return;
            }
            Some(_) => panic!("{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn fastrand_u64() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

/// Returns the URL of another database on the same server.
pub fn with_database(url: &str, name: &str) -> String {
    let (base, query) = url
        .split_once('?')
        .map_or((url, None), |(base, query)| (base, Some(query)));
    let scheme = base.find("://").map_or(0, |at| at + 3);
    let host_end = base[scheme..].find('/').map_or(base.len(), |at| scheme + at);
    let query = query.map_or_else(String::new, |query| format!("?{query}"));
    format!("{}/{name}{query}", &base[..host_end])
}
