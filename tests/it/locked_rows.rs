//! Locks of the application: a locked row is deferred, and no other user waits for it.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::support::{
    database::connect,
    fixture::{Fixture, mirrored, mirrored_ids},
    polling::PollingDaemon,
    summary::{Exit, changed, in_sync},
    wait::eventually,
};

/// Starts a transaction of the application that stays open.
async fn transaction(fixture: &Fixture, sql: &str) -> Client {
    let client = connect(&fixture.db.url).await;
    client.batch_execute(&format!("BEGIN; {sql}")).await.unwrap();
    client
}

fn lock(id: &str) -> String {
    format!("SELECT FROM clerk.users WHERE id = '{id}' FOR UPDATE")
}

async fn is_called(fixture: &Fixture, ids: &[String], name: &str) -> i64 {
    let rows = fixture
        .db
        .client
        .query(
            "SELECT FROM clerk.users WHERE id = ANY($1) AND first_name = $2",
            &[&ids, &name],
        )
        .await
        .unwrap();
    rows.len() as i64
}

fn rename(fixture: &Fixture, ids: &[String], name: &str) {
    for id in ids {
        assert!(fixture.sim.update(id, |user| user["first_name"] = name.into()));
    }
}

/// Returns the users whose rows are listed as locked.
async fn locked(fixture: &Fixture) -> Vec<String> {
    let sql = "SELECT user_id, reason FROM clerk.rejected_users WHERE sqlstate = '55P03' ORDER BY user_id";
    let rows = fixture.db.client.query(sql, &[]).await.unwrap();
    let reason = |row: &tokio_postgres::Row| row.get::<_, String>(1);
    assert!(
        rows.iter()
            .all(|row| reason(row).contains("the application has locked the row")),
        "{rows:?}"
    );
    rows.iter().map(|row| row.get(0)).collect()
}

/// Returns how long the syncs that changed these users took, by the database's clock.
async fn took(fixture: &Fixture, ids: &[String]) -> Duration {
    let sql = "SELECT extract(epoch FROM max(r.ended_at) - min(r.started_at))::float8 FROM clerk.sync_runs r
               WHERE EXISTS (SELECT FROM clerk.users u WHERE u.id = ANY($1) AND u.changed_at >= r.started_at
                   AND u.changed_at <= r.ended_at) AND r.kind <> 'full'";
    let row = fixture.db.client.query_one(sql, &[&ids]).await.unwrap();
    Duration::from_secs_f64(row.get(0))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_row_delays_no_other_user() {
    let polling = PollingDaemon::new(80, &[]).await;
    let fixture = &polling.fixture;
    let ids = fixture.sim.user_ids();
    let application = transaction(fixture, &lock(&ids[7])).await;
    let (all, others) = (&ids[0..51], [&ids[..7], &ids[8..51]].concat());
    rename(fixture, all, "Changed");
    eventually("the others are in", async || {
        is_called(fixture, &others, "Changed").await == 50
    })
    .await;
    eventually("their sync is over", async || {
        fixture.runs("ended_at IS NULL").await == 0
    })
    .await;
    let took = took(fixture, &others).await;
    assert!(took < Duration::from_secs(5), "{took:?}: {}", polling.daemon.log());
    eventually("the locked one is listed", async || {
        locked(fixture).await == [ids[7].clone()]
    })
    .await;
    assert_eq!(is_called(fixture, all, "Changed").await, 50);

    // This stays as long as the lock, and others continue.
    rename(fixture, &others, "Again");
    eventually("the others are in", async || {
        is_called(fixture, &others, "Again").await == 50
    })
    .await;
    polling.sync_incrementally(3).await;
    assert_eq!(locked(fixture).await, [ids[7].clone()]);
    application.batch_execute("ROLLBACK").await.unwrap();
    eventually("the locked one is in", async || {
        is_called(fixture, all, "Changed").await == 1 && locked(fixture).await.is_empty()
    })
    .await;
    polling.stop_in_sync(1).await;
}

/// Changes both users of each pair, and returns the shortest time until the first one's change is
/// mirrored.
async fn least_wait(fixture: &Fixture, pairs: impl Iterator<Item = (&String, &String)>) -> Duration {
    let mut least = Duration::MAX;
    for (n, (one, other)) in pairs.enumerate() {
        let name = format!("Changed {n}");
        let changed = Instant::now();
        rename(fixture, &[one.clone(), other.clone()], &name);
        let one = [one.clone()];
        eventually("the change", async || is_called(fixture, &one, &name).await == 1).await;
        least = least.min(changed.elapsed());
    }
    least
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_row_costs_others_a_second_at_most() {
    let polling = PollingDaemon::new(80, &[]).await;
    let fixture = &polling.fixture;
    let ids = fixture.sim.user_ids();
    let free = least_wait(fixture, ids[..6].iter().zip(&ids[10..16])).await;
    let held = ids[20..26].join("', '");
    let lock = format!("SELECT FROM clerk.users WHERE id IN ('{held}') FOR UPDATE");
    let application = transaction(fixture, &lock).await;
    let locked = least_wait(fixture, ids[..6].iter().zip(&ids[20..26])).await;
    assert!(
        locked <= free + Duration::from_secs(1),
        "{locked:?} in place of {free:?}: {}",
        polling.daemon.log()
    );
    application.batch_execute("ROLLBACK").await.unwrap();
    polling.stop_in_sync(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_run_lists_locked_rows() {
    let fixture = mirrored(20).await;
    let ids = fixture.sim.user_ids();
    rename(&fixture, &ids[..5], "Changed");
    let application = transaction(&fixture, &lock(&ids[2])).await;
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().updated(4).unchanged(15).rejected(1));
    assert_eq!(locked(&fixture).await, [ids[2].clone()]);
    application.batch_execute("COMMIT").await.unwrap();
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().updated(1).unchanged(19));
    fixture.assert_in_sync().await;
}

/// The application counts changes in its own table, with a trigger that updates the user's row
/// there.
async fn count_changes(fixture: &Fixture, when: &str, id: &str) {
    let sql = format!(
        "CREATE TABLE profiles AS SELECT id, 0 AS changes FROM clerk.users;
         CREATE FUNCTION count_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             UPDATE public.profiles p SET changes = changes + 1 WHERE p.id = NEW.{id}; RETURN NEW; END $$;
         CREATE TRIGGER count_change {when} FOR EACH ROW EXECUTE FUNCTION count_change()"
    );
    fixture.db.execute(&sql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_taken_by_triggers_delay_no_other_user() {
    let fixture = mirrored(60).await;
    let ids = fixture.sim.user_ids();
    count_changes(&fixture, "AFTER UPDATE ON clerk.users", "id").await;
    let sql = format!(
        "SELECT FROM profiles WHERE id IN ('{}') FOR UPDATE",
        ids[10..20].join("', '")
    );
    let application = transaction(&fixture, &sql).await;
    rename(&fixture, &ids[..50], "Changed");
    let begun = Instant::now();
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().updated(40).unchanged(10).rejected(10));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let mut expected = ids[10..20].to_vec();
    expected.sort();
    assert_eq!(locked(&fixture).await, expected);
    application.batch_execute("ROLLBACK").await.unwrap();
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().updated(10).unchanged(50));
    fixture.assert_in_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_taken_by_triggers_on_events_delay_no_other_user() {
    let fixture = mirrored(60).await;
    let ids = fixture.sim.user_ids();
    count_changes(&fixture, "AFTER INSERT ON clerk.events", "object_id").await;
    let sql = format!(
        "SELECT FROM profiles WHERE id IN ('{}') FOR UPDATE",
        ids[10..13].join("', '")
    );
    let application = transaction(&fixture, &sql).await;
    rename(&fixture, &ids[..30], "Changed");
    assert!(fixture.sim.delete(&ids[12]) && fixture.sim.delete(&ids[40]));
    let begun = Instant::now();
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().updated(27).deleted(1).unchanged(29).rejected(3));
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    let mut expected = ids[10..13].to_vec();
    expected.sort();
    assert_eq!(locked(&fixture).await, expected);
    application.batch_execute("ROLLBACK").await.unwrap();
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().updated(2).deleted(1).unchanged(56));
    fixture.assert_in_sync().await;
}

/// Deletes users that uncommitted rows of the application reference.
async fn check_references(references: &str) {
    let polling = PollingDaemon::new(
        40,
        &[
            ("CLERK2PG_DELETES__MAX_COUNT", "100"),
            ("CLERK2PG_DELETES__MAX_PERCENT", "100"),
        ],
    )
    .await;
    let fixture = &polling.fixture;
    fixture
        .db
        .execute(&format!(
            "CREATE TABLE orders (user_id text REFERENCES clerk.users {references})"
        ))
        .await;
    let ids = fixture.sim.user_ids();
    let (gone, ordering) = (&ids[4..16], &ids[6..10]);
    let values = ordering
        .iter()
        .map(|id| format!("('{id}')"))
        .collect::<Vec<_>>()
        .join(", ");
    let application = transaction(fixture, &format!("INSERT INTO orders VALUES {values}")).await;
    gone.iter().for_each(|id| assert!(fixture.sim.delete(id)));
    let mut expected = ordering.to_vec();
    expected.sort();
    eventually("the others are gone", async || mirrored_ids(fixture).await.len() == 32).await;
    eventually("the four are listed", async || locked(fixture).await == expected).await;
    let longest =
        "SELECT max(extract(epoch FROM ended_at - started_at))::text FROM clerk.sync_runs WHERE kind <> 'full'";
    polling.sync_incrementally(2).await;
    let longest: f64 = fixture.db.text(longest).await.unwrap().parse().unwrap();
    assert!(longest < 25.0, "{longest} s: {}", polling.daemon.log());
    assert_eq!(locked(fixture).await, expected);
    let held = "SELECT count(*) FROM clerk.missing_users WHERE held_at IS NOT NULL";
    assert_eq!(fixture.db.number(held).await, 0);
    application.batch_execute("ROLLBACK").await.unwrap();
    eventually("the four are gone", async || mirrored_ids(fixture).await.len() == 28).await;
    eventually("nobody is listed", async || locked(fixture).await.is_empty()).await;
    polling.stop_in_sync(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deletions_wait_for_uncommitted_references_one_by_one() {
    check_references("").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deletions_wait_for_uncommitted_references_that_would_cascade() {
    check_references("ON DELETE CASCADE").await;
}

/// Deferred deletions are judged together with all others after the lock: locks do not add up to a
/// mass deletion.
#[tokio::test(flavor = "multi_thread")]
async fn deferred_deletions_are_judged_with_the_next_ones() {
    let fixture = mirrored(100).await;
    let limits = [
        ("CLERK2PG_DELETES__MAX_COUNT", "5"),
        ("CLERK2PG_DELETES__MIN_COUNT", "1"),
    ];
    let ids = fixture.sim.user_ids();
    let lock_all = format!(
        "SELECT FROM clerk.users WHERE id IN ('{}') FOR UPDATE",
        ids[..10].join("', '")
    );
    let application = transaction(&fixture, &lock_all).await;
    ids[..4].iter().for_each(|id| assert!(fixture.sim.delete(id)));
    fixture
        .once_with(&limits)
        .await
        .assert(Exit::Ok, in_sync().unchanged(96).rejected(4));
    ids[4..8].iter().for_each(|id| assert!(fixture.sim.delete(id)));
    let ran = fixture.once_with(&limits).await;
    assert_eq!((ran.code, &ran.json()["held"]), (Some(3), &8.into()), "{ran:#?}");
    application.batch_execute("ROLLBACK").await.unwrap();
    let ran = fixture.once_with(&limits).await;
    assert_eq!((ran.code, &ran.json()["held"]), (Some(3), &8.into()), "{ran:#?}");
    assert_eq!(mirrored_ids(&fixture).await.len(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_table_rejects_no_row() {
    let polling = PollingDaemon::new(20, &[]).await;
    let fixture = &polling.fixture;
    let ids = fixture.sim.user_ids();
    let application = transaction(fixture, "LOCK TABLE clerk.users IN SHARE MODE").await;
    rename(fixture, &ids[..5], "Changed");
    // After half a minute, the sync fails as in an outage.
    eventually("a failed sync", async || fixture.runs("outcome = 'failed'").await == 1).await;
    let error = fixture
        .db
        .text("SELECT error FROM clerk.sync_runs WHERE outcome = 'failed'")
        .await
        .unwrap();
    assert!(error.contains("locked"), "{error}");
    assert_eq!(fixture.db.number("SELECT count(*) FROM clerk.rejected_users").await, 0);
    application.batch_execute("ROLLBACK").await.unwrap();
    eventually("all are in", async || {
        is_called(fixture, &ids[..5], "Changed").await == 5
    })
    .await;
    assert_eq!(fixture.db.number("SELECT count(*) FROM clerk.rejected_users").await, 0);
    let (fixture, ran) = polling.stop().await;
    fixture.assert_in_sync().await;
    ran.assert_exit(Exit::Ok);
}

/// A trigger of the application cancels a deletion, and the row stays.
async fn check_kept(trigger: &str, mode: &str) {
    let fixture = mirrored(30).await;
    fixture.db.execute(trigger).await;
    let environment = [("CLERK2PG_DELETES__MODE", mode)];
    let ids = fixture.sim.user_ids();
    fixture
        .db
        .execute(&format!(
            "UPDATE clerk.users SET username = 'kept' WHERE id = '{}'",
            ids[3]
        ))
        .await;
    ids[2..5].iter().for_each(|id| assert!(fixture.sim.delete(id)));
    fixture
        .once_with(&environment)
        .await
        .assert(Exit::Ok, changed().deleted(2).unchanged(27).rejected(1));
    let listed = "SELECT user_id || ': ' || reason FROM clerk.rejected_users";
    let reason = "gone from Clerk, but a trigger of the application keeps the row";
    assert_eq!(fixture.db.text(listed).await.unwrap(), format!("{}: {reason}", ids[3]));
    let events = "SELECT count(*) FROM clerk.user_events WHERE type = 'user.deleted'";
    assert_eq!(fixture.db.number(events).await, 2);
    fixture
        .once_with(&environment)
        .await
        .assert(Exit::Ok, in_sync().unchanged(27).rejected(1));
    fixture.db.execute("DROP FUNCTION keep CASCADE").await;
    fixture
        .once_with(&environment)
        .await
        .assert(Exit::Ok, changed().deleted(1).unchanged(27));
    fixture.assert_in_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_that_cancels_the_deletion_is_reported() {
    check_kept(
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF OLD.username = 'kept' THEN RETURN NULL; END IF; RETURN OLD; END $$;
         CREATE TRIGGER keep BEFORE DELETE ON clerk.users FOR EACH ROW EXECUTE FUNCTION keep()",
        "delete",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_that_removes_the_mark_is_reported() {
    check_kept(
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF OLD.username = 'kept' THEN NEW.deleted_at := NULL; END IF; RETURN NEW; END $$;
         CREATE TRIGGER keep BEFORE UPDATE ON clerk.users FOR EACH ROW EXECUTE FUNCTION keep()",
        "mark",
    )
    .await;
}
