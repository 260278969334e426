//! The mirror holds Clerk's documents key for key, and follows every change.

use std::collections::BTreeSet;

use clerk_sim::{Oddity, Options, Quirks};
use serde_json::{Value, json};

use crate::support::{
    fixture::{Fixture, mirrored, mirrored_ids},
    summary::{Exit, changed, in_sync, planned},
};

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_user_survives_the_round_trip() {
    let mut odd = BTreeSet::new();
    for seed in [2, 3, 5, 7] {
        let fixture = Fixture::with(Options {
            users: 300,
            seed,
            ..Options::default()
        })
        .await;
        fixture.once().await.assert(Exit::Ok, changed().created(300));
        fixture.assert_in_sync().await;
        odd.extend(fixture.sim.user_ids().iter().filter_map(|id| fixture.sim.oddity(id)));
    }
    assert_eq!(odd, BTreeSet::from(Oddity::ALL), "not every oddity was among them");
}

const CREATED_AT: i64 = 1_790_000_000_000;

/// Inserts a user with these fields, written as JSON, mirrors it, and returns the document as sent.
async fn put(fixture: &Fixture, id: &str, fields: &str) -> Value {
    let document =
        format!(r#"{{"id":"{id}","object":"user","created_at":{CREATED_AT},"updated_at":{CREATED_AT}{fields}}}"#);
    fixture
        .sim
        .insert_raw(id, CREATED_AT, CREATED_AT, document.clone().into_bytes());
    let ran = fixture.once().await;
    ran.assert_exit(Exit::Ok);
    serde_json::from_str(&document).unwrap()
}

/// Asserts that the mirror returns the same document.
async fn check_kept(fields: &str) {
    let fixture = Fixture::new(0).await;
    let sent = put(&fixture, "user_kept", fields).await;
    assert_eq!(fixture.db.documents().await["user_kept"], sent);
    fixture.once().await.assert(Exit::Ok, in_sync().unchanged(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_keys_are_kept() {
    check_kept(r#","agent_policy":{"mode":"ask","tools":[1,null,{}]},"beta":null,"Ünïcode \"key\"":"x","":[]"#).await;
    // Key names that the mirror uses itself and Clerk does not.
    check_kept(r#","extra":{"a":1},"absent":["id"],"digest":"0","deleted_at":5,"primary_email":"x","full_name":null"#)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn null_is_not_missing() {
    check_kept("").await;
    check_kept(r#","first_name":null,"banned":null,"last_sign_in_at":null,"public_metadata":null,"scim":null"#).await;
    check_kept(r#","first_name":"","public_metadata":{},"email_addresses":[],"locale":null"#).await;
    // One after another: each document is kept, and none is a change of the user.
    let fixture = Fixture::new(0).await;
    put(&fixture, "user_kept", r#","last_name":null"#).await;
    let changed_at = "SELECT changed_at FROM clerk.users";
    let before = fixture.db.text(changed_at).await;
    for fields in ["", r#","last_name":null,"passkeys":null"#] {
        let sent = put(&fixture, "user_kept", fields).await;
        assert_eq!(fixture.db.documents().await["user_kept"], sent);
        assert_eq!(fixture.db.text(changed_at).await, before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_keep_their_digits() {
    check_kept(r#","public_metadata":{"big":9007199254740993,"long":123456789012345678901234567890,"fine":0.10000000000000000001}"#).await;
    check_kept(r#","brand_new":[18446744073709551616,-0.1,1.50,0]"#).await;
    check_kept(r#","create_organizations_limit":9223372036854775807,"last_active_at":1690000000001"#).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_spelling_of_the_same_document_is_no_change() {
    let fixture = Fixture::new(0).await;
    put(
        &fixture,
        "user_same",
        r#","first_name":"Zoë","public_metadata":{"a":1,"b":[true]},"locked":true,"verification_attempts_remaining":9"#,
    )
    .await;
    let changed_at = "SELECT changed_at FROM clerk.users";
    let first_seen_at = "SELECT first_seen_at FROM clerk.users";
    let before = fixture.db.text(changed_at).await;
    assert_eq!(fixture.db.text(first_seen_at).await, before);
    let respelled = r#", "public_metadata":{"b":[true], "a":1.0},"locked":true,"first_name":"Zo\u00eb","verification_attempts_remaining":3"#;
    put(&fixture, "user_same", respelled).await;
    assert_eq!(fixture.db.text(changed_at).await, before);
    // Values that change by themselves are kept as well.
    assert_eq!(
        fixture.db.documents().await["user_same"]["verification_attempts_remaining"],
        3
    );
    let versions = fixture.db.versions().await;
    fixture.once().await.assert(Exit::Ok, in_sync().unchanged(1));
    assert_eq!(fixture.db.versions().await, versions);

    put(&fixture, "user_same", r#","first_name":"Zoe""#).await;
    assert_ne!(fixture.db.text(changed_at).await, before);
    assert_eq!(fixture.db.text(first_seen_at).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_creation_date_is_followed() {
    let fixture = mirrored(40).await;
    fixture.sim.set_faults(Quirks {
        max_page: Some(7),
        ..Quirks::default()
    });
    let ids = fixture.sim.user_ids();
    let created_at = |at: usize| fixture.sim.document(&ids[at]).unwrap()["created_at"].as_i64().unwrap();
    // Across page borders in both directions, to another user's date, and before and after all
    // others.
    let moves = [
        (30, created_at(2) + 1),
        (3, created_at(35) + 1),
        (20, created_at(21)),
        (25, created_at(0) - 1_000_000_000),
        (0, created_at(39) + 1_000_000_000),
    ];
    for (at, time) in moves {
        assert!(fixture.sim.update(&ids[at], |user| user["created_at"] = time.into()));
    }
    let plan = fixture.run(&["--dry-run", "--format", "json"]).await;
    plan.assert(Exit::Ok, planned().updated(5).unchanged(35));
    let lines = fixture.run(&["--dry-run"]).await.stdout;
    assert_eq!(
        lines.lines().filter(|line| line.starts_with("~ ")).count(),
        5,
        "{lines}"
    );
    let asked = |fixture: &Fixture| {
        fixture
            .sim
            .log()
            .iter()
            .filter(|request| request.path.contains("user_id="))
            .count()
    };
    let before = asked(&fixture);
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().updated(5).unchanged(35));
    assert_eq!(asked(&fixture), before, "a user of the list was requested by id");
    fixture.assert_in_sync().await;
    fixture.once().await.assert(Exit::Ok, in_sync().unchanged(40));
}

#[tokio::test(flavor = "multi_thread")]
async fn imported_users_may_be_older_than_all_others() {
    let fixture = mirrored(10).await;
    let old =
        |n: i64| json!({"id": format!("user_import{n}"), "object": "user", "created_at": n, "updated_at": CREATED_AT});
    // The year 1 is the oldest that Postgres must hold here. 1970 in milliseconds reads as seconds.
    for at in [-1_000_000_000_000, -1, 100_000_000_000, 1_000_000_000_000] {
        fixture.sim.insert(old(at));
    }
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().created(4).unchanged(10));
    fixture.assert_in_sync().await;
    fixture.once().await.assert(Exit::Ok, in_sync().unchanged(14));
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_without_a_new_updated_at_are_found() {
    let fixture = mirrored(20).await;
    let ids = fixture.sim.user_ids();
    for (at, field, value) in [
        (2, "banned", json!(true)),
        (3, "locked", json!(true)),
        (4, "last_active_at", json!(CREATED_AT)),
        (5, "organization_memberships", json!([{"id": "orgmem_1"}])),
        (6, "agent_policy", json!("new")),
    ] {
        let mut document = fixture.sim.document(&ids[at]).unwrap();
        assert_ne!(document[field], value);
        document[field] = value;
        fixture.sim.insert(document);
    }
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().updated(5).unchanged(15));
    fixture.assert_in_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_users_created_in_one_moment_are_mirrored() {
    let fixture = mirrored(5).await;
    fixture.sim.set_faults(Quirks {
        max_page: Some(7),
        ..Quirks::default()
    });
    let tied = |n: usize| format!("user_tied{n:02}");
    for n in 0..30 {
        fixture
            .sim
            .insert(json!({"id": tied(n), "object": "user", "created_at": CREATED_AT, "updated_at": CREATED_AT}));
    }
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().created(30).unchanged(5));
    for n in [0, 7, 13, 29] {
        fixture.sim.delete(&tied(n));
    }
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().deleted(4).unchanged(31));
    assert_eq!(mirrored_ids(&fixture).await.len(), 31);
    fixture.assert_in_sync().await;
}

/// Asserts the derived columns of a user with these fields: address, verified, number, verified, full name;
/// `-` is null.
async fn check_derived(fields: &str, expected: &str) {
    let fixture = Fixture::new(0).await;
    put(&fixture, "user_derived", fields).await;
    let sql = "SELECT concat_ws(' | ', coalesce(primary_email, '-'), coalesce(primary_email_verified::text, '-'),
        coalesce(primary_phone, '-'), coalesce(primary_phone_verified::text, '-'), coalesce(full_name, '-')) FROM clerk.users";
    assert_eq!(fixture.db.text(sql).await.as_deref(), Some(expected), "{fields}");
}

#[tokio::test(flavor = "multi_thread")]
async fn derived_columns_follow_the_document() {
    let addresses = r#","email_addresses":[{"id":"a","email_address":"first@example.com","verification":{"status":"verified"}},{},
        {"id":"b","email_address":"second@example.com","verification":{"status":"unverified"}},{"id":"c","email_address":"third@example.com","verification":null}],
        "phone_numbers":[{"id":"p","phone_number":"+1555"}]"#;
    check_derived("", "- | - | - | - | -").await;
    check_derived(addresses, "- | - | - | - | -").await;
    let named = |rest: &str| format!("{addresses}{rest}");
    check_derived(
        &named(r#","primary_email_address_id":"b""#),
        "second@example.com | false | - | - | -",
    )
    .await;
    check_derived(
        &named(r#","primary_email_address_id":"a","first_name":"Ann""#),
        "first@example.com | true | - | - | Ann",
    )
    .await;
    check_derived(
        &named(r#","primary_email_address_id":"c","last_name":" Lee ""#),
        "third@example.com | false | - | - | Lee",
    )
    .await;
    check_derived(
        &named(r#","primary_email_address_id":"gone","first_name":"","last_name":null"#),
        "- | - | - | - | -",
    )
    .await;
    check_derived(
        &named(r#","primary_phone_number_id":"p","first_name":"Ann","last_name":"Lee""#),
        "- | - | +1555 | false | Ann Lee",
    )
    .await;

    let odd = r#","primary_email_address_id":"b","primary_phone_number_id":"b",
        "email_addresses":[{"id":"b","email_address":"odd@example.com","phone_number":null,"verification":"verified"}],
        "phone_numbers":[{"id":"a","phone_number":"+1"},{"id":"b","phone_number":"+0","phone_number":"+1555","verification":{"status":"verified"}}]"#;
    check_derived(odd, "odd@example.com | false | +1555 | true | -").await;

    // They also follow a change of the primary address's name alone.
    let fixture = Fixture::new(0).await;
    let email = "SELECT primary_email FROM clerk.users";
    for (id, address) in [
        ("a", Some("first@example.com")),
        ("b", Some("second@example.com")),
        ("gone", None),
    ] {
        put(
            &fixture,
            "user_derived",
            &named(&format!(r#","primary_email_address_id":"{id}""#)),
        )
        .await;
        assert_eq!(fixture.db.text(email).await.as_deref(), address);
    }
}
