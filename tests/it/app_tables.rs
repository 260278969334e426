//! The application's own tables are kept in sync from the mirror.

use serde_json::json;

use crate::support::{
    app_table::{AppTable, USER_MAPPING, USER_TABLE},
    summary::Exit,
};

#[tokio::test(flavor = "multi_thread")]
async fn users_land_in_the_table_and_follow() {
    let app = AppTable::new(20, USER_TABLE, USER_MAPPING).await;
    app.once().await.assert_exit(Exit::Ok);
    let db = &app.fixture.db;
    let differ = r#"SELECT count(*) FROM clerk.users u FULL JOIN "User" t ON t."clerkId" = u.id
        WHERE t.email IS DISTINCT FROM coalesce(u.primary_email, '') OR t.name IS DISTINCT FROM coalesce(u.full_name, u.username, '')"#;
    assert_eq!(
        db.number(r#"SELECT count(*) FROM "User" WHERE role = 'USER'"#).await,
        20
    );
    assert_eq!(db.number(differ).await, 0);

    let versions = r#"SELECT string_agg(xmin::text, ',' ORDER BY id) FROM "User""#;
    let before = db.text(versions).await;
    app.once().await.assert_exit(Exit::Ok);
    assert_eq!(db.text(versions).await, before, "an unchanged sync writes nothing");

    let ids = app.fixture.sim.user_ids();
    app.fixture.rename(&ids[0], "Ada");
    app.fixture.age_rows().await;
    app.fixture.sim.delete(&ids[1]);
    let ran = app.once().await;
    ran.assert_exit(Exit::Ok);
    assert_eq!(db.number(differ).await, 0);
    assert_eq!(db.number(r#"SELECT count(*) FROM "User""#).await, 19);
}

/// A mapping whose expression and condition fail for users with an age that is no number.
const AGES: &str = r#"
    [[tables]]
    name = "ages"
    key = "clerk_id"
    where = "coalesce((u.unsafe_metadata->>'age')::int, 0) < 200"
    [tables.set]
    age = "(u.unsafe_metadata->>'age')::int"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn an_expression_that_fails_for_one_user_costs_one_row() {
    let app = AppTable::new(30, "CREATE TABLE ages (clerk_id text PRIMARY KEY, age int)", AGES).await;
    let set_age = |id: &str, age: serde_json::Value| {
        assert!(
            app.fixture
                .sim
                .update(id, |user| user["unsafe_metadata"] = json!({ "age": age }))
        );
    };
    let ids = app.fixture.sim.user_ids();
    set_age(&ids[7], json!("permission denied"));
    app.once().await.assert_exit(Exit::Ok);
    let db = &app.fixture.db;
    let rejected = "SELECT string_agg(object_id || ' ' || sqlstate, ',') FROM clerk.rejected_rows";
    assert_eq!(app.fixture.users().await, 30);
    assert_eq!(db.number("SELECT count(*) FROM ages").await, 29);
    assert_eq!(db.text(rejected).await, Some(format!("{} 22P02", ids[7])));

    // The mapping is applied: now the batch of a sync meets the failure.
    set_age(&ids[8], json!("none"));
    set_age(&ids[9], json!(42));
    app.once().await.assert_exit(Exit::Ok);
    assert_eq!(db.number("SELECT count(*) FROM clerk.rejected_rows").await, 2);
    assert_eq!(db.number("SELECT count(*) FROM ages WHERE age = 42").await, 1);

    set_age(&ids[7], json!(7));
    set_age(&ids[8], json!(8));
    app.once().await.assert_exit(Exit::Ok);
    assert_eq!(db.text(rejected).await, None);
    assert_eq!(db.number("SELECT count(*) FROM ages WHERE age IN (7, 8)").await, 2);
}
