//! What readers of `clerk.user_events` rely on: notifications, the order of ids, retention, and
//! that events add up to the mirror.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use clerk_sim::Quirks;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{
    database::connect,
    events::{INITIAL, MARK, listen},
    fixture::{Fixture, mirrored},
    process::NEVER,
    summary::{Exit, changed, in_sync},
    wait::{PATIENCE, eventually},
};

/// No limits: no deletion is held.
const UNLIMITED: [(&str, &str); 2] = [
    ("CLERK2PG_DELETES__MAX_PERCENT", "100"),
    ("CLERK2PG_DELETES__MAX_COUNT", "1000000"),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_transaction_notifies_once_of_its_last_event() {
    let fixture = mirrored(60).await;
    fixture.sim.set_faults(Quirks {
        max_page: Some(7),
        ..Quirks::default()
    });
    let (client, mut notifications) = listen(&fixture.db.url, "clerk_user_events").await;
    let watching = tokio::spawn(async move {
        let mut notified = Vec::new();
        loop {
            let payload = tokio::time::timeout(PATIENCE, notifications.recv())
                .await
                .unwrap()
                .unwrap();
            if payload == "the end" {
                return notified;
            }
            let id: i64 = payload.parse().unwrap();
            // The event is visible at once, and is the last of its transaction.
            let sql = "SELECT max(id) FROM clerk.events WHERE xmin = (SELECT xmin FROM clerk.events WHERE id = $1)";
            let last: Option<i64> = client.query_one(sql, &[&id]).await.unwrap().get(0);
            assert_eq!(last, Some(id));
            notified.push(id);
        }
    });

    let ids = fixture.sim.user_ids();
    for at in [0, 1, 2, 20, 21, 40, 55] {
        fixture.rename(&ids[at], "Changed");
    }
    for at in [10, 30, 50] {
        assert!(fixture.sim.delete(&ids[at]));
    }
    fixture.sim.create_random();
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().created(1).updated(7).deleted(3).unchanged(50));
    fixture.once().await.assert(Exit::Ok, in_sync().unchanged(58));
    fixture.db.execute("NOTIFY clerk_user_events, 'the end'").await;

    let notified = watching.await.unwrap();
    let lasts = "SELECT max(id) FROM clerk.events GROUP BY xmin ORDER BY 1";
    let rows = fixture.db.client.query(lasts, &[]).await.unwrap();
    assert_eq!(notified, rows.iter().map(|row| row.get(0)).collect::<Vec<i64>>());
    // One transaction for each page with changes, and one for the deletions.
    assert!(notified.len() >= 5, "{notified:?}");
    assert_eq!(fixture.events(0).await.len(), 11);
}

/// Reads on from its position until notified that nothing more comes. Returns ids in the order of
/// reading.
async fn read(url: String, is_over: Arc<AtomicBool>) -> (Vec<i64>, usize) {
    let client = connect(&url).await;
    let statement = "SELECT id FROM clerk.user_events WHERE id > $1 ORDER BY id LIMIT 1000";
    let statement = client.prepare(statement).await.unwrap();
    let (mut ids, mut batches) = (Vec::<i64>::new(), 0);
    loop {
        let is_last = is_over.load(Ordering::Acquire);
        let rows = client
            .query(&statement, &[&ids.last().copied().unwrap_or(0)])
            .await
            .unwrap();
        ids.extend(rows.iter().map(|row| row.get::<_, i64>(0)));
        batches += usize::from(!rows.is_empty());
        if is_last && rows.is_empty() {
            return (ids, batches);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_follows_ids_misses_no_event() {
    let fixture = mirrored(300).await;
    fixture.sim.set_faults(Quirks {
        max_page: Some(40),
        ..Quirks::default()
    });
    let is_over = Arc::<AtomicBool>::default();
    let readers = [0, 1].map(|_| tokio::spawn(read(fixture.db.url.clone(), is_over.clone())));
    let daemon = fixture.start_daemon(&[&UNLIMITED[..], &[("CLERK2PG_SCHEDULE__INCREMENTAL", "* * * * * *")]].concat());
    fixture.sim.set_churn(Some(100.0));
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(5) {
        tokio::join!(fixture.once_with(&UNLIMITED), fixture.once_with(&UNLIMITED));
    }
    fixture.sim.set_churn(None);
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    let ran = fixture.once_with(&UNLIMITED).await;
    ran.assert_exit(Exit::Ok);
    fixture.assert_in_sync().await;
    is_over.store(true, Ordering::Release);

    let rows = fixture
        .db
        .client
        .query("SELECT id FROM clerk.user_events ORDER BY id", &[])
        .await
        .unwrap();
    let all: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    for reader in readers {
        let (ids, batches) = reader.await.unwrap();
        assert_eq!(ids, all);
        assert!(batches >= 5, "{batches} batches of {} events", all.len());
    }
    let writers = "SELECT count(DISTINCT holder) FROM clerk.sync_runs WHERE created + updated + deleted > 0";
    assert!(fixture.db.number(writers).await >= 3, "nobody competed");
    fixture.assert_one_at_a_time().await;
}

async fn remember(fixture: &Fixture, events: i64, age: &str) {
    fixture
        .db
        .execute(&format!(
            "INSERT INTO clerk.events (resource, type, object_id, occurred_at, payload, recorded_at)
             SELECT 'users', 'user.updated', 'user_' || n, now() - interval '{age}', '{{}}', now() - interval '{age}'
             FROM generate_series(1, {events}) AS n"
        ))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_sync_removes_old_events_and_no_others() {
    let fixture = mirrored(5).await;
    remember(&fixture, 2500, "31 days").await;
    remember(&fixture, 20, "29 days").await;
    remember(&fixture, 30, "90 minutes").await;
    remember(&fixture, 40, "50 minutes").await;
    let count = async || fixture.db.number("SELECT count(*) FROM clerk.user_events").await;
    fixture.once().await.assert(Exit::Ok, in_sync().unchanged(5));
    assert_eq!(count().await, 90);
    let hour = [("CLERK2PG_EVENTS__KEEP", "1h")];
    fixture.once_with(&hour).await.assert(Exit::Ok, in_sync().unchanged(5));
    assert_eq!(count().await, 40);
    fixture.once_with(&hour).await.assert(Exit::Ok, in_sync().unchanged(5));
    assert_eq!(count().await, 40);

    // Ids continue after the removed ones.
    let last = fixture.last_event().await;
    fixture.rename(&fixture.sim.user_ids()[2], "Changed");
    fixture.once().await.assert(Exit::Ok, changed().updated(1).unchanged(4));
    assert_eq!(fixture.events(last).await.len(), 1);
}

/// Values that change by themselves make no event, so a reader may have older ones.
fn settled(mut document: Value) -> Value {
    for field in ["lockout_expires_in_seconds", "verification_attempts_remaining"] {
        if let Some(value) = document.get_mut(field) {
            *value = Value::Null;
        }
    }
    document
}

/// Applies all events in order, asserts that each fits the state before it, and returns the users.
async fn replayed(fixture: &Fixture) -> BTreeMap<String, Value> {
    let mut users = BTreeMap::new();
    for event in fixture.events(0).await {
        let data = event.payload["data"].clone();
        assert_eq!(data["id"], event.user_id);
        let before = match event.kind.as_str() {
            "user.deleted" => users.remove(&event.user_id),
            _ => users.insert(event.user_id.clone(), settled(data)),
        };
        assert_eq!(before.is_none(), event.kind == "user.created", "{event:#?}");
    }
    users
}

/// Replays all events since an empty mirror, after full and incremental syncs while users change.
async fn check_replay(mode: &[(&str, &str)]) {
    let fixture = Fixture::new(120).await;
    fixture.sim.set_faults(Quirks {
        max_page: Some(25),
        ..Quirks::default()
    });
    let environment = [mode, &UNLIMITED, &[INITIAL]].concat();
    fixture.once_with(&environment).await.assert_exit(Exit::Ok);
    let removed: Vec<_> = (0..6)
        .map(|at| fixture.sim.document(&fixture.sim.user_ids()[at * 9]).unwrap())
        .collect();
    for document in &removed {
        assert!(fixture.sim.delete(document["id"].as_str().unwrap()));
    }
    for _ in 0..3 {
        for _ in 0..15 {
            fixture.sim.create_random();
            fixture.sim.update_random();
            fixture.sim.update_random();
            fixture.sim.delete_random();
        }
        fixture.once_with(&environment).await.assert_exit(Exit::Ok);
    }
    let polling = [
        &environment[..],
        &[NEVER, ("CLERK2PG_SCHEDULE__INCREMENTAL", "* * * * * *")],
    ]
    .concat();
    let daemon = fixture.start_daemon(&polling);
    fixture.sim.set_churn(Some(30.0));
    for document in removed {
        fixture.sim.insert(document);
    }
    let incremental = "kind = 'incremental' AND outcome = 'changed'";
    eventually("incremental syncs", async || fixture.runs(incremental).await >= 4).await;
    fixture.sim.set_churn(None);
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    fixture.once_with(&environment).await.assert_exit(Exit::Ok);
    fixture.assert_in_sync().await;

    let mirror: BTreeMap<_, _> = fixture
        .db
        .documents()
        .await
        .into_iter()
        .map(|(id, user)| (id, settled(user)))
        .collect();
    let replayed = replayed(&fixture).await;
    assert_eq!(replayed.keys().collect::<Vec<_>>(), mirror.keys().collect::<Vec<_>>());
    for (id, user) in &mirror {
        assert_eq!(replayed[id], *user, "{id}");
    }
    for kind in ["user.created", "user.updated", "user.deleted"] {
        let after_import = format!("SELECT count(*) FROM clerk.user_events WHERE type = '{kind}'");
        assert!(fixture.db.number(&after_import).await >= 20, "few of {kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_events_together_reproduce_the_mirror() {
    check_replay(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_events_together_reproduce_the_mirror_in_mark_mode() {
    check_replay(&[MARK]).await;
}
