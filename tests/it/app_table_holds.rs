//! What would change or remove many rows of an application's table waits for a person.

use serde_json::json;

use crate::support::{app_table::AppTable, summary::Exit};

const TABLE: &str = "CREATE TABLE accounts (clerk_id text PRIMARY KEY, name text)";

fn mapping(name: &str, condition: &str) -> String {
    format!(
        "[[tables]]
         name = 'accounts'
         key = 'clerk_id'
         where = '''{condition}'''
         [tables.set]
         name = '''{name}'''"
    )
}

/// Runs a full sync that holds something of the table, and returns the checksum that approves it.
async fn held(app: &AppTable) -> String {
    let report = app.once().await.json();
    let table = &report["tables"]["public.accounts"];
    table["plan"]
        .as_str()
        .unwrap_or_else(|| panic!("nothing is held: {report}"))
        .to_owned()
}

async fn approve(app: &AppTable, plan: &str) {
    app.run(&["approve", plan]).await.assert_exit(Exit::Ok);
}

async fn count(app: &AppTable, condition: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM accounts WHERE {condition}");
    app.fixture.db.number(&sql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mapping_that_changes_many_rows_waits_for_approval() {
    let app = AppTable::new(40, TABLE, &mapping("u.first_name", "true")).await;
    app.once().await.assert_exit(Exit::Ok);
    app.set_mapping(&mapping("'x' || u.id", "true"));
    let plan = held(&app).await;
    // Nothing of the new mapping is written meanwhile, not even for users that change.
    app.fixture.rename(&app.fixture.sim.user_ids()[0], "Changed");
    assert_eq!(held(&app).await, plan);
    assert_eq!(count(&app, "name = 'x' || clerk_id OR name = 'Changed'").await, 0);
    app.run(&["approve", "000000000000"]).await.assert_exit(Exit::Failed);
    approve(&app, &plan).await;
    app.once().await.assert_exit(Exit::Ok);
    assert_eq!(count(&app, "name = 'x' || clerk_id").await, 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mapping_that_changes_few_rows_is_applied() {
    let app = AppTable::new(40, TABLE, &mapping("u.first_name", "true")).await;
    app.once().await.assert_exit(Exit::Ok);
    let few: Vec<String> = app.fixture.sim.user_ids().into_iter().take(8).collect();
    let ids = few.iter().map(|id| format!("'{id}'")).collect::<Vec<_>>().join(", ");
    app.set_mapping(&mapping(
        &format!("CASE WHEN u.id IN ({ids}) THEN 'few' ELSE u.first_name END"),
        "true",
    ));
    app.once().await.assert_exit(Exit::Ok);
    assert_eq!(count(&app, "name = 'few'").await, 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mass_departure_waits_for_approval_whatever_happens_meanwhile() {
    let app = AppTable::new(
        40,
        TABLE,
        &mapping("u.first_name", "u.username IS DISTINCT FROM 'gone'"),
    )
    .await;
    app.once().await.assert_exit(Exit::Ok);
    let ids = app.fixture.sim.user_ids();
    let set_username =
        |id: &str, name: &str| assert!(app.fixture.sim.update(id, |user| user["username"] = json!(name)));
    for id in &ids[..15] {
        set_username(id, "gone");
    }
    let plan = held(&app).await;
    assert_eq!(count(&app, "true").await, 40);
    // Growth does not release them.
    for _ in 0..200 {
        app.fixture.sim.create_random();
    }
    assert_eq!(held(&app).await, plan);
    assert_eq!(count(&app, "true").await, 240);
    // A user that belongs to the table again is released, and alone.
    set_username(&ids[0], "back");
    let fewer = held(&app).await;
    assert_ne!(fewer, plan);
    app.run(&["approve", &plan]).await.assert_exit(Exit::Failed);
    approve(&app, &fewer).await;
    app.once().await.assert_exit(Exit::Ok);
    assert_eq!(count(&app, "true").await, 226);
    assert_eq!(count(&app, &format!("clerk_id = '{}'", ids[0])).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_keys_are_always_held_the_first_time() {
    let app = AppTable::new(40, TABLE, &mapping("u.first_name", "true")).await;
    let stranger = "INSERT INTO accounts VALUES ('user_stranger', 'Stranger'), (gen_random_uuid()::text, 'Odd')";
    app.fixture.db.execute(stranger).await;
    let plan = held(&app).await;
    assert_eq!(held(&app).await, plan);
    let age =
        "UPDATE clerk.departures SET found_at = found_at - interval '1 day', held_at = held_at - interval '1 day'";
    app.fixture.db.execute(age).await;
    assert_eq!(held(&app).await, plan);
    assert_eq!(count(&app, "true").await, 42);
    approve(&app, &plan).await;
    app.once().await.assert_exit(Exit::Ok);
    assert_eq!(count(&app, "true").await, 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_users_that_the_condition_excludes_are_held_the_first_time() {
    let app = AppTable::new(40, TABLE, &mapping("u.first_name", "u.id <> ALL ('{}')")).await;
    let excluded = &app.fixture.sim.user_ids()[..3];
    let condition = format!("u.id <> ALL ('{{{}}}')", excluded.join(","));
    let own = |id: &String| format!("INSERT INTO accounts VALUES ('{id}', 'a name of the application')");
    let rows: Vec<String> = excluded.iter().map(own).collect();
    app.fixture.db.execute(&rows.join(";")).await;
    app.set_mapping(&mapping("u.first_name", &condition));
    let dry_run = app.run(&["--dry-run"]).await;
    let held_lines = dry_run
        .stdout
        .matches("(held) `where` excludes it; it exists at Clerk")
        .count();
    assert_eq!(held_lines, 3, "{dry_run:#?}");
    let plan = held(&app).await;
    assert_eq!(held(&app).await, plan);
    assert_eq!(count(&app, "name = 'a name of the application'").await, 3);
    assert_eq!(count(&app, "true").await, 40);
    approve(&app, &plan).await;
    app.once().await.assert_exit(Exit::Ok);
    assert_eq!(count(&app, "true").await, 37);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_keys_are_held_the_first_time_that_rows_are_removed_at_all() {
    let keep = mapping("u.first_name", "true").replace("key =", "delete = 'keep'\n         key =");
    let app = AppTable::new(40, TABLE, &keep).await;
    app.fixture
        .db
        .execute("INSERT INTO accounts VALUES ('user_stranger', 'Stranger')")
        .await;
    app.once().await.assert_exit(Exit::Ok);
    app.set_mapping(&mapping("u.first_name", "true"));
    let plan = held(&app).await;
    let age = "UPDATE clerk.departures SET found_at = found_at - interval '1 day'";
    app.fixture.db.execute(age).await;
    assert_eq!(held(&app).await, plan);
    assert_eq!(count(&app, "true").await, 41);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_row_whose_key_is_set_to_null_stays_for_good() {
    let table = TABLE.replace("PRIMARY KEY", "UNIQUE");
    let app = AppTable::new(40, &table, &mapping("u.first_name", "true")).await;
    let strangers = "INSERT INTO accounts VALUES ('user_stranger', 'Stranger'), ('user_kept', 'Kept')";
    app.fixture.db.execute(strangers).await;
    let both = held(&app).await;
    let keep = "UPDATE accounts SET clerk_id = NULL WHERE clerk_id = 'user_kept'";
    app.fixture.db.execute(keep).await;
    let one = held(&app).await;
    assert_ne!(one, both);
    approve(&app, &one).await;
    let age = "UPDATE clerk.departures SET found_at = found_at - interval '1 day'";
    app.fixture.db.execute(age).await;
    app.once().await.assert_exit(Exit::Ok);
    app.once().await.assert_exit(Exit::Ok);
    assert_eq!(count(&app, "clerk_id IS NULL AND name = 'Kept'").await, 1);
    assert_eq!(count(&app, "true").await, 41);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_row_that_could_not_be_removed_before_is_not_removed_by_a_retry() {
    let orders = "CREATE TABLE orders (account text REFERENCES accounts ON DELETE RESTRICT)";
    let app = AppTable::new(40, &format!("{TABLE};{orders}"), &mapping("u.first_name", "true")).await;
    app.once().await.assert_exit(Exit::Ok);
    let db = &app.fixture.db;
    let age = "UPDATE clerk.departures SET found_at = found_at - interval '1 minute'";
    db.execute("INSERT INTO accounts VALUES ('user_kept', 'Kept'); INSERT INTO orders VALUES ('user_kept')")
        .await;
    app.once().await.assert_exit(Exit::Ok);
    db.execute(age).await;
    app.once().await.assert_exit(Exit::Ok);
    let rejected = "SELECT count(*) FROM clerk.rejected_rows WHERE action = 'remove' AND object_id = 'user_kept'";
    assert_eq!(db.number(rejected).await, 1);

    // Now it is one of many that are held, and nothing references it any more.
    db.execute("INSERT INTO accounts SELECT 'user_stranger_' || n FROM generate_series(1, 20) n; DELETE FROM orders")
        .await;
    for _ in 0..2 {
        held(&app).await;
        db.execute(age).await;
        assert_eq!(count(&app, "true").await, 61);
    }
}
