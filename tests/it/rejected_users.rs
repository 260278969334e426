//! One user that cannot be stored is listed with its reason, and all others are mirrored.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{SystemTime, UNIX_EPOCH},
};

use clerk_sim::Unstorable;
use serde_json::{Value, json};

use crate::support::{
    fixture::{Fixture, mirrored, mirrored_ids},
    summary::{Exit, changed, in_sync, incomplete},
};

/// Returns the rejected users and their reasons.
async fn rejected(fixture: &Fixture) -> BTreeMap<String, String> {
    let rows = fixture
        .db
        .client
        .query("SELECT user_id, reason FROM clerk.rejected_users", &[])
        .await
        .unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Later than every generated user's `created_at`.
const LATER: i64 = 1_790_000_000_000;

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// Inserts a user as these bytes. They should contain the same time, as a list out of order proves
/// nothing.
fn put(fixture: &Fixture, id: &str, created_at: i64, bytes: impl Into<Vec<u8>>) {
    fixture.sim.insert_raw(id, created_at, created_at, bytes.into());
}

/// Returns a plain user with these fields.
fn user(id: &str, fields: Value) -> Value {
    let mut user = json!({"id": id, "object": "user", "created_at": LATER, "updated_at": LATER});
    for (key, value) in fields.as_object().unwrap() {
        user[key] = value.clone();
    }
    user
}

/// Returns a text that the reason must contain.
fn reason(kind: Unstorable) -> &'static str {
    match kind {
        Unstorable::ManyKeys => "more than 1000 keys",
        Unstorable::Huge => "too large",
        Unstorable::CreatedAtAsWord | Unstorable::LoneSurrogate => "created_at: expected a time, found a string",
        Unstorable::CreatedAtTooLate => "created_at: the time is out of range",
        Unstorable::CreatedAtMissing => "created_at is missing",
        Unstorable::CreatedAtAsList => "created_at: expected a time, found a list",
        Unstorable::InvalidUtf8 => "not valid UTF-8",
        Unstorable::NotAnObject => "not a JSON object",
    }
}

/// Returns the name under which a user is listed. A document without an id is listed by its digest.
async fn listed(fixture: &Fixture, id: &str, kind: Unstorable) -> Option<String> {
    let id = id.to_owned();
    rejected(fixture)
        .await
        .into_iter()
        .find(|(name, _)| {
            if kind == Unstorable::NotAnObject {
                name.starts_with("(no id")
            } else {
                *name == id
            }
        })
        .map(|(_, reason)| reason)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_cannot_be_stored_is_listed_and_all_others_are_mirrored() {
    let fixture = Fixture::new(20).await;
    let good: BTreeSet<String> = fixture.sim.user_ids().into_iter().collect();
    let bad: Vec<_> = Unstorable::ALL
        .map(|kind| (kind, fixture.sim.insert_unstorable(kind)))
        .into();
    fixture.once().await.assert(Exit::Ok, changed().created(20).rejected(9));
    assert_eq!(mirrored_ids(&fixture).await, good);
    for (kind, id) in &bad {
        let why = listed(&fixture, id, *kind)
            .await
            .unwrap_or_else(|| panic!("{kind:?} is not listed"));
        assert!(why.contains(reason(*kind)), "{kind:?}: {why}");
    }
    let longest = "SELECT max(octet_length(document)) FROM clerk.rejected_users";
    assert!(
        fixture.db.number(longest).await <= 64 << 10,
        "five megabytes were kept of the largest"
    );
    assert_eq!(
        fixture
            .db
            .number("SELECT count(document) FROM clerk.rejected_users")
            .await,
        9
    );

    // `status` shows them.
    let status = fixture.run(&["status"]).await.stdout;
    assert!(
        bad.iter()
            .filter(|(kind, _)| *kind != Unstorable::NotAnObject)
            .all(|(_, id)| status.contains(id)),
        "{status}"
    );
    let plan = fixture.run(&["--dry-run"]).await.stdout;
    assert!(
        plan.contains("9 users cannot be stored or deleted.") && plan.contains(&format!("! {}", bad[0].1)),
        "{plan}"
    );

    // Nothing changes about them.
    let versions = fixture.db.versions().await;
    let first_seen = "SELECT string_agg(first_seen_at::text, ',' ORDER BY user_id) FROM clerk.rejected_users";
    let seen = fixture.db.text(first_seen).await;
    fixture
        .once()
        .await
        .assert(Exit::Ok, in_sync().unchanged(20).rejected(9));
    assert_eq!(
        (fixture.db.versions().await, fixture.db.text(first_seen).await),
        (versions, seen)
    );

    // Half of them are corrected at Clerk, half are deleted.
    let (corrected, gone) = bad.split_at(5);
    for (_, id) in corrected {
        fixture.sim.insert(user(id, json!({"first_name": "Mended"})));
    }
    for (_, id) in gone {
        fixture.sim.delete(id);
    }
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().created(5).unchanged(20));
    assert_eq!(rejected(&fixture).await, BTreeMap::new());
    fixture.assert_in_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_user_keeps_its_earlier_row() {
    let fixture = mirrored(20).await;
    let ids = fixture.sim.user_ids();
    let before = fixture.db.documents().await;
    for (kind, id) in Unstorable::ALL.into_iter().zip(&ids) {
        // The same error in the document of a mirrored user.
        let donor = fixture.sim.insert_unstorable(kind);
        let (from, to) = (donor.as_bytes(), id.as_bytes());
        let mut bytes = fixture.sim.raw(&donor).unwrap();
        fixture.sim.delete(&donor);
        while let Some(at) = bytes.windows(from.len()).position(|part| part == from) {
            bytes.splice(at..at + from.len(), to.iter().copied());
        }
        put(&fixture, id, now(), bytes);
        let ran = fixture.once().await;
        // A document without an id leaves open which user it is, so the sync is incomplete.
        let code = i32::from(kind == Unstorable::NotAnObject);
        assert_eq!(
            (ran.code, &ran.json()["rejected"]),
            (Some(code), &1.into()),
            "{kind:?}: {ran:#?}"
        );
        let why = listed(&fixture, id, kind)
            .await
            .unwrap_or_else(|| panic!("{kind:?} is not listed"));
        assert!(why.contains(reason(kind)), "{kind:?}: {why}");
        assert_eq!(fixture.db.documents().await, before, "{kind:?}");
        fixture.sim.insert(before[id].clone());
        fixture.once().await.assert(Exit::Ok, in_sync().unchanged(20));
        assert_eq!(rejected(&fixture).await, BTreeMap::new(), "{kind:?}");
    }
    // A user that is deleted while rejected is removed.
    put(
        &fixture,
        &ids[4],
        LATER,
        user(&ids[4], json!({"created_at": "soon"})).to_string(),
    );
    assert_eq!(fixture.once().await.json()["rejected"], 1);
    fixture.sim.delete(&ids[4]);
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().deleted(1).unchanged(19));
    assert_eq!(rejected(&fixture).await, BTreeMap::new());
    fixture.assert_in_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_a_usable_id_is_listed_by_its_digest() {
    let fixture = Fixture::new(5).await;
    let ids = ["7", "null", r#""""#, r#""user_\u0000""#, "{}"];
    for (n, id) in ids.iter().enumerate() {
        put(
            &fixture,
            &format!("user_place{n}"),
            LATER,
            format!(r#"{{"id":{id},"created_at":{LATER}}}"#),
        );
    }
    fixture.once().await.assert(Exit::Ok, changed().created(5).rejected(5));
    let names = rejected(&fixture).await;
    assert_eq!(names.len(), ids.len());
    assert!(
        names.keys().all(|name| name.starts_with("(no id, digest ")),
        "{names:#?}"
    );
}

/// Breaks the JSON of these users, so that every page with one of them is unreadable.
async fn check_unreadable(positions: &[usize]) {
    let patience = [("CLERK2PG_CLERK__TIMEOUT", "1s")];
    let fixture = mirrored(60).await;
    let ids = fixture.sim.user_ids();
    let documents: Vec<Value> = positions
        .iter()
        .map(|&at| fixture.sim.document(&ids[at]).unwrap())
        .collect();
    for document in &documents {
        let bytes = document.to_string();
        let created_at = document["created_at"].as_i64().unwrap();
        let half = bytes.as_bytes()[..bytes.len() / 2].to_vec();
        fixture
            .sim
            .insert_raw(document["id"].as_str().unwrap(), created_at, created_at, half);
    }
    let changed = &ids[40];
    fixture
        .sim
        .update(changed, |user| user["first_name"] = "Changed".into());
    let new = fixture.sim.create_random();
    // Clerk counts whole seconds: a user of this second may be counted or not.
    fixture.sim.update(&new, |user| {
        let created_at = user["created_at"].as_i64().unwrap();
        user["created_at"] = (created_at - 3_600_000).into();
    });

    let ran = fixture.once_with(&patience).await;
    let left = 59 - positions.len();
    ran.assert(Exit::Failed, incomplete().created(1).updated(1).unchanged(left));
    let mirror = fixture.db.documents().await;
    assert_eq!(
        (mirror.len(), &mirror[changed]["first_name"]),
        (61, &"Changed".into()),
        "{positions:?}"
    );
    assert!(mirror.contains_key(&new));
    let error = fixture
        .db
        .text("SELECT error FROM clerk.sync_runs ORDER BY id DESC LIMIT 1")
        .await
        .unwrap();
    let met = 61 - positions.len();
    let note = format!("the walk met {met} users, but Clerk counts 61");
    assert!(
        error.contains("users could not be read") && error.contains(&note),
        "{error}"
    );

    for document in documents {
        fixture.sim.insert(document);
    }
    fixture.once().await.assert(Exit::Ok, in_sync().unchanged(61));
    fixture.assert_in_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_page_costs_one_user() {
    check_unreadable(&[30]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unreadable_pages_cost_one_user_each() {
    check_unreadable(&[0, 20, 21, 59]).await;
}
