//! The ids of messages, `svix-id`: the same at each attempt, and different in each database.

use std::iter::repeat_with;

use crate::mirror::EventObject;

/// Makes the ids of messages.
#[derive(Clone)]
pub(super) struct MessageIds {
    key: [u8; 32],
    /// Begins the ids of all events.
    prefix: String,
}

/// Length of the part that differs between databases, in characters.
const PREFIX: usize = 16;

/// Digits of an event's number at least.
const DIGITS: usize = 11;

/// Length of an id that is made from a hash alone, in characters. Svix's have as many.
const HASHED: usize = 27;

/// The characters of Svix's ids.
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

impl MessageIds {
    /// Makes ids with a key that is secret to the database. If the schema is created anew, the
    /// numbers of events begin again, and receivers that remember ids must not take an event for an
    /// old one.
    pub(super) fn new(key: [u8; 32]) -> Self {
        let hash = blake3::keyed_hash(&key, b"events");
        Self {
            key,
            prefix: format!("msg_{}", letters(&hash, PREFIX)),
        }
    }

    /// Returns the id of an event of `clerk.events`. It ends with the event's number.
    pub(super) fn of_event(&self, id: i64) -> String {
        format!("{}{id:0DIGITS$}", self.prefix)
    }

    /// Returns the id of a `created` event that is made from the mirror's row. It is the same at
    /// each attempt, although the object may have changed: these changes follow as events of their
    /// own. A receiver that remembers ids recognizes an old attempt that reaches it after them. It
    /// is another one if somebody asks again, at another time, in Unix microseconds.
    pub(super) fn of_object(&self, object: &EventObject, asked_at: i64) -> String {
        let EventObject { resource, id } = object;
        let hash = blake3::keyed_hash(&self.key, format!("{resource} {id} {asked_at}").as_bytes());
        format!("msg_{}", letters(&hash, HASHED))
    }
}

/// Returns an id that nothing else has.
pub(super) fn random_id() -> String {
    format!(
        "msg_{}",
        repeat_with(fastrand::alphanumeric).take(HASHED).collect::<String>()
    )
}

/// Returns the number of the event of `clerk.events` that somebody names: by the number itself, or
/// by the id of its message.
pub fn event_number(name: &str) -> Option<i64> {
    let digits = match name.strip_prefix("msg_") {
        Some(rest) => rest.get(PREFIX..).filter(|digits| digits.len() >= DIGITS)?,
        None => name,
    };
    let is_number = digits.bytes().all(|digit| digit.is_ascii_digit());
    digits.parse().ok().filter(|number| is_number && *number > 0)
}

/// Returns the first characters of a hash.
fn letters(hash: &blake3::Hash, length: usize) -> String {
    let bytes = hash.as_bytes().iter().take(length);
    bytes
        .map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> EventObject {
        EventObject {
            resource: "users".to_owned(),
            id: "user_1".to_owned(),
        }
    }

    #[test]
    fn events_are_named_by_number_or_by_message() {
        let ids = MessageIds::new([1; 32]);
        for number in [1, 7, 12_345_678_901, 123_456_789_012, i64::MAX] {
            assert_eq!(event_number(&number.to_string()), Some(number));
            assert_eq!(event_number(&ids.of_event(number)), Some(number));
        }
        for name in [
            "",
            "0",
            "-1",
            "+1",
            "1 ",
            "1.0",
            "0x1",
            "9223372036854775808",
            "msg_",
            "msg_7",
            "msg_00000000007",
            "msg_ABCDEFGHIJKLMNOP",
            "msg_ABCDEFGHIJKLMNOP0000000007",
            "msg_ABCDEFGHIJKLMNOP00000000000",
            "msg_ABCDEFGHIJKLMNOP0000000000x",
            "msg_ÄÄÄÄÄÄÄÄÄ00000000007",
            &ids.of_object(&user(), 7),
        ] {
            assert_eq!(event_number(name), None, "{name}");
        }
    }

    #[test]
    fn ids_are_stable_and_differ_between_databases() {
        let (one, other) = (MessageIds::new([1; 32]), MessageIds::new([2; 32]));
        assert_eq!(one.of_event(7), one.clone().of_event(7));
        assert!(one.of_event(7).ends_with("00000000007"));
        assert_ne!(one.of_event(7), one.of_event(8));
        assert_ne!(one.of_event(7), other.of_event(7));
        assert_eq!(one.of_object(&user(), 7), one.of_object(&user(), 7));
        assert_ne!(one.of_object(&user(), 7), one.of_object(&user(), 8));
        assert_ne!(one.of_object(&user(), 7), other.of_object(&user(), 7));
        for id in [one.of_event(7), one.of_object(&user(), 7)] {
            assert_eq!(id.len(), "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk".len());
            assert!(id["msg_".len()..].bytes().all(|letter| letter.is_ascii_alphanumeric()));
        }
    }
}
