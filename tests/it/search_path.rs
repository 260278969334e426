//! No object of another role runs as clerk2pg's role. Look-alikes of PostgreSQL's own functions,
//! operators, types and catalogs are everywhere they could come first, and every statement of the
//! program is run.

use std::{collections::BTreeSet, fs, path::Path};

use clerk_sim::{Options, Sim};
use rustix::process::Signal;

use crate::support::{
    changes::set_address,
    database::{Database, connect, with_database},
    everything::do_everything,
    fixture::Fixture,
    http_client::get,
    monitored::{ANY, MonitoredDaemon},
    process::{EVERY_SECOND, NEVER, Process},
    program::ProgramOutput,
    summary::{Exit, changed},
    wait::eventually,
};

/// Collects every name that is called in these files, in any language.
fn called(file: &Path, names: &mut BTreeSet<String>) {
    if file.is_dir() {
        for entry in fs::read_dir(file).unwrap() {
            called(&entry.unwrap().path(), names);
        }
        return;
    }
    let Ok(text) = fs::read_to_string(file) else { return };
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '('));
    for word in words {
        let mut parts = word.split('(').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_some() && part.starts_with(|c: char| c.is_ascii_lowercase()) {
                names.insert(part.to_lowercase());
            }
        }
    }
}

/// A template database in which a role that may create schemas has put all look-alikes into its
/// schema `evil`.
struct Hostile {
    db: Database,
    name: String,
    /// The role that owns the look-alikes.
    mallory: String,
}

impl Hostile {
    async fn new() -> Self {
        let db = Database::new().await;
        let name = db.text("SELECT current_database()").await.unwrap();
        let mallory = name.replace("clerk2pg_test", "mallory");
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut names = BTreeSet::new();
        for part in ["src/mirror", "migrations", "docs", "README.md"] {
            called(&root.join(part), &mut names);
        }
        let names: Vec<String> = names.into_iter().collect();
        assert!(names.iter().any(|name| name == "jsonb_build_object"), "{names:?}");
        let sql = include_str!("search_path.sql").replace("{names}", &format!("{{{}}}", names.join(",")));
        db.execute(&format!(
            "CREATE ROLE {mallory}; GRANT CREATE ON DATABASE {name} TO {mallory}; GRANT CREATE, USAGE ON SCHEMA public TO {mallory}; SET ROLE {mallory}"
        ))
        .await;
        db.execute(&sql).await;
        db.execute("RESET ROLE").await;
        Self { db, name, mallory }
    }

    /// Returns a fixture with a copy of this database, and a role for clerk2pg that owns nothing
    /// yet.
    async fn fixture(&self, users: usize) -> (Fixture, String, String) {
        let options = Options {
            users,
            secret_key: "sk_live_test".to_owned(),
            ..Options::default()
        };
        let template = format!("TEMPLATE {}", self.name);
        let (db, sim) = tokio::join!(Database::with_options(&template), Sim::start(options));
        let fixture = Fixture { db, sim: sim.unwrap() };
        let database = fixture.db.text("SELECT current_database()").await.unwrap();
        let role = database.replace("clerk2pg_test", "role");
        fixture
            .db
            .execute(&format!(
                "CREATE ROLE {role} LOGIN PASSWORD 'secret'; GRANT CREATE ON DATABASE {database} TO {role};
                 SET search_path = pg_catalog"
            ))
            .await;
        let (_, place) = fixture.db.url.split_once('@').unwrap();
        let url = format!("postgres://{role}:secret@{place}");
        (fixture, role, url)
    }
}

/// Where the look-alikes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// After `pg_catalog`, where a better match than PostgreSQL's own is found first.
    Public,
    /// The same, in a schema named like clerk2pg's role.
    User,
    /// Before `pg_catalog`, which the database's search path names last.
    Before,
    /// In the schema that becomes clerk2pg's.
    Clerk,
}

impl Place {
    /// Creates them there.
    async fn prepare(self, fixture: &Fixture, hostile: &Hostile, role: &str) {
        let (mallory, database) = (
            &hostile.mallory,
            fixture.db.text("SELECT current_database()").await.unwrap(),
        );
        if self != Place::Clerk {
            for name in [
                "pg_class",
                "pg_namespace",
                "pg_proc",
                "pg_policy",
                "pg_stat_activity",
                "pg_stat_ssl",
            ] {
                let sql = format!(
                    "SET ROLE {mallory}; CREATE VIEW evil.{name} AS SELECT * FROM pg_catalog.{name} WHERE trap.spring('{name}');
                     GRANT SELECT ON evil.{name} TO PUBLIC; RESET ROLE"
                );
                fixture.db.execute(&sql).await;
            }
        }
        let sql = match self {
            Place::Public => "ALTER SCHEMA public RENAME TO old; ALTER SCHEMA evil RENAME TO public".to_owned(),
            Place::User => format!("ALTER SCHEMA evil RENAME TO {role}"),
            Place::Before => format!("ALTER DATABASE {database} SET search_path = evil, public, pg_catalog"),
            Place::Clerk => format!("ALTER SCHEMA evil RENAME TO clerk; GRANT CREATE, USAGE ON SCHEMA clerk TO {role}"),
        };
        fixture.db.execute(&sql).await;
    }
}

async fn check(hostile: &Hostile, place: Place) {
    let (fixture, role, url) = hostile.fixture(60).await;
    place.prepare(&fixture, hostile, &role).await;
    let address = [("DATABASE_URL", url.as_str())];
    let fine = |ran: &ProgramOutput| {
        assert!(
            !format!("{}{}", ran.stdout, ran.stderr).contains("captured"),
            "{place:?}: {ran:#?}"
        );
        assert_eq!(ran.code, Some(0), "{place:?}: {ran:#?}");
    };
    let with = |more: &[(&'static str, &'static str)]| -> Vec<(&str, &str)> { [&address[..], more].concat() };

    fine(&fixture.run_with(&["migrate"], &address).await);
    do_everything(&fixture, &url, &[]).await;
    exchanges(&fixture, &url).await;
    app_table(&fixture, &url, place).await;
    fine(&fixture.once_with(&with(&[("CLERK2PG_DELETES__MODE", "keep")])).await);
    // The budget's warning does not matter here.
    let checked = fixture.run_with(&["check"], &address).await;
    assert!(!format!("{checked:?}").contains("captured"), "{place:?}: {checked:#?}");

    let leader = MonitoredDaemon::new(fixture.start_daemon(&with(&[ANY, NEVER, EVERY_SECOND]))).await;
    leader.wait_until_ready("in sync").await;
    let standby = Process::new(fixture.daemon(&with(&[NEVER, EVERY_SECOND])));
    let standbys = "SELECT count(*) FROM clerk.standbys WHERE expires_at > clock_timestamp()";
    eventually("one stands by", async || fixture.db.number(standbys).await == 1).await;
    for path in ["/", "/metrics", "/readyz"] {
        let answer = get(&leader.address, path).await.unwrap();
        assert_eq!(answer.status, 200, "{place:?}: {path}: {answer:?}");
        assert!(!answer.body.contains("captured"), "{place:?}: {answer:?}");
    }
    fixture.wait_until_mirrored().await;
    fine(&leader.daemon.stop(Signal::TERM).await);
    fixture.sim.create_random();
    fixture.wait_until_mirrored().await;
    fine(&standby.stop(Signal::TERM).await);

    generated_ids(&url, place).await;
    documented(&fixture, &url, place).await;
    let sprung = fixture.db.text("SELECT is_called FROM trap.sprung").await;
    assert_eq!(
        sprung.as_deref(),
        Some("f"),
        "{place:?}: something of another role's was run"
    );
    let end = format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}");
    fixture.db.execute(&end).await;
}

/// Two users exchange a value that the application declares unique, and a person runs `repin`.
async fn exchanges(fixture: &Fixture, url: &str) {
    let address = [("DATABASE_URL", url)];
    let ids = fixture.sim.user_ids();
    let set = |one: &str, two: &str| {
        set_address(fixture, &ids[0], one);
        set_address(fixture, &ids[1], two);
    };
    let expected = changed().updated(2).unchanged(fixture.sim.count() - 2);
    set("one@example.com", "two@example.com");
    fixture.once_with(&address).await.assert(Exit::Ok, expected);
    let index = "CREATE UNIQUE INDEX ON clerk.users (primary_email) WHERE primary_email IN ('one@example.com', 'two@example.com')";
    fixture.db.execute(index).await;
    set("two@example.com", "one@example.com");
    fixture.once_with(&address).await.assert(Exit::Ok, expected);
    let ran = fixture.run_with(&["repin"], &address).await;
    ran.assert_exit(Exit::Ok);
}

/// Keeps a table of the application in sync: links, inserts, updates, exchanges and removes rows.
async fn app_table(fixture: &Fixture, url: &str, place: Place) {
    let database = fixture.db.text("SELECT current_database()").await.unwrap();
    let role = database.replace("clerk2pg_test", "role");
    let ids = fixture.sim.user_ids();
    let table = format!(
        "CREATE SCHEMA shop AUTHORIZATION {role};
         CREATE TABLE shop.accounts (id text PRIMARY KEY, clerk_id text UNIQUE, email text NOT NULL UNIQUE, gone timestamptz);
         ALTER TABLE shop.accounts OWNER TO {role};
         INSERT INTO shop.accounts VALUES ('invited', NULL, 'TWO@example.com'), ('stranger', 'user_stranger', 's')"
    );
    fixture.db.execute(&table).await;
    let config = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    let mapping = "
        [[tables]]
        schema = 'shop'
        name = 'accounts'
        key = 'clerk_id'
        link = 'email'
        where = '''u.username IS DISTINCT FROM 'excluded' AND length(u.id) > 1'''
        delete = 'update'
        max_change_percent = 100
        [tables.set]
        email = '''coalesce(lower(u.primary_email), u.id || '@' || 'none')'''
        gone = 'NULL'
        [tables.insert]
        id = 'clerk.cuid()'
        [tables.deleted]
        gone = 'now()'
        email = '''concat('gone-', u.id)'''";
    fs::write(config.path(), mapping).unwrap();
    let config = config.path().to_str().unwrap();
    let address = [("DATABASE_URL", url)];
    let run = async |arguments: &[&str]| {
        let ran = fixture
            .run_with(&[&["--config", config], arguments].concat(), &address)
            .await;
        assert!(!format!("{ran:?}").contains("captured"), "{place:?}: {ran:#?}");
        assert!(ran.code == Some(0) || ran.code == Some(3), "{place:?}: {ran:#?}");
    };
    run(&["--dry-run"]).await;
    run(&["--once"]).await;
    set_address(fixture, &ids[0], "one@example.com");
    set_address(fixture, &ids[1], "two@example.com");
    fixture.sim.update(&ids[2], |user| user["username"] = "excluded".into());
    run(&["--once"]).await;
    run(&["--dry-run"]).await;
    let rows = "SELECT count(*) FROM shop.accounts a JOIN clerk.users u ON u.id = a.clerk_id
                WHERE a.email = coalesce(lower(u.primary_email), u.id || '@none') OR a.gone IS NOT NULL";
    let users = "SELECT count(*) FROM clerk.users WHERE deleted_at IS NULL";
    assert_eq!(
        fixture.db.number(rows).await,
        fixture.db.number(users).await,
        "{place:?}"
    );
}

/// Makes ids as clerk2pg's role, with the search path that the database or the role has.
async fn generated_ids(url: &str, place: Place) {
    let client = connect(url).await;
    let made = "SELECT clerk.cuid(), clerk.nanoid(), clerk.nanoid(100)";
    let row = client.query_one(made, &[]).await;
    let row = row.unwrap_or_else(|error| panic!("{place:?}: {error:?}"));
    let lengths = [0, 1, 2].map(|n| row.get::<_, &str>(n).len());
    assert_eq!(lengths, [24, 21, 100], "{place:?}");
}

/// Runs the SQL of the documents as the schema's owner. Monitoring runs it in psql, one query at a
/// time, with its own search path.
async fn documented(fixture: &Fixture, url: &str, place: Place) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![];
    if place != Place::Before {
        files.extend(["README.md", "docs/operations.md", "docs/schema.md"]);
    }
    let mut scripts = Vec::new();
    for file in files {
        let text = fs::read_to_string(root.join(file)).unwrap();
        for block in text.split("```sql\n").skip(1) {
            scripts.push(
                block
                    .split("```")
                    .next()
                    .unwrap()
                    .replace("CREATE TABLE orders", "CREATE TABLE app.orders")
                    .replace("ON orders", "ON app.orders"),
            );
        }
    }
    assert!(place == Place::Before || scripts.len() >= 3, "blocks are missing");
    let reader = fs::read_to_string(root.join("docs/examples/reader.sql")).unwrap();
    scripts.extend([reader.clone(), reader]);
    let psql = Path::new(&std::env::var("CLERK2PG_PG_BIN").expect("run the tests with scripts/test")).join("psql");
    let owned = fixture.db.text("SELECT current_database()").await.unwrap();
    let role = owned.replace("clerk2pg_test", "role");
    fixture
        .db
        .execute(&format!("CREATE SCHEMA app AUTHORIZATION {role}"))
        .await;
    for script in scripts {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), &script).unwrap();
        let ran = tokio::process::Command::new(&psql)
            .arg(url)
            .args(["--no-psqlrc", "--quiet", "-v", "ON_ERROR_STOP=1", "-f"])
            .arg(file.path())
            .output()
            .await
            .unwrap();
        assert!(
            ran.status.success(),
            "{place:?}: {script}: {}",
            String::from_utf8_lossy(&ran.stderr)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_object_of_another_role_runs_as_clerk2pg() {
    let mut hostile = Hostile::new().await;
    let server = with_database(&hostile.db.url, "postgres");
    // A template must not have connections.
    hostile.db.client = connect(&server).await;
    let check = |place| check(&hostile, place);
    tokio::join!(
        check(Place::Public),
        check(Place::User),
        check(Place::Before),
        check(Place::Clerk)
    );
    // Roles outlive the databases.
    let mallory = hostile.mallory.clone();
    drop(hostile);
    let end = format!("DROP ROLE {mallory}");
    let client = connect(&server).await;
    eventually("the databases are gone", async || {
        client.batch_execute(&end).await.is_ok()
    })
    .await;
}

/// Triggers and expressions of the application rely on the session's search path, which the
/// database or the role sets.
#[tokio::test(flavor = "multi_thread")]
async fn triggers_of_the_application_keep_their_search_path() {
    const TRIGGER: &str = "
        CREATE TABLE public.recorded (user_id text, name text);
        CREATE FUNCTION public.loud(name text) RETURNS text LANGUAGE sql AS 'SELECT upper(name)';
        CREATE FUNCTION public.record() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO recorded VALUES (NEW.id, loud(NEW.id));
            RETURN NEW;
        END $$;
        CREATE TRIGGER record AFTER INSERT OR UPDATE ON clerk.users FOR EACH ROW EXECUTE FUNCTION public.record()";
    for path in [
        "\"$user\", public",
        "public",
        "public, pg_catalog",
        "\"Odd, schema\", PUBLIC, PG_Catalog",
    ] {
        let fixture = Fixture::new(10).await;
        fixture.run(&["migrate"]).await.assert_exit(Exit::Ok);
        fixture.db.execute(TRIGGER).await;
        let database = fixture.db.text("SELECT current_database()").await.unwrap();
        fixture
            .db
            .execute(&format!("ALTER DATABASE {database} SET search_path = {path}"))
            .await;
        fixture.once().await.assert(Exit::Ok, changed().created(10));
        let recorded = "SELECT count(*) FROM public.recorded WHERE name = upper(user_id)";
        assert_eq!(fixture.db.number(recorded).await, 10, "{path}");
    }
    // An empty search path stays empty.
    let fixture = Fixture::new(10).await;
    let database = fixture.db.text("SELECT current_database()").await.unwrap();
    fixture
        .db
        .execute(&format!("ALTER DATABASE {database} SET search_path = ''"))
        .await;
    fixture.once().await.assert(Exit::Ok, changed().created(10));
}

/// Names that the SQL grammar defines: they are not looked up.
const GRAMMAR: [&str; 10] = [
    "coalesce", "extract", "greatest", "least", "nullif", "exists", "any", "array", "values", "in",
];

/// Returns the function calls in a text as they are written.
fn calls(text: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices('(') {
        let before = &text[..at];
        let start = before
            .rfind(|c: char| !(c.is_ascii_alphanumeric() || "_.".contains(c)))
            .map_or(0, |at| at + 1);
        found.push((&before[start..], &text[at..]));
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn every_function_in_sql_is_schema_qualified() {
    let db = Database::new().await;
    let rows = db
        .client
        .query("SELECT DISTINCT proname::text FROM pg_catalog.pg_proc", &[])
        .await;
    let known: BTreeSet<String> = rows.unwrap().iter().map(|row| row.get(0)).collect();
    let mut checked = 0;
    let mut check = |file: &str, sql: &str| {
        for (name, rest) in calls(sql) {
            let name = name.to_lowercase();
            checked += usize::from(name.starts_with("pg_catalog."));
            // With several arrays, the grammar itself picks PostgreSQL's own function.
            let is_expanded = name == "unnest" && !rest.starts_with("($1)") && !rest.starts_with("(p.");
            let is_grammars = GRAMMAR.contains(&name.as_str()) || is_expanded;
            assert!(
                !known.contains(&name) || is_grammars,
                "{file}: {name} is written without its schema in {sql}"
            );
        }
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![root.join("src/mirror"), root.join("migrations")];
    while let Some(file) = files.pop() {
        let name = file.display().to_string();
        if file.is_dir() {
            files.extend(fs::read_dir(&file).unwrap().map(|entry| entry.unwrap().path()));
        } else if name.ends_with(".sql") {
            let text = fs::read_to_string(&file).unwrap();
            let code: Vec<&str> = text.lines().map(|line| line.split("--").next().unwrap()).collect();
            check(&name, &code.join("\n"));
        } else {
            let text = fs::read_to_string(&file).unwrap();
            let words = ["SELECT", "INSERT", "UPDATE", "DELETE", "FROM clerk."];
            let literals = text.split("#[cfg(test)]").next().unwrap().split('"').skip(1).step_by(2);
            literals
                .filter(|literal| words.iter().any(|word| literal.contains(word)))
                .for_each(|literal| check(&name, literal));
        }
    }
    assert!(checked > 50, "only {checked} calls were found");
}
