//! The ids of messages, `svix-id`: the same at each attempt, and different in each database.

/// Makes the ids of messages.
#[derive(Clone)]
pub(super) struct MessageIds {
    key: [u8; 32],
    /// Begins the ids of all events.
    prefix: String,
}

/// Length of the part that differs between databases, in characters.
const PREFIX: usize = 16;

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
        format!("{}{id:011}", self.prefix)
    }

    /// Returns the id of a `created` event that is made from the mirror's row. It is another one if
    /// the object has changed.
    pub(super) fn of_object(&self, payload: &str) -> String {
        let hash = blake3::keyed_hash(&self.key, payload.as_bytes());
        format!("msg_{}", letters(&hash, HASHED))
    }
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

    #[test]
    fn ids_are_stable_and_differ_between_databases() {
        let (one, other) = (MessageIds::new([1; 32]), MessageIds::new([2; 32]));
        assert_eq!(one.of_event(7), one.clone().of_event(7));
        assert!(one.of_event(7).ends_with("00000000007"));
        assert_ne!(one.of_event(7), one.of_event(8));
        assert_ne!(one.of_event(7), other.of_event(7));
        assert_eq!(one.of_object("{}"), one.of_object("{}"));
        assert_ne!(one.of_object("{}"), one.of_object("[]"));
        for id in [one.of_event(7), one.of_object("{}")] {
            assert_eq!(id.len(), "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk".len());
            assert!(id["msg_".len()..].bytes().all(|letter| letter.is_ascii_alphanumeric()));
        }
    }
}
