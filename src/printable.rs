//! Text from outside, so that a terminal or a log shows it and does nothing else. Users of Clerk
//! write a part of it, and roles of the database another one.

use std::{
    borrow::Cow,
    fmt::{self, Write},
};

/// Whether a character may be shown. Others control a terminal, begin a line, or turn the direction
/// of the text around, so that it reads differently.
pub(crate) fn is_shown(letter: char) -> bool {
    !letter.is_control()
        && !matches!(
            letter,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

/// Returns a text on one line, without characters that may not be shown.
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_shown) {
        return Cow::Borrowed(text);
    }
    let shown = |letter| match letter {
        '\n' | '\r' | '\t' => ' ',
        letter if is_shown(letter) => letter,
        _ => char::REPLACEMENT_CHARACTER,
    };
    Cow::Owned(text.chars().map(shown).collect())
}

/// Returns a JSON text in which characters that may not be shown are escaped. It has the same
/// meaning: only strings contain such characters.
pub(crate) fn printable_json(json: &str) -> Cow<'_, str> {
    if json.chars().all(is_shown) {
        return Cow::Borrowed(json);
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    for letter in json.chars() {
        match is_shown(letter) {
            true => escaped.push(letter),
            // Writing to a String never fails.
            false => _ = write!(escaped, "\\u{:04x}", u32::from(letter)),
        }
    }
    Cow::Owned(escaped)
}

/// A value that is shown like [`printable`] text.
pub(crate) struct Printable<T>(pub(crate) T);

impl<T: fmt::Display> fmt::Display for Printable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.0.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_shows_texts_and_does_nothing_else() {
        let check = |text, expected| assert_eq!(printable(text), expected);
        check("Zoë – 李 “x”", "Zoë – 李 “x”");
        check("\u{1b}]0;title\u{7}", "�]0;title�");
        check("a\r\nb\tc", "a  b c");
        check("\u{9b}2J\u{7f}\u{0}", "�2J��");
        check("a\u{2028}b\u{202e}c\u{2066}d\u{200f}e\u{61c}", "a�b�c�d�e�");
    }

    #[test]
    fn json_keeps_its_meaning() {
        let value = serde_json::json!({"a\u{9b}": "\u{202e}\u{1b}\u{7f}ü"});
        let json = value.to_string();
        let shown = printable_json(&json);
        assert!(shown.chars().all(is_shown), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }
}
