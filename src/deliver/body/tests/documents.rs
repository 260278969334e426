//! Documents for tests: any value in one of many spellings, and the spelling of ECMAScript.

use std::collections::BTreeMap;

use proptest::prelude::*;

/// A document, before it is written in one of many ways.
#[derive(Debug, Clone)]
pub enum Json {
    Word(&'static str),
    /// As it is spelled.
    Number(String),
    Text(String),
    Array(Vec<Json>),
    /// A key only once.
    Object(BTreeMap<String, Json>),
}

impl Json {
    /// Writes it with spaces where they may stand.
    pub fn spaced(&self) -> String {
        match self {
            Json::Word(word) => format!(" {word}"),
            Json::Number(number) => format!("{number}\n"),
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
    pub fn canonical(&self) -> String {
        match self {
            Json::Word(word) => (*word).to_owned(),
            Json::Number(number) => match number.parse::<f64>().unwrap() {
                0.0 => "0".to_owned(),
                number if number.is_finite() => ryu_js::Buffer::new().format(number).to_owned(),
                _ => "null".to_owned(),
            },
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

/// Returns any document.
pub fn json() -> impl Strategy<Value = Json> {
    let double = prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO;
    let leaf = prop_oneof![
        prop::sample::select(vec!["true", "false", "null"]).prop_map(Json::Word),
        double.prop_map(|number| Json::Number(format!("{number:?}"))),
        any::<i64>().prop_map(|number| Json::Number(number.to_string())),
        "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?".prop_map(Json::Number),
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
