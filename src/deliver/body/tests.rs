use proptest::prelude::*;

use super::*;

mod documents;

use documents::json;

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
