//! Signatures, as Svix makes them: HMAC-SHA256 over `id.timestamp.body`.

use std::{fmt, sync::Arc};

use standardwebhooks::Webhook;

/// A key that signs events. `Debug` shows `[redacted]`.
#[derive(Clone)]
pub struct SigningKey(Arc<Webhook>);

/// Why a text is no signing key. It does not repeat any part of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSigningKey {
    /// There is nothing behind `whsec_`.
    #[error("the signing secret is empty")]
    Empty,
    /// What is behind `whsec_` is not base64.
    #[error("the signing secret is not whsec_ and base64; was it copied completely?")]
    NotBase64,
}

impl SigningKey {
    /// Reads a key, `whsec_` and base64, with white space around it. The prefix may be missing: the
    /// libraries of Svix accept that, too.
    ///
    /// # Errors
    /// It is empty, or not base64.
    pub fn parse(text: &str) -> Result<Self, InvalidSigningKey> {
        let text = text.trim();
        if text.strip_prefix("whsec_").unwrap_or(text).is_empty() {
            return Err(InvalidSigningKey::Empty);
        }
        let key = Webhook::new(text).map_err(|_| InvalidSigningKey::NotBase64)?;
        Ok(Self(Arc::new(key)))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Returns the value of the header `svix-signature`: one signature for each key, with spaces
/// between. `timestamp` is in Unix seconds.
pub fn signatures(keys: &[SigningKey], id: &str, timestamp: i64, body: &str) -> String {
    // Signing fails only for a body that is not UTF-8.
    let signatures = keys
        .iter()
        .filter_map(|key| key.0.sign(id, timestamp, body.as_bytes()).ok());
    signatures.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    const ID: &str = "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk";
    const TIMESTAMP: i64 = 1_649_367_553;
    const BODY: &str = r#"{"email":"test@example.com","username":"test_user"}"#;
    const SIGNATURE: &str = "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=";

    fn key(text: &str) -> SigningKey {
        SigningKey::parse(text).unwrap()
    }

    #[test]
    fn the_example_of_svix() {
        for text in [SECRET, &format!(" {SECRET}\n"), &SECRET["whsec_".len()..]] {
            assert_eq!(signatures(&[key(text)], ID, TIMESTAMP, BODY), SIGNATURE);
        }
    }

    #[test]
    fn each_key_signs_in_its_order() {
        let keys = [key("whsec_AAAA"), key(SECRET)];
        let both = signatures(&keys, ID, TIMESTAMP, BODY);
        let (newer, older) = both.split_once(' ').unwrap();
        assert_eq!(older, SIGNATURE);
        assert_eq!(newer, signatures(&keys[..1], ID, TIMESTAMP, BODY));
    }

    #[test]
    fn what_is_no_key_is_refused_and_nothing_is_printed() {
        for text in ["", " ", "whsec_", " whsec_\n"] {
            assert_eq!(SigningKey::parse(text).unwrap_err(), InvalidSigningKey::Empty, "{text}");
        }
        for text in ["sk_test_AAAA", "whsec_AAA", "whsec_AA A", "whsec_whsec_AAAA", "$SECRET"] {
            let error = SigningKey::parse(text).unwrap_err();
            assert_eq!(error, InvalidSigningKey::NotBase64, "{text}");
            assert!(!error.to_string().contains("AA"), "{error}");
        }
        assert_eq!(format!("{:?}", key(SECRET)), "[redacted]");
    }
}
