//! `init`: the mappings that it proposes for tables as applications have them are accepted by `check`, and
//! fill the tables.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clerk_sim::{OrganizationOptions, PerOrganization};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    fixture::{Fixture, mirrored},
    organizations::{ALL, age, mirrored_company, once_all},
    program::ProgramOutput,
    summary::Exit,
};

/// A table of an application.
struct Shape {
    schema: &'static str,
    /// The tables, in the order in which they refer to each other.
    tables: &'static [&'static str],
    /// Lines of the file that somebody edits, and what they become: at most two.
    edits: &'static [(&'static str, &'static str)],
    /// A query that counts rows, and the objects that must have one.
    rows: (&'static str, Objects),
}

/// Objects of the mirror that have a row.
#[derive(Clone, Copy)]
enum Objects {
    Users,
    WithEmail,
    WithPhone,
    /// Organizations, and members with an email address.
    OrganizationsAndMembers,
}

impl Objects {
    fn count(self) -> &'static str {
        match self {
            Objects::Users => "SELECT count(*) FROM clerk.users",
            Objects::WithEmail => "SELECT count(primary_email) FROM clerk.users",
            Objects::WithPhone => "SELECT count(primary_phone) FROM clerk.users",
            Objects::OrganizationsAndMembers => {
                "SELECT count(primary_email) + (SELECT count(*) FROM clerk.organizations) FROM clerk.members"
            }
        }
    }
}

const SHAPES: [Shape; 9] = [
    Shape {
        schema: "CREATE TABLE users (id text PRIMARY KEY, email text UNIQUE NOT NULL, username text)",
        tables: &["users"],
        edits: &[],
        rows: ("SELECT count(*) FROM users JOIN clerk.users AS u USING (id) WHERE email = u.primary_email", Objects::WithEmail),
    },
    Shape {
        schema: r#"CREATE TABLE "User" (
            id text PRIMARY KEY, "clerkId" text NOT NULL UNIQUE, email text, name text NOT NULL,
            "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP, "updatedAt" timestamp(3) NOT NULL)"#,
        tables: &[r#"public."User""#],
        edits: &[],
        rows: (r#"SELECT count(*) FROM "User" WHERE id ~ '^[a-z][a-z0-9]{23}$' AND "clerkId" LIKE 'user_%'"#, Objects::Users),
    },
    Shape {
        schema: r#"CREATE TYPE user_role AS ENUM ('user', 'admin');
            CREATE TABLE users (
                id uuid PRIMARY KEY DEFAULT gen_random_uuid(), clerk_id text NOT NULL UNIQUE, email text NOT NULL UNIQUE,
                image_url text, role user_role NOT NULL DEFAULT 'user', "deletedAt" timestamptz)"#,
        tables: &["users"],
        edits: &[],
        rows: (r#"SELECT count(*) FROM users WHERE role = 'user' AND "deletedAt" IS NULL"#, Objects::WithEmail),
    },
    Shape {
        schema: "CREATE TABLE members (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, user_id text NOT NULL UNIQUE,
            first_name varchar(128) NOT NULL, last_name varchar(128) NOT NULL, org_id text)",
        tables: &["members"],
        edits: &[],
        rows: ("SELECT count(*) FROM members WHERE user_id LIKE 'user_%'", Objects::Users),
    },
    Shape {
        schema: r#"CREATE TABLE people (
                id serial PRIMARY KEY, "clerkId" text UNIQUE, email text UNIQUE NOT NULL, invited_by text);
            INSERT INTO people (email, invited_by) SELECT primary_email, 'boss' FROM clerk.users LIMIT 3"#,
        tables: &["people"],
        edits: &[],
        rows: (r#"SELECT count(*) FROM people WHERE "clerkId" IS NOT NULL"#, Objects::WithEmail),
    },
    Shape {
        schema: "CREATE TABLE customers (
            id uuid PRIMARY KEY DEFAULT gen_random_uuid(), clerk_id text NOT NULL UNIQUE, phone text NOT NULL UNIQUE,
            role text NOT NULL CHECK (role IN ('ADMIN', 'MEMBER')))",
        tables: &["customers"],
        edits: &[],
        rows: ("SELECT count(*) FROM customers WHERE role = 'MEMBER'", Objects::WithPhone),
    },
    Shape {
        schema: "CREATE TABLE account (clerk_id text PRIMARY KEY, email text);
            CREATE TABLE profile (
                id serial PRIMARY KEY, account_id text NOT NULL UNIQUE REFERENCES account, display_name text NOT NULL)",
        tables: &["account", "profile"],
        edits: &[],
        rows: ("SELECT count(*) FROM account JOIN profile ON account_id = clerk_id", Objects::Users),
    },
    Shape {
        schema: r#"CREATE TABLE "User" (id text PRIMARY KEY, email text NOT NULL);
            CREATE TABLE "Organization" (id text PRIMARY KEY, name text NOT NULL, slug text UNIQUE);
            CREATE TABLE "OrganizationMember" (
                id text PRIMARY KEY, "organizationId" text NOT NULL REFERENCES "Organization" ON DELETE CASCADE,
                "userId" text NOT NULL REFERENCES "User" ON DELETE CASCADE, role text NOT NULL,
                UNIQUE ("organizationId", "userId"))"#,
        tables: &["User", "Organization", "OrganizationMember"],
        edits: &[],
        rows: (r#"SELECT count(*) + (SELECT count(*) FROM "Organization") FROM "OrganizationMember""#, Objects::OrganizationsAndMembers),
    },
    Shape {
        schema: "CREATE TABLE app_users (
            id serial PRIMARY KEY, clerk_user_id text NOT NULL UNIQUE, email text, plan_code char(4) NOT NULL, seats int NOT NULL)",
        tables: &["app_users"],
        edits: &[("#plan_code = \"\"", "plan_code = \"'free'\""), ("#seats = \"\"", "seats = \"1\"")],
        rows: ("SELECT count(*) FROM app_users WHERE plan_code = 'free' AND seats = 1", Objects::Users),
    },
];

/// A folder in which `init` writes its file.
struct Project {
    fixture: Fixture,
    folder: TempDir,
}

impl Project {
    async fn new() -> Self {
        let organizations = OrganizationOptions {
            members: PerOrganization::Sizes(vec![1, 4]),
            ..OrganizationOptions::number(2)
        };
        let fixture = mirrored_company(12, organizations).await;
        for (at, id) in fixture.sim.user_ids().iter().take(4).enumerate() {
            fixture.sim.update(id, |user| {
                user["phone_numbers"] = json!([{"id": "idn_1", "phone_number": format!("+1555000{at}")}]);
                user["primary_phone_number_id"] = json!("idn_1");
            });
        }
        once_all(&fixture).await;
        Self {
            fixture,
            folder: TempDir::new().unwrap(),
        }
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("config.toml")
    }

    async fn run(&self, arguments: &[&str]) -> ProgramOutput {
        let config = self.config();
        let all: Vec<&str> = ["--config", config.to_str().unwrap()]
            .iter()
            .chain(arguments)
            .copied()
            .collect();
        self.fixture.run_with(&all, &[ALL]).await
    }

    async fn init(&self, tables: &[&str]) -> ProgramOutput {
        let tables = tables.iter().flat_map(|table| ["--table", table]);
        let arguments: Vec<&str> = ["init"].into_iter().chain(tables).collect();
        self.run(&arguments).await
    }
}

async fn check(shape: &Shape) {
    let project = Project::new().await;
    let database = &project.fixture.db;
    database.execute(shape.schema).await;
    let ran = project.init(shape.tables).await;
    ran.assert_exit(Exit::Ok);
    // What must be edited makes no rows yet.
    let shows_rows = ran.stdout.contains("Some rows that it makes:");
    assert_eq!(shows_rows, shape.edits.is_empty(), "{}", ran.stdout);
    let mut config = fs::read_to_string(project.config()).unwrap();
    assert!(shape.edits.len() <= 2);
    for (line, edited) in shape.edits {
        assert_eq!(config.matches(line).count(), 1, "{line}: {config}");
        config = config.replace(line, edited);
    }
    fs::write(project.config(), &config).unwrap();
    let checked = project.run(&["check", "--format", "json"]).await.json();
    let tables: Vec<&Value> = checked["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["name"] == "table")
        .collect();
    assert_eq!(tables.len(), shape.tables.len(), "{checked:#}");
    for table in tables {
        assert_ne!(table["status"], "failed", "{table:#}\n{}", ran.stdout);
    }
    let synced = project.run(&["--once", "--format", "json"]).await;
    // The first sync of a table that has rows holds a mapping that changes many of them.
    if synced.code == Some(Exit::Held as i32) {
        for table in synced.json()["tables"].as_object().unwrap().values() {
            if let Some(plan) = table["plan"].as_str() {
                project.run(&["approve", plan]).await.assert_exit(Exit::Ok);
            }
        }
        project.run(&["--once"]).await.assert_exit(Exit::Ok);
    } else {
        synced.assert_exit(Exit::Ok);
    }
    let (sql, objects) = shape.rows;
    let expected = database.number(objects.count()).await;
    assert_eq!(database.number(sql).await, expected, "{sql}\n{}", ran.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_proposes_for_the_tables_of_applications_is_accepted() {
    for shapes in SHAPES.chunks(3) {
        futures_util::future::join_all(shapes.iter().map(check)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_proposes_for_a_table_in_use_removes_and_replaces_nothing_of_the_application() {
    let project = Project::new().await;
    let (sim, database) = (&project.fixture.sim, &project.fixture.db);
    for (at, id) in sim.user_ids().iter().enumerate() {
        sim.update(id, |user| {
            user["username"] = json!(format!("clerk{at}"));
            user["first_name"] = json!("Clerk");
            user["image_url"] = json!("https://img.clerk.example/1");
        });
    }
    once_all(&project.fixture).await;
    age(database).await;
    let sql = r#"
        CREATE TABLE "app users" (
            id serial PRIMARY KEY, clerk_id text UNIQUE, email text NOT NULL, name text NOT NULL, username text, image text,
            phone text UNIQUE, banned boolean NOT NULL DEFAULT false, "deletedAt" timestamptz, "lastLoginAt" timestamptz,
            "privateMetadata" jsonb, "say ""hi""" text, "two
lines" text);
        INSERT INTO "app users" (clerk_id, email, name, username, image, phone, banned, "deletedAt", "lastLoginAt")
            SELECT id, coalesce(primary_email, 'none'), 'Mine', 'mine', 'mine', id, true, timestamptz '2026-01-01Z', timestamptz '2026-01-01Z'
            FROM clerk.users
            UNION ALL SELECT NULL, 'invited@example.com', 'Invited', NULL, NULL, NULL, false, NULL, NULL;
        UPDATE "app users" SET email = 'stale' WHERE clerk_id = (SELECT min(id) FROM clerk.users WHERE primary_email IS NOT NULL)"#;
    database.execute(sql).await;
    let ran = project.init(&["app users", "public.app users"]).await;
    ran.assert_exit(Exit::Ok);
    let again = project
        .run(&["init", "--format", "json", "--table", "app users"])
        .await
        .json();
    let columns = again["tables"][0]["columns"].as_array().unwrap();
    let private = columns.iter().position(|column| column == "privateMetadata").unwrap();
    let rows = again["tables"][0]["rows"].as_array().unwrap();
    assert!(
        rows.iter().all(|row| row[private].is_null() || row[private] == "…"),
        "{rows:#?}"
    );
    assert!(rows.iter().any(|row| row[private] == "…"), "{rows:#?}");
    let config = fs::read_to_string(project.config()).unwrap();
    assert_eq!(config.matches("delete = \"keep\"").count(), 1, "{config}");
    let gone = sim.user_ids()[5].clone();
    assert!(sim.delete(&gone));
    project.run(&["--once"]).await.assert_exit(Exit::Ok);
    let stale = r#"SELECT count(*) FROM "app users" WHERE email = 'stale'"#;
    assert_eq!(database.number(stale).await, 0, "the address is in sync");
    let mine = r#"
        SELECT count(*) FROM "app users" WHERE name = 'Mine' AND username = 'mine' AND image = 'mine' AND phone = clerk_id
            AND banned AND "deletedAt" = '2026-01-01Z' AND "lastLoginAt" = '2026-01-01Z'"#;
    assert_eq!(database.number(mine).await, 12);
    assert_eq!(database.number(r#"SELECT count(*) FROM "app users""#).await, 13);
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_the_application_are_not_taken_for_clerks() {
    let project = Project::new().await;
    let sql = r#"
        CREATE TABLE "User" (id text PRIMARY KEY, email text);
        INSERT INTO "User" VALUES ('ckx1', 'a@example.com');
        CREATE TABLE profiles (user_id text UNIQUE REFERENCES "User", avatar text);
        CREATE TABLE two_ids (clerk_id text, external_id text UNIQUE, email text);
        CREATE TABLE plans (clerk_id text UNIQUE, plan text);
        CREATE TABLE workspaces (id uuid PRIMARY KEY, title text);
        CREATE TABLE workspace_members (workspace_id uuid REFERENCES workspaces, user_id uuid, UNIQUE (workspace_id, user_id))"#;
    project.fixture.db.execute(sql).await;
    for (table, error) in [
        ("User", "has no column for Clerk's id: id has other ids"),
        (
            "profiles",
            "public.profiles has no column for Clerk's id: user_id has other ids",
        ),
        ("plans", "nothing of Clerk's belongs in the columns"),
        ("workspace_members", "public.workspaces has no column for Clerk's id"),
    ] {
        project.init(&[table]).await.assert_error(Exit::Failed, error, "");
    }
    let ran = project.init(&["two_ids"]).await;
    assert!(
        ran.stdout
            .contains("key = \"clerk_id\"\n# The key needs a unique index"),
        "{}",
        ran.stdout
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_exists_is_not_changed() {
    let project = Project::new().await;
    project
        .fixture
        .db
        .execute("CREATE TABLE app (clerk_id text UNIQUE, email text)")
        .await;
    fs::write(project.config(), "# mine\n").unwrap();
    let ran = project.init(&["app"]).await;
    ran.assert_exit(Exit::Ok);
    assert!(
        ran.stdout.contains("exists, and is not changed") && ran.stdout.contains("key = \"clerk_id\""),
        "{}",
        ran.stdout
    );
    assert_eq!(fs::read_to_string(project.config()).unwrap(), "# mine\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_names_what_is_missing_and_the_tables_that_it_could_fill() {
    let fixture = mirrored(3).await;
    let folder = TempDir::new().unwrap();
    let file = |name: &str| Path::join(folder.path(), name).to_str().unwrap().to_owned();
    fixture
        .db
        .execute(r#"CREATE TABLE "User" ("clerkId" text UNIQUE); CREATE TABLE other (id text)"#)
        .await;
    let ran = fixture.run(&["init", "--config", &file("a.toml")]).await;
    ran.assert_exit(Exit::Ok);
    assert!(
        ran.stdout.contains(r#"clerk2pg init --table 'public."User"'"#),
        "{}",
        ran.stdout
    );
    assert!(!ran.stdout.contains("--table public.other"), "{}", ran.stdout);
    // The file is one that the program takes.
    fixture
        .run(&["--once", "--config", &file("a.toml")])
        .await
        .assert_exit(Exit::Ok);

    let nothing = [("DATABASE_URL", ""), ("CLERK_SECRET_KEY", "")];
    let ran = fixture.run_with(&["init", "--config", &file("b.toml")], &nothing).await;
    ran.assert_exit(Exit::Ok);
    for missing in ["CLERK_SECRET_KEY", "DATABASE_URL"] {
        assert!(ran.stdout.contains(missing), "{missing}: {}", ran.stdout);
    }
    assert!(Path::new(&file("b.toml")).exists());
    let ran = fixture
        .run(&["init", "--config", &file("c.toml"), "--table", "other2"])
        .await;
    ran.assert_error(Exit::Failed, "there is no table other2", "public.other");
    fixture
        .db
        .execute("CREATE TABLE invoices (id serial PRIMARY KEY, total numeric)")
        .await;
    let ran = fixture
        .run(&["init", "--config", &file("c.toml"), "--table", "invoices"])
        .await;
    ran.assert_error(
        Exit::Failed,
        "public.invoices has no column for Clerk's id",
        "ADD COLUMN clerk_id",
    );
    assert!(!Path::new(&file("c.toml")).exists());
}
