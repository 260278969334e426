//! The process is killed while it applies a mapping: the next sync finishes it. Until then, nothing
//! says that the mapping is applied.

use crate::support::{app_table::AppTable, summary::Exit, wait::eventually};

/// More than two transactions of a comparison write.
const USERS: usize = 11_000;

/// A table whose rows are counted as they are written, and slowly.
const TABLE: &str = "
    CREATE TABLE accounts (id serial PRIMARY KEY, clerk_id text UNIQUE, name text);
    CREATE TABLE writes (clerk_id text, name text);
    CREATE FUNCTION note_write() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF coalesce(NEW.id, OLD.id) % 500 = 0 THEN PERFORM pg_sleep(0.1); END IF;
            INSERT INTO writes VALUES (coalesce(NEW.clerk_id, OLD.clerk_id), NEW.name);
            RETURN coalesce(NEW, OLD);
        END $$;
    CREATE TRIGGER note_write BEFORE INSERT OR UPDATE OR DELETE ON accounts
        FOR EACH ROW EXECUTE FUNCTION note_write()";

/// Makes the statement slow that notes that a mapping is applied.
const SLOW_NOTE: &str = "
    CREATE FUNCTION slow_note() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM pg_sleep(3); RETURN NEW; END $$;
    CREATE TRIGGER slow_note BEFORE UPDATE ON clerk.projections FOR EACH ROW
        WHEN (NEW.mapping IS NOT NULL) EXECUTE FUNCTION slow_note()";

const SLEEPING: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";

const CONNECTED: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE 'clerk2pg%'";

fn mapping(name: &str, condition: &str, max_change_percent: u32) -> String {
    format!(
        "[[tables]]
         name = 'accounts'
         key = 'clerk_id'
         where = '''{condition}'''
         max_change_percent = {max_change_percent}
         [tables.set]
         name = '''{name}'''"
    )
}

/// Starts a full sync, and kills it as soon as the database is at a certain point.
async fn kill_when(app: &AppTable, what: &str, is_reached: impl AsyncFnMut() -> bool) {
    let sync = app.start_once();
    eventually(what, is_reached).await;
    sync.kill().await;
    eventually("the server has ended the connections", async || {
        app.fixture.db.number(CONNECTED).await == 0
    })
    .await;
}

async fn count(app: &AppTable, condition: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM accounts WHERE {condition}");
    app.fixture.db.number(&sql).await
}

/// Whether the table is said to agree with a mapping.
async fn is_applied(app: &AppTable) -> bool {
    let sql = "SELECT count(*) FROM clerk.projections WHERE mapping IS NOT NULL";
    app.fixture.db.number(sql).await == 1
}

/// Runs a full sync that holds something of the table, and approves it.
async fn approve_held(app: &AppTable) {
    let report = app.once().await.json();
    let plan = report["tables"]["public.accounts"]["plan"].as_str();
    let plan = plan.unwrap_or_else(|| panic!("nothing is held: {report}"));
    app.run(&["approve", plan]).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_table_is_filled_once_however_often_the_process_is_killed() {
    let app = AppTable::new(USERS, TABLE, &mapping("u.first_name", "true", 20)).await;
    let db = &app.fixture.db;
    kill_when(&app, "rows are being written", async || db.number(SLEEPING).await > 0).await;
    assert!(!is_applied(&app).await);
    for _ in 0..2 {
        let before = count(&app, "true").await;
        kill_when(&app, "more rows are written", async || {
            count(&app, "true").await > before
        })
        .await;
        assert!(count(&app, "true").await < USERS as i64, "it was killed too late");
        assert!(!is_applied(&app).await);
    }
    db.execute(SLOW_NOTE).await;
    kill_when(&app, "all rows are written", async || {
        count(&app, "true").await == USERS as i64 && db.number(SLEEPING).await > 0
    })
    .await;
    assert!(!is_applied(&app).await);

    app.once().await.assert_exit(Exit::Ok);
    assert!(is_applied(&app).await);
    let differ = "SELECT count(*) FROM clerk.users u FULL JOIN accounts a ON a.clerk_id = u.id
        WHERE a.name IS DISTINCT FROM u.first_name OR a.id IS NULL OR u.id IS NULL";
    assert_eq!(db.number(differ).await, 0);
    // What was committed before the process was killed was not written again.
    assert_eq!(db.number("SELECT count(*) FROM writes").await, USERS as i64);
    assert_eq!(
        db.number("SELECT count(DISTINCT clerk_id) FROM writes").await,
        USERS as i64
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_mapping_is_finished_or_taken_back_after_the_process_was_killed() {
    let first = mapping("u.first_name", "true", 20);
    let app = AppTable::new(USERS, TABLE, &first).await;
    app.once().await.assert_exit(Exit::Ok);
    let all = USERS as i64;

    // The approval outlives the process.
    app.set_mapping(&mapping("'second ' || u.id", "true", 20));
    approve_held(&app).await;
    let second = "name = 'second ' || clerk_id";
    kill_when(&app, "some rows have changed", async || count(&app, second).await > 0).await;
    assert!(count(&app, second).await < all, "it was killed too late");
    assert!(!is_applied(&app).await);
    app.once().await.assert_exit(Exit::Ok);
    assert_eq!(count(&app, second).await, all);
    assert!(is_applied(&app).await);

    // The table has rows of two mappings: it agrees with neither.
    app.set_mapping(&mapping("'third ' || u.id", "true", 100));
    let third = "name = 'third ' || clerk_id";
    kill_when(&app, "some rows have changed", async || count(&app, third).await > 0).await;
    assert!(count(&app, third).await < all, "it was killed too late");
    assert!(!is_applied(&app).await, "the second mapping is said to be applied");
    app.set_mapping(&mapping("'second ' || u.id", "true", 100));
    app.once().await.assert_exit(Exit::Ok);
    assert_eq!(count(&app, second).await, all);
    assert!(is_applied(&app).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn approved_removals_go_on_after_the_process_was_killed() {
    let app = AppTable::new(2_500, TABLE, &mapping("u.first_name", "true", 20)).await;
    app.once().await.assert_exit(Exit::Ok);
    let excluded = "ascii(right(clerk_id, 1)) % 2 = 0";
    let stay = 2_500 - count(&app, excluded).await;
    app.set_mapping(&mapping("u.first_name", "ascii(right(u.id, 1)) % 2 = 1", 20));
    approve_held(&app).await;
    assert_eq!(count(&app, "true").await, 2_500);
    kill_when(&app, "some rows are removed", async || {
        count(&app, "true").await < 2_500
    })
    .await;
    assert!(count(&app, excluded).await > 0, "it was killed too late");
    app.once().await.assert_exit(Exit::Ok);
    assert_eq!(count(&app, excluded).await, 0);
    assert_eq!(count(&app, "true").await, stay);
    let db = &app.fixture.db;
    assert_eq!(db.number("SELECT count(*) FROM clerk.departures").await, 0);
    // Rows that a person approved do not count for the guard.
    assert_eq!(db.number("SELECT count(*) FROM clerk.recent_deletions").await, 0);
}
