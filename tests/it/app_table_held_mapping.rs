//! A daemon with a mapping that is held: it says so once, and goes on as soon as a person approves
//! the mapping.

use crate::support::{
    app_table::AppTable,
    process::{EVERY_SECOND, NEVER, Process},
    summary::Exit,
    wait::eventually,
};

const USERS: i64 = 40;

/// Another table is kept in sync beside it.
const TABLES: &str = "
    CREATE TABLE accounts (clerk_id text PRIMARY KEY, name text);
    CREATE TABLE profiles (user_id text PRIMARY KEY, name text)";

const HELD: &str = "a new mapping would change many rows";

const EVERY_FULL: (&str, &str) = ("CLERK2PG_SCHEDULE__FULL", "* * * * * *");

fn mapping(name: &str) -> String {
    format!(
        "[[tables]]
         name = 'accounts'
         key = 'clerk_id'
         [tables.set]
         name = '''{name}'''
         [[tables]]
         name = 'profiles'
         key = 'user_id'
         [tables.set]
         name = 'u.first_name'"
    )
}

/// Starts a daemon whose mapping is held.
async fn start(environment: &[(&str, &str)]) -> (AppTable, Process) {
    let app = AppTable::new(USERS as usize, TABLES, &mapping("u.first_name")).await;
    app.once().await.assert_exit(Exit::Ok);
    app.fixture.age_rows().await;
    app.set_mapping(&mapping("'new ' || u.id"));
    let daemon = app.start_daemon(environment);
    daemon.wait_for_log(HELD).await;
    (app, daemon)
}

impl AppTable {
    /// How many rows have the new mapping's values.
    async fn renewed(&self) -> i64 {
        self.fixture
            .db
            .number("SELECT count(*) FROM accounts WHERE name = 'new ' || clerk_id")
            .await
    }

    /// The checksum that approves what a dry run shows.
    async fn planned_approval(&self) -> String {
        let report = self.run(&["--dry-run", "--format", "json"]).await.json();
        let plan = &report["tables"]["public.accounts"]["plan"];
        plan.as_str().unwrap_or_else(|| panic!("{report}")).to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_once_that_a_mapping_is_held() {
    let (app, daemon) = start(&[EVERY_FULL, EVERY_SECOND]).await;
    let full = daemon.count_in_log("full sync outcome");
    eventually("more full syncs", async || {
        daemon.count_in_log("full sync outcome") > full + 3
    })
    .await;
    // A change of a user makes an incremental sync write.
    app.fixture.rename(&app.fixture.sim.user_ids()[0], "Changed");
    let changed = "SELECT count(*) FROM profiles WHERE name = 'Changed'";
    eventually("the other table", async || app.fixture.db.number(changed).await == 1).await;
    assert_eq!(daemon.count_in_log(HELD), 1, "{}", daemon.log());
    assert_eq!(app.renewed().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_is_acted_on_at_once() {
    let (app, daemon) = start(&[NEVER, EVERY_SECOND]).await;
    app.fixture.rename(&app.fixture.sim.user_ids()[0], "Changed");
    let changed = "SELECT count(*) FROM profiles WHERE name = 'Changed'";
    eventually("the other table", async || app.fixture.db.number(changed).await == 1).await;
    app.fixture.wait_for_incremental_sync().await;
    // A held mapping asks for no further full syncs.
    assert_eq!(app.fixture.runs("kind = 'full'").await, 2, "{}", daemon.log());
    assert_eq!(app.renewed().await, 0);

    let plan = app.planned_approval().await;
    app.run(&["approve", &plan]).await.assert_exit(Exit::Ok);
    eventually("the new mapping", async || app.renewed().await == USERS).await;
    let id = app.fixture.sim.create_random();
    eventually("a new user", async || app.renewed().await == USERS + 1).await;
    assert!(app.fixture.has_user(&id).await);
    assert_eq!(app.fixture.runs("kind = 'full'").await, 3, "{}", daemon.log());
    assert_eq!(daemon.count_in_log(HELD), 1, "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_held_are_reported_once() {
    let app = AppTable::new(USERS as usize, TABLES, &mapping("u.first_name")).await;
    app.fixture
        .db
        .execute("INSERT INTO accounts VALUES ('user_stranger', 'Stranger')")
        .await;
    let daemon = app.start_daemon(&[EVERY_FULL, EVERY_SECOND]);
    let held = "rows that are to go are held";
    daemon.wait_for_log(held).await;
    let full = daemon.count_in_log("full sync outcome");
    eventually("more full syncs", async || {
        daemon.count_in_log("full sync outcome") > full + 3
    })
    .await;
    assert_eq!(daemon.count_in_log(held), 1, "{}", daemon.log());
    // Others that are held are news.
    app.fixture
        .db
        .execute("INSERT INTO accounts SELECT 'user_stranger_' || n, 'Stranger' FROM generate_series(1, 30) n")
        .await;
    eventually("it says so again", async || daemon.count_in_log(held) == 2).await;
}
