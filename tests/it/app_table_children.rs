//! Rows of other tables that reference the row of a deleted user, and their inserts that are not
//! committed.

use crate::support::{app_table::AppTable, database::connect, summary::Exit};

const MAPPING: &str = "
    [[tables]]
    name = 'accounts'
    key = 'clerk_id'
    [tables.set]
    name = 'concat(u.first_name, u.id)'";

const TABLE: &str = "CREATE TABLE accounts (id serial PRIMARY KEY, clerk_id text UNIQUE NOT NULL, name text)";

/// Starts with a table that is in sync, and a table `posts` that references it.
async fn applied(action: &str) -> (AppTable, Vec<String>) {
    let posts = format!("{TABLE}; CREATE TABLE posts (account integer REFERENCES accounts {action})");
    let app = AppTable::new(40, &posts, MAPPING).await;
    app.once().await.assert_exit(Exit::Ok);
    app.fixture.age_rows().await;
    let ids = app.fixture.sim.user_ids();
    (app, ids)
}

/// SQL that adds a post of a user.
fn post(id: &str) -> String {
    format!("INSERT INTO posts SELECT id FROM accounts WHERE clerk_id = '{id}'")
}

/// The rejected rows: table, id, action and SQLSTATE.
async fn rejected(app: &AppTable) -> Vec<String> {
    let sql =
        "SELECT concat_ws(' ', table_name, object_id, action, sqlstate) FROM clerk.rejected_rows WHERE reason <> ''";
    let rows = app.fixture.db.client.query(sql, &[]).await.unwrap();
    let mut rows: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    rows.sort();
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn references_that_follow_do_not_keep_the_row() {
    for (action, posts) in [("ON DELETE CASCADE", 0), ("ON DELETE SET NULL", 1)] {
        let (app, ids) = applied(action).await;
        let db = &app.fixture.db;
        db.execute(&post(&ids[0])).await;
        app.fixture.sim.delete(&ids[0]);
        app.fixture.sim.delete(&ids[1]);
        let report = app.once().await.json();
        assert_eq!(report["tables"]["public.accounts"]["removed"], 2, "{action}: {report}");
        assert_eq!(rejected(&app).await, Vec::<String>::new(), "{action}");
        assert_eq!(db.number("SELECT count(*) FROM accounts").await, 38, "{action}");
        assert_eq!(
            db.number("SELECT count(*) FROM posts WHERE account IS NULL").await,
            posts,
            "{action}"
        );
        assert_eq!(db.number("SELECT count(*) FROM posts").await, posts, "{action}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn references_that_restrict_keep_one_row() {
    let actions = [
        "ON DELETE RESTRICT",
        "ON DELETE NO ACTION",
        "ON DELETE NO ACTION DEFERRABLE INITIALLY DEFERRED",
    ];
    for action in actions {
        let (app, ids) = applied(action).await;
        let db = &app.fixture.db;
        db.execute(&post(&ids[0])).await;
        app.fixture.sim.delete(&ids[0]);
        app.fixture.sim.delete(&ids[1]);
        for removed in [1, 0] {
            let report = app.once().await.json();
            assert_eq!(
                report["tables"]["public.accounts"]["removed"], removed,
                "{action}: {report}"
            );
            let listed = rejected(&app).await;
            assert_eq!(listed.len(), 1, "{action}: {listed:?}");
            // Servers since version 18 have a code of their own for RESTRICT.
            let expected = format!("public.accounts {} remove 23", ids[0]);
            assert!(listed[0].starts_with(&expected), "{action}: {listed:?}");
            assert_eq!(db.number("SELECT count(*) FROM accounts").await, 39, "{action}");
            assert_eq!(app.fixture.users().await, 38, "{action}");
        }
        db.execute("DELETE FROM posts").await;
        app.once().await.assert_exit(Exit::Ok);
        assert_eq!(db.number("SELECT count(*) FROM accounts").await, 38, "{action}");
        assert_eq!(rejected(&app).await, Vec::<String>::new(), "{action}");
    }
}

/// Counts each statement of a kind on the table, also those that are undone.
fn count_statements(kind: &str) -> String {
    format!(
        "CREATE SEQUENCE statements MINVALUE 0 START 0;
        CREATE FUNCTION count_statement() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN PERFORM nextval('public.statements'); RETURN NULL; END $$;
        SELECT nextval('statements');
        CREATE TRIGGER count_statement BEFORE {kind} ON accounts EXECUTE FUNCTION count_statement()"
    )
}

/// Statements that have run if locked rows were left out: all rows together, none, and the rows that
/// are not locked.
const FEW: i64 = 3;

#[tokio::test(flavor = "multi_thread")]
async fn an_open_insert_of_a_reference_delays_the_removal_of_its_row_only() {
    let (app, ids) = applied("").await;
    let db = &app.fixture.db;
    db.execute(&count_statements("DELETE")).await;
    let application = connect(&db.url).await;
    application
        .batch_execute(&format!("BEGIN; {}", post(&ids[2])))
        .await
        .unwrap();
    for id in &ids[..4] {
        app.fixture.sim.delete(id);
    }
    app.once().await.assert_exit(Exit::Ok);
    let expected = [format!("public.accounts {} remove 55P03", ids[2])];
    assert_eq!(rejected(&app).await, expected);
    assert_eq!(db.number("SELECT count(*) FROM accounts").await, 37);
    // The locked row is tried once more at the end of the sync: together, none, and none that is free.
    let statements = db.number("SELECT last_value FROM statements").await;
    assert!(statements <= 2 * FEW, "{statements} statements");
    application.batch_execute("ROLLBACK").await.unwrap();
    app.once().await.assert_exit(Exit::Ok);
    assert_eq!(db.number("SELECT count(*) FROM accounts").await, 36);
    assert_eq!(rejected(&app).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_insert_of_a_reference_delays_a_new_unique_value_of_its_row_only() {
    let (app, ids) = applied("").await;
    let db = &app.fixture.db;
    db.execute("CREATE UNIQUE INDEX ON accounts (name)").await;
    db.execute(&count_statements("UPDATE")).await;
    let application = connect(&db.url).await;
    application
        .batch_execute(&format!("BEGIN; {}", post(&ids[20])))
        .await
        .unwrap();
    for (at, id) in ids.iter().enumerate() {
        app.fixture.rename(id, &format!("name {at}"));
    }
    app.once().await.assert_exit(Exit::Ok);
    let expected = [format!("public.accounts {} write 55P03", ids[20])];
    assert_eq!(rejected(&app).await, expected);
    assert_eq!(
        db.number("SELECT count(*) FROM accounts WHERE name LIKE 'name %'")
            .await,
        39
    );
    let statements = db.number("SELECT last_value FROM statements").await;
    assert!(statements <= 2 * FEW, "{statements} statements");
    application.batch_execute("ROLLBACK").await.unwrap();
    app.once().await.assert_exit(Exit::Ok);
    assert_eq!(rejected(&app).await, Vec::<String>::new());
}
