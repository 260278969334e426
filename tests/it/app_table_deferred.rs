//! Constraints that the application defers to the commit, and exclusion constraints, cost one row.

use serde_json::json;

use crate::support::{app_table::AppTable, summary::Exit};

const MAPPING: &str = "
    [[tables]]
    name = 'accounts'
    key = 'clerk_id'
    [tables.set]
    name = 'u.username'";

fn rename(app: &AppTable, id: &str, name: &str) {
    assert!(app.fixture.sim.update(id, |user| user["username"] = json!(name)));
}

/// The rejected rows: table, id, action and SQLSTATE of those with a reason in words.
async fn rejected(app: &AppTable) -> Option<String> {
    let sql = "SELECT string_agg(concat_ws(' ', table_name, object_id, action, sqlstate), ',') FROM clerk.rejected_rows
        WHERE reason LIKE 'Postgres refused it: _%'";
    app.fixture.db.text(sql).await
}

/// Starts with these tables, which refuse the name `taken`. Asserts that it costs one row, for a new
/// row and for one that exists, and that the row is written once `allow` has run.
async fn check(tables: &str, sqlstate: &str, allow: &str) {
    for is_applied in [false, true] {
        let app = AppTable::new(12, tables, MAPPING).await;
        let db = &app.fixture.db;
        let ids = app.fixture.sim.user_ids();
        for (at, id) in ids.iter().enumerate() {
            rename(&app, id, &format!("n{at}"));
        }
        if is_applied {
            app.once().await.assert_exit(Exit::Ok);
            assert_eq!(rejected(&app).await, None, "{tables}");
        }
        rename(&app, &ids[4], "taken");
        rename(&app, &ids[5], "n55");
        let expected = Some(format!("public.accounts {} write {sqlstate}", ids[4]));
        for _ in 0..2 {
            app.once().await.assert_exit(Exit::Ok);
            assert_eq!(rejected(&app).await, expected, "{is_applied} {tables}");
            let right =
                "SELECT count(*) FROM clerk.users u JOIN accounts a ON a.clerk_id = u.id AND a.name = u.username";
            assert_eq!(db.number(right).await, 11, "{is_applied} {tables}");
            assert_eq!(app.fixture.users().await, 12, "{is_applied} {tables}");
        }
        db.execute(allow).await;
        app.once().await.assert_exit(Exit::Ok);
        assert_eq!(rejected(&app).await, None, "{is_applied} {tables}");
        let written = format!("SELECT name FROM accounts WHERE clerk_id = '{}'", ids[4]);
        assert_eq!(
            db.text(&written).await.as_deref(),
            Some("taken"),
            "{is_applied} {tables}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deferred_unique_constraint_costs_one_row() {
    let table = "CREATE TABLE accounts (clerk_id text UNIQUE, name text UNIQUE DEFERRABLE INITIALLY DEFERRED);
        INSERT INTO accounts (name) VALUES ('taken')";
    check(table, "23505", "DELETE FROM accounts WHERE clerk_id IS NULL").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deferred_foreign_key_costs_one_row() {
    let table = "CREATE TABLE names (name text PRIMARY KEY);
        INSERT INTO names SELECT 'n' || n FROM generate_series(0, 99) AS n;
        CREATE TABLE accounts (clerk_id text PRIMARY KEY, name text REFERENCES names DEFERRABLE INITIALLY DEFERRED)";
    check(table, "23503", "INSERT INTO names VALUES ('taken')").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exclusion_constraint_costs_one_row() {
    for deferred in ["", "DEFERRABLE INITIALLY DEFERRED"] {
        let table = format!(
            "CREATE TABLE accounts (clerk_id text UNIQUE, name text, EXCLUDE USING btree (name WITH =) {deferred});
            INSERT INTO accounts (name) VALUES ('taken')"
        );
        check(&table, "23P01", "DELETE FROM accounts WHERE clerk_id IS NULL").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deferred_trigger_that_raises_costs_one_row() {
    let table = "CREATE TABLE accounts (clerk_id text PRIMARY KEY, name text);
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;
        CREATE CONSTRAINT TRIGGER refuse AFTER INSERT OR UPDATE ON accounts DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW WHEN (NEW.name = 'taken') EXECUTE FUNCTION refuse()";
    check(table, "P0001", "DROP TRIGGER refuse ON accounts").await;
}
