//! One unexpected value costs that value: its column is NULL, `extra` keeps it, and everything else
//! is stored.

use serde_json::{Value, json};

use crate::support::{
    fixture::Fixture,
    summary::{Exit, changed, in_sync},
};

/// Later than every generated user's `created_at`.
const LATER: i64 = 1_790_000_000_000;

/// Inserts a user with these fields, written as JSON, and returns its document.
fn put(fixture: &Fixture, id: &str, fields: &str) -> String {
    let document = format!(r#"{{"id":"{id}","object":"user","created_at":{LATER},"updated_at":{LATER}{fields}}}"#);
    fixture.sim.insert_raw(id, LATER, LATER, document.clone().into_bytes());
    document
}

/// Returns what is stored of a user: a column, `extra`, `unexpected`.
async fn stored(fixture: &Fixture, id: &str, column: &str) -> (Option<String>, Value, Option<String>) {
    let text = async |sql: &str| {
        let sql = format!("SELECT ({sql})::text FROM clerk.users WHERE id = '{id}'");
        fixture.db.text(&sql).await
    };
    let extra = text("extra")
        .await
        .map_or(Value::Null, |extra| serde_json::from_str(&extra).unwrap());
    (text(column).await, extra, text("unexpected").await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_of_another_type_costs_that_value_only() {
    let cases = [
        ("external_id", "42"),
        ("external_id", r#"["crm-7"]"#),
        ("first_name", "true"),
        ("banned", r#""yes""#),
        ("banned", "1"),
        ("create_organizations_limit", "1.5"),
        ("last_active_at", "9223372036854775807"),
        ("updated_at", r#""soon""#),
        ("locale", r#"{"status":42}"#),
    ];
    let fixture = Fixture::new(20).await;
    for (n, (field, value)) in cases.iter().enumerate() {
        put(&fixture, &format!("user_{n}"), &format!(r#","{field}":{value}"#));
    }
    fixture.once().await.assert(Exit::Ok, changed().created(29));
    // `clerk.user_document` returns what Clerk sent.
    fixture.assert_in_sync().await;
    for (n, (field, value)) in cases.iter().enumerate() {
        let value: Value = serde_json::from_str(value).unwrap();
        let expected = (None, json!({*field: value}), Some(format!("{{{field}}}")));
        assert_eq!(stored(&fixture, &format!("user_{n}"), field).await, expected, "{field}");
    }
    let versions = fixture.db.versions().await;
    fixture.once().await.assert(Exit::Ok, in_sync().unchanged(29));
    assert_eq!(fixture.db.versions().await, versions);

    // Other bytes with the same meaning are no change. Another value is one, and a fitting value
    // ends it.
    let changed_at = "SELECT changed_at::text FROM clerk.users WHERE id = 'user_1'";
    let before = fixture.db.text(changed_at).await;
    put(&fixture, "user_1", r#","external_id": [ "crm\u002d7" ]"#);
    fixture.once().await.assert(Exit::Ok, in_sync().unchanged(29));
    assert_eq!(fixture.db.text(changed_at).await, before);
    put(&fixture, "user_1", r#","external_id":["crm-8"]"#);
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().updated(1).unchanged(28));
    assert_eq!(
        stored(&fixture, "user_1", "external_id").await.1,
        json!({"external_id": ["crm-8"]})
    );
    put(&fixture, "user_1", r#","external_id":"crm-9""#);
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().updated(1).unchanged(28));
    let expected = (Some("crm-9".to_owned()), Value::Null, None);
    assert_eq!(stored(&fixture, "user_1", "external_id").await, expected);
    fixture.assert_in_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_postgres_cannot_hold_is_kept_as_text() {
    let deep = format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000));
    let cases = [
        ("first_name", r#""Nul\u0000Name""#),
        ("first_name", r#""half \ud83d emoji""#),
        ("public_metadata", r#"{"note":["nul\u0000"]}"#),
        ("public_metadata", deep.as_str()),
        ("unsafe_metadata", r#"{"n":1e200000}"#),
        ("unsafe_metadata", r#"{"n":1e-16384}"#),
        ("private_metadata", r#"{"half":"\udc00 \ud83d"}"#),
        (
            "email_addresses",
            r#"[{"id":"a","email_address":"ann@example.com"},{"note":"\u0000"}]"#,
        ),
        ("new_key", r#"{"half":"\ud83d"}"#),
    ];
    let fixture = Fixture::new(20).await;
    fixture.once().await.assert(Exit::Ok, changed().created(20));
    for (n, (field, value)) in cases.iter().enumerate() {
        put(
            &fixture,
            &format!("user_{n}"),
            &format!(r#","{field}":{value},"primary_email_address_id":"a""#),
        );
    }
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().created(9).unchanged(20));
    for (n, (field, value)) in cases.iter().enumerate() {
        let id = format!("user_{n}");
        let column = if *field == "new_key" { "NULL" } else { *field };
        let unexpected = (*field != "new_key").then(|| format!("{{{field}}}"));
        let expected = (None, json!({*field: value}), unexpected);
        assert_eq!(stored(&fixture, &id, column).await, expected, "{field}");
        // Its event contains the document in the same form.
        let event = format!("SELECT payload->'data'->>'{field}' FROM clerk.user_events WHERE user_id = '{id}'");
        assert_eq!(fixture.db.text(&event).await.as_deref(), Some(*value), "{field}");
    }
    let email = "SELECT primary_email FROM clerk.users WHERE id = 'user_7'";
    assert_eq!(fixture.db.text(email).await.as_deref(), Some("ann@example.com"));
    let versions = fixture.db.versions().await;
    fixture.once().await.assert(Exit::Ok, in_sync().unchanged(29));
    assert_eq!(fixture.db.versions().await, versions);
    // Another change of such a user is only that change.
    put(
        &fixture,
        "user_2",
        r#","public_metadata":{"note":["nul\u0000"]},"primary_email_address_id":"b""#,
    );
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().updated(1).unchanged(28));
    let changed = "SELECT changed::text FROM clerk.user_events ORDER BY id DESC LIMIT 1";
    assert_eq!(
        fixture.db.text(changed).await.as_deref(),
        Some("{primary_email_address_id}")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_and_times_are_read_in_every_spelling() {
    let fixture = Fixture::new(0).await;
    let moments = [
        "1790000000000",
        "1790000000000.0",
        "1.79e12",
        r#""1790000000000""#,
        "1790000000",
        r#""2026-09-21T14:13:20Z""#,
        r#""2026-09-21T14:13:20.000+00:00""#,
        r#""2026-09-21 16:13:20+02""#,
        r#""2026-09-21T14:13:20""#,
    ];
    for (n, moment) in moments.iter().enumerate() {
        let document = format!(
            r#"{{"id":"user_{n}","created_at":{moment},"updated_at":{moment},"last_sign_in_at":{moment},"create_organizations_limit":{}}}"#,
            ["5", "5.0", "50e-1", r#""5""#][n % 4],
        );
        fixture
            .sim
            .insert_raw(&format!("user_{n}"), LATER, LATER, document.into_bytes());
    }
    fixture.once().await.assert(Exit::Ok, changed().created(9));
    let same =
        "SELECT count(*) FROM clerk.users WHERE created_at = to_timestamp(1790000000) AND updated_at = created_at
        AND last_sign_in_at = created_at AND create_organizations_limit = 5 AND extra IS NULL AND unexpected IS NULL";
    assert_eq!(fixture.db.number(same).await, moments.len() as i64);
    fixture.once().await.assert(Exit::Ok, in_sync().unchanged(9));
    // Another spelling is no change.
    let event = "SELECT count(*) FROM clerk.user_events";
    let events = fixture.db.number(event).await;
    let document = format!(
        r#"{{"id":"user_0","created_at":"2026-09-21T14:13:20Z","updated_at":{LATER},"last_sign_in_at":1.79e12,"create_organizations_limit":5.00}}"#
    );
    fixture.sim.insert_raw("user_0", LATER, LATER, document.into_bytes());
    fixture.once().await.assert(Exit::Ok, in_sync().unchanged(9));
    assert_eq!(fixture.db.number(event).await, events);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_value_of_a_duplicate_key_counts() {
    let fixture = Fixture::new(0).await;
    put(
        &fixture,
        "user_twice",
        r#","first_name":"Ann","first_name":"Bea","id":"user_twice","x":1,"x":2"#,
    );
    fixture.once().await.assert(Exit::Ok, changed().created(1));
    let expected = (Some("Bea".to_owned()), json!({"x": 2}), None);
    assert_eq!(stored(&fixture, "user_twice", "first_name").await, expected);
    fixture.once().await.assert(Exit::Ok, in_sync().unchanged(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn unexpected_values_are_counted_and_logged_once_for_each_field() {
    let fixture = Fixture::new(10).await;
    for n in 0..3 {
        put(&fixture, &format!("user_{n}"), r#","external_id":42,"banned":"yes""#);
    }
    put(&fixture, "user_4", r#","banned":"no""#);
    let ran = fixture.once().await;
    ran.assert(Exit::Ok, changed().created(14));
    let warnings: Vec<_> = ran
        .stderr
        .lines()
        .filter(|line| line.contains("unexpected type"))
        .collect();
    assert_eq!(warnings.len(), 2, "{ran:#?}");
    for field in ["external_id", "banned"] {
        assert!(warnings.iter().any(|line| line.contains(field)), "{ran:#?}");
    }
    let status = fixture.run(&["status"]).await.stdout;
    assert!(
        status.contains("Values of an unexpected type, kept in extra: banned of 4 users, external_id of 3 users"),
        "{status}"
    );
    let status = fixture.run(&["status", "--format", "json"]).await.json();
    assert_eq!(status["unexpected_values"], json!({"banned": 4, "external_id": 3}));
}
