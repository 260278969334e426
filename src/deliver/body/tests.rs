use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn check(payload: &str, expected: &str) {
    assert_eq!(body(payload).unwrap(), expected, "{payload}");
    assert_eq!(body(expected).unwrap(), expected, "a second time");
}

#[test]
fn nothing_stands_between_tokens() {
    check(
        r#"{"a": 1, "b": [true, false, null]}"#,
        r#"{"a":1,"b":[true,false,null]}"#,
    );
    check(" [ ] ", "[]");
    check("{ }", "{}");
    check("\t[\r\n{ } , { \"a\" : [ ] } ]\n", r#"[{},{"a":[]}]"#);
    check("null", "null");
    check(r#" "a b, c: [ ] " "#, r#""a b, c: [ ] ""#);
}

#[test]
fn numbers_are_doubles_as_ecmascript_prints_them() {
    for (number, expected) in [
        ("0", "0"),
        ("-0", "0"),
        ("-0.0", "0"),
        ("-1", "-1"),
        ("1.0", "1"),
        ("1.10", "1.1"),
        ("-1.50", "-1.5"),
        ("1e2", "100"),
        ("1E+2", "100"),
        ("0.1", "0.1"),
        ("0.000001", "0.000001"),
        ("0.0000001", "1e-7"),
        ("1790000000000", "1790000000000"),
        ("999999999999999", "999999999999999"),
        ("-999999999999999", "-999999999999999"),
        ("9007199254740991", "9007199254740991"),
        ("9007199254740993", "9007199254740992"),
        ("123456789012345678901", "123456789012345680000"),
        ("1000000000000000000000", "1e+21"),
        ("1e21", "1e+21"),
        ("999999999999999900000", "999999999999999900000"),
        ("5e-324", "5e-324"),
        ("1e-400", "0"),
        ("-1e-400", "0"),
        ("1.7976931348623157e308", "1.7976931348623157e+308"),
        ("1e400", "null"),
        ("-1e400", "null"),
        ("1e99999999999999999999", "null"),
    ] {
        check(number, expected);
        check(&format!("[{number}, {number}]"), &format!("[{expected},{expected}]"));
        check(&format!(r#"{{"a": {number}}}"#), &format!(r#"{{"a":{expected}}}"#));
    }
    check(&format!("1{}", "0".repeat(400)), "null");
}

#[test]
fn strings_are_escaped_as_little_as_possible() {
    check(r#""\"\\\/\b\f\n\r\t""#, r#""\"\\/\b\f\n\r\t""#);
    check(r#""\u0000\u000B\u001f\u0008\u0022""#, r#""\u0000\u000b\u001f\b\"""#);
    check(
        r#""caf\u00e9 \ud83d\ude00 \u2028\u007f</script>""#,
        "\"café 😀 \u{2028}\u{7f}</script>\"",
    );
    check("\"é😀\u{2028}\u{7f}\"", "\"é😀\u{2028}\u{7f}\"");
    check(r#"{"a\\": "b\\"}"#, r#"{"a\\":"b\\"}"#);
}

#[test]
fn array_indices_are_the_first_keys() {
    check(
        r#"{"b": 1, "10": 2, "9": 3, "a": 4, "__proto__": 5, "0": 6}"#,
        r#"{"0":6,"9":3,"10":2,"b":1,"a":4,"__proto__":5}"#,
    );
    check(
        r#"{"4294967295": 1, "4294967294": 2, "4294967296": 3, "01": 4, "-1": 5, "1.5": 6, "00": 7, "": 8}"#,
        r#"{"4294967294":2,"4294967295":1,"4294967296":3,"01":4,"-1":5,"1.5":6,"00":7,"":8}"#,
    );
    check(
        r#"[{"a": {"c": [1, {"x": 0, "2": 1}], "1": {}}, "7": [{"z": 1, "5": "}"}]}]"#,
        r#"[{"7":[{"5":"}","z":1}],"a":{"1":{},"c":[1,{"2":1,"x":0}]}}]"#,
    );
    check(r#"{"a": 1, "\u0031\u0030": 2}"#, r#"{"10":2,"a":1}"#);
    // A string that is no key.
    check(r#"{"a": "10", "b": ["9"]}"#, r#"{"a":"10","b":["9"]}"#);
}

#[test]
fn the_mark_of_serde_json_is_an_ordinary_key() {
    let payload = r#"{"$serde_json::private::Number":"1.10","$serde_json::private::RawValue":"[ ]"}"#;
    check(payload, payload);
}

#[test]
fn depth_has_no_limit() {
    for depth in [127, 128, 129, 100_000] {
        let arrays = "[".repeat(depth) + &"]".repeat(depth);
        check(&arrays, &arrays);
        let objects = r#"{"a":"#.repeat(depth) + "1" + &"}".repeat(depth);
        check(&objects, &objects);
    }
    let mixed = r#"{"a": 0, "1": ["#.repeat(1000) + &"]}".repeat(1000);
    let sorted = r#"{"1":["#.repeat(1000) + &r#"],"a":0}"#.repeat(1000);
    check(&mixed, &sorted);
}

#[test]
fn what_is_not_json_is_an_error() {
    for payload in [
        "",
        " ",
        "{",
        "}",
        "[1,]",
        "{\"a\"}",
        "{\"a\":1,}",
        "{1:2}",
        "[1 2]",
        "01",
        "1.",
        "+1",
        "nul",
        "NaN",
        "\"",
        "\"\\",
        "\"\\x\"",
        "\"\t\"",
        "1 2",
        "{} x",
        "'a'",
        "\"\\ud800\"",
        "\"\\ud800\\u0041\"",
    ] {
        assert!(body(payload).is_err(), "{payload}");
    }
}

/// A document, before it is written in one of many ways.
#[derive(Debug, Clone)]
enum Json {
    Word(&'static str),
    Number(f64),
    Text(String),
    Array(Vec<Json>),
    /// A key only once.
    Object(BTreeMap<String, Json>),
}

impl Json {
    /// Writes it with spaces where they may stand.
    fn spaced(&self) -> String {
        match self {
            Json::Word(word) => format!(" {word}"),
            Json::Number(number) => format!("{number:?}\n"),
            Json::Text(text) => quoted(text),
            Json::Array(items) => {
                let items: Vec<_> = items.iter().map(Json::spaced).collect();
                format!("[ {} ]", items.join(" ,"))
            }
            Json::Object(members) => {
                let members: Vec<_> = members
                    .iter()
                    .map(|(key, value)| format!("{} : {}", quoted(key), value.spaced()))
                    .collect();
                format!("{{ {}\t}}", members.join(", "))
            }
        }
    }

    /// Writes it as ECMAScript does.
    fn canonical(&self) -> String {
        match self {
            Json::Word(word) => (*word).to_owned(),
            Json::Number(0.0) => "0".to_owned(),
            Json::Number(number) => ryu_js::Buffer::new().format(*number).to_owned(),
            Json::Text(text) => quoted(text),
            Json::Array(items) => {
                let items: Vec<_> = items.iter().map(Json::canonical).collect();
                format!("[{}]", items.join(","))
            }
            Json::Object(members) => {
                let is_index = |key: &str| key.parse().is_ok_and(|n: u32| n < u32::MAX && n.to_string() == key);
                let (mut first, others): (Vec<_>, Vec<_>) = members.iter().partition(|(key, _)| is_index(key));
                first.sort_by_key(|(key, _)| key.parse::<u32>().unwrap());
                let members: Vec<_> = first
                    .iter()
                    .chain(&others)
                    .map(|(key, value)| format!("{}:{}", quoted(key), value.canonical()))
                    .collect();
                format!("{{{}}}", members.join(","))
            }
        }
    }
}

fn quoted(text: &str) -> String {
    let letters = text.chars().map(|letter| match letter {
        '"' | '\\' => format!("\\{letter}"),
        '\u{8}' => "\\b".to_owned(),
        '\t' => "\\t".to_owned(),
        '\n' => "\\n".to_owned(),
        '\u{c}' => "\\f".to_owned(),
        '\r' => "\\r".to_owned(),
        '\0'..'\u{20}' => format!("\\u{:04x}", u32::from(letter)),
        letter => letter.to_string(),
    });
    format!("\"{}\"", letters.collect::<String>())
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-c]{0,2}",
        any::<String>(),
        (0_u32..20).prop_map(|n| n.to_string()),
        (u32::MAX - 2..).prop_map(|n| n.to_string()),
        "-?[0-9]{1,11}",
        Just("__proto__".to_owned()),
    ]
}

fn json() -> impl Strategy<Value = Json> {
    let number = prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO;
    let leaf = prop_oneof![
        prop::sample::select(vec!["true", "false", "null"]).prop_map(Json::Word),
        number.prop_map(Json::Number),
        any::<i64>().prop_map(|n| Json::Number(n as f64)),
        any::<String>().prop_map(Json::Text),
        "[\\x00-\\x21\\\\/{}:,\u{7f}\u{2028}]{0,4}".prop_map(Json::Text),
    ];
    leaf.prop_recursive(5, 60, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Json::Array),
            prop::collection::btree_map(key(), inner, 0..8).prop_map(Json::Object),
        ]
    })
}

proptest! {
    #[test]
    fn every_document_is_written_as_ecmascript_does(json in json()) {
        let canonical = json.canonical();
        prop_assert_eq!(body(&json.spaced()).unwrap(), canonical.clone());
        prop_assert_eq!(body(&canonical).unwrap(), canonical);
    }

    #[test]
    fn no_text_panics(text in "[\\[\\]{}:,\"\\\\ntu0-9.eE +-]{0,12}|.{0,12}") {
        if let Ok(written) = body(&text) {
            prop_assert_eq!(body(&written).unwrap(), written);
        }
    }
}
