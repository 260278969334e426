//! Events whose bodies do not survive `JSON.stringify(JSON.parse(body))` unless they are spelled with
//! care.

/// Returns the JSON texts of events, as a database might hold them.
pub fn hard_documents() -> Vec<String> {
    let numbers = "1.10, 1.0, -0, -0.0, 1e21, 1000000000000000000000, 1e400, -1e400, 5e-324, 1e-400, 9007199254740993, \
        0.000001, 1e-7, 123456789012345678901234567890, 0.1, 1790000000000, 1.7976931348623157e308";
    let keys = r#""b": 1, "10": 2, "9": 3, "a": 4, "__proto__": {"x": 5}, "4294967295": 6, "4294967294": 7,
        "4294967296": 8, "01": 9, "-1": 10, "1.5": 11, "": 12, "constructor": 13, "toJSON": 14, "length": 15,
        "9007199254740991": 16, "0": {"z": 1, "5": [{"y": 1, "1": 2}]}"#;
    let mut documents = vec![
        format!("[{numbers}, 1{}]", "0".repeat(400)),
        format!("{{{keys}}}"),
        r#"["</script>", "<!--", "a/b", "caf\u00e9", "\/", "\ud83d\ude00", "\u0000\u001f\u007f\u0080\u2028\u2029\ufeff\uffff"]"#
            .to_owned(),
        format!(r#"{{"{0}": "{0}"}}"#, r#"\"\\\b\f\n\r\t' ` ${x} %s"#),
        "[[], {}, [[{}]], null, true, false, \"\", [ ] , { } ]".to_owned(),
        r#"{"$serde_json::private::Number": "1.10", "$serde_json::private::RawValue": "[ ]"}"#.to_owned(),
        all_of_unicode(),
        user_of_1_mb(),
    ];
    for depth in [100, 127, 128, 129, 1000] {
        documents.push("[".repeat(depth) + &"]".repeat(depth));
        documents.push(r#"{"a": 0, "1": "#.repeat(depth) + "{}" + &"}".repeat(depth));
    }
    let event = |document| format!(r#"{{"data": {document}, "type": "user.updated", "object": "event"}}"#);
    documents.into_iter().map(event).collect()
}

fn all_of_unicode() -> String {
    let letters: String = ('\0'..=char::MAX).collect();
    serde_json::to_string(&letters).unwrap()
}

fn user_of_1_mb() -> String {
    let settings =
        (0..20_000).map(|n| format!(r#""setting {n}": {{"{n}": {n}.50, "on": true, "note": "é\n\"{n}\""}}"#));
    let settings = settings.collect::<Vec<_>>().join(", ");
    format!(r#"{{"id": "user_1", "public_metadata": {{{settings}}}}}"#)
}
