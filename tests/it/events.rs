//! `clerk.user_events`: one event for each change, in the form of Clerk's webhooks.

use clerk_sim::Options;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    compare::normal,
    event_schemas::assert_as_specified,
    events::{Event, INITIAL},
    faults::slow_pages,
    fixture::{Fixture, mirrored},
    process::NEVER,
    summary::{Exit, changed, in_sync},
    wait::eventually,
};

fn of<'e>(events: &'e [Event], user: &str) -> &'e Event {
    let mut of = events.iter().filter(|event| event.user_id == user);
    let event = of.next().unwrap_or_else(|| panic!("no event of {user}: {events:#?}"));
    assert!(of.next().is_none(), "two events of {user}: {events:#?}");
    event
}

/// Asserts that an event's payload is exactly this envelope around `data`.
#[track_caller]
fn assert_envelope(fixture: &Fixture, event: &Event, kind: &str, data: Value) {
    let envelope = json!({"data": normal(data), "object": "event", "type": kind, "timestamp": event.occurred_at,
        "instance_id": fixture.sim.instance_id()});
    assert_eq!(normal(event.payload.clone()), envelope);
    assert_eq!(event.kind, kind);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_of_a_user_makes_one_event() {
    let fixture = Fixture::new(12).await;
    let ids = fixture.sim.user_ids();
    let [updated, banned, known_elsewhere, gone] = [&ids[1], &ids[2], &ids[3], &ids[4]];
    for (id, external_id) in [(known_elsewhere, json!("crm-7")), (gone, Value::Null)] {
        assert!(fixture.sim.update(id, |user| user["external_id"] = external_id));
    }
    fixture.once().await.assert(Exit::Ok, changed().created(12));

    let created = fixture.sim.create_random();
    assert!(fixture.sim.update(updated, |user| {
        user["first_name"] = "Changed".into();
        user["public_metadata"] = json!({"plan": "changed"});
    }));
    // Without a new `updated_at`.
    let mut document = fixture.sim.document(banned).unwrap();
    document["banned"] = true.into();
    fixture.sim.insert(document);
    assert!(fixture.sim.delete(known_elsewhere) && fixture.sim.delete(gone));
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().created(1).updated(2).deleted(2).unchanged(8));

    let events = fixture.events(0).await;
    assert_eq!(events.len(), 5, "{events:#?}");
    for (id, kind, changed) in [
        (&created, "user.created", [].as_slice()),
        (
            updated,
            "user.updated",
            &["first_name", "public_metadata", "updated_at"],
        ),
        (banned, "user.updated", &["banned"]),
    ] {
        let (event, document) = (of(&events, id), fixture.sim.document(id).unwrap());
        assert_eq!(event.changed, changed, "{kind}");
        let moved = id != banned;
        assert_eq!(event.is_now, !moved, "{kind}");
        if moved {
            assert_eq!(event.occurred_at, document["updated_at"].as_i64().unwrap(), "{kind}");
        }
        assert_envelope(&fixture, event, kind, document);
    }
    for (id, data) in [
        (
            known_elsewhere,
            json!({"id": known_elsewhere, "object": "user", "deleted": true, "external_id": "crm-7"}),
        ),
        (gone, json!({"id": gone, "object": "user", "deleted": true})),
    ] {
        let event = of(&events, id);
        assert!(event.changed.is_empty() && event.is_now, "{event:#?}");
        assert_envelope(&fixture, event, "user.deleted", data);
    }

    fixture.once().await.assert(Exit::Ok, in_sync().unchanged(11));
    assert_eq!(fixture.last_event().await, events[4].id);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_one_page_are_in_the_order_of_the_changes() {
    let fixture = mirrored(20).await;
    let ids = fixture.sim.user_ids();
    let order = [11, 3, 17, 0, 8];
    for (nth, at) in order.into_iter().enumerate() {
        let time = 1_790_000_000_000 + nth as i64;
        assert!(fixture.sim.update(&ids[at], |user| user["updated_at"] = time.into()));
    }
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().updated(5).unchanged(15));
    let users: Vec<_> = fixture.events(0).await.into_iter().map(|event| event.user_id).collect();
    assert_eq!(users, order.map(|at| ids[at].clone()));
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_hold_what_clerks_event_schemas_require() {
    let fixture = mirrored(30).await;
    let ids = fixture.sim.user_ids();
    let mut as_specified = ids.iter().filter(|id| fixture.sim.oddity(id).is_none());
    let [updated, gone] = [as_specified.next().unwrap(), as_specified.next().unwrap()];
    fixture.rename(updated, "Changed");
    assert!(fixture.sim.update(gone, |user| user["external_id"] = "crm-7".into()));
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().updated(2).unchanged(28));
    assert!(fixture.sim.delete(gone));
    let mut created = fixture.sim.create_random();
    while fixture.sim.oddity(&created).is_some() {
        created = fixture.sim.create_random();
    }
    fixture.once().await.assert_exit(Exit::Ok);

    let events = fixture.events(0).await;
    for (kind, user) in [
        ("user.created", &created),
        ("user.updated", updated),
        ("user.deleted", gone),
    ] {
        let is_it = |event: &&Event| event.kind == kind && event.user_id == *user;
        let payload = &events.iter().find(is_it).unwrap().payload;
        assert_as_specified([(kind, payload)]);
    }
}

/// 300 users at a slow server with small pages, after a first import that was killed half way.
async fn half_imported(environment: &[(&str, &str)]) -> Fixture {
    let fixture = Fixture::with(Options {
        users: 300,
        ..Options::default()
    })
    .await;
    fixture.sim.set_faults(slow_pages(20, 60));
    let run = fixture.start_full_sync(environment);
    eventually("there is a schema", async || fixture.runs("true").await > 0).await;
    eventually("a part is imported", async || fixture.users().await >= 100).await;
    run.kill().await;
    assert!(fixture.users().await < 300);
    let imported = "SELECT count(*) FROM clerk.resource_state WHERE imported_at IS NOT NULL";
    assert_eq!(fixture.db.number(imported).await, 0);
    fixture
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_import_makes_no_events_even_if_it_takes_two_runs() {
    let fixture = half_imported(&[]).await;
    let ids = fixture.sim.user_ids();
    // One user that is imported already, one that is not, a new one, and a deleted one of each
    // half.
    for at in [2, 250] {
        fixture.rename(&ids[at], "Changed");
    }
    fixture.sim.create_random();
    assert!(fixture.sim.delete(&ids[3]) && fixture.sim.delete(&ids[251]));
    let ran = fixture.once().await;
    ran.assert_exit(Exit::Ok);
    assert_eq!(fixture.event_names(0).await, [] as [String; 0]);

    // The next sync makes events for what the import had already passed.
    fixture.sim.clear_faults();
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().updated(1).deleted(1).unchanged(298));
    let expected = [format!("user.deleted {}", ids[3]), format!("user.updated {}", ids[2])];
    assert_eq!(fixture.event_names(0).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_initial_events_the_first_import_makes_one_event_for_each_user() {
    let fixture = half_imported(&[INITIAL]).await;
    let ran = fixture.once_with(&[INITIAL]).await;
    ran.assert_exit(Exit::Ok);
    let mut expected: Vec<_> = fixture
        .sim
        .user_ids()
        .iter()
        .map(|id| format!("user.created {id}"))
        .collect();
    expected.sort();
    assert_eq!(fixture.event_names(0).await, expected);
    for event in fixture.events(0).await {
        let document = fixture.sim.document(&event.user_id).unwrap();
        assert_eq!(event.occurred_at, document["updated_at"].as_i64().unwrap());
        assert!(event.changed.is_empty(), "{event:#?}");
    }
    fixture
        .once_with(&[INITIAL])
        .await
        .assert(Exit::Ok, in_sync().unchanged(300));
    assert_eq!(fixture.event_names(0).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_requested_during_the_first_import_makes_no_event() {
    let fixture = Fixture::new(200).await;
    fixture.sim.set_faults(slow_pages(5, 100));
    let daemon = fixture.start_daemon(&[NEVER, ("CLERK2PG_LOG__LEVEL", "debug")]);
    daemon.wait_for_log("listening").await;
    eventually("the import has begun", async || {
        fixture.runs("outcome = 'running'").await > 0
    })
    .await;
    let last = fixture.sim.user_ids()[199].clone();
    fixture.db.execute(&format!("NOTIFY clerk2pg, '{last}'")).await;
    let row = format!("SELECT count(*) FROM clerk.users WHERE id = '{last}'");
    eventually("the user's row", async || fixture.db.number(&row).await == 1).await;
    assert!(fixture.users().await < 200, "the import was over");
    let imported = "SELECT count(*) FROM clerk.resource_state WHERE imported_at IS NOT NULL";
    assert_eq!(fixture.db.number(imported).await, 0);
    fixture.rename(&last, "Changed");
    fixture.db.execute(&format!("NOTIFY clerk2pg, '{last}'")).await;
    let changed = format!("{row} AND first_name = 'Changed'");
    eventually("the change", async || fixture.db.number(&changed).await == 1).await;
    assert!(fixture.users().await < 200, "the import was over");

    fixture.sim.clear_faults();
    fixture.syncs(1).await;
    assert_eq!(fixture.db.number(imported).await, 1);
    assert_eq!((fixture.users().await, fixture.last_event().await), (200, 0));
    fixture.rename(&last, "Changed again");
    fixture.db.execute(&format!("NOTIFY clerk2pg, '{last}'")).await;
    eventually("an event", async || fixture.last_event().await > 0).await;
    assert_eq!(fixture.event_names(0).await, [format!("user.updated {last}")]);
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}
