//! Which changes make an event: spellings, returning users, and rows that the application keeps.

use std::collections::BTreeSet;

use clerk_sim::Unstorable;
use serde_json::Value;

use crate::support::{
    events::MARK,
    fixture::{Fixture, mirrored},
    summary::{Exit, changed, in_sync},
};

const NOTHING: [String; 0] = [];
const CREATED_AT: i64 = 1_790_000_000_000;

/// Inserts or changes a user with these fields, written as JSON, and mirrors it.
async fn put(fixture: &Fixture, fields: &str) {
    let document =
        format!(r#"{{"id":"user_put","object":"user","created_at":{CREATED_AT},"updated_at":{CREATED_AT}{fields}}}"#);
    fixture
        .sim
        .insert_raw("user_put", CREATED_AT, CREATED_AT, document.clone().into_bytes());
    let ran = fixture.once().await;
    ran.assert_exit(Exit::Ok);
    let mirrored = &fixture.db.documents().await["user_put"];
    assert_eq!(*mirrored, serde_json::from_str::<Value>(&document).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_spelling_of_the_same_document_makes_no_event() {
    let fixture = mirrored(1).await;
    put(
        &fixture,
        r#","first_name":"Zoë","last_name":null,"locked":true,"lockout_expires_in_seconds":60,"verification_attempts_remaining":9,
            "public_metadata":{"a":1,"b":[true]}"#,
    )
    .await;
    let created = ["user.created user_put".to_owned()];
    assert_eq!(fixture.event_names(0).await, created);
    for respelled in [
        // A value that changes by itself.
        r#","first_name":"Zoë","last_name":null,"locked":true,"lockout_expires_in_seconds":900,"verification_attempts_remaining":3,
            "public_metadata":{"a":1,"b":[true]}"#,
        // Another order of keys, and other spellings of text and numbers.
        r#","public_metadata":{"b":[true], "a":1.0},"lockout_expires_in_seconds":1000,"verification_attempts_remaining":2,"locked":true,
            "last_name":null,"first_name":"Zo\u00eb""#,
        // A missing key in place of a null, and the other way round.
        r#","public_metadata":{"b":[true], "a":1},"lockout_expires_in_seconds":null,"locked":true,"first_name":"Zoë","username":null,
            "never_heard_of":null"#,
        r#","public_metadata":{"b":[true], "a":1},"locked":true,"first_name":"Zoë","last_name":null"#,
    ] {
        put(&fixture, respelled).await;
        assert_eq!(fixture.event_names(0).await, created, "{respelled}");
    }

    put(
        &fixture,
        r#","public_metadata":{"b":[true], "a":2},"locked":false,"first_name":"Zoë""#,
    )
    .await;
    let events = fixture.events(0).await;
    assert_eq!(events.len(), 2, "{events:#?}");
    assert_eq!(events[1].changed, ["locked", "public_metadata"]);
    put(
        &fixture,
        r#","public_metadata":{"b":[true], "a":2},"locked":false,"first_name":"Zoë","never_heard_of":0"#,
    )
    .await;
    let events = fixture.events(events[1].id).await;
    assert_eq!(events.len(), 1, "{events:#?}");
    assert_eq!(events[0].changed, ["never_heard_of"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn marking_makes_a_deleted_event_and_a_return_a_created_event() {
    let fixture = mirrored(10).await;
    let id = fixture.sim.user_ids()[4].clone();
    let document = fixture.sim.document(&id).unwrap();
    assert!(fixture.sim.delete(&id));
    fixture
        .once_with(&[MARK])
        .await
        .assert(Exit::Ok, changed().deleted(1).unchanged(9));
    assert_eq!(fixture.event_names(0).await, [format!("user.deleted {id}")]);
    fixture
        .once_with(&[MARK])
        .await
        .assert(Exit::Ok, in_sync().unchanged(9));
    assert_eq!(fixture.event_names(0).await.len(), 1);

    for (name, renamed) in [("the same", false), ("changed meanwhile", true)] {
        let before = fixture.last_event().await;
        fixture.sim.insert(document.clone());
        if renamed {
            fixture.rename(&id, "Changed");
        }
        fixture.once_with(&[MARK]).await.assert_exit(Exit::Ok);
        let events = fixture.events(before).await;
        assert_eq!(
            (events.len(), events[0].kind.as_str()),
            (1, "user.created"),
            "{name}: {events:#?}"
        );
        assert_eq!(events[0].changed, NOTHING, "{name}");
        assert_eq!(
            events[0].payload["data"]["first_name"],
            fixture.sim.document(&id).unwrap()["first_name"]
        );
        fixture.assert_in_sync().await;

        assert!(fixture.sim.delete(&id));
        fixture.once_with(&[MARK]).await.assert_exit(Exit::Ok);
        assert_eq!(
            fixture.event_names(events[0].id).await,
            [format!("user.deleted {id}")],
            "{name}"
        );
    }

    // The event exists already. Removing the row is no news.
    let last = fixture.last_event().await;
    fixture
        .db
        .execute(&format!("DELETE FROM clerk.users WHERE id = '{id}'"))
        .await;
    fixture.once().await.assert_exit(Exit::Ok);
    assert_eq!(fixture.event_names(last).await, NOTHING);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_user_with_an_old_address_makes_a_created_event() {
    for environment in [&[][..], &[MARK]] {
        let fixture = mirrored(10).await;
        let old = fixture.sim.user_ids()[4].clone();
        let mut document = fixture.sim.document(&old).unwrap();
        assert!(fixture.sim.delete(&old));
        document["id"] = "user_signed_up_again".into();
        document["created_at"] = CREATED_AT.into();
        let emails = document["email_addresses"].clone();
        fixture.sim.insert(document);
        fixture.once_with(environment).await.assert_exit(Exit::Ok);
        let expected = [
            "user.created user_signed_up_again".to_owned(),
            format!("user.deleted {old}"),
        ];
        assert_eq!(fixture.event_names(0).await, expected);
        let events = fixture.events(0).await;
        let created = events.iter().find(|event| event.kind == "user.created").unwrap();
        assert_eq!(created.payload["data"]["email_addresses"], emails);
        fixture.assert_in_sync().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keep_mode_makes_no_deleted_event() {
    let keep = [("CLERK2PG_DELETES__MODE", "keep")];
    let fixture = mirrored(10).await;
    let ids = fixture.sim.user_ids();
    assert!(fixture.sim.delete(&ids[4]));
    fixture.rename(&ids[5], "Changed");
    fixture
        .once_with(&keep)
        .await
        .assert(Exit::Ok, changed().updated(1).unchanged(8));
    assert_eq!(fixture.event_names(0).await, [format!("user.updated {}", ids[5])]);
    assert_eq!(fixture.users().await, 10);
}

/// The application refuses users named "refused", with an error or silently, until `undo`.
async fn check_kept_out(ddl: &str, undo: &str) {
    let fixture = mirrored(20).await;
    let ids = fixture.sim.user_ids();
    fixture.db.execute(ddl).await;
    let refuse = |id: &str| assert!(fixture.sim.update(id, |user| user["username"] = "refused".into()));
    let new = fixture.sim.create_random();
    refuse(&new);
    refuse(&ids[7]);
    fixture.rename(&ids[8], "Changed");
    let others = [format!("user.updated {}", ids[8])];
    for _ in 0..2 {
        fixture.once().await.assert_exit(Exit::Ok);
        assert_eq!(fixture.event_names(0).await, others, "{ddl}");
    }

    let last = fixture.last_event().await;
    fixture.db.execute(undo).await;
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().created(1).updated(1).unchanged(19));
    assert_eq!(
        fixture.event_names(last).await,
        [format!("user.created {new}"), format!("user.updated {}", ids[7])],
        "{ddl}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_refused_by_a_constraint_makes_an_event_once_it_is_dropped() {
    check_kept_out(
        "ALTER TABLE clerk.users ADD CONSTRAINT nobody_refused CHECK (username IS DISTINCT FROM 'refused')",
        "ALTER TABLE clerk.users DROP CONSTRAINT nobody_refused",
    )
    .await;
}

/// Returns a trigger that does this to users named "refused".
fn trigger(when: &str, row: &str, what: &str) -> String {
    format!(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
         IF {row}.username = 'refused' THEN {what}; END IF; RETURN {row}; END $$;
         CREATE TRIGGER refuse {when} ON clerk.users FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
}

const MEND: &str = "DROP FUNCTION refuse CASCADE";

#[tokio::test(flavor = "multi_thread")]
async fn a_user_refused_by_a_trigger_makes_an_event_once_it_is_dropped() {
    let raise = "RAISE EXCEPTION 'nobody is called so here'";
    check_kept_out(&trigger("BEFORE INSERT OR UPDATE", "NEW", raise), MEND).await;
    check_kept_out(&trigger("AFTER INSERT OR UPDATE", "NEW", raise), MEND).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_a_trigger_skips_makes_no_event() {
    check_kept_out(&trigger("BEFORE INSERT OR UPDATE", "NEW", "RETURN NULL"), MEND).await;
}

/// The application keeps the first of two deleted users until `undo`.
async fn check_held_back(ddl: &str, undo: &str, environment: &[(&str, &str)]) {
    let fixture = Fixture::new(20).await;
    let ids = fixture.sim.user_ids();
    assert!(fixture.sim.update(&ids[7], |user| user["username"] = "refused".into()));
    fixture.once().await.assert_exit(Exit::Ok);
    fixture.db.execute(&ddl.replace("{id}", &ids[7])).await;
    assert!(fixture.sim.delete(&ids[7]) && fixture.sim.delete(&ids[8]));
    for _ in 0..2 {
        fixture.once_with(environment).await.assert_exit(Exit::Ok);
        assert_eq!(
            fixture.event_names(0).await,
            [format!("user.deleted {}", ids[8])],
            "{ddl}"
        );
    }
    let last = fixture.last_event().await;
    fixture.db.execute(undo).await;
    fixture
        .once_with(environment)
        .await
        .assert(Exit::Ok, changed().deleted(1).unchanged(18));
    assert_eq!(
        fixture.event_names(last).await,
        [format!("user.deleted {}", ids[7])],
        "{ddl}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_row_makes_no_deleted_event() {
    let orders = "CREATE TABLE orders (user_id text REFERENCES clerk.users); INSERT INTO orders VALUES ('{id}')";
    check_held_back(orders, "DROP TABLE orders", &[]).await;
    let waiting = "CREATE TABLE orders (user_id text REFERENCES clerk.users DEFERRABLE INITIALLY DEFERRED);
        INSERT INTO orders VALUES ('{id}')";
    check_held_back(waiting, "DROP TABLE orders", &[]).await;
    check_held_back(&trigger("BEFORE DELETE", "OLD", "RETURN NULL"), MEND, &[]).await;
    check_held_back(&trigger("BEFORE UPDATE", "NEW", "RETURN NULL"), MEND, &[MARK]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_user_makes_no_event_and_hides_no_others() {
    let fixture = mirrored(10).await;
    let before: BTreeSet<String> = fixture.db.documents().await.into_keys().collect();
    for kind in Unstorable::ALL {
        fixture.sim.create_random();
        fixture.sim.insert_unstorable(kind);
    }
    fixture.once().await.assert_exit(Exit::Ok);
    let stored: Vec<String> = fixture.db.documents().await.into_keys().collect();
    let new: Vec<_> = stored
        .iter()
        .filter(|id| !before.contains(*id))
        .map(|id| format!("user.created {id}"))
        .collect();
    assert!(new.len() >= Unstorable::ALL.len(), "{new:?}");
    assert_eq!(fixture.event_names(0).await, new);
}
