//! The recipes of `docs/recipes/`, with the real tools: an application whose table is in use
//! already gets its users from clerk2pg. The mapping and the scripts are those that stand on the
//! page. And the mappings of `docs/tables.md`.

use std::{collections::BTreeMap, fs, path::Path};

use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::{app_table::AppTable, changes::set_address, fixture::Fixture, node_app::NodeApp, summary::Exit};

/// Users at Clerk. The application knows the first six, and has invited the next two.
const USERS: usize = 10;
const KNOWN: usize = 6;
const INVITED: usize = 2;

/// A key of the application's table that Clerk does not know.
const ORPHAN: &str = "user_2AbandonedInAnotherInstance";

/// A row as the application's ORM reads it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    id: String,
    clerk_id: Option<String>,
    email: String,
    name: Option<String>,
    role: String,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    #[serde(flatten)]
    more: BTreeMap<String, Value>,
}

/// Asserts that a time is recent: another time zone would show.
#[track_caller]
fn assert_is_now(time: DateTime<Utc>) {
    let age = Utc::now() - time;
    assert!(age.abs() < TimeDelta::minutes(10), "{time} is {age} ago");
}

/// What differs between the two applications.
struct Tool {
    name: &'static str,
    table: &'static str,
    admin: &'static str,
    has_images: bool,
}

const PRISMA: Tool = Tool {
    name: "prisma",
    table: r#"public."User""#,
    admin: "ADMIN",
    has_images: false,
};

const DRIZZLE: Tool = Tool {
    name: "drizzle",
    table: "public.users",
    admin: "admin",
    has_images: true,
};

/// An application of `examples/` with its page, and users at Clerk.
struct Recipe {
    tool: Tool,
    app: NodeApp,
    page: String,
    fixture: Fixture,
    ids: Vec<String>,
}

impl Recipe {
    /// Installs the application; `None` if that is impossible here.
    async fn new(tool: Tool) -> Option<Self> {
        let app = NodeApp::install(&format!("{}-users", tool.name)).await?;
        let page = page(&format!("recipes/{}.md", tool.name));
        let fixture = Fixture::new(USERS).await;
        // A column without a time zone shows whether the mapping writes the zone that the ORM reads.
        fixture
            .db
            .execute(
                "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET timezone = ''Asia/Tokyo''', current_database()); END $$",
            )
            .await;
        let mut ids = fixture.sim.user_ids();
        ids.sort();
        let recipe = Self {
            tool,
            app,
            page,
            fixture,
            ids,
        };
        for (at, id) in recipe.ids.iter().enumerate() {
            set_address(&recipe.fixture, id, &address(at));
            recipe.rename(at, "Ada");
        }
        let [mapping] = recipe.blocks("toml")[..] else {
            panic!("the page has more than one mapping")
        };
        recipe.app.write("clerk2pg.toml", mapping);
        Some(recipe)
    }

    fn blocks(&self, language: &str) -> Vec<&str> {
        blocks(&self.page, language)
    }

    /// Asserts that the page's code stands in a file of the application.
    fn assert_shows(&self, language: &str, file: &str) {
        let file = self.app.read(file);
        let blocks = self.blocks(language);
        assert!(!blocks.is_empty(), "the page has no {language}");
        for block in blocks {
            assert!(file.contains(block), "{block}\n\nis not in\n\n{file}");
        }
    }

    /// Asserts that the application has the scripts of the page.
    fn assert_scripts(&self) {
        let package: Value = serde_json::from_str(&self.app.read("package.json")).unwrap();
        let [scripts] = self.blocks("json")[..] else {
            panic!("the page has more than one block of scripts")
        };
        let scripts: Value = serde_json::from_str(scripts).unwrap();
        for (name, script) in scripts["scripts"].as_object().unwrap() {
            assert_eq!(&package["scripts"][name], script, "{name}");
        }
    }

    fn rename(&self, at: usize, first_name: &str) {
        let renamed = self.fixture.sim.update(&self.ids[at], |user| {
            user["first_name"] = first_name.into();
            user["last_name"] = at.to_string().into();
        });
        assert!(renamed);
    }

    /// A user's image at Clerk.
    fn image(&self, at: usize) -> Value {
        self.fixture.sim.document(&self.ids[at]).unwrap()["image_url"].clone()
    }

    /// Asserts that a row is the same one with the user's present values, and was just updated.
    #[track_caller]
    fn assert_updated(&self, at: usize, before: &Row, row: &Row, name: &str) {
        let mut expected = Row {
            clerk_id: Some(self.ids[at].clone()),
            email: address(at),
            name: Some(name.to_owned()),
            updated_at: row.updated_at,
            ..before.clone()
        };
        if self.tool.has_images {
            expected.more.insert("imageUrl".to_owned(), self.image(at));
        }
        assert_eq!(row, &expected);
        assert!(row.updated_at > before.updated_at, "{before:?} {row:?}");
        assert_is_now(row.updated_at);
    }

    /// The application makes users.
    async fn add(&self, users: &[Value]) {
        let users = serde_json::to_string(users).unwrap();
        self.app.succeed(&self.fixture, "users", &["add"], &users).await;
    }

    /// The application reads its users, by their addresses.
    async fn rows(&self) -> BTreeMap<String, Row> {
        let listed = self.app.succeed(&self.fixture, "users", &["list"], "").await;
        let rows: Vec<Row> = serde_json::from_str(&listed).unwrap_or_else(|error| panic!("{error}: {listed}"));
        rows.into_iter().map(|row| (row.email.clone(), row)).collect()
    }

    /// Runs the script that syncs, and returns what it did with the table.
    async fn sync(&self) -> Value {
        let arguments = ["--format", "json"];
        let ran = self.app.run(&self.fixture, "clerk:sync", &arguments, "").await;
        assert!(matches!(ran.status.code(), Some(0 | 3)), "{ran:?}");
        let report: Value = serde_json::from_slice(&ran.stdout).unwrap();
        report["tables"][self.tool.table].clone()
    }

    /// Adopts a table in use. Returns its rows when nothing is left to do.
    async fn adopt(&self) -> BTreeMap<String, Row> {
        let known = (0..KNOWN).map(|at| {
            let mut user = json!({"clerkId": self.ids[at], "email": address(at), "name": name(at)});
            if self.tool.has_images {
                user["imageUrl"] = self.image(at);
            }
            match at {
                0 => user["role"] = self.tool.admin.into(),
                1 => user["name"] = "an old name".into(),
                _ => {}
            }
            user
        });
        // An address is linked in any case of its letters.
        let invited =
            (KNOWN..KNOWN + INVITED).map(|at| json!({"email": address(at).to_uppercase(), "name": "invited"}));
        let others = [
            json!({"email": "later@example.com", "name": "invited"}),
            json!({"clerkId": ORPHAN, "email": "orphan@example.com", "name": "orphan"}),
        ];
        self.add(&known.chain(invited).chain(others).collect::<Vec<_>>()).await;
        let before = self.rows().await;
        assert_eq!(before.len(), KNOWN + INVITED + 2);

        let done = self.sync().await;
        assert_eq!(
            (&done["inserted"], &done["linked"], &done["removed"], &done["held"]),
            (&(USERS - KNOWN - INVITED).into(), &INVITED.into(), &0.into(), &1.into()),
            "{done}"
        );
        let rows = self.rows().await;
        assert_eq!(rows.len(), USERS + 2);
        for email in ["later@example.com", "orphan@example.com"] {
            assert_eq!(rows[email], before[email]);
        }
        for at in 0..USERS {
            let (id, email) = (&self.ids[at], address(at));
            let row = &rows[&email];
            match at {
                1 => self.assert_updated(at, &before[&email], row, &name(at)),
                _ if at < KNOWN => assert_eq!(row, &before[&email]),
                _ if at < KNOWN + INVITED => {
                    self.assert_updated(at, &before[&email.to_uppercase()], row, &name(at));
                }
                _ => {
                    assert_eq!((&row.clerk_id, &row.name), (&Some(id.clone()), &Some(name(at))));
                    assert_eq!(row.role, before["later@example.com"].role, "the default");
                    let created = self.fixture.sim.document(id).unwrap()["created_at"].clone();
                    assert_eq!(row.created_at.timestamp_millis(), created.as_i64().unwrap());
                    assert_is_now(row.updated_at);
                }
            }
        }

        let sum = done["plan"].as_str().unwrap();
        self.fixture.run(&["approve", sum]).await.assert_exit(Exit::Ok);
        // Clerk's answer about an unknown key counts after ten seconds.
        let age = "UPDATE clerk.departures SET found_at = found_at - interval '1 minute'";
        self.fixture.db.execute(age).await;
        assert_eq!(self.sync().await["removed"], 1);
        let adopted = self.rows().await;
        self.sync().await;
        assert_eq!(self.rows().await, adopted, "an unchanged sync writes nothing");
        adopted
    }
}

/// Reads a page of `docs/`.
fn page(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)).unwrap()
}

/// A page's code blocks in a language.
fn blocks<'p>(page: &'p str, language: &str) -> Vec<&'p str> {
    let start = format!("```{language}\n");
    let blocks = page.split(&start).skip(1);
    blocks.map(|block| block.split("```").next().unwrap()).collect()
}

fn address(at: usize) -> String {
    format!("user{at}@example.com")
}

fn name(at: usize) -> String {
    format!("Ada {at}")
}

/// Whether an id has the form of a cuid.
fn is_cuid(id: &str) -> bool {
    let is_allowed = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    id.len() >= 24 && id.starts_with(|first: char| first.is_ascii_lowercase()) && id.chars().all(is_allowed)
}

#[tokio::test(flavor = "multi_thread")]
async fn prisma() {
    let Some(recipe) = Recipe::new(PRISMA).await else {
        return;
    };
    let (app, fixture) = (&recipe.app, &recipe.fixture);
    recipe.assert_shows("prisma", "prisma/schema.prisma");
    recipe.assert_scripts();
    app.succeed(fixture, "generate", &[], "").await;
    fixture
        .db
        .execute(&app.read("prisma/migrations/20260301090000_init/migration.sql"))
        .await;

    let adopted = recipe.adopt().await;
    assert!(!adopted.contains_key("orphan@example.com"));
    assert!(adopted.values().all(|row| is_cuid(&row.id)), "{adopted:?}");
    assert_eq!(adopted[&address(0)].role, "ADMIN");

    let post = r#"INSERT INTO "Post" (id, title, "authorId") SELECT 'post' || id, 'a title', id FROM "User""#;
    fixture.db.execute(post).await;
    let before = recipe.rows().await;
    recipe.rename(2, "Grace");
    recipe.sync().await;
    let mut expected = before.clone();
    let renamed = recipe.rows().await[&address(2)].clone();
    recipe.assert_updated(2, &before[&address(2)], &renamed, "Grace 2");
    expected.insert(address(2), renamed);
    assert_eq!(recipe.rows().await, expected, "one row changes");

    fixture.age_rows().await;
    fixture.sim.delete(&recipe.ids[2]);
    recipe.sync().await;
    expected.remove(&address(2));
    assert_eq!(recipe.rows().await, expected, "one row goes");
    let posts = fixture.db.number(r#"SELECT count(*) FROM "Post""#).await;
    assert_eq!(posts, expected.len() as i64, "its posts go with it");
}

#[tokio::test(flavor = "multi_thread")]
async fn drizzle() {
    let Some(recipe) = Recipe::new(DRIZZLE).await else {
        return;
    };
    let (app, fixture) = (&recipe.app, &recipe.fixture);
    recipe.assert_shows("ts", "schema.ts");
    recipe.assert_scripts();
    app.succeed(fixture, "push", &[], "").await;

    let adopted = recipe.adopt().await;
    assert_eq!(adopted[&address(0)].role, "admin");
    let scrubbed = format!("gone-{ORPHAN}@invalid");
    assert!(
        !adopted.contains_key("orphan@example.com") && adopted.contains_key(&scrubbed),
        "{adopted:?}"
    );

    let users = fixture.users().await;
    app.succeed(fixture, "push", &[], "").await;
    assert_eq!(fixture.users().await, users, "the push leaves the schema clerk alone");
    assert_eq!(recipe.rows().await, adopted, "the push leaves the rows alone");

    fixture
        .db
        .execute("INSERT INTO orders (user_id, total) SELECT id, 10 FROM users")
        .await;
    recipe.rename(2, "Grace");
    let loses_image = |user: &mut Value| user["image_url"] = Value::Null;
    assert!(fixture.sim.update(&recipe.ids[3], loses_image));
    recipe.sync().await;
    let mut expected = adopted.clone();
    let renamed = recipe.rows().await[&address(2)].clone();
    recipe.assert_updated(2, &adopted[&address(2)], &renamed, "Grace 2");
    expected.insert(address(2), renamed.clone());
    assert_eq!(recipe.rows().await, expected, "one row changes");

    fixture.age_rows().await;
    fixture.sim.delete(&recipe.ids[2]);
    recipe.sync().await;
    expected.remove(&address(2));
    let mut rows = recipe.rows().await;
    let gone = rows.remove(&format!("gone-{}@invalid", recipe.ids[2])).unwrap();
    assert_eq!(rows, expected, "one row is marked");
    assert_eq!(
        (gone.id, gone.name, &gone.more["imageUrl"]),
        (renamed.id, None, &Value::Null)
    );
    let deleted_at: DateTime<Utc> = serde_json::from_value(gone.more["deletedAt"].clone()).unwrap();
    assert_is_now(deleted_at);
    let orders = fixture.db.number("SELECT count(*) FROM orders").await;
    assert_eq!(orders, adopted.len() as i64, "its orders stay");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mappings_of_the_page_work() {
    let page = page("tables.md");
    let [accounts, index] = blocks(&page, "sql")
        .into_iter()
        .filter(|block| block.starts_with("CREATE"))
        .collect::<Vec<_>>()[..]
    else {
        panic!("the page has not one table and one index")
    };
    let [first, soft_delete, two_tables] = blocks(&page, "toml")[..] else {
        panic!("the page has other mappings")
    };
    let accounts = format!("{accounts}; {index}");
    let marked = "CREATE TABLE accounts (clerk_id text UNIQUE, email text UNIQUE, deleted_at timestamptz)";
    let two = "CREATE TABLE accounts (clerk_id text UNIQUE, email text);
               CREATE TABLE profiles (user_id text PRIMARY KEY, avatar text, bio text)";
    let all = "SELECT count(*) FROM accounts";
    let present = "SELECT count(*) FROM accounts WHERE deleted_at IS NULL AND email NOT LIKE 'gone-%'";
    for (sql, mapping, tables, rows) in [
        (accounts.as_str(), first, 1, all),
        (marked, soft_delete, 1, present),
        (two, two_tables, 2, all),
    ] {
        let app = AppTable::new(15, sql, mapping).await;
        let db = &app.fixture.db;
        // Each user has an address, so that each present row is counted.
        for (at, id) in app.fixture.sim.user_ids().iter().enumerate() {
            set_address(&app.fixture, id, &address(at));
        }
        let report = app.once().await;
        report.assert_exit(Exit::Ok);
        let reports = report.json()["tables"].as_object().unwrap().clone();
        let inserted: Vec<_> = reports.values().map(|table| &table["inserted"]).collect();
        assert_eq!(inserted, vec![&json!(15); tables], "{mapping}");
        assert_eq!(db.number("SELECT count(*) FROM clerk.rejected_rows").await, 0);
        assert_eq!(db.number(rows).await, 15, "{mapping}");

        app.fixture.age_rows().await;
        app.fixture.sim.delete(&app.fixture.sim.user_ids()[0]);
        app.once().await.assert_exit(Exit::Ok);
        assert_eq!(db.number(rows).await, 14, "{mapping}");
        let kept = if mapping == soft_delete { 15 } else { 14 };
        assert_eq!(db.number(all).await, kept, "{mapping}");
    }
}
