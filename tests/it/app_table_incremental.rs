//! A daemon's incremental syncs write the application's table in the transaction of the mirror.

use crate::support::{
    app_table::AppTable,
    changes::set_address,
    database::connect,
    process::{EVERY_SECOND, NEVER, Process},
    summary::Exit,
    wait::eventually,
};

const TABLE: &str = "CREATE TABLE accounts (id serial PRIMARY KEY, clerk_id text UNIQUE NOT NULL, email text UNIQUE NOT NULL, name text)";

const MAPPING: &str = "
    [[tables]]
    name = 'accounts'
    key = 'clerk_id'
    [tables.set]
    email = 'coalesce(u.primary_email, u.id)'
    name = 'u.first_name'";

/// Rows in which the table and the mirror differ.
const DIFFERENT: &str = "
    SELECT count(*) FROM clerk.users u FULL JOIN accounts a ON a.clerk_id = u.id
    WHERE a.name IS DISTINCT FROM u.first_name OR a.email IS DISTINCT FROM coalesce(u.primary_email, u.id)";

async fn start(users: usize) -> (AppTable, Process) {
    let app = AppTable::new(users, TABLE, MAPPING).await;
    app.once().await.assert_exit(Exit::Ok);
    app.fixture.age_rows().await;
    let mut command = app.fixture.command(&["--config", app.config().to_str().unwrap()]);
    command.envs([NEVER, EVERY_SECOND]);
    let daemon = Process::spawn(command);
    eventually("a second full sync", async || {
        app.fixture.runs("kind = 'full' AND ended_at IS NOT NULL").await > 1
    })
    .await;
    (app, daemon)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_reader_sees_a_change_in_one_table_only() {
    let (app, daemon) = start(60).await;
    let mut reader = connect(&app.fixture.db.url).await;
    let ids = app.fixture.sim.user_ids();
    for round in 0..6 {
        for (at, id) in ids[..50].iter().enumerate().filter(|(at, _)| at % 6 == round) {
            app.fixture.rename(id, &format!("round {round} {at}"));
        }
        set_address(&app.fixture, &ids[round], &format!("round{round}@x.test"));
        app.fixture.sim.delete(&ids[59 - round]);
        app.fixture.sim.create_random();
        let done = format!("SELECT count(*) FROM clerk.users WHERE first_name LIKE 'round {round} %'");
        eventually("the changes", async || {
            let snapshot = reader
                .build_transaction()
                .isolation_level(tokio_postgres::IsolationLevel::RepeatableRead);
            let snapshot = snapshot.start().await.unwrap();
            let different: i64 = snapshot.query_one(DIFFERENT, &[]).await.unwrap().get(0);
            assert_eq!(different, 0, "{}", daemon.log());
            let done: i64 = snapshot.query_one(&done, &[]).await.unwrap().get(0);
            done > 0
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_move_between_users_within_incremental_syncs() {
    let (app, _daemon) = start(10).await;
    let ids = app.fixture.sim.user_ids();
    let address = |id: &str| {
        let sql = format!("SELECT email FROM accounts WHERE clerk_id = '{id}'");
        async { app.fixture.db.text(&{ sql }).await }
    };
    set_address(&app.fixture, &ids[0], "a@x.test");
    set_address(&app.fixture, &ids[1], "b@x.test");
    eventually("two addresses", async || {
        address(&ids[1]).await.as_deref() == Some("b@x.test")
    })
    .await;
    set_address(&app.fixture, &ids[0], "b@x.test");
    set_address(&app.fixture, &ids[1], "a@x.test");
    eventually("an exchange", async || {
        address(&ids[0]).await.as_deref() == Some("b@x.test") && address(&ids[1]).await.as_deref() == Some("a@x.test")
    })
    .await;
    // A deleted user's address is taken by a new one.
    app.fixture.age_rows().await;
    app.fixture.sim.delete(&ids[0]);
    let new = app.fixture.sim.create_random();
    set_address(&app.fixture, &new, "b@x.test");
    eventually("a new owner", async || {
        address(&new).await.as_deref() == Some("b@x.test")
    })
    .await;
    eventually("no rejected row", async || {
        app.fixture.db.number("SELECT count(*) FROM clerk.rejected_rows").await == 0
    })
    .await;
    assert_eq!(app.fixture.db.number(DIFFERENT).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_application_changed_comes_right_with_a_full_sync() {
    let app = AppTable::new(30, TABLE, MAPPING).await;
    app.once().await.assert_exit(Exit::Ok);
    let db = &app.fixture.db;
    db.execute("UPDATE accounts SET name = 'changed' WHERE id <= 5; DELETE FROM accounts WHERE id BETWEEN 6 AND 8")
        .await;
    app.once().await.assert_exit(Exit::Ok);
    assert_eq!(db.number(DIFFERENT).await, 0);
    assert_eq!(db.number("SELECT repaired FROM clerk.projections").await, 8);
    app.once().await.assert_exit(Exit::Ok);
    assert_eq!(db.number("SELECT repaired FROM clerk.projections").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_breaks_stops_nobody_and_comes_right_afterwards() {
    let app = AppTable::new(30, TABLE, MAPPING).await;
    app.once().await.assert_exit(Exit::Ok);
    let db = &app.fixture.db;
    db.execute("ALTER TABLE accounts RENAME COLUMN name TO nickname").await;
    let id = &app.fixture.sim.user_ids()[3];
    app.fixture.rename(id, "Changed");
    let ran = app.once().await;
    assert!(ran.stdout.contains("public.accounts is not kept in sync"), "{ran:?}");
    assert_eq!(app.fixture.first_name(id).await, "Changed");
    db.execute("ALTER TABLE accounts RENAME COLUMN nickname TO name").await;
    app.once().await.assert_exit(Exit::Ok);
    assert_eq!(db.number(DIFFERENT).await, 0);
}
