//! Unique values of short texts, numbers and UUIDs change hands within one sync.

use serde_json::json;

use crate::support::{app_table::AppTable, summary::Exit};

/// Starts with two users and a unique column of this type, which has `expression` of the username.
/// Exchanges their usernames, and asserts that the rows are right after one sync.
async fn check(column: &str, expression: &str, names: [&str; 2]) {
    let table = format!(
        "CREATE DOMAIN handle AS varchar(12); CREATE TABLE accounts (clerk_id text PRIMARY KEY, value {column} UNIQUE NOT NULL)"
    );
    let mapping = format!(
        "[[tables]]
        name = 'accounts'
        key = 'clerk_id'
        [tables.set]
        value = \"{expression}\""
    );
    let app = AppTable::new(2, &table, &mapping).await;
    let ids = app.fixture.sim.user_ids();
    let rename = |id: &str, name: &str| assert!(app.fixture.sim.update(id, |user| user["username"] = json!(name)));
    rename(&ids[0], names[0]);
    rename(&ids[1], names[1]);
    app.once().await.assert_exit(Exit::Ok);
    rename(&ids[0], names[1]);
    rename(&ids[1], names[0]);
    app.once().await.assert_exit(Exit::Ok);
    let db = &app.fixture.db;
    assert_eq!(
        db.text("SELECT string_agg(reason, ',') FROM clerk.rejected_rows").await,
        None,
        "{column}"
    );
    let sql = "SELECT string_agg(value::text, ' ') FROM accounts WHERE clerk_id = ";
    for (id, name) in ids.iter().zip([names[1], names[0]]) {
        let value = db.text(&format!("{sql}'{id}'")).await;
        assert_eq!(value.as_deref(), Some(name), "{column}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn short_texts_are_exchanged_in_one_sync() {
    check("varchar(20)", "u.username", ["ada", "grace"]).await;
    check("handle", "u.username", ["ada", "grace"]).await;
    check(
        "text CHECK (value ~ '^[a-z][a-z0-9]{2,39}$')",
        "u.username",
        ["ada", "grace"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_and_uuids_are_exchanged_in_one_sync() {
    check("integer", "u.username::integer", ["1", "2"]).await;
    check("smallint", "u.username::smallint", ["1", "2"]).await;
    let uuids = [
        "00000000-0000-0000-0000-000000000001",
        "00000000-0000-0000-0000-000000000002",
    ];
    check("uuid", "u.username::uuid", uuids).await;
}
