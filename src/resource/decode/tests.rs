use super::*;
use crate::resource::{Change, MAX_DEPTH, USERS};

fn check(document: &str, reason: &str) {
    assert_eq!(decode(&USERS, document).unwrap_err().reason, reason, "{document}");
}

#[test]
fn what_cannot_be_stored_says_why() {
    check("[]", "the document is not a JSON object");
    check("{", "the document is not valid JSON at byte 1");
    check("{\"a\0\":1}", "the document is not valid JSON at byte 4");
    check(r#"{"created_at":1}"#, "id is missing");
    check(r#"{"id":"","created_at":1}"#, "id is missing");
    check(
        r#"{"id":7,"created_at":1}"#,
        "id: expected a string that Postgres can hold, found another number",
    );
    check(
        r#"{"id":"a\u0000","created_at":1}"#,
        "id: expected a string that Postgres can hold, found a string",
    );
    check(r#"{"id":"u"}"#, "created_at is missing");
    check(r#"{"id":"u","created_at":null}"#, "created_at is missing");
    check(
        r#"{"id":"u","created_at":"soon"}"#,
        "created_at: expected a time, found a string",
    );
    check(
        r#"{"id":"u","created_at":9e99}"#,
        "created_at: expected a time, found another number",
    );
    check(
        r#"{"id":"u","created_at":9223372036854775807}"#,
        "created_at: the time is out of range",
    );
    let large = format!(r#"{{"id":"u","created_at":1,"x":"{}"}}"#, "x".repeat(MAX_DOCUMENT));
    assert!(
        decode(&USERS, &large)
            .unwrap_err()
            .reason
            .starts_with("the document is too large")
    );
}

/// The value is not in its column, but as `kept` in `extra`, from where it is the same again.
#[track_caller]
fn check_unexpected(field: &str, sent: &str, kept: &str) {
    let document = format!(r#"{{"id":"u","created_at":1700000000000,"{field}":{sent}}}"#);
    let user = decode(&USERS, &document).unwrap();
    let of = |user: &Record<'_>| user.unexpected.clone();
    let is_known = USERS.position(field, 0).is_some();
    assert_eq!(of(&user), if is_known { vec![field] } else { vec![] }, "{document}");
    let extra = user.extra_object().unwrap();
    assert_eq!(
        extra,
        format!(r#"{{"{}":{kept}}}"#, field.replace("u0000", r"\u0000")),
        "{document}"
    );
    let stored = format!(r#"{{"id":"u","created_at":1700000000000,{}"#, &extra[1..]);
    let change = decode_stored(&USERS, &stored).unwrap().change(&user);
    assert_eq!(change, Change::Refresh, "{stored}");
    assert_eq!(user.storable.is_some(), kept != sent, "{document}");
    if let Some(storable) = &user.storable {
        assert_eq!(*storable, stored);
    }
}

#[test]
fn a_value_of_another_kind_costs_that_value() {
    let check = |field, sent| check_unexpected(field, sent, sent);
    check("external_id", "42");
    check("first_name", r#"["Ann",{"b":null}]"#);
    check("username", "false");
    check("banned", r#""yes""#);
    check("banned", "1");
    check("create_organizations_limit", "5.5");
    check("create_organizations_limit", "9223372036854775808");
    check("create_organizations_limit", r#""many""#);
    check("updated_at", r#""soon""#);
    check("updated_at", "9223372036854775807");
    check("last_active_at", r#"{"status":42}"#);
}

#[test]
fn what_jsonb_cannot_hold_is_kept_as_its_text() {
    let check = check_unexpected;
    check("first_name", r#""a\u0000""#, r#""\"a\\u0000\"""#);
    check("first_name", r#""half \ud83d""#, r#""\"half \\ud83d\"""#);
    check("public_metadata", r#"{"a":"\\\u0000"}"#, r#""{\"a\":\"\\\\\\u0000\"}""#);
    check("unsafe_metadata", r#"{"n":1e200000}"#, r#""{\"n\":1e200000}""#);
    check("unsafe_metadata", "[1e-16384]", r#""[1e-16384]""#);
    check("new_key", r#"["\u0000"]"#, r#""[\"\\u0000\"]""#);
    check("last_active_at", r#""\u0000""#, r#""\"\\u0000\"""#);
    let deep = format!("{}1{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
    check("scim", &deep, &format!("\"{deep}\""));
}

#[test]
fn a_key_that_jsonb_cannot_hold_is_kept_as_its_escape() {
    let user = decode(&USERS, r#"{"id":"u","created_at":1700000000000,"a\u0000":1}"#).unwrap();
    assert_eq!(user.extra_object().as_deref(), Some(r#"{"a\\u0000":1}"#));
    assert_eq!(
        user.storable.as_deref(),
        Some(r#"{"id":"u","created_at":1700000000000,"a\\u0000":1}"#)
    );
}

#[test]
fn half_of_a_surrogate_pair_in_a_key_is_kept_as_its_escape() {
    let user = decode(
        &USERS,
        r#"{"id":"u","a\ud83d b\udc00":[1],"created_at":1700000000000,"\ud83d\ude00":2}"#,
    )
    .unwrap();
    let expected = r#"{"a\\ud83d b\\udc00":[1],"😀":2}"#;
    assert_eq!(user.extra_object().as_deref(), Some(expected));
    assert!(user.storable.unwrap().contains(r#""a\\ud83d b\\udc00":[1],"#));
}

#[test]
fn a_number_whose_spelling_jsonb_cannot_hold_is_its_value() {
    let zeros = "0".repeat(20_000);
    let document = format!(r#"{{"id":"u","created_at":1700000000000.{zeros},"lockout_expires_in_seconds":5.{zeros}}}"#);
    let user = decode(&USERS, &document).unwrap();
    assert_eq!(user.unexpected.len(), 0);
    let storable = r#"{"id":"u","created_at":1700000000000,"lockout_expires_in_seconds":5}"#;
    assert!(user.storable.is_some_and(|document| document == storable));
}

#[test]
fn of_a_key_twice_the_last_value_counts() {
    let document = r#"{"id":"a","id":"u","created_at":"soon","created_at":1700000000000,"first_name":7,"first_name":"Ann",
        "banned":true,"banned":"yes","z":1,"z":2}"#;
    let user = decode(&USERS, document).unwrap();
    assert_eq!((user.id.as_ref(), user.created_at), ("u", 1_700_000_000_000));
    assert!(matches!(user.get("first_name"), Some(FieldValue::Text(name)) if name == "Ann"));
    assert_eq!(user.unexpected, ["banned"]);
    assert_eq!(user.extra("z"), Some("2"));
}

#[test]
fn an_escaped_backslash_before_u0000_is_not_a_nul() {
    let user = decode(&USERS, r#"{"id":"u","created_at":1,"public_metadata":{"a":"\\u0000"}}"#).unwrap();
    assert_eq!(user.unexpected.len(), 0);
}

#[test]
fn seconds_become_milliseconds() {
    let user = decode(&USERS, r#"{"id":"u","created_at":1700000000}"#).unwrap();
    assert_eq!(user.created_at, 1_700_000_000_000);
}

#[test]
fn what_is_stored_is_in_milliseconds_already() {
    let stored = r#"{"id":"u","created_at":1000,"x":"large"}"#.replace("large", &"x".repeat(MAX_DOCUMENT));
    assert_eq!(decode_stored(&USERS, &stored).unwrap().created_at, 1_000);
}
