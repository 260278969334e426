//! Random histories at Clerk, with incremental syncs at random moments: in the end the mirror
//! equals Clerk, and so do the events.

use std::collections::BTreeMap;

use fastrand::Rng;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{
    compare::comparable,
    fixture::Fixture,
    process::{NEVER, Process},
    wait::eventually,
};

/// Syncs run only on request.
const BY_HAND: [(&str, &str); 4] = [
    NEVER,
    ("CLERK2PG_SCHEDULE__INCREMENTAL", ""),
    ("CLERK2PG_EVENTS__INITIAL", "true"),
    // Small instances lose a large part of their users in a history.
    ("CLERK2PG_DELETES__MIN_COUNT", "100000"),
];

/// Changes something at Clerk.
fn happen(fixture: &Fixture, dice: &mut Rng) {
    let ids = fixture.sim.user_ids();
    let user = dice.choice(&ids).cloned();
    match (dice.u32(0..100), user) {
        // Without any users at Clerk, deletions would be held.
        (0..25, _) | (_, None) => drop(fixture.sim.create_random()),
        (70.., Some(_)) if ids.len() == 1 => drop(fixture.sim.create_random()),
        (25..50, Some(id)) => {
            let plan = dice.u32(..);
            assert!(fixture.sim.update(&id, |user| user["public_metadata"] = plan.into()));
        }
        // A ban without a new `updated_at`: the update keeps the old one.
        (50..58, Some(id)) => ban(fixture, &id),
        (58..66, Some(id)) => import(fixture, dice, &id),
        (66..70, Some(id)) => {
            let created_at = dice.i64(1_500_000_000_000..1_750_000_000_000);
            assert!(fixture.sim.update(&id, |user| user["created_at"] = created_at.into()));
        }
        (70.., Some(id)) => assert!(fixture.sim.delete(&id)),
    }
}

fn ban(fixture: &Fixture, id: &str) {
    let mut document = fixture.sim.document(id).unwrap();
    document["banned"] = Value::from(document["banned"] != true);
    fixture.sim.insert(document);
}

/// Inserts a copy of a user with another id and a creation date of long ago.
fn import(fixture: &Fixture, dice: &mut Rng, id: &str) {
    let mut document = fixture.sim.document(id).unwrap();
    document["id"] = format!("user_imported{:016x}", dice.u64(..)).into();
    document["created_at"] = dice.i64(1_400_000_000_000..1_500_000_000_000).into();
    document["updated_at"] = now().into();
    fixture.sim.insert(document);
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_millis()).unwrap()
}

/// Returns Clerk's users without their bans.
fn at_clerk(fixture: &Fixture) -> BTreeMap<String, Value> {
    let document = |id: String| {
        let document = fixture.sim.document(&id)?;
        Some((id, without_bans(document)))
    };
    fixture.sim.user_ids().into_iter().filter_map(document).collect()
}

fn without_bans(mut document: Value) -> Value {
    document["banned"] = Value::Null;
    comparable(document)
}

/// Returns the users that the events add up to.
async fn replayed_events(fixture: &Fixture) -> BTreeMap<String, Value> {
    let sql = "SELECT type, user_id, (payload->'data')::text FROM clerk.user_events ORDER BY id";
    let mut users = BTreeMap::<String, Value>::new();
    for row in fixture.db.client.query(sql, &[]).await.unwrap() {
        let (kind, id, data): (String, String, String) = (row.get(0), row.get(1), row.get(2));
        let data = comparable(serde_json::from_str(&data).unwrap());
        let before = match kind.as_str() {
            "user.deleted" => (users.remove(&id).is_some(), true),
            "user.created" => (users.insert(id.clone(), data).is_some(), false),
            _ => (users.insert(id.clone(), data).is_some(), true),
        };
        assert_eq!(
            before.0, before.1,
            "{kind} of {id}: whether there was such a user before"
        );
    }
    users
}

async fn sync(fixture: &Fixture, daemon: &Process, dice: &mut Rng) {
    match dice.u32(0..4) {
        0 => daemon.signal(Signal::USR1),
        1 if fixture.sim.count() > 0 => {
            let ids = fixture.sim.user_ids();
            let id = dice.choice(&ids).cloned().unwrap();
            fixture.db.execute(&format!("NOTIFY clerk2pg, '{id}'")).await;
        }
        _ => fixture.db.execute("NOTIFY clerk2pg, 'sync'").await,
    }
    // Sometimes the sync is over before the next change, and sometimes it is running.
    tokio::time::sleep(std::time::Duration::from_millis(dice.u64(0..120))).await;
}

async fn check(seed: u64, users: usize, changes: usize) {
    let mut dice = Rng::with_seed(seed);
    let fixture = Fixture::new(users).await;
    let daemon = fixture.start_daemon(&BY_HAND);
    fixture.syncs(1).await;
    for _ in 0..changes {
        happen(&fixture, &mut dice);
        if dice.u32(0..5) == 0 {
            sync(&fixture, &daemon, &mut dice).await;
        }
    }
    // Incremental syncs alone see everything but bans.
    eventually(&format!("in sync, bans aside, with seed {seed}"), async || {
        fixture.db.execute("NOTIFY clerk2pg, 'sync'").await;
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        let mirror = fixture.db.documents().await.into_iter();
        mirror
            .map(|(id, user)| (id, without_bans(user)))
            .collect::<BTreeMap<_, _>>()
            == at_clerk(&fixture)
    })
    .await;
    let syncs = fixture.runs("kind = 'full' AND ended_at IS NOT NULL").await;
    fixture.db.execute("NOTIFY clerk2pg, 'full'").await;
    eventually("a full sync", async || {
        fixture.runs("kind = 'full' AND ended_at IS NOT NULL").await > syncs
    })
    .await;
    fixture.assert_in_sync().await;
    let mirror = fixture.db.documents().await.into_iter();
    let mirror: BTreeMap<_, _> = mirror.map(|(id, user)| (id, comparable(user))).collect();
    assert_eq!(replayed_events(&fixture).await, mirror, "seed {seed}");
    let kept = fixture
        .db
        .number("SELECT objects FROM clerk.resource_state WHERE resource = 'users'")
        .await;
    assert_eq!(kept, fixture.users().await, "seed {seed}: the number that is kept");
    let ran = daemon.stop(Signal::TERM).await;
    assert_eq!(ran.code, Some(0), "seed {seed}: {ran:#?}");
    assert!(!ran.stderr.contains("ERROR"), "seed {seed}: {ran:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn histories_of_few_users_end_in_sync() {
    for seed in 1..=4 {
        check(seed, 30, 120).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn histories_that_begin_without_users_end_in_sync() {
    for seed in 5..=7 {
        check(seed, 0, 80).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn histories_of_more_users_than_a_page_end_in_sync() {
    for seed in 8..=9 {
        check(seed, 1500, 150).await;
    }
}
