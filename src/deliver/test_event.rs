//! The event that `clerk2pg send-test` sends.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{body::body, message_id::random_id};

/// Its type. Handlers do nothing with types that they do not know, and answer 200.
const TYPE: &str = "clerk2pg.test";

/// An event about nothing, with an id of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestEvent {
    /// `svix-id`.
    pub id: String,
    /// The body of the request.
    pub body: String,
}

/// The same form as events of the database.
#[derive(Serialize)]
struct Envelope<'a> {
    data: NoData,
    object: &'static str,
    r#type: &'static str,
    timestamp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance_id: Option<&'a str>,
}

#[derive(Serialize)]
struct NoData {}

impl TestEvent {
    /// Makes an event that happens at a time.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub fn new(instance_id: Option<&str>, at: DateTime<Utc>) -> Result<Self, serde_json::Error> {
        let envelope = Envelope {
            data: NoData {},
            object: "event",
            r#type: TYPE,
            timestamp: at.timestamp_millis(),
            instance_id,
        };
        Ok(Self {
            id: random_id(),
            body: body(&serde_json::to_string(&envelope)?)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_an_event_with_an_id_of_its_own() {
        let at = DateTime::from_timestamp_millis(1_790_000_000_123).unwrap();
        let event = TestEvent::new(Some("ins_1"), at).unwrap();
        let expected =
            r#"{"data":{},"object":"event","type":"clerk2pg.test","timestamp":1790000000123,"instance_id":"ins_1"}"#;
        assert_eq!(event.body, expected);
        let other = TestEvent::new(None, at).unwrap();
        assert_eq!(other.body, expected.replace(r#","instance_id":"ins_1""#, ""));
        assert_ne!(event.id, other.id);
    }
}
