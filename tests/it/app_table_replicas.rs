//! Several daemons on one database with tables: only the leader writes them. Another daemon takes
//! over with its own mappings.

use crate::support::{
    app_table::AppTable,
    process::{EVERY_SECOND, NEVER, Process},
    summary::Exit,
    wait::eventually,
};

/// Tables that note the program that writes them. The row in the middle is written slowly.
const TABLES: &str = "
    CREATE TABLE accounts (id serial PRIMARY KEY, clerk_id text UNIQUE NOT NULL, name text);
    CREATE TABLE profiles (user_id text PRIMARY KEY, picture text);
    CREATE TABLE writes (writer text NOT NULL, clerk_id text NOT NULL);
    CREATE FUNCTION note_write() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.id = 20 THEN PERFORM pg_sleep(1); END IF;
            INSERT INTO writes VALUES (current_setting('application_name'), NEW.clerk_id);
            RETURN NEW;
        END $$;
    CREATE TRIGGER note_write BEFORE INSERT OR UPDATE ON accounts FOR EACH ROW EXECUTE FUNCTION note_write()";

const USERS: usize = 40;

fn mapping(name: &str) -> String {
    format!(
        "[[tables]]
         name = 'accounts'
         key = 'clerk_id'
         max_change_percent = 100
         [tables.set]
         name = '''{name}'''
         "
    )
}

const PROFILES: &str = "
    [[tables]]
    name = 'profiles'
    key = 'user_id'
    [tables.set]
    picture = 'u.image_url'";

impl AppTable {
    /// Starts a daemon with its own mappings, which Postgres knows by this name.
    fn start_replica(&self, name: &str, mappings: &str) -> Process {
        let config = self.config().with_file_name(format!("{name}.toml"));
        std::fs::write(&config, mappings).unwrap();
        let mut command = self.fixture.command(&["--config", config.to_str().unwrap()]);
        let url = &self.fixture.db.url;
        let separator = if url.contains('?') { '&' } else { '?' };
        command.envs([NEVER, EVERY_SECOND, ("CLERK2PG_LEASE__TTL", "3s")]);
        command.env("DATABASE_URL", format!("{url}{separator}application_name={name}"));
        Process::spawn(command)
    }

    /// Starts another daemon, and waits until it stands by.
    async fn start_standby(&self, name: &str, mappings: &str) -> Process {
        // A leader that is alone does not extend its expiry, and a daemon that starts after the
        // expiry leads at once.
        let long = "UPDATE clerk.leader SET expires_at = clock_timestamp() + interval '1 minute', ttl = '1 minute'";
        self.fixture.db.execute(long).await;
        let standby = self.start_replica(name, mappings);
        let waits = "SELECT count(*) FROM clerk.standbys, clerk.leader
            WHERE standbys.expires_at > clock_timestamp() AND leader.ttl < '1 minute'";
        eventually("it stands by", async || self.fixture.db.number(waits).await == 1).await;
        standby
    }

    /// Waits until every user has a row with this name, and there are no other rows.
    async fn wait_for_names(&self, name: &str) {
        let differ = format!(
            "SELECT count(*) FROM clerk.users u FULL JOIN accounts a ON a.clerk_id = u.id
             WHERE a.id IS NULL OR u.id IS NULL OR a.name IS DISTINCT FROM {name}"
        );
        let is_done = async || {
            let users = self.fixture.sim.count() as i64;
            self.fixture.users().await == users && self.fixture.db.number(&differ).await == 0
        };
        eventually(&format!("all names are {name}"), is_done).await;
    }

    /// Changes a user, and adds and deletes one. Waits until the mirror has all of that.
    async fn change_users(&self, name: &str) {
        self.fixture.age_rows().await;
        let ids = self.fixture.sim.user_ids();
        self.fixture.rename(&ids[0], name);
        assert!(self.fixture.sim.delete(&ids[1]));
        let created = self.fixture.sim.create_random();
        eventually("the mirror has the changes", async || {
            self.fixture.has_user(&created).await
                && !self.fixture.has_user(&ids[1]).await
                && self.fixture.first_name(&ids[0]).await == name
        })
        .await;
    }

    /// The programs that have written rows, in the order of their names.
    async fn writers(&self) -> Option<String> {
        self.fixture
            .db
            .text("SELECT string_agg(DISTINCT writer, ' ' ORDER BY writer) FROM writes")
            .await
    }

    async fn is_applied(&self) -> bool {
        let sql = "SELECT count(*) FROM clerk.projections WHERE table_name = 'public.accounts' AND mapping IS NOT NULL";
        self.fixture.db.number(sql).await == 1
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_writes_nothing_until_the_leader_is_dead() {
    let mappings = mapping("u.first_name");
    let app = AppTable::new(USERS, TABLES, "").await;
    let leader = app.start_replica("one", &mappings);
    app.fixture.syncs(1).await;
    app.wait_for_names("u.first_name").await;
    let standby = app.start_standby("two", &mappings).await;
    for name in ["First", "Second"] {
        app.change_users(name).await;
        app.wait_for_names("u.first_name").await;
    }
    assert_eq!(app.writers().await.as_deref(), Some("one"));
    assert_eq!(standby.count_in_log("sync outcome"), 0, "{}", standby.log());

    leader.kill().await;
    app.change_users("Third").await;
    app.wait_for_names("u.first_name").await;
    app.change_users("Fourth").await;
    app.wait_for_names("u.first_name").await;
    assert_eq!(app.writers().await.as_deref(), Some("one two"));
    // The table was in sync, so the new leader wrote only what had changed.
    let rewritten = "SELECT count(*) FROM writes WHERE writer = 'two'";
    assert_eq!(app.fixture.db.number(rewritten).await, 4, "{}", standby.log());
    app.fixture.assert_one_at_a_time().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_finishes_a_mapping_that_a_dead_leader_had_begun() {
    let mappings = mapping("u.first_name");
    let app = AppTable::new(USERS, TABLES, "").await;
    let leader = app.start_replica("one", &mappings);
    let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
    eventually("rows are being written", async || {
        app.fixture.db.number(sleeps).await > 0
    })
    .await;
    let standby = app.start_replica("two", &mappings);
    leader.kill().await;
    app.wait_for_names("u.first_name").await;
    eventually("the mapping is applied", async || app.is_applied().await).await;
    assert_eq!(app.writers().await.as_deref(), Some("two"), "{}", standby.log());
    let writes = app.fixture.db.number("SELECT count(*) FROM writes").await;
    assert_eq!(writes, USERS as i64);
}

#[tokio::test(flavor = "multi_thread")]
async fn daemons_with_different_mappings_do_not_argue() {
    let (one, two) = ("'one ' || u.id", "'two ' || u.id");
    let app = AppTable::new(USERS, TABLES, "").await;
    let first = app.start_replica("one", &mapping(one));
    app.fixture.syncs(1).await;
    app.wait_for_names(one).await;
    let second = app.start_standby("two", &format!("{}{PROFILES}", mapping(two))).await;
    for name in ["First", "Second"] {
        app.change_users(name).await;
        app.wait_for_names(one).await;
    }
    assert_eq!(app.writers().await.as_deref(), Some("one"));
    let profiles = "SELECT count(*) FROM profiles";
    assert_eq!(app.fixture.db.number(profiles).await, 0);

    first.kill().await;
    app.wait_for_names(two).await;
    eventually("the other table is filled", async || {
        app.fixture.db.number(profiles).await == app.fixture.sim.count() as i64
    })
    .await;
    let first = app.start_standby("one", &mapping(one)).await;
    app.change_users("Third").await;
    app.wait_for_names(two).await;
    assert_eq!(first.count_in_log("sync outcome"), 0, "{}", first.log());

    // Its table stays as it is once nobody maps it.
    second.kill().await;
    app.wait_for_names(one).await;
    let before = app.fixture.db.number(profiles).await;
    app.change_users("Fourth").await;
    app.wait_for_names(one).await;
    assert_eq!(app.fixture.db.number(profiles).await, before);
    let mapped = "SELECT string_agg(table_name, ' ') FROM clerk.projections";
    assert_eq!(app.fixture.db.text(mapped).await.as_deref(), Some("public.accounts"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_takes_back_what_a_single_run_with_another_mapping_did() {
    let (one, two) = ("'one ' || u.id", "'two ' || u.id");
    let app = AppTable::new(USERS, TABLES, &mapping(two)).await;
    let daemon = app.start_replica("one", &mapping(one));
    app.fixture.syncs(1).await;
    app.wait_for_names(one).await;
    let ran = app.once().await;
    ran.assert_exit(Exit::Ok);
    assert_eq!(
        ran.json()["tables"]["public.accounts"]["updated"],
        USERS,
        "{}",
        daemon.log()
    );
    app.wait_for_names(one).await;
    eventually("the mapping is applied", async || app.is_applied().await).await;
}
