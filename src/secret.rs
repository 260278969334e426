//! Values that must never be printed.

use std::fmt::{self, Write};

use serde::{Deserialize, Serialize, Serializer};

/// Longest text that [`without_personal_data`] returns, in characters: some errors quote what a
/// server sent.
const MAX_TEXT: usize = 500;

/// A secret. `Debug`, `Display` and serialization show `[redacted]`.
#[derive(Clone, PartialEq, Eq, Deserialize, Default)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Returns the value itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self(value)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Removes words that may be a key or contain an address from a text. Use it for what a server
/// sent, as some quote what they received, and for values that may be in the wrong place.
pub fn without_secrets(text: &str) -> String {
    let ends = |letter: char| letter.is_whitespace() || "\"'`“”«»<>()[]{},;".contains(letter);
    let is_secret = |word: &str| {
        ["sk_live_", "sk_test_", "whsec_", "@", "%40"]
            .iter()
            .any(|part| word.contains(part))
    };
    let mut redacted = String::new();
    for piece in text.split_inclusive(ends) {
        let word = piece.trim_end_matches(ends);
        redacted.push_str(if is_secret(word) { "…" } else { word });
        redacted.push_str(&piece[word.len()..]);
    }
    redacted
}

/// Removes user ids and email addresses from an error text, and cuts it to [`MAX_TEXT`] characters.
/// Some errors contain a user's id, and a trigger of the application may report an address.
pub(crate) fn without_personal_data(text: &str) -> String {
    let is_word = |letter: char| letter.is_alphanumeric() || "@_.+-%".contains(letter);
    let mut redacted = String::new();
    for piece in text.split_inclusive(|letter| !is_word(letter)) {
        let word = piece.trim_end_matches(|letter| !is_word(letter));
        let rest = &piece[word.len()..];
        if word.contains('@') {
            redacted.push('…');
        } else if let Some((before, after)) = word.split_once("user_")
            && after.chars().take_while(char::is_ascii_alphanumeric).count() >= 12
        {
            // Writing to a String never fails.
            let _ = write!(redacted, "{before}user_…");
        } else {
            redacted.push_str(word);
        }
        redacted.push_str(rest);
    }
    match redacted.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}…", &redacted[..end]),
        None => redacted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_may_be_secret_are_removed() {
        let check = |text, expected| assert_eq!(without_secrets(text), expected);
        check("the key 'sk_live_a+b/c' is not ours", "the key '…' is not ours");
        check("http://user:hidden@host/x, twice", "…, twice");
        check("no <ann@example.com> (ann%40example.com) here", "no <…> (…) here");
        check(
            "relation \"clerk.users\" does not exist",
            "relation \"clerk.users\" does not exist",
        );
        check("", "");
    }

    #[test]
    fn ids_and_addresses_are_removed() {
        let check = |text: &str, expected: &str| assert_eq!(without_personal_data(text), expected);
        check(
            "GET users/user_2abcdefghijklmnopqrstuvwxyz: 403",
            "GET users/user_…: 403",
        );
        check("no row for Ann.B+c@example.com!", "no row for …!");
        check(
            "users ignored: this server ignores user_id, see user_events",
            "users ignored: this server ignores user_id, see user_events",
        );
        check("at 127.0.0.1:5432/app", "at 127.0.0.1:5432/app");
        assert_eq!(without_personal_data(&"é".repeat(600)).chars().count(), 501);
    }
}
