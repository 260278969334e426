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
