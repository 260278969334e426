//! Roles with exactly the rights of `docs/permissions.md` can do all they need. Its SQL is run as
//! it is, with other names.

use rustix::process::Signal;
use tokio_postgres::{Client, error::SqlState};

use crate::support::{
    database::connect,
    everything::do_everything,
    fixture::{Fixture, mirrored},
    pages::page,
    process::{EVERY_SECOND, NEVER, Process},
    program::ProgramOutput,
    receiver::Receiver,
    roles::Role,
    summary::{Exit, changed},
    wait::eventually,
};

/// Returns the document's SQL blocks in their order.
fn blocks() -> [String; 7] {
    let file = format!("{}/docs/permissions.md", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(file).unwrap();
    let parts = text.split("```sql\n").skip(1);
    let blocks: Vec<String> = parts.map(|part| part.split("```").next().unwrap().to_owned()).collect();
    blocks
        .try_into()
        .expect("docs/permissions.md has another number of blocks")
}

/// A fixture whose database grants nothing to PUBLIC, and the document's roles under names of the
/// test's own.
struct Restricted {
    fixture: Fixture,
    database: String,
    /// The server's host and port.
    server: String,
    /// The prefix of the roles' names.
    prefix: String,
}

impl Restricted {
    async fn new(users: usize) -> Self {
        let fixture = Fixture::new(users).await;
        let database = fixture.db.text("SELECT current_database()").await.unwrap();
        let server = fixture
            .db
            .url
            .split_once('@')
            .unwrap()
            .1
            .split('/')
            .next()
            .unwrap()
            .to_owned();
        let prefix = database.replace("clerk2pg_test", "role");
        fixture
            .db
            .execute(&format!(
                "REVOKE ALL ON DATABASE {database} FROM PUBLIC; REVOKE ALL ON SCHEMA public FROM PUBLIC;
                 CREATE TABLE public.untouchable (id int)"
            ))
            .await;
        Self {
            fixture,
            database,
            server,
            prefix,
        }
    }

    /// Returns a block with the names of this fixture.
    fn named(&self, block: &str) -> String {
        // Uses placeholders, as the database's name may contain a role's.
        let names = [
            ("DATABASE app", "DATABASE <1>", &self.database),
            ("clerk2pg_owner", "<2>", &format!("{}_owner", self.prefix)),
            ("clerk2pg", "<3>", &format!("{}_daemon", self.prefix)),
            ("app_reader", "<4>", &format!("{}_reader", self.prefix)),
            ("app_operator", "<5>", &format!("{}_operator", self.prefix)),
        ];
        let sql = names
            .iter()
            .fold(block.to_owned(), |sql, (name, place, _)| sql.replace(name, place));
        names.iter().fold(sql, |sql, (_, place, ours)| {
            sql.replace(place.trim_start_matches("DATABASE "), ours)
        })
    }

    async fn run_block(&self, block: &str) {
        self.fixture.db.execute(&self.named(block)).await;
    }

    fn url(&self, role: &str, password: &str) -> String {
        format!(
            "postgres://{}_{role}:{}@{}/{}",
            self.prefix,
            password.replace(' ', "%20"),
            self.server,
            self.database
        )
    }

    /// Drops the roles, which outlive the database.
    async fn end(self) {
        for role in ["owner", "daemon", "reader", "operator"] {
            let name = format!("{}_{role}", self.prefix);
            let exists = format!("SELECT count(*) FROM pg_roles WHERE rolname = '{name}'");
            if self.fixture.db.number(&exists).await == 1 {
                self.fixture
                    .db
                    .execute(&format!("DROP OWNED BY {name} CASCADE; DROP ROLE {name}"))
                    .await;
            }
        }
    }
}

async fn may_not(client: &Client, sql: &str) {
    let error = client.batch_execute(sql).await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{sql}: {error}");
}

fn succeeded(ran: &ProgramOutput) {
    ran.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_owns_only_the_schema_can_do_everything() {
    let restricted = Restricted::new(60).await;
    let [own, ..] = blocks();
    restricted.run_block(&own).await;
    let url = restricted.url("daemon", "its password");
    let client = connect(&url).await;
    may_not(&client, "CREATE SCHEMA elsewhere").await;
    may_not(&client, "CREATE TABLE public.elsewhere (id int)").await;
    may_not(&client, "TABLE public.untouchable").await;
    drop(client);
    do_everything(&restricted.fixture, &url, &[]).await;
    restricted.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_with_the_documented_grants_can_do_everything() {
    const OFF: (&str, &str) = ("CLERK2PG_DATABASE__MIGRATE", "false");
    let restricted = Restricted::new(60).await;
    let (fixture, [_, roles, rights, ..]) = (&restricted.fixture, blocks());
    restricted.run_block(&roles).await;
    let owner = restricted.url("owner", "its password");
    // Also where PUBLIC may not execute functions.
    let client = connect(&owner).await;
    client
        .batch_execute("ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC")
        .await
        .unwrap();
    client.batch_execute(&restricted.named(&rights)).await.unwrap();
    let daemon = restricted.url("daemon", "another password");
    let early = fixture.run_with(&["--once"], &[("DATABASE_URL", &daemon), OFF]).await;
    early.assert_exit(Exit::Failed);
    assert!(early.stderr.contains("hint: run `clerk2pg migrate`"), "{early:#?}");
    succeeded(&fixture.run_with(&["migrate"], &[("DATABASE_URL", &owner)]).await);
    // A table that a later version's migration may create.
    client.batch_execute("CREATE TABLE clerk.later (id int)").await.unwrap();

    let running = connect(&daemon).await;
    running
        .batch_execute("INSERT INTO clerk.later VALUES (1)")
        .await
        .unwrap();
    may_not(&running, "ALTER TABLE clerk.users ADD COLUMN more int").await;
    may_not(&running, "TRUNCATE clerk.users").await;
    may_not(&running, "CREATE TABLE clerk.more (id int)").await;
    drop(running);
    client.batch_execute("DROP TABLE clerk.later").await.unwrap();
    do_everything(fixture, &daemon, &[OFF]).await;
    drop(client);
    restricted.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_after_the_migration_suffice() {
    let restricted = Restricted::new(60).await;
    let (fixture, [_, roles, _, again, ..]) = (&restricted.fixture, blocks());
    restricted.run_block(&roles).await;
    let owner = [("DATABASE_URL", restricted.url("owner", "its password"))];
    let owner = owner.each_ref().map(|(name, url)| (*name, url.as_str()));
    succeeded(&fixture.run_with(&["migrate"], &owner).await);
    let client = connect(owner[0].1).await;
    client
        .batch_execute(&restricted.named(&format!("GRANT USAGE ON SCHEMA clerk TO clerk2pg; {again}")))
        .await
        .unwrap();
    drop(client);
    let daemon = restricted.url("daemon", "another password");
    do_everything(fixture, &daemon, &[("CLERK2PG_DATABASE__MIGRATE", "false")]).await;
    restricted.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reading_role_can_only_read() {
    let restricted = Restricted::new(20).await;
    let (fixture, [own, .., reading, _, _]) = (&restricted.fixture, blocks());
    restricted.run_block(&own).await;
    let url = restricted.url("daemon", "its password");
    succeeded(&fixture.run_with(&["--once"], &[("DATABASE_URL", &url)]).await);
    let (name, database) = (format!("{}_reader", restricted.prefix), &restricted.database);
    let create = format!(
        "CREATE ROLE {name} LOGIN PASSWORD 'hidden'; GRANT CONNECT ON DATABASE {database} TO {name};
         CREATE SCHEMA shop AUTHORIZATION {name}"
    );
    fixture.db.execute(&create).await;
    let owner = connect(&url).await;
    owner.batch_execute(&restricted.named(&reading)).await.unwrap();

    let reader = connect(&restricted.url("reader", "hidden")).await;
    for sql in [
        "SELECT clerk.user_document(u) FROM clerk.users u",
        "TABLE clerk.user_events",
        "SELECT imported_at FROM clerk.resource_state",
        "CREATE TABLE shop.orders (user_id text REFERENCES clerk.users ON DELETE SET NULL)",
        "INSERT INTO shop.orders SELECT id FROM clerk.users",
    ] {
        reader
            .batch_execute(sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    may_not(&reader, "DELETE FROM clerk.users").await;
    may_not(&reader, "UPDATE clerk.users SET first_name = NULL").await;
    may_not(&reader, "SELECT digest_key FROM clerk.sync_state").await;
    may_not(&reader, "TABLE clerk.rejected_users").await;
    // The daemon's role has no right to the application's table and needs none.
    fixture.sim.delete_random();
    let ran = fixture
        .run_with(&["--once", "--format", "json"], &[("DATABASE_URL", &url)])
        .await;
    ran.assert(Exit::Ok, changed().deleted(1).unchanged(19));
    let left = reader
        .query_one("SELECT count(user_id) FROM shop.orders", &[])
        .await
        .unwrap();
    assert_eq!(left.get::<_, i64>(0), 19);
    drop((reader, owner));
    restricted.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_for_deliveries_can_show_and_steer_them_and_reads_no_document() {
    let restricted = Restricted::new(5).await;
    let (fixture, [own, .., operating, _]) = (&restricted.fixture, blocks());
    restricted.run_block(&own).await;
    let url = restricted.url("daemon", "its password");
    let receiver = Receiver::start().await;
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.toml");
    std::fs::write(&config, receiver.endpoint("app")).unwrap();
    let run = async |url: &str, arguments: &[&str]| {
        let config = ["--config", config.to_str().unwrap(), "--format", "json"];
        fixture
            .run_with(&[&config, arguments].concat(), &[("DATABASE_URL", url)])
            .await
    };
    succeeded(&run(&url, &["--once"]).await);
    let mut daemon = fixture.command(&["--config", config.to_str().unwrap()]);
    daemon.env("DATABASE_URL", &url).envs([NEVER, EVERY_SECOND]);
    let daemon = Process::spawn(daemon);
    daemon.wait_for_log("delivering events").await;
    fixture.sim.create_random();
    receiver.wait_for_accepted(1).await;
    eventually("the delivery is noted", async || {
        fixture.db.number("SELECT position FROM clerk.endpoints").await == 1
    })
    .await;

    let (name, database) = (format!("{}_operator", restricted.prefix), &restricted.database);
    let create = format!("CREATE ROLE {name} LOGIN PASSWORD 'hidden'; GRANT CONNECT ON DATABASE {database} TO {name}");
    fixture.db.execute(&create).await;
    let owner = connect(&url).await;
    owner.batch_execute(&restricted.named(&operating)).await.unwrap();
    drop(owner);
    let url = restricted.url("operator", "hidden");
    let client = connect(&url).await;
    for sql in [
        "SELECT payload FROM clerk.events",
        "SELECT first_name FROM clerk.users",
        "SELECT digest_key FROM clerk.sync_state",
        "DELETE FROM clerk.deliveries",
        "UPDATE clerk.endpoints SET position = 0",
    ] {
        may_not(&client, sql).await;
    }
    drop(client);
    let listed = run(&url, &["endpoints"]).await;
    succeeded(&listed);
    assert_eq!(listed.json()["endpoints"][0]["state"], "delivering", "{listed:#?}");
    for (option, queued) in [
        (&[][..], 0),
        (&["--since", "1h"], 1),
        (&["--id", "1"], 1),
        (&["--everything"], 6),
    ] {
        let ran = run(&url, &[&["redeliver", "app"], option].concat()).await;
        succeeded(&ran);
        assert_eq!(ran.json()["queued"], queued, "{option:?}");
    }
    succeeded(&run(&url, &["send-test", "app"]).await);
    let tests = receiver.requests();
    let test = tests.iter().find(|event| event.kind() == "clerk2pg.test").unwrap();
    assert_eq!(test.event()["instance_id"], fixture.sim.instance_id());
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    restricted.end().await;
}

/// The table and the mapping of `docs/tables.md`, for which the document has the grants.
const ACCOUNTS: &str = "CREATE TABLE public.accounts (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, clerk_id text NOT NULL UNIQUE, email text, name text NOT NULL,
        plan text NOT NULL, updated_at timestamptz NOT NULL)";
const MAPPING: &str = r#"
    [[tables]]
    name = "accounts"
    key = "clerk_id"
    [tables.set]
    email = "u.primary_email"
    name = "coalesce(u.full_name, '')"
    [tables.insert]
    plan = "coalesce(u.public_metadata ->> 'plan', 'free')"
    [tables.touch]
    updated_at = "now()"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_the_application_needs_each_of_the_documented_grants() {
    let restricted = Restricted::new(20).await;
    let (fixture, [own, .., grants]) = (&restricted.fixture, blocks());
    restricted.run_block(&own).await;
    fixture.db.execute(ACCOUNTS).await;
    restricted.run_block(&grants).await;
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.toml");
    std::fs::write(&config, MAPPING).unwrap();
    let url = restricted.url("daemon", "its password");
    let run = async |arguments: &[&str]| {
        let config = ["--config", config.to_str().unwrap(), "--format", "json"];
        fixture
            .run_with(&[&config, arguments].concat(), &[("DATABASE_URL", &url)])
            .await
    };
    let differ = "SELECT count(*) FROM clerk.users u FULL JOIN public.accounts t ON t.clerk_id = u.id
        WHERE t.email IS DISTINCT FROM u.primary_email OR t.name IS DISTINCT FROM coalesce(u.full_name, '')";
    let problem = "SELECT coalesce(problem, '') FROM clerk.projections";

    succeeded(&run(&["--once"]).await);
    assert_eq!(fixture.db.number("SELECT count(*) FROM public.accounts").await, 20);
    fixture.age_rows().await;
    for grant in grants.lines() {
        let (privilege, _) = grant.strip_prefix("GRANT ").unwrap().split_once(" TO ").unwrap();
        let revoke = grant.replace("GRANT ", "REVOKE ").replace(" TO ", " FROM ");
        restricted.run_block(&revoke).await;
        // The sync of the mirror goes on, and says that the table's does not.
        let ids = fixture.sim.user_ids();
        fixture.rename(&ids[0], privilege);
        fixture.sim.delete(&ids[1]);
        let ran = run(&["--once"]).await;
        ran.assert_exit(Exit::Failed);
        assert_eq!(ran.json()["outcome"], "incomplete", "{ran:#?}");
        assert!(!fixture.has_user(&ids[1]).await);
        let kept = fixture.db.number(differ).await;
        assert_eq!(
            kept, 2,
            "{privilege}: one row should have changed, and one should have gone"
        );
        let said = fixture.db.text(problem).await.unwrap();
        let name = privilege.split([' ', '(']).next().unwrap();
        assert!(said.contains(&format!("lacks {name}")), "{privilege}: {said}");

        // The hint of `check` is what is missing.
        let checked = run(&["check"]).await;
        checked.assert_exit(Exit::Failed);
        let findings = checked.json();
        let table = findings["checks"].as_array().unwrap().last().unwrap();
        let (_, suggested) = table["hint"].as_str().unwrap().split_once(": ").unwrap();
        fixture.db.execute(suggested).await;
        run(&["check"]).await.assert_exit(Exit::Ok);
        succeeded(&run(&["--once"]).await);
        assert_eq!(fixture.db.text(problem).await.as_deref(), Some(""));
        // A row of an unknown user is held the first time.
        fixture.age_rows().await;
        fixture
            .db
            .execute(&format!("DELETE FROM public.accounts WHERE clerk_id = '{}'", ids[1]))
            .await;
        assert_eq!(fixture.db.number(differ).await, 0, "{privilege}");
    }
    restricted.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn approve_needs_the_rights_that_the_page_lists() {
    let page = page("docs/permissions.md");
    let (_, list) = page.split_once("`approve` also needs `UPDATE` on").unwrap();
    let (list, _) = list.split_once(".\n").unwrap();
    let tables: Vec<&str> = list.split('`').filter(|part| part.starts_with("clerk.")).collect();
    assert_eq!(tables.len(), 3, "{list}");

    let fixture = mirrored(30).await;
    for id in &fixture.sim.user_ids()[..15] {
        fixture.sim.delete(id);
    }
    let held = fixture.once().await;
    held.assert_exit(Exit::Held);
    let sum = held.json()["plan"].as_str().unwrap().to_owned();
    let role = Role::new(&fixture).await;
    let name = &role.name;
    let grants = format!(
        "GRANT USAGE ON SCHEMA clerk TO {name}; GRANT SELECT ON ALL TABLES IN SCHEMA clerk TO {name};
         GRANT UPDATE ON {} TO {name}",
        tables.join(", ")
    );
    fixture.db.execute(&grants).await;
    for table in tables {
        fixture
            .db
            .execute(&format!("REVOKE UPDATE ON {table} FROM {name}"))
            .await;
        let ran = role.run(&fixture, &["approve", &sum]).await;
        ran.assert_error(Exit::Failed, "the database role lacks a privilege", "");
        fixture.db.execute(&format!("GRANT UPDATE ON {table} TO {name}")).await;
    }
    role.run(&fixture, &["status"]).await.assert_exit(Exit::Ok);
    role.run(&fixture, &["approve", &sum]).await.assert_exit(Exit::Ok);
    role.end(&fixture).await;
}
