//! What happens to rows whose users are gone.

use serde_json::json;

use crate::support::{app_table::AppTable, summary::Exit};

const TABLE: &str = r#"
    CREATE TABLE "Account" (
        id serial PRIMARY KEY, "clerkId" text UNIQUE, email text UNIQUE NOT NULL, "deletedAt" timestamp(3));
    CREATE TABLE "Post" (id serial PRIMARY KEY, "accountId" integer NOT NULL REFERENCES "Account" ON DELETE RESTRICT)"#;

fn mapping(delete: &str) -> String {
    format!(
        r#"[[tables]]
        name = "Account"
        key = "clerkId"
        where = "u.username IS DISTINCT FROM 'gone'"
        {delete}
        [tables.set]
        email = "coalesce(u.primary_email, u.id)"
        {reset}"#,
        reset = if delete.contains("update") {
            "deletedAt = \"NULL\"\n[tables.deleted]\ndeletedAt = \"now()\"\nemail = \"coalesce(u.username, 'gone-') || u.id\""
        } else {
            ""
        }
    )
}

/// Starts with a table that is in sync and has two posts of the first user.
async fn applied(delete: &str) -> (AppTable, Vec<String>) {
    let app = AppTable::new(20, TABLE, &mapping(delete)).await;
    app.once().await.assert_exit(Exit::Ok);
    app.fixture.age_rows().await;
    let ids = app.fixture.sim.user_ids();
    let post = format!(
        r#"INSERT INTO "Post" ("accountId") SELECT id FROM "Account" WHERE "clerkId" = '{}'"#,
        ids[0]
    );
    app.fixture.db.execute(&post).await;
    (app, ids)
}

/// The versions of all rows: equal if nothing was written.
async fn versions(app: &AppTable) -> Option<String> {
    app.fixture
        .db
        .text(r#"SELECT string_agg(xmin::text, ',' ORDER BY id) FROM "Account""#)
        .await
}

async fn count(app: &AppTable, condition: &str) -> i64 {
    let sql = format!(r#"SELECT count(*) FROM "Account" WHERE {condition}"#);
    app.fixture.db.number(&sql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_with_references_stays_until_it_can_go() {
    let (app, ids) = applied("").await;
    app.fixture.sim.delete(&ids[0]);
    app.fixture.sim.delete(&ids[1]);
    app.once().await.assert_exit(Exit::Ok);
    assert_eq!(app.fixture.users().await, 18);
    assert_eq!(count(&app, "true").await, 19);
    let db = &app.fixture.db;
    let rejected = "SELECT string_agg(table_name || ' ' || object_id || ' ' || action || ' ' || sqlstate, ',') FROM clerk.rejected_rows";
    let expected = format!("public.\"Account\" {} remove 23503", ids[0]);
    assert_eq!(db.text(rejected).await, Some(expected.clone()));
    // It is tried again, and stays listed.
    app.once().await.assert_exit(Exit::Ok);
    assert_eq!(db.text(rejected).await, Some(expected));
    db.execute(r#"DELETE FROM "Post""#).await;
    app.once().await.assert_exit(Exit::Ok);
    assert_eq!(count(&app, "true").await, 18);
    assert_eq!(db.text(rejected).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_kept_if_the_mapping_says_so() {
    let (app, ids) = applied(r#"delete = "keep""#).await;
    app.fixture.sim.delete(&ids[1]);
    assert!(app.fixture.sim.update(&ids[2], |user| user["username"] = json!("gone")));
    let before = versions(&app).await;
    for _ in 0..2 {
        app.once().await.assert_exit(Exit::Ok);
        assert_eq!(versions(&app).await, before);
    }
    assert_eq!(app.fixture.users().await, 19);
    assert_eq!(app.fixture.db.number("SELECT count(*) FROM clerk.departures").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_scrubbed_once_and_come_back() {
    let (app, ids) = applied(r#"delete = "update""#).await;
    app.fixture.sim.delete(&ids[0]);
    assert!(app.fixture.sim.update(&ids[2], |user| user["username"] = json!("gone")));
    app.once().await.assert_exit(Exit::Ok);
    let scrubbed = r#""deletedAt" IS NOT NULL AND email = 'gone-' || "clerkId""#;
    assert_eq!(count(&app, scrubbed).await, 2);
    assert_eq!(count(&app, "true").await, 20);
    let before = versions(&app).await;
    for _ in 0..2 {
        app.once().await.assert_exit(Exit::Ok);
        assert_eq!(versions(&app).await, before);
    }
    assert_eq!(app.fixture.db.number("SELECT count(*) FROM clerk.departures").await, 0);
    assert!(app.fixture.sim.update(&ids[2], |user| user["username"] = json!("back")));
    app.once().await.assert_exit(Exit::Ok);
    assert_eq!(count(&app, scrubbed).await, 1);
    assert_eq!(
        count(&app, &format!("\"clerkId\" = '{}' AND \"deletedAt\" IS NULL", ids[2])).await,
        1
    );
}
