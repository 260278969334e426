//! A table of the application disappears while a daemon runs, and comes back: other tables go on, and
//! the table is filled again.

use crate::support::{
    app_table::AppTable,
    process::{EVERY_SECOND, NEVER, Process},
    summary::Exit,
    wait::eventually,
};

const ACCOUNTS: &str = "CREATE TABLE accounts (clerk_id text PRIMARY KEY, name text)";

const PROFILES: &str = "CREATE TABLE profiles (user_id text PRIMARY KEY, name text)";

const MAPPING: &str = "
    [[tables]]
    name = 'accounts'
    key = 'clerk_id'
    [tables.set]
    name = 'u.first_name'
    [[tables]]
    name = 'profiles'
    key = 'user_id'
    [tables.set]
    name = 'u.first_name'";

const USERS: usize = 30;

/// Starts a daemon that runs no scheduled full syncs, with two tables that are in sync.
async fn start() -> (AppTable, Process) {
    let app = AppTable::new(USERS, &format!("{ACCOUNTS}; {PROFILES}"), MAPPING).await;
    app.once().await.assert_exit(Exit::Ok);
    app.fixture.age_rows().await;
    let daemon = app.start_daemon(&[NEVER, EVERY_SECOND]);
    eventually("its first full sync", async || {
        daemon.count_in_log("full sync outcome") > 0
    })
    .await;
    (app, daemon)
}

impl AppTable {
    /// Changes a user, and waits until the mirror and the other table have it.
    async fn change_a_user(&self, name: &str) -> String {
        let id = self.fixture.sim.user_ids()[3].clone();
        self.fixture.rename(&id, name);
        let other = format!("SELECT count(*) FROM profiles WHERE user_id = '{id}' AND name = '{name}'");
        eventually("the other table has the change", async || {
            self.fixture.db.number(&other).await == 1
        })
        .await;
        assert_eq!(self.fixture.first_name(&id).await, name);
        id
    }

    /// Why the table is not kept in sync.
    async fn problem(&self) -> Option<String> {
        let sql = "SELECT problem FROM clerk.projections WHERE table_name = 'public.accounts' AND problem IS NOT NULL";
        self.fixture.db.text(sql).await
    }

    /// Waits until the table is in sync, and nothing says otherwise.
    async fn wait_until_filled(&self, key: &str, daemon: &Process) {
        let differ = format!(
            "SELECT count(*) FROM clerk.users u FULL JOIN accounts a ON a.{key} = u.id
             WHERE a.{key} IS NULL OR u.id IS NULL OR a.name IS DISTINCT FROM u.first_name"
        );
        let applied =
            "SELECT count(*) FROM clerk.projections WHERE mapping IS NOT NULL AND problem IS NULL AND hold = 'none'";
        eventually("both tables are in sync", async || {
            self.fixture.db.number(&differ).await == 0 && self.fixture.db.number(applied).await == 2
        })
        .await;
        let listed = "SELECT (SELECT count(*) FROM clerk.rejected_rows) + (SELECT count(*) FROM clerk.departures)";
        assert_eq!(self.fixture.db.number(listed).await, 0, "{}", daemon.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_table_is_filled_once_it_is_there_again() {
    let (app, daemon) = start().await;
    let db = &app.fixture.db;
    db.execute("DROP TABLE accounts").await;
    for name in ["First", "Second"] {
        app.change_a_user(name).await;
        let problem = app.problem().await;
        assert!(
            problem.is_some_and(|problem| problem.contains("no such table")),
            "{}",
            daemon.log()
        );
    }
    assert_eq!(
        daemon.count_in_log("the table is not kept in sync"),
        1,
        "{}",
        daemon.log()
    );
    db.execute(ACCOUNTS).await;
    app.wait_until_filled("clerk_id", &daemon).await;
    // Batches write it again.
    let id = app.change_a_user("Third").await;
    let name = format!("SELECT name FROM accounts WHERE clerk_id = '{id}'");
    assert_eq!(db.text(&name).await.as_deref(), Some("Third"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_replaced_by_an_empty_one_is_filled_although_no_user_changes() {
    let (app, daemon) = start().await;
    app.fixture.wait_for_incremental_sync().await;
    app.fixture
        .db
        .execute(&format!("DROP TABLE accounts; {ACCOUNTS}"))
        .await;
    app.wait_until_filled("clerk_id", &daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_key_was_renamed_is_kept_in_sync_once_it_has_its_name_again() {
    let (app, daemon) = start().await;
    let db = &app.fixture.db;
    db.execute("ALTER TABLE accounts RENAME COLUMN clerk_id TO user_id")
        .await;
    let id = app.change_a_user("First").await;
    assert!(app.problem().await.is_some_and(|problem| problem.contains("clerk_id")));
    let before = format!("SELECT count(*) FROM accounts WHERE user_id = '{id}' AND name = 'First'");
    assert_eq!(db.number(&before).await, 0);
    db.execute("ALTER TABLE accounts RENAME COLUMN user_id TO clerk_id")
        .await;
    app.wait_until_filled("clerk_id", &daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_deleted_while_the_table_was_away_loses_its_row_afterwards() {
    let (app, daemon) = start().await;
    let db = &app.fixture.db;
    db.execute("ALTER TABLE accounts RENAME TO elsewhere").await;
    app.change_a_user("First").await;
    let gone = app.fixture.sim.user_ids()[5].clone();
    assert!(app.fixture.sim.delete(&gone));
    eventually("the user is deleted", async || !app.fixture.has_user(&gone).await).await;
    let rows = "SELECT count(*) FROM elsewhere";
    assert_eq!(db.number(rows).await, USERS as i64);
    db.execute("ALTER TABLE elsewhere RENAME TO accounts").await;
    app.wait_until_filled("clerk_id", &daemon).await;
}
