//! Rows that a trigger of the application leaves out are listed as skipped, and never count as done.

use crate::support::{app_table::AppTable, changes::set_address, summary::Exit};

const MAPPING: &str = "
    [[tables]]
    name = 'accounts'
    key = 'clerk_id'
    link = 'email'
    [tables.set]
    name = 'u.first_name'
    [tables.insert]
    email = 'u.id'";

/// Starts with twelve users and an empty or a full table, whose trigger leaves out each row of the
/// table `skipped` when this happens to it.
async fn start(event: &str, is_applied: bool) -> (AppTable, Vec<String>) {
    let row = if event == "DELETE" { "OLD" } else { "NEW" };
    let table = format!(
        "CREATE TABLE accounts (clerk_id text UNIQUE, email text, name text);
        CREATE TABLE skipped (clerk_id text);
        CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF EXISTS (SELECT FROM skipped s WHERE s.clerk_id = {row}.clerk_id) THEN RETURN NULL; END IF;
            RETURN {row};
        END $$;
        CREATE TRIGGER skip BEFORE {event} ON accounts FOR EACH ROW EXECUTE FUNCTION skip()"
    );
    let app = AppTable::new(12, &table, MAPPING).await;
    let ids = app.fixture.sim.user_ids();
    if is_applied {
        app.once().await.assert_exit(Exit::Ok);
        app.fixture.age_rows().await;
    }
    let skip = format!("INSERT INTO skipped VALUES ('{}')", ids[3]);
    app.fixture.db.execute(&skip).await;
    (app, ids)
}

/// Runs a full sync. Asserts what it counts, and that one row is listed as skipped.
async fn assert_skipped(app: &AppTable, id: &str, action: &str, expected: &[(&str, u64)]) {
    let report = app.once().await.json();
    let counts = &report["tables"]["public.accounts"];
    for count in ["inserted", "updated", "linked", "removed"] {
        let expected = expected.iter().find(|(name, _)| *name == count);
        let expected = expected.map_or(0, |(_, rows)| *rows);
        assert_eq!(counts[count].as_u64(), Some(expected), "{count}: {report}");
    }
    assert_eq!(counts["rejected"].as_u64(), Some(1), "{report}");
    let listed =
        "SELECT string_agg(concat_ws(' ', table_name, object_id, action, sqlstate), ',') FROM clerk.rejected_rows
        WHERE reason = 'a trigger of the application skipped the row without an error'";
    let expected = format!("public.accounts {id} {action} 02000");
    assert_eq!(app.fixture.db.text(listed).await, Some(expected));
}

/// Runs a full sync after the trigger is gone, and asserts that nothing is listed any more.
async fn assert_solved(app: &AppTable, rows: i64) {
    let db = &app.fixture.db;
    db.execute("DROP TRIGGER skip ON accounts").await;
    app.once().await.assert_exit(Exit::Ok);
    assert_eq!(db.number("SELECT count(*) FROM clerk.rejected_rows").await, 0);
    assert_eq!(db.number("SELECT count(*) FROM accounts").await, rows);
    let right = "SELECT count(*) FROM clerk.users u JOIN accounts a ON a.clerk_id = u.id AND a.name IS NOT DISTINCT FROM u.first_name";
    assert_eq!(db.number(right).await, rows);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_skipped_insert_is_listed() {
    let (app, ids) = start("INSERT", false).await;
    assert_skipped(&app, &ids[3], "write", &[("inserted", 11)]).await;
    assert_skipped(&app, &ids[3], "write", &[]).await;
    assert_solved(&app, 12).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_skipped_update_is_listed() {
    let (app, ids) = start("UPDATE", true).await;
    app.fixture.rename(&ids[3], "Skipped");
    app.fixture.rename(&ids[4], "Written");
    assert_skipped(&app, &ids[3], "write", &[("updated", 1)]).await;
    assert_skipped(&app, &ids[3], "write", &[]).await;
    assert_solved(&app, 12).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_skipped_link_is_listed() {
    let (app, ids) = start("UPDATE", true).await;
    let invite = format!(
        "DELETE FROM accounts WHERE clerk_id = '{}'; INSERT INTO accounts (email) VALUES ('a@x.test')",
        ids[3]
    );
    set_address(&app.fixture, &ids[3], "a@x.test");
    app.fixture.db.execute(&invite).await;
    assert_skipped(&app, &ids[3], "write", &[]).await;
    assert_solved(&app, 12).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_skipped_removal_is_listed() {
    let (app, ids) = start("DELETE", true).await;
    app.fixture.sim.delete(&ids[3]);
    app.fixture.sim.delete(&ids[4]);
    assert_skipped(&app, &ids[3], "remove", &[("removed", 1)]).await;
    assert_skipped(&app, &ids[3], "remove", &[]).await;
    assert_eq!(app.fixture.users().await, 10);
    assert_solved(&app, 10).await;
}
