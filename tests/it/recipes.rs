//! The recipes of `docs/recipes/`, with the real tools: an application whose table is in use
//! already gets its users from clerk2pg. The mapping and the scripts are those that stand on the
//! page. And the mappings of `docs/tables.md`.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use clerk_sim::{Kind, OrganizationOptions, PerOrganization};
use serde_json::{Value, json};

use crate::support::{
    app_table::AppTable,
    changes::set_address,
    fixture::Fixture,
    node_app::NodeApp,
    organizations::{age, company},
    pages::{code_blocks, page},
    recipe::{DRIZZLE, ORPHAN, PRISMA, Recipe, Row, address, assert_is_now},
    summary::Exit,
};

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
    let mut expected = recipe.follow_a_change(&before).await;

    fixture.age_rows().await;
    fixture.sim.delete(&recipe.ids[2]);
    recipe.sync().await;
    expected.remove(&address(2));
    assert_eq!(recipe.rows().await, expected, "one row goes");
    let posts = fixture.db.number(r#"SELECT count(*) FROM "Post""#).await;
    assert_eq!(posts, expected.len() as i64, "its posts go with it");
}

#[tokio::test(flavor = "multi_thread")]
async fn prisma_with_organizations() {
    let Some(app) = NodeApp::install("prisma-users").await else {
        return;
    };
    let organizations = OrganizationOptions {
        members: PerOrganization::Sizes(vec![0, 1, 9]),
        ..OrganizationOptions::number(3)
    };
    let fixture = company(12, organizations).await;
    for (at, id) in fixture.sim.user_ids().iter().enumerate() {
        set_address(&fixture, id, &address(at));
    }
    let page = page("docs/recipes/prisma-organizations.md");
    let schema = app.read("prisma/schema.prisma");
    let [models] = code_blocks(&page, "prisma")[..] else {
        panic!("the page has other models")
    };
    let [mapping] = code_blocks(&page, "toml")[..] else {
        panic!("the page has other mappings")
    };
    assert!(schema.contains(models), "{models}\n\nis not in\n\n{schema}");
    app.succeed(&fixture, "generate", &[], "").await;
    for migration in ["20260301090000_init", "20260401090000_organizations"] {
        let sql = app.read(&format!("prisma/migrations/{migration}/migration.sql"));
        fixture.db.execute(&sql).await;
    }
    let app_table = AppTable::with_organizations(fixture, "", mapping).await;
    let fixture = &app_table.fixture;
    app_table.once().await.assert_exit(Exit::Ok);
    assert_members(&app, fixture).await;

    fixture.age_rows().await;
    age(&fixture.db).await;
    let sim = &fixture.sim;
    let organization = sim.ids(Kind::Organizations);
    let largest = organization
        .iter()
        .max_by_key(|id| sim.memberships_of(id).len())
        .unwrap();
    let member = |at: usize| {
        let id = &sim.memberships_of(largest)[at];
        let membership = sim.object(Kind::OrganizationMemberships, id).unwrap();
        membership["public_user_data"]["user_id"].as_str().unwrap().to_owned()
    };
    assert!(sim.change_role(largest, &member(0), "org:accountant"));
    let (gone, deleted) = (member(1), member(2));
    assert!(sim.remove_member(largest, &gone));
    sim.delete(&deleted);
    app_table.once().await.assert_exit(Exit::Ok);
    assert_members(&app, fixture).await;
}

/// Asserts that the application reads the organizations and members that Clerk has.
async fn assert_members(app: &NodeApp, fixture: &Fixture) {
    let listed = app.succeed(fixture, "users", &["organizations"], "").await;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let read: Vec<Value> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|organization| {
            assert!(is_cuid(organization["id"].as_str().unwrap()), "{organization}");
            let members = organization["members"].as_array().unwrap().iter();
            let members: Vec<Value> = members
                .map(|member| json!([member["user"]["clerkId"], member["role"]]))
                .collect();
            json!([
                organization["clerkId"],
                organization["name"],
                organization["slug"],
                members
            ])
        })
        .collect();
    let sim = &fixture.sim;
    let mut ids = sim.ids(Kind::Organizations);
    ids.sort();
    let at_clerk: Vec<Value> = ids
        .iter()
        .map(|id| {
            let organization = sim.object(Kind::Organizations, id).unwrap();
            let memberships = sim.memberships_of(id);
            let memberships = memberships
                .iter()
                .map(|id| sim.object(Kind::OrganizationMemberships, id).unwrap());
            let mut members: Vec<Value> = memberships
                .map(|member| json!([member["public_user_data"]["user_id"], member["role"]]))
                .collect();
            members.sort_by_key(Value::to_string);
            json!([id, organization["name"], organization["slug"], members])
        })
        .collect();
    assert_eq!(read, at_clerk);
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
    let loses_image = |user: &mut Value| user["image_url"] = Value::Null;
    assert!(fixture.sim.update(&recipe.ids[3], loses_image));
    let mut expected = recipe.follow_a_change(&adopted).await;

    fixture.age_rows().await;
    fixture.sim.delete(&recipe.ids[2]);
    recipe.sync().await;
    let renamed = expected.remove(&address(2)).unwrap();
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
    addresses_return(&recipe, &expected).await;
}

/// Somebody signs up anew with the address of a deleted user, and another user has no address for a
/// while.
async fn addresses_return(recipe: &Recipe, before: &BTreeMap<String, Row>) {
    let fixture = &recipe.fixture;
    let anew = fixture.sim.create_random();
    set_address(fixture, &anew, &address(2));
    let loses_address = |user: &mut Value| {
        user["email_addresses"] = json!([]);
        user["primary_email_address_id"] = Value::Null;
    };
    assert!(fixture.sim.update(&recipe.ids[4], loses_address));
    recipe.sync().await;
    let mut rows = recipe.rows().await;
    let new = rows.remove(&address(2)).unwrap();
    assert_eq!((new.clerk_id, &new.more["deletedAt"]), (Some(anew), &Value::Null));
    let without = rows.remove(&format!("gone-{}@invalid", recipe.ids[4])).unwrap();
    assert_eq!((&without.id, &without.name), (&before[&address(4)].id, &None));
    assert!(without.more["deletedAt"].is_string(), "{without:?}");

    set_address(fixture, &recipe.ids[4], &address(4));
    recipe.sync().await;
    let restored = recipe.rows().await[&address(4)].clone();
    recipe.assert_updated(4, &before[&address(4)], &restored, "Ada 4");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mappings_of_the_page_work() {
    let page = page("docs/tables.md");
    let [accounts, index] = code_blocks(&page, "sql")
        .into_iter()
        .filter(|block| block.starts_with("CREATE"))
        .collect::<Vec<_>>()[..]
    else {
        panic!("the page has not one table and one index")
    };
    let [first, soft_delete, two_tables, members] = code_blocks(&page, "toml")[..] else {
        panic!("the page has other mappings")
    };
    let accounts = format!("{accounts}; {index}");
    let marked = "CREATE TABLE accounts (clerk_id text UNIQUE, email text UNIQUE, deleted_at timestamptz)";
    let two = "CREATE TABLE accounts (clerk_id text UNIQUE, email text);
               CREATE TABLE profiles (user_id text PRIMARY KEY, avatar text, bio text)";
    let all = "SELECT count(*) FROM accounts";
    let present = "SELECT count(*) FROM accounts WHERE deleted_at IS NULL AND email NOT LIKE 'gone-%'";
    check_members_of_the_page(&format!("{accounts}; {TEAMS}"), &format!("{first}\n{members}")).await;
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

const TEAMS: &str = "
    CREATE TABLE teams (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, clerk_id text UNIQUE, name text NOT NULL);
    CREATE TABLE team_members (
        team_id bigint NOT NULL REFERENCES teams,
        account_id bigint NOT NULL REFERENCES accounts,
        role text NOT NULL,
        PRIMARY KEY (account_id, team_id))";

async fn check_members_of_the_page(sql: &str, mapping: &str) {
    let organizations = OrganizationOptions {
        members: PerOrganization::Sizes(vec![2, 9]),
        ..OrganizationOptions::number(2)
    };
    let app = AppTable::with_organizations(company(12, organizations).await, sql, mapping).await;
    app.once().await.assert_exit(Exit::Ok);
    let db = &app.fixture.db;
    let members = "SELECT count(*) FROM clerk.organization_memberships m
        JOIN teams t ON t.clerk_id = m.organization_id JOIN accounts a ON a.clerk_id = m.user_id
        JOIN team_members r ON r.team_id = t.id AND r.account_id = a.id AND r.role = m.role";
    assert_eq!(db.number(members).await, 11);
}
