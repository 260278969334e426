//! A recipe of `docs/recipes/`: an application whose table is in use already, and the page with its
//! mapping and its scripts.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::{
    changes::set_address,
    fixture::Fixture,
    node_app::NodeApp,
    pages::{code_blocks, page},
    summary::Exit,
};

/// Users at Clerk. The application knows the first six, and has invited the next two.
const USERS: usize = 10;
const KNOWN: usize = 6;
const INVITED: usize = 2;

/// A key of the application's table that Clerk does not know.
pub const ORPHAN: &str = "user_2AbandonedInAnotherInstance";

/// A row as the application's ORM reads it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    pub id: String,
    pub clerk_id: Option<String>,
    pub email: String,
    pub name: Option<String>,
    pub role: String,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    #[serde(flatten)]
    pub more: BTreeMap<String, Value>,
}

/// Asserts that a time is recent: another time zone would show.
#[track_caller]
pub fn assert_is_now(time: DateTime<Utc>) {
    let age = Utc::now() - time;
    assert!(age.abs() < TimeDelta::minutes(10), "{time} is {age} ago");
}

/// What differs between the two applications.
pub struct Tool {
    name: &'static str,
    table: &'static str,
    admin: &'static str,
    has_images: bool,
}

pub const PRISMA: Tool = Tool {
    name: "prisma",
    table: r#"public."User""#,
    admin: "ADMIN",
    has_images: false,
};

pub const DRIZZLE: Tool = Tool {
    name: "drizzle",
    table: "public.users",
    admin: "admin",
    has_images: true,
};

/// An application of `examples/` with its page, and users at Clerk.
pub struct Recipe {
    pub tool: Tool,
    pub app: NodeApp,
    pub page: String,
    pub fixture: Fixture,
    pub ids: Vec<String>,
}

impl Recipe {
    /// Installs the application; `None` if that is impossible here.
    pub async fn new(tool: Tool) -> Option<Self> {
        let app = NodeApp::install(&format!("{}-users", tool.name)).await?;
        let page = page(&format!("docs/recipes/{}.md", tool.name));
        let fixture = Fixture::migrated_with(USERS).await;
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
        let [mapping] = code_blocks(&recipe.page, "toml")[..] else {
            panic!("the page has more than one mapping")
        };
        recipe.app.write("clerk2pg.toml", mapping);
        Some(recipe)
    }

    /// Asserts that the page's code stands in a file of the application.
    pub fn assert_shows(&self, language: &str, file: &str) {
        let file = self.app.read(file);
        let blocks = code_blocks(&self.page, language);
        assert!(!blocks.is_empty(), "the page has no {language}");
        for block in blocks {
            assert!(file.contains(block), "{block}\n\nis not in\n\n{file}");
        }
    }

    /// Asserts that the application has the scripts of the page.
    pub fn assert_scripts(&self) {
        let package: Value = serde_json::from_str(&self.app.read("package.json")).unwrap();
        let [scripts] = code_blocks(&self.page, "json")[..] else {
            panic!("the page has more than one block of scripts")
        };
        let scripts: Value = serde_json::from_str(scripts).unwrap();
        for (name, script) in scripts["scripts"].as_object().unwrap() {
            assert_eq!(&package["scripts"][name], script, "{name}");
        }
    }

    pub fn rename(&self, at: usize, first_name: &str) {
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
    pub fn assert_updated(&self, at: usize, before: &Row, row: &Row, name: &str) {
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
    pub async fn rows(&self) -> BTreeMap<String, Row> {
        let listed = self.app.succeed(&self.fixture, "users", &["list"], "").await;
        let rows: Vec<Row> = serde_json::from_str(&listed).unwrap_or_else(|error| panic!("{error}: {listed}"));
        rows.into_iter().map(|row| (row.email.clone(), row)).collect()
    }

    /// Runs the script that syncs, and returns what it did with the table.
    pub async fn sync(&self) -> Value {
        let arguments = ["--format", "json"];
        let ran = self.app.run(&self.fixture, "clerk:sync", &arguments, "").await;
        assert!(matches!(ran.status.code(), Some(0 | 3)), "{ran:?}");
        let report: Value = serde_json::from_slice(&ran.stdout).unwrap();
        report["tables"][self.tool.table].clone()
    }

    /// Asserts that `check` has nothing against the mapping but the index that it recommends.
    async fn assert_checked(&self) {
        let config = self.app.path("clerk2pg.toml");
        let arguments = ["--config", config.to_str().unwrap(), "check", "--format", "json"];
        let checked = self.fixture.run(&arguments).await.json();
        let checks = checked["checks"].as_array().unwrap();
        let tables: Vec<_> = checks.iter().filter(|check| check["name"] == "table").collect();
        let [table] = tables[..] else { panic!("{checked}") };
        assert_eq!(table["status"], "warn", "{table}");
        let message = format!("{}: no index helps to find rows by link = \"email\"", self.tool.table);
        assert_eq!(table["message"], message, "{table}");
    }

    /// The third user gets another name. Returns the rows, in which nothing else has changed.
    pub async fn follow_a_change(&self, before: &BTreeMap<String, Row>) -> BTreeMap<String, Row> {
        self.rename(2, "Grace");
        self.sync().await;
        let after = self.rows().await;
        let renamed = &after[&address(2)];
        self.assert_updated(2, &before[&address(2)], renamed, "Grace 2");
        let mut expected = before.clone();
        expected.insert(address(2), renamed.clone());
        assert_eq!(after, expected, "one row changes");
        after
    }

    /// Adopts a table in use. Returns its rows when nothing is left to do.
    pub async fn adopt(&self) -> BTreeMap<String, Row> {
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
        self.assert_checked().await;
        let adopted = self.rows().await;
        self.sync().await;
        assert_eq!(self.rows().await, adopted, "an unchanged sync writes nothing");
        adopted
    }
}

pub fn address(at: usize) -> String {
    format!("user{at}@example.com")
}

fn name(at: usize) -> String {
    format!("Ada {at}")
}
