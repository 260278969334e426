//! Who reads the event of a user finds the application's row as the event says: both are written in
//! one transaction.

use tokio::sync::mpsc::UnboundedReceiver;
use tokio_postgres::Client;

use crate::support::{
    app_table::AppTable,
    events::{INITIAL, listen},
    faults::slow_pages,
    process::{EVERY_SECOND, NEVER, Process},
    summary::Exit,
    wait::{PATIENCE, eventually},
};

const TABLE: &str = "CREATE TABLE accounts (clerk_id text PRIMARY KEY, name text)";

const MAPPING: &str = "
    [[tables]]
    name = 'accounts'
    key = 'clerk_id'
    where = '''u.username IS DISTINCT FROM 'nobody' '''
    [tables.set]
    name = 'u.first_name'";

/// Users whose row is not as their last event says.
const CONTRADICTIONS: &str = "
    SELECT count(*) FROM (SELECT DISTINCT ON (object_id) * FROM clerk.events ORDER BY object_id, id DESC) e
    LEFT JOIN accounts a ON a.clerk_id = e.object_id
    WHERE CASE e.type WHEN 'user.deleted' THEN a.clerk_id IS NOT NULL
          ELSE a.clerk_id IS NULL OR a.name IS DISTINCT FROM e.payload #>> '{data,first_name}' END";

/// An application that reads at each notification.
struct Reader {
    client: Client,
    notifications: UnboundedReceiver<String>,
}

impl Reader {
    async fn new(app: &AppTable) -> Self {
        let (client, notifications) = listen(&app.fixture.db.url, "clerk_events").await;
        Self { client, notifications }
    }

    /// Reads at each notification until there are this many events, and asserts that the table never
    /// contradicts them.
    async fn read(&mut self, events: i64, daemon: &Process) {
        let mut last = 0;
        while last < events {
            let notified = tokio::time::timeout(PATIENCE, self.notifications.recv()).await;
            let notified = notified.unwrap_or_else(|_| panic!("{last} of {events} events: {}", daemon.log()));
            let contradictions: i64 = self.client.query_one(CONTRADICTIONS, &[]).await.unwrap().get(0);
            assert_eq!(contradictions, 0, "after the event {notified:?}: {}", daemon.log());
            let count = "SELECT count(*) FROM clerk.events";
            last = self.client.query_one(count, &[]).await.unwrap().get(0);
        }
    }
}

/// Starts a daemon whose first full sync is over.
async fn start(users: usize) -> (AppTable, Process) {
    let app = AppTable::new(users, TABLE, MAPPING).await;
    app.once().await.assert_exit(Exit::Ok);
    app.fixture.age_rows().await;
    let daemon = app.start_daemon(&[NEVER, EVERY_SECOND]);
    eventually("a second full sync", async || {
        daemon.count_in_log("full sync outcome") > 0
    })
    .await;
    (app, daemon)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_row_is_there_at_each_notification() {
    let (app, daemon) = start(60).await;
    let mut reader = Reader::new(&app).await;
    let ids = app.fixture.sim.user_ids();
    let mut events = 0;
    for round in 0..5 {
        for (at, id) in ids[..40].iter().enumerate().filter(|(at, _)| at % 5 == round) {
            app.fixture.rename(id, &format!("round {round} {at}"));
            events += 1;
        }
        app.fixture.sim.create_random();
        assert!(app.fixture.sim.delete(&ids[40 + round]));
        events += 2;
        // Some come by the schedule, and some are asked for.
        let created = app.fixture.sim.create_random();
        app.fixture.db.execute(&format!("NOTIFY clerk2pg, '{created}'")).await;
        events += 1;
        reader.read(events, &daemon).await;
    }
    assert_eq!(app.fixture.last_event().await, events);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_row_is_written_before_the_event() {
    let (app, daemon) = start(20).await;
    // A trigger of the application reads within the transaction.
    let trigger = "
        CREATE TABLE seen (type text, name text, was_there boolean);
        CREATE FUNCTION note_event() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                INSERT INTO seen SELECT NEW.type, NEW.payload #>> '{data,first_name}', EXISTS (
                    SELECT FROM accounts WHERE clerk_id = NEW.object_id
                        AND (NEW.type = 'user.deleted' OR name IS NOT DISTINCT FROM NEW.payload #>> '{data,first_name}'));
                RETURN NULL;
            END $$;
        CREATE TRIGGER note_event AFTER INSERT ON clerk.events FOR EACH ROW EXECUTE FUNCTION note_event()";
    app.fixture.db.execute(trigger).await;
    let ids = app.fixture.sim.user_ids();
    app.fixture.rename(&ids[0], "Changed");
    app.fixture.sim.create_random();
    assert!(app.fixture.sim.delete(&ids[1]));
    let seen = "SELECT string_agg(concat_ws(' ', type, was_there), ', ' ORDER BY type) FROM seen";
    let expected = "user.created t, user.deleted f, user.updated t";
    eventually("three events", async || {
        app.fixture.db.number("SELECT count(*) FROM seen").await == 3
    })
    .await;
    assert_eq!(
        app.fixture.db.text(seen).await.as_deref(),
        Some(expected),
        "{}",
        daemon.log()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_row_is_there_at_each_event_of_the_first_import() {
    let app = AppTable::new(300, TABLE, MAPPING).await;
    app.fixture.sim.set_faults(slow_pages(50, 0));
    let mut reader = Reader::new(&app).await;
    let daemon = app.start_daemon(&[NEVER, INITIAL]);
    reader.read(300, &daemon).await;
    app.fixture.syncs(1).await;
    assert_eq!(app.fixture.db.number(CONTRADICTIONS).await, 0);
}
