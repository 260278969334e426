//! Users that are marked as deleted instead of being deleted: what becomes of the application's rows,
//! and what happens if the users return.

use serde_json::Value;

use crate::support::{app_table::AppTable, process::EVERY_SECOND, process::NEVER, summary::Exit, wait::eventually};

const TABLE: &str = "
    CREATE TABLE accounts (
        id serial PRIMARY KEY, clerk_id text UNIQUE NOT NULL, name text, deleted_at timestamptz, own text DEFAULT 'own');
    CREATE TABLE orders (account integer NOT NULL REFERENCES accounts ON DELETE RESTRICT)";

fn mapping(delete: &str) -> String {
    let reset = match delete {
        "update" => "deleted_at = 'NULL'\n[tables.deleted]\nname = \"'gone'\"\ndeleted_at = 'now()'",
        _ => "",
    };
    format!(
        "[deletes]
        mode = 'mark'
        [[tables]]
        name = 'accounts'
        key = 'clerk_id'
        delete = '{delete}'
        [tables.set]
        name = 'u.first_name'
        {reset}"
    )
}

/// Starts with a table that is in sync, and returns the document of a user.
async fn applied(delete: &str) -> (AppTable, String, Value) {
    let app = AppTable::new(20, TABLE, &mapping(delete)).await;
    app.once().await.assert_exit(Exit::Ok);
    app.fixture.age_rows().await;
    let id = app.fixture.sim.user_ids()[7].clone();
    let document = app.fixture.sim.document(&id).unwrap();
    (app, id, document)
}

/// The row of a user: its own key, its name, whether it is marked, and a column of the application.
async fn row(app: &AppTable, id: &str) -> Option<String> {
    let sql = format!(
        "SELECT concat_ws(' ', id, name, CASE WHEN deleted_at IS NOT NULL THEN 'marked' END, own)
         FROM accounts WHERE clerk_id = '{id}'"
    );
    app.fixture.db.text(&sql).await
}

async fn is_marked(app: &AppTable, id: &str) -> bool {
    let sql = format!("SELECT count(*) FROM clerk.users WHERE id = '{id}' AND deleted_at IS NOT NULL");
    app.fixture.db.number(&sql).await == 1
}

/// The versions of all rows: equal if nothing was written.
async fn versions(app: &AppTable) -> Option<String> {
    let sql = "SELECT string_agg(xmin::text, ',' ORDER BY id) FROM accounts";
    app.fixture.db.text(sql).await
}

/// Deletes a user at Clerk, runs full syncs until nothing changes, and returns what is left of its
/// row.
async fn mark(app: &AppTable, id: &str) -> Option<String> {
    assert!(app.fixture.sim.delete(id));
    app.once().await.assert_exit(Exit::Ok);
    assert!(is_marked(app, id).await);
    let before = versions(app).await;
    let left = row(app, id).await;
    app.once().await.assert_exit(Exit::Ok);
    assert_eq!(versions(app).await, before, "the row was written twice");
    assert_eq!(app.fixture.db.number("SELECT count(*) FROM clerk.departures").await, 0);
    left
}

/// Lets a user return with another name, and returns its row.
async fn restore(app: &AppTable, id: &str, document: Value) -> Option<String> {
    app.fixture.sim.insert(document);
    app.fixture.rename(id, "Back");
    app.once().await.assert_exit(Exit::Ok);
    assert!(!is_marked(app, id).await);
    row(app, id).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_row_of_a_marked_user_is_deleted_and_inserted_again() {
    let (app, id, document) = applied("delete").await;
    let before = row(&app, &id).await;
    assert_eq!(mark(&app, &id).await, None);
    let after = restore(&app, &id, document).await.unwrap();
    assert!(after.ends_with(" Back own"), "{after}");
    assert_ne!(before, Some(after));
    assert_eq!(app.fixture.db.number("SELECT count(*) FROM accounts").await, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_row_of_a_marked_user_is_updated_and_restored() {
    let (app, id, document) = applied("update").await;
    let key = row(&app, &id).await.unwrap();
    let key = key.split(' ').next().unwrap();
    app.fixture
        .db
        .execute(&format!("UPDATE accounts SET own = 'mine' WHERE clerk_id = '{id}'"))
        .await;
    assert_eq!(mark(&app, &id).await, Some(format!("{key} gone marked mine")));
    assert_eq!(restore(&app, &id, document).await, Some(format!("{key} Back mine")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_row_of_a_marked_user_is_kept_and_kept_in_sync_again() {
    let (app, id, document) = applied("keep").await;
    let before = row(&app, &id).await;
    assert_eq!(mark(&app, &id).await, before);
    let after = restore(&app, &id, document).await.unwrap();
    assert!(after.ends_with(" Back own"), "{after}");
    assert_eq!(after.split(' ').next(), before.as_deref().unwrap().split(' ').next());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_stays_because_of_references_belongs_to_the_user_again_who_returns() {
    let (app, id, document) = applied("delete").await;
    let db = &app.fixture.db;
    let order = format!("INSERT INTO orders SELECT id FROM accounts WHERE clerk_id = '{id}'");
    db.execute(&order).await;
    assert!(app.fixture.sim.delete(&id));
    let rejected = "SELECT string_agg(object_id || ' ' || action || ' ' || sqlstate, ',') FROM clerk.rejected_rows";
    for _ in 0..2 {
        app.once().await.assert_exit(Exit::Ok);
        assert!(is_marked(&app, &id).await);
        assert_eq!(db.text(rejected).await, Some(format!("{id} remove 23503")));
        app.age_departures().await;
    }
    let after = restore(&app, &id, document).await.unwrap();
    assert!(after.ends_with(" Back own"), "{after}");
    assert_eq!(db.text(rejected).await, None);
    assert_eq!(db.number("SELECT count(*) FROM clerk.departures").await, 0);
    // The row may go now, but nothing wants it to.
    db.execute("DELETE FROM orders").await;
    app.once().await.assert_exit(Exit::Ok);
    assert_eq!(row(&app, &id).await, Some(after));
}

#[tokio::test(flavor = "multi_thread")]
async fn users_that_were_marked_before_get_no_row() {
    let app = AppTable::new(20, TABLE, "[deletes]\nmode = 'mark'").await;
    app.once().await.assert_exit(Exit::Ok);
    app.fixture.age_rows().await;
    let id = app.fixture.sim.user_ids()[7].clone();
    assert!(app.fixture.sim.delete(&id));
    app.once().await.assert_exit(Exit::Ok);
    assert!(is_marked(&app, &id).await);
    for delete in ["delete", "update", "keep"] {
        app.set_mapping(&mapping(delete));
        app.once().await.assert_exit(Exit::Ok);
        assert_eq!(app.fixture.db.number("SELECT count(*) FROM accounts").await, 19);
        assert_eq!(row(&app, &id).await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_a_marked_user_has_already_is_held_the_first_time() {
    let app = AppTable::new(20, TABLE, "[deletes]\nmode = 'mark'").await;
    app.once().await.assert_exit(Exit::Ok);
    app.fixture.age_rows().await;
    let id = app.fixture.sim.user_ids()[7].clone();
    assert!(app.fixture.sim.delete(&id));
    app.once().await.assert_exit(Exit::Ok);
    let insert = format!("INSERT INTO accounts (clerk_id, name) VALUES ('{id}', 'Old')");
    app.fixture.db.execute(&insert).await;
    app.set_mapping(&mapping("delete"));
    let report = app.once().await.json();
    let plan = report["tables"]["public.accounts"]["plan"].as_str().unwrap();
    assert!(row(&app, &id).await.is_some());
    app.run(&["approve", plan]).await.assert_exit(Exit::Ok);
    app.age_departures().await;
    app.once().await.assert_exit(Exit::Ok);
    assert_eq!(row(&app, &id).await, None);
    assert!(is_marked(&app, &id).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_marks_and_restores_within_incremental_syncs() {
    let (app, id, document) = applied("update").await;
    let daemon = app.start_daemon(&[NEVER, EVERY_SECOND]);
    eventually("the first full sync of the daemon", async || {
        daemon.count_in_log("full sync outcome") > 0
    })
    .await;
    let has_ended = async |end: &str| row(&app, &id).await.is_some_and(|row| row.ends_with(end));
    for _ in 0..2 {
        app.fixture.age_rows().await;
        assert!(app.fixture.sim.delete(&id));
        eventually("the row is marked", async || has_ended(" gone marked own").await).await;
        assert!(is_marked(&app, &id).await);
        app.fixture.sim.insert(document.clone());
        app.fixture.rename(&id, "Back");
        eventually("the row is restored", async || has_ended(" Back own").await).await;
        assert!(!is_marked(&app, &id).await);
    }
    assert_eq!(app.fixture.runs("kind = 'full'").await, 2, "{}", daemon.log());
}
