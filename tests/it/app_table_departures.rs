//! Rows of the application's tables that are to go, go only if nothing speaks for them.

use serde_json::json;

use crate::support::{app_table::AppTable, summary::Exit};

const TABLE: &str = "
    CREATE TABLE accounts (clerk_id text PRIMARY KEY, name text);
    CREATE TABLE orders (account text REFERENCES accounts ON DELETE RESTRICT)";

fn mapping(condition: &str) -> String {
    format!(
        "[[tables]]
         name = 'accounts'
         key = 'clerk_id'
         where = '''{condition}'''
         [tables.set]
         name = 'u.first_name'"
    )
}

async fn has_row(app: &AppTable, id: &str) -> bool {
    let sql = format!("SELECT count(*) FROM accounts WHERE clerk_id = '{id}'");
    app.fixture.db.number(&sql).await == 1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_could_not_be_removed_stays_once_its_user_belongs_to_it_again() {
    let app = AppTable::new(20, TABLE, &mapping("u.username IS DISTINCT FROM 'gone'")).await;
    let id = &app.fixture.sim.user_ids()[3];
    app.once().await.assert_exit(Exit::Ok);
    let db = &app.fixture.db;
    db.execute(&format!("INSERT INTO orders VALUES ('{id}')")).await;
    assert!(app.fixture.sim.update(id, |user| user["username"] = json!("gone")));
    app.once().await.assert_exit(Exit::Ok);
    let rejected = "SELECT count(*) FROM clerk.rejected_rows WHERE action = 'remove' AND sqlstate = '23503'";
    assert_eq!(db.number(rejected).await, 1);

    app.set_mapping(&mapping("true"));
    db.execute("DELETE FROM orders").await;
    app.once().await.assert_exit(Exit::Ok);
    assert!(has_row(&app, id).await);
    assert_eq!(db.number("SELECT count(*) FROM clerk.rejected_rows").await, 0);
    assert_eq!(db.number("SELECT count(*) FROM clerk.departures").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_with_an_unknown_key_goes_only_after_ten_seconds() {
    let app = AppTable::new(20, TABLE, &mapping("true")).await;
    app.once().await.assert_exit(Exit::Ok);
    let db = &app.fixture.db;
    db.execute("INSERT INTO accounts VALUES ('user_new', 'New'), ('user_old', 'Old')")
        .await;
    for _ in 0..2 {
        app.once().await.assert_exit(Exit::Ok);
        assert!(has_row(&app, "user_new").await && has_row(&app, "user_old").await);
    }
    db.execute("UPDATE clerk.departures SET found_at = found_at - interval '1 minute' WHERE object_id = 'user_old'")
        .await;
    app.once().await.assert_exit(Exit::Ok);
    assert!(has_row(&app, "user_new").await && !has_row(&app, "user_old").await);
    assert_eq!(db.number("SELECT count(*) FROM clerk.departures").await, 1);
}

/// Runs a full sync, and returns how many rows are held and the checksum that approves them.
async fn held(app: &AppTable) -> (u64, Option<String>) {
    let report = app.once().await.json();
    let table = &report["tables"]["public.accounts"];
    (
        table["held"].as_u64().unwrap(),
        table["plan"].as_str().map(str::to_owned),
    )
}

const STRANGERS: &str = "INSERT INTO accounts SELECT 'user_stranger_' || n, 'Stranger' FROM generate_series(1, 12) n";

const DEPARTURES: &str = "SELECT count(*) FROM clerk.departures";

#[tokio::test(flavor = "multi_thread")]
async fn a_held_row_that_the_application_removes_itself_is_released() {
    let app = AppTable::new(20, TABLE, &mapping("u.username IS DISTINCT FROM 'gone'")).await;
    let db = &app.fixture.db;
    db.execute(STRANGERS).await;
    let (count, all) = held(&app).await;
    assert_eq!(count, 12);
    db.execute("DELETE FROM accounts WHERE clerk_id IN ('user_stranger_1', 'user_stranger_2')")
        .await;
    let (count, fewer) = held(&app).await;
    assert_eq!(count, 10);
    assert_ne!(fewer, all);
    app.run(&["approve", &all.unwrap()]).await.assert_exit(Exit::Failed);
    app.run(&["approve", &fewer.unwrap()]).await.assert_exit(Exit::Ok);
    // Also one that was approved.
    db.execute("DELETE FROM accounts WHERE clerk_id = 'user_stranger_3'")
        .await;
    app.age_departures().await;
    app.once().await.assert_exit(Exit::Ok);
    assert_eq!(db.number("SELECT count(*) FROM accounts").await, 20);
    assert_eq!(db.number(DEPARTURES).await, 0);

    // Rows of users that the condition excludes.
    for id in &app.fixture.sim.user_ids()[..12] {
        assert!(app.fixture.sim.update(id, |user| user["username"] = json!("gone")));
    }
    assert_eq!(held(&app).await.0, 12);
    db.execute("DELETE FROM accounts WHERE clerk_id IN (SELECT id FROM clerk.users WHERE username = 'gone')")
        .await;
    assert_eq!(held(&app).await, (0, None));
    assert_eq!(db.number(DEPARTURES).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_row_that_the_application_scrubs_itself_is_released() {
    let scrub = mapping("true").replace("key =", "delete = 'update'\n         key =");
    let app = AppTable::new(20, TABLE, &format!("{scrub}\n[tables.deleted]\nname = \"'gone'\"")).await;
    let db = &app.fixture.db;
    db.execute(STRANGERS).await;
    assert_eq!(held(&app).await.0, 12);
    db.execute("UPDATE accounts SET name = 'gone' WHERE clerk_id LIKE 'user_stranger_1%'")
        .await;
    assert_eq!(held(&app).await.0, 8);
    assert_eq!(db.number(DEPARTURES).await, 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_held_or_rejected_any_more_once_rows_are_kept() {
    let app = AppTable::new(20, TABLE, &mapping("true")).await;
    app.once().await.assert_exit(Exit::Ok);
    let db = &app.fixture.db;
    db.execute("INSERT INTO accounts VALUES ('user_kept', 'Kept'); INSERT INTO orders VALUES ('user_kept')")
        .await;
    app.once().await.assert_exit(Exit::Ok);
    app.age_departures().await;
    app.once().await.assert_exit(Exit::Ok);
    let rejected = "SELECT count(*) FROM clerk.rejected_rows WHERE action = 'remove'";
    assert_eq!(db.number(rejected).await, 1);
    db.execute(STRANGERS).await;
    assert_eq!(held(&app).await.0, 13);

    app.set_mapping(&mapping("true").replace("key =", "delete = 'keep'\n         key ="));
    assert_eq!(held(&app).await, (0, None));
    assert_eq!(db.number(DEPARTURES).await, 0);
    assert_eq!(db.number(rejected).await, 0);
    assert_eq!(db.number("SELECT count(*) FROM accounts").await, 33);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_deleted_in_the_sync_of_a_new_mapping_loses_its_row_in_it() {
    let app = AppTable::new(20, TABLE, &mapping("true")).await;
    app.once().await.assert_exit(Exit::Ok);
    app.fixture.age_rows().await;
    let db = &app.fixture.db;
    db.execute("CREATE TABLE profiles (user_id text PRIMARY KEY, name text)")
        .await;
    let profiles = "\n[[tables]]\nname = 'profiles'\nkey = 'user_id'\n[tables.set]\nname = 'u.username'";
    app.set_mapping(&format!("{}{profiles}", mapping("u.username IS DISTINCT FROM 'gone'")));
    let gone = &app.fixture.sim.user_ids()[3];
    assert!(app.fixture.sim.delete(gone));
    app.once().await.assert_exit(Exit::Ok);
    assert!(!app.fixture.has_user(gone).await && !has_row(&app, gone).await);
    assert_eq!(db.number("SELECT count(*) FROM accounts").await, 19);
    assert_eq!(db.number("SELECT count(*) FROM profiles").await, 19);
    assert_eq!(db.number(DEPARTURES).await, 0);
}
