//! Values that must never be printed.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

/// A secret. `Debug`, `Display` and serialization show `[redacted]`.
#[derive(Clone, PartialEq, Eq, Deserialize, Default)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The value itself, for the one place that sends it.
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

/// What somebody else said, or was put in a wrong place, without words that may be a key or hold somebody's address: some quote what they were sent.
pub fn without_secrets(text: &str) -> String {
    let ends = |letter: char| letter.is_whitespace() || "\"'`“”«»<>()[]{},;".contains(letter);
    let is_secret = |word: &str| {
        ["sk_live_", "sk_test_", "whsec_", "@", "%40"]
            .iter()
            .any(|part| word.contains(part))
    };
    let mut told = String::new();
    for piece in text.split_inclusive(ends) {
        let word = piece.trim_end_matches(ends);
        told.push_str(if is_secret(word) { "…" } else { word });
        told.push_str(&piece[word.len()..]);
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_secret_is_left_out() {
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
}
