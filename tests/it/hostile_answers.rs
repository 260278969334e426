//! Decoding of hostile answers: any bytes give users, rejected users or an error, without a panic.

use std::{fs, path::Path, time::Duration};

use clerk2pg::{
    clerk::{MAX_OBJECTS, Page, RawObject, ResponseBody},
    resource::{DigestKey, FieldValue, MAX_DEPTH, MAX_DOCUMENT, MAX_ID, MAX_KEYS, Place, USERS, decode},
};
use proptest::prelude::*;
use serde_json::value::RawValue;

use crate::{
    properties,
    support::{
        client::client_with,
        fixture::Fixture,
        http_server::{Server, answer},
        wait::eventually,
    },
};

/// Returns the seeds of the fuzzing corpus.
fn seeds(kind: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/body");
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let mut seeds: Vec<_> = files
        .filter(|path| name(path).starts_with(kind))
        .map(|path| (name(&path), fs::read(path).unwrap()))
        .collect();
    seeds.sort();
    seeds
}

#[test]
fn every_fuzzing_seed_is_handled() {
    let seeds = seeds("");
    assert!(seeds.len() > 100, "{}", seeds.len());
    for (name, bytes) in seeds {
        println!("{name}");
        properties::check_body(&bytes);
    }
}

fn page(bytes: impl Into<Vec<u8>>) -> Result<Page, String> {
    let body = ResponseBody {
        bytes: bytes.into(),
        date: None,
    };
    Page::parse(&USERS, body, &DigestKey::default()).map_err(|(_, why)| why)
}

/// Returns what becomes of each user of a page, with the fields that do not fit their columns, or
/// why the page cannot be read.
fn outcome(bytes: impl Into<Vec<u8>>) -> Result<Vec<String>, String> {
    let bytes = bytes.into();
    properties::check_body(&bytes);
    let page = page(bytes)?;
    let outcome = |raw: &RawObject| {
        let mangled = if raw.is_mangled { "mangled " } else { "" };
        match decode(&USERS, page.document(raw)) {
            Ok(user) => {
                let unexpected: Vec<_> = user.unexpected.iter().map(|name| format!(" without {name}")).collect();
                let respelled = user.storable.as_ref().map_or("", |_| ", respelled");
                format!("{mangled}{}{}{respelled}", user.id, unexpected.concat())
            }
            Err(rejection) => format!("{mangled}{rejection}"),
        }
    };
    Ok(page.objects().iter().map(outcome).collect())
}

#[track_caller]
fn check(bytes: impl Into<Vec<u8>>, expected: &[&str]) {
    assert_eq!(outcome(bytes).unwrap(), expected);
}

#[track_caller]
fn check_error(bytes: impl Into<Vec<u8>>, expected: &str) {
    let why = outcome(bytes).unwrap_err();
    assert!(why.contains(expected), "{why}");
}

/// Returns a page of two users. `rest` follows the first one's id and time.
fn beside(rest: &str) -> String {
    format!(r#"[{{"id":"a","created_at":1{rest}}},{{"id":"b","created_at":2}}]"#)
}

#[track_caller]
fn check_beside(rest: &str, expected: &str) {
    check(beside(rest), &[expected, "b"]);
}

#[test]
fn bodies_that_are_no_list_are_errors() {
    check_error("", "EOF");
    check_error("<!DOCTYPE html><title>Just a moment</title>", "expected value");
    check_error("\u{feff}[]", "expected value");
    check_error(r#"[{"id":"a","created_at":1}"#, "EOF");
    check_error(r#"[{"id":"a","created_at":1},]"#, "trailing comma");
    check_error("[] []", "trailing characters");
    check_error(b"[{\"id\":\"a\0\"}]", "control character");
    for other in ["7", "-1e5", "null", "true", "{}", r#"{"data":null}"#, r#"{"data":{}}"#] {
        assert!(outcome(other).is_err(), "{other}");
    }
    // The text may be personal data.
    for text in [
        r#""ann@example.com""#,
        r#" {"data": "ann@example.com"}"#,
        r#"{"data":5551234}"#,
    ] {
        check_error(text, "no list of objects");
    }
}

#[test]
fn values_that_are_no_users_are_rejected() {
    let none = "the document is not a JSON object";
    check(
        r#"[7,"x",null,[],{"id":"b","created_at":2}]"#,
        &[none, none, none, none, "b"],
    );
}

#[test]
fn deep_nesting_costs_one_value_at_most() {
    let lists = |depth| format!(r#","x":{}{}"#, "[".repeat(depth), "]".repeat(depth));
    check_beside(&lists(MAX_DEPTH - 1), "a");
    check_beside(&lists(MAX_DEPTH), "a, respelled");
    check_beside(&lists(MAX_DOCUMENT / 2 - 100), "a, respelled");
    let objects = format!(r#","scim":{}1{}"#, r#"{"a":"#.repeat(100_000), "}".repeat(100_000));
    check_beside(&objects, "a without scim, respelled");
    // Brackets in strings do not nest.
    check_beside(&format!(r#","x":["{}\"["]"#, "[".repeat(200)), "a");
    check(
        "[".repeat(2_000) + &"]".repeat(2_000),
        &["the document is not a JSON object"],
    );
    check_error("[".repeat(1_000_000), "EOF");
    check_error(r#"[{"a":"#.repeat(1_000_000), "EOF");
}

#[test]
fn huge_numbers_cost_one_value_at_most() {
    let digits = "9".repeat(400);
    check_beside(&format!(r#","public_metadata":{{"n":{digits}}}"#), "a");
    check_beside(r#","public_metadata":{"n":1e999}"#, "a");
    check_beside(&format!(r#","x":-0.{digits}e-400"#), "a");
    check_beside(r#","first_name":"1e999999999","x":["1e999999999"]"#, "a");
    // Postgres would expand a million of these to a hundred gigabytes.
    for exponents in [
        "1e131071,".repeat(1_000),
        "-1E-16383,".repeat(1_000),
        "1e+99999999999999999999,".repeat(2),
    ] {
        let list = format!(r#","unsafe_metadata":[{exponents}0]"#);
        check_beside(&list, "a without unsafe_metadata, respelled");
    }
    let limit = |number: &str| format!(r#","create_organizations_limit":{number}"#);
    for number in [&digits, "9223372036854775808", "1.5"] {
        check_beside(&limit(number), "a without create_organizations_limit");
    }
    check_beside(&limit("1e3"), "a");
    let time = |number: &str| format!(r#","last_sign_in_at":{number}"#);
    for number in [&digits, "-9223372036854775809", "8210000000000001"] {
        check_beside(&time(number), "a without last_sign_in_at");
    }
    check_beside(&time("1e999999"), "a without last_sign_in_at, respelled");
    check_beside(&time("8210000000000000"), "a");
    let zeros = "0".repeat(20_000);
    check_beside(&time(&format!("1790000000000.{zeros}")), "a, respelled");
}

#[test]
fn invalid_utf8_concerns_one_user() {
    let page = b"[{\"id\":\"a\",\"created_at\":1,\"x\":\"\xff\"},{\"id\":\"b\",\"created_at\":2}]";
    check(page, &["mangled a", "b"]);
    // Surrogate halves as bytes, and an overlong NUL.
    for bytes in [&b"\xed\xa0\xbd"[..], b"\xc0\x80", b"\xf5", b"\xf0\x9f\x98"] {
        let page = [
            b"[{\"id\":\"a\",\"created_at\":1,\"x\":\"",
            bytes,
            b"\"},{\"id\":\"b\",\"created_at\":2}]",
        ]
        .concat();
        check(page, &["mangled a", "b"]);
    }
    check_error(b"\xff[]", "expected value");
    let utf16: Vec<u8> = "[]".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(outcome(utf16).is_err());
}

#[test]
fn the_last_value_of_a_duplicate_key_counts() {
    // The last value counts, as in Postgres.
    let twice = page(r#"[{"id":"a","created_at":1,"first_name":"A","first_name":"B","x":1,"x":2}]"#).unwrap();
    let user = decode(&USERS, twice.document(&twice.objects()[0])).unwrap();
    assert_eq!(user.derived.last(), Some(&FieldValue::Text("B".into())));
    for rest in [
        r#","x":1,"x":2"#,
        r#","public_metadata":{"a":1,"a":2}"#,
        r#","scim":1,"scim":null"#,
    ] {
        check_beside(rest, "a");
    }
    check_beside(r#","banned":1,"banned":true"#, "a");
    check_beside(r#","banned":true,"banned":1"#, "a without banned");
    check_beside(r#","first_name":"\u0000","first_name":"A""#, "a, respelled");
    for (rest, head) in [
        (r#","id":"c""#, ("c", 1_000)),
        (r#","\u0069d":"c""#, ("c", 1_000)),
        (r#","created_at":7"#, ("a", 7_000)),
    ] {
        let page = page(beside(rest)).unwrap();
        let heads: Vec<_> = page
            .objects()
            .iter()
            .map(|raw| raw.id.as_deref().zip(raw.created_at))
            .collect();
        assert_eq!(heads, [Some(head), Some(("b", 2_000))], "{rest}");
        check_beside(rest, head.0);
    }
    let keys: String = (0..MAX_KEYS).map(|n| format!(r#","{n}":0"#)).collect();
    check_beside(&keys, &format!("the document has more than {MAX_KEYS} keys"));
}

#[test]
fn lone_surrogates_cost_one_value() {
    check_beside(r#","first_name":"\ud83d\ude00""#, "a");
    for half in [r"\ud83d", r"\ude00", r"\ud83dx", r"\ude00\ud83d"] {
        check_beside(&format!(r#","first_name":"{half}""#), "a without first_name, respelled");
        check_beside(&format!(r#","{half}":1"#), "a, respelled");
        check_beside(
            &format!(r#","public_metadata":"{half}""#),
            "a without public_metadata, respelled",
        );
    }
    check(
        r#"[{"id":"\ud83d","created_at":1}]"#,
        &["id: expected a string that Postgres can hold, found a string"],
    );
}

#[test]
fn u0000_costs_one_value() {
    check_beside(r#","first_name":"a\u0000""#, "a without first_name, respelled");
    for metadata in [r#"{"a":["\u0000"]}"#, r#"{"\\\u0000":1}"#] {
        let metadata = format!(r#","public_metadata":{metadata}"#);
        check_beside(&metadata, "a without public_metadata, respelled");
    }
    check_beside(r#","x":"\u0000""#, "a, respelled");
    check_beside(r#","\u0000":1"#, "a, respelled");
    check_beside(r#","public_metadata":"\\u0000\\\\u0000""#, "a");
    check(
        r#"[{"id":"\u0000","created_at":1}]"#,
        &["id: expected a string that Postgres can hold, found a string"],
    );
}

#[test]
fn strings_beyond_the_limits_are_rejected() {
    let text = |length: usize| format!(r#","first_name":"{}""#, "x".repeat(length));
    check_beside(&text(MAX_DOCUMENT - 100), "a");
    let why = outcome(beside(&text(MAX_DOCUMENT))).unwrap();
    assert!(why[0].starts_with("the document is too large"), "{why:?}");
    let id = |length: usize| format!(r#"[{{"id":"{}","created_at":1}}]"#, "x".repeat(length));
    check(id(MAX_ID), &[&"x".repeat(MAX_ID)]);
    check(id(MAX_ID + 1), &["id: 256 bytes, at most 255 are stored"]);
    assert_eq!(page(id(MAX_ID + 1)).unwrap().objects()[0].id, None);
}

#[test]
fn a_page_of_too_many_users_is_an_error() {
    let list = |user: &str, users: usize| format!("[{}]", vec![user; users].join(","));
    for user in ["{}", "7"] {
        assert_eq!(page(list(user, MAX_OBJECTS)).unwrap().objects().len(), MAX_OBJECTS);
        for page in [
            list(user, MAX_OBJECTS + 1),
            format!(r#"{{"data":{}}}"#, list(user, MAX_OBJECTS + 1)),
        ] {
            check_error(page, "more than 10000 objects");
        }
    }
}

/// Unexpected values, each valid JSON.
fn nasty() -> impl Strategy<Value = String> {
    let long = |text: &str, times: usize| text.repeat(times);
    prop_oneof![
        prop::sample::select(vec![
            "null",
            "true",
            "-0",
            "1e999999",
            "-1e-999999",
            "9223372036854775808",
            "1.5",
            "\"\"",
            r#""\u0000""#,
            r#""\\u0000""#,
            r#""\ud83d""#,
            r#""\udc00\ud83d""#,
            "[]",
            "{}",
            "[{}]",
            "[7,null,[]]",
            r#"{"a":1,"a":2}"#,
            r#"{"":{"":"\u0000"}}"#,
            "\"\u{7f}\u{feff}\u{fffd}\"",
        ])
        .prop_map(str::to_owned),
        (1..1_200_usize).prop_map(move |depth| long("[", depth) + &long("]", depth)),
        (1..1_200_usize).prop_map(move |depth| long(r#"{"a":"#, depth) + "1" + &long("}", depth)),
        (1..500_usize).prop_map(move |digits| long("9", digits)),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>()
            .prop_filter("JSON has no others", |number| number.is_finite())
            .prop_map(|number| format!("{number:e}")),
        any::<String>().prop_map(|text| serde_json::Value::from(text).to_string()),
    ]
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => prop::sample::select(USERS.fields.iter().map(|field| field.name.to_owned()).collect::<Vec<_>>()),
        1 => prop::sample::select(vec!["", r"\u0069d", r"\u0000", r"\ud83d", "extra", "a\\\"b"]).prop_map(str::to_owned),
    ]
}

/// The pairs of a valid document.
fn honest() -> impl Strategy<Value = Vec<(String, String)>> {
    let documents: Vec<Vec<(String, String)>> = seeds("honest-odd")
        .into_iter()
        .map(|(_, page)| {
            let [user]: [serde_json::Map<String, serde_json::Value>; 1] = serde_json::from_slice(&page).unwrap();
            user.into_iter().map(|(key, value)| (key, value.to_string())).collect()
        })
        .collect();
    prop::sample::select(documents)
}

/// A valid document with some values replaced, some keys doubled, and some keys added.
fn nearly_honest() -> impl Strategy<Value = String> {
    let changes = prop::collection::vec((key(), nasty(), any::<prop::sample::Index>(), any::<bool>()), 0..4);
    (honest(), changes).prop_map(|(mut pairs, changes)| {
        for (key, value, at, replaces) in changes {
            match pairs.iter_mut().find(|(name, _)| *name == key) {
                Some((_, old)) if replaces => *old = value,
                _ => pairs.insert(at.index(pairs.len() + 1), (key, value)),
            }
        }
        let pairs: Vec<_> = pairs
            .into_iter()
            .map(|(key, value)| format!(r#""{key}":{value}"#))
            .collect();
        format!("{{{}}}", pairs.join(","))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_handled(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        properties::check_body(&bytes);
    }

    #[test]
    fn any_json_is_handled(users in prop::collection::vec(nasty(), 0..10)) {
        let bytes = format!("[{}]", users.join(","));
        prop_assert_eq!(outcome(bytes).unwrap().len(), users.len());
    }

    /// One document never costs another user, and no user is lost.
    #[test]
    fn corrupted_users_are_each_stored_or_rejected(users in prop::collection::vec(nearly_honest(), 0..4)) {
        let mut documents = users.clone();
        documents.push(r#"{"id":"b","created_at":2}"#.to_owned());
        for user in &documents {
            prop_assert!(serde_json::from_str::<&RawValue>(user).is_ok(), "no JSON: {}", user);
        }
        let outcome = outcome(format!("[{}]", documents.join(","))).unwrap();
        prop_assert_eq!(outcome.len(), documents.len());
        prop_assert_eq!(&outcome[users.len()], "b");
        let single = Page::single(&USERS, ResponseBody { bytes: documents[0].clone().into_bytes(), date: None }, &DigestKey::default()).unwrap();
        prop_assert_eq!(single.document(&single.objects()[0]), &documents[0]);
    }

    #[test]
    fn corrupted_pages_are_handled(
        users in prop::collection::vec(nearly_honest(), 1..4),
        spoilt in prop::collection::vec((any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 0..4), 0..4_usize), 1..6),
        end in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = format!("[{}]", users.join(",")).into_bytes();
        for (at, put, cut) in spoilt {
            let from = at.index(bytes.len());
            let to = bytes.len().min(from + cut);
            bytes.splice(from..to, put);
        }
        if let Some(end) = end {
            bytes.truncate(end.index(bytes.len() + 1));
        }
        properties::check_body(&bytes);
    }
}

const OK: &str = "200 OK";

/// Texts of a server are written to logs, terminals and Postgres.
#[tokio::test(flavor = "multi_thread")]
async fn error_texts_of_a_server_are_printable_and_short() {
    let message = format!(
        r#"{{"errors":[{{"code":"a\u0000b","message":"\u001b[2J\u0000{}"}}]}}"#,
        "x".repeat(100_000)
    );
    let title = format!("<title>\u{1b}[2J\0{}</title>", "x".repeat(3_000));
    for (status, body) in [
        ("422 Unprocessable Entity", &message),
        (OK, &title),
        ("503 Service Unavailable", &title),
    ] {
        let body = body.clone().into_bytes();
        let server = Server::start(move |_| answer(status, "", &body)).await;
        let client = client_with(&server.url, "sk_live_x", None, 1.0, Duration::from_secs(10));
        let error = client
            .asking_once()
            .by_id(&USERS, &Place::of("user_1"))
            .await
            .unwrap_err()
            .to_string();
        assert!(error.len() < 700, "{} bytes", error.len());
        assert!(error.contains("[2J") && !error.contains(char::is_control), "{error}");
    }
    // The failed sync is recorded.
    let title = title.into_bytes();
    let server = Server::start(move |head| match head.split(' ').nth(1) {
        Some("/v1/instance") => answer(OK, "", br#"{"id":"ins_hostile"}"#),
        _ => answer(OK, "", &title),
    })
    .await;
    let fixture = Fixture::new(0).await;
    let daemon = fixture.start_daemon(&[("CLERK_API_URL", &server.url)]);
    let on_record = async || fixture.runs("error LIKE '%an HTML page%'").await > 0;
    eventually("the failed sync is on record", on_record).await;
    daemon.kill().await;
}

/// A value that Postgres cannot handle costs only itself, at an insert and at an update.
#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_grows_in_postgres_costs_one_value() {
    let id: String = (1..1_000_u32)
        .map(|n| format!("{:x}", n.wrapping_mul(2_654_435_761)))
        .collect();
    let numbers = format!(r#""public_metadata":[{}0]"#, "1e131071,".repeat(100_000));
    let deep = |depth| format!(r#""unsafe_metadata":{}{}"#, "[".repeat(depth), "]".repeat(depth));
    let users = [
        (id.as_str(), r#""x":1"#.to_owned()),
        ("user_numbers", numbers),
        ("user_deep", deep(100_000)),
    ];
    let fixture = Fixture::new(20).await;
    for first_name in ["A", "B"] {
        for (id, rest) in &users {
            let at = 1_790_000_000_000;
            let document =
                format!(r#"{{"id":"{id}","created_at":{at},"updated_at":{at},"first_name":"{first_name}",{rest}}}"#);
            fixture.sim.insert_raw(id, at, at, document.into_bytes());
        }
        let ran = fixture.once().await;
        assert_eq!(ran.json()["rejected"], 1, "{ran:#?}");
        assert_eq!(fixture.users().await, 22);
        let stored =
            format!("SELECT count(*) FROM clerk.users WHERE first_name = '{first_name}' AND unexpected IS NOT NULL");
        assert_eq!(fixture.db.number(&stored).await, 2);
    }
}
