//! A lock of the application delays what it is on, and nothing else.

use std::time::{Duration, Instant};

use crate::support::{
    app_table::AppTable,
    database::connect,
    process::{EVERY_SECOND, NEVER},
    summary::Exit,
    wait::eventually,
};

const MAPPING: &str = "
    [[tables]]
    name = 'accounts'
    key = 'clerk_id'
    [tables.set]
    name = 'u.first_name'";

/// Starts with a table that is in sync, and another connection of the application.
async fn applied() -> (AppTable, tokio_postgres::Client) {
    let app = AppTable::new(
        20,
        "CREATE TABLE accounts (clerk_id text PRIMARY KEY, name text)",
        MAPPING,
    )
    .await;
    app.once().await.assert_exit(Exit::Ok);
    let other = connect(&app.fixture.db.url).await;
    (app, other)
}

async fn name(app: &AppTable, id: &str) -> Option<String> {
    let sql = format!("SELECT name FROM accounts WHERE clerk_id = '{id}'");
    app.fixture.db.text(&sql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_row_delays_itself_only() {
    let (app, application) = applied().await;
    let ids = app.fixture.sim.user_ids();
    let lock = format!("BEGIN; SELECT FROM accounts WHERE clerk_id = '{}' FOR UPDATE", ids[0]);
    application.batch_execute(&lock).await.unwrap();
    app.fixture.rename(&ids[0], "Locked");
    app.fixture.rename(&ids[1], "Free");
    let begins = Instant::now();
    app.once().await.assert_exit(Exit::Ok);
    assert!(begins.elapsed() < Duration::from_secs(20), "the lock delays the sync");
    assert_eq!(name(&app, &ids[1]).await.as_deref(), Some("Free"));
    assert_eq!(app.fixture.first_name(&ids[0]).await, "Locked");
    let rejected = "SELECT string_agg(object_id || ' ' || sqlstate, ',') FROM clerk.rejected_rows";
    assert_eq!(app.fixture.db.text(rejected).await, Some(format!("{} 55P03", ids[0])));

    application.batch_execute("COMMIT").await.unwrap();
    app.once().await.assert_exit(Exit::Ok);
    assert_eq!(name(&app, &ids[0]).await.as_deref(), Some("Locked"));
    assert_eq!(app.fixture.db.text(rejected).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_table_delays_its_rows_only() {
    let (app, application) = applied().await;
    let ids = app.fixture.sim.user_ids();
    application
        .batch_execute("BEGIN; ALTER TABLE accounts ADD COLUMN other text")
        .await
        .unwrap();
    app.fixture.rename(&ids[0], "Locked");
    let begins = Instant::now();
    let ran = app.run(&["--once"]).await;
    assert!(begins.elapsed() < Duration::from_secs(20), "the lock delays the sync");
    assert_eq!(app.fixture.first_name(&ids[0]).await, "Locked", "{ran:?}");
    application.batch_execute("COMMIT").await.unwrap();
    app.once().await.assert_exit(Exit::Ok);
    assert_eq!(name(&app, &ids[0]).await.as_deref(), Some("Locked"));
    assert_eq!(
        app.fixture.db.number("SELECT count(*) FROM clerk.rejected_rows").await,
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_mapping_of_a_locked_table_does_not_stop_incremental_syncs() {
    let app = AppTable::new(20, "CREATE TABLE accounts (clerk_id text PRIMARY KEY, name text)", "").await;
    app.once().await.assert_exit(Exit::Ok);
    app.fixture.age_rows().await;
    let application = connect(&app.fixture.db.url).await;
    application.batch_execute("BEGIN; LOCK TABLE accounts").await.unwrap();
    app.set_mapping(MAPPING);
    let daemon = app.start_daemon(&[NEVER, EVERY_SECOND]);
    daemon.wait_for_log("could not be compared with the mirror").await;
    let id = &app.fixture.sim.user_ids()[0];
    for name in ["First", "Second", "Third"] {
        app.fixture.rename(id, name);
        eventually("the mirror has the change", async || {
            app.fixture.first_name(id).await == name
        })
        .await;
    }
    let incremental = app.fixture.runs("kind = 'incremental' AND updated > 0").await;
    assert!(incremental > 0, "only full syncs saw the changes: {}", daemon.log());

    application.batch_execute("COMMIT").await.unwrap();
    eventually("the mapping is applied", async || {
        app.fixture.db.number("SELECT count(*) FROM accounts").await == 20
    })
    .await;
    assert_eq!(name(&app, id).await.as_deref(), Some("Third"));
}
