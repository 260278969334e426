//! Texts for databases whose encoding cannot hold all of Unicode. Users with characters that the
//! encoding lacks are rejected. Their documents, and messages about them, are stored in ASCII.

use std::{borrow::Cow, fmt::Write};

use super::session::Session;

/// Returns JSON in a form that the database can hold: the same document, with escapes.
pub(super) fn json<'t>(conn: &Session, text: &'t str) -> Cow<'t, str> {
    if conn.holds_unicode() || text.is_ascii() {
        return Cow::Borrowed(text);
    }
    Cow::Owned(escaped(text))
}

/// Returns a message in a form that the database can hold.
pub(super) fn message<'t>(conn: &Session, text: &'t str) -> Cow<'t, str> {
    if conn.holds_unicode() || text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let plain = text.replace(['“', '”'], "\"").replace('…', "...").replace('–', "-");
    Cow::Owned(escaped(&plain.replace('’', "'")))
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_ascii() {
            escaped.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            // Writing to a string does not fail.
            let _ = write!(escaped, "\\u{unit:04x}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_the_same_json() {
        let document = r#"{"name":"Zoë \"😀\"","é":"\u00e9"}"#;
        let escaped = escaped(document);
        assert!(escaped.is_ascii());
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(value(&escaped), value(document));
    }
}
