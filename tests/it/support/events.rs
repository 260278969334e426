//! The rows of `clerk.user_events`, and the notifications about them.

use std::future::poll_fn;

use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_postgres::{AsyncMessage, Client, NoTls};

use crate::support::fixture::Fixture;

pub const INITIAL: (&str, &str) = ("CLERK2PG_EVENTS__INITIAL", "true");

pub const MARK: (&str, &str) = ("CLERK2PG_DELETES__MODE", "mark");

/// A row of `clerk.user_events`.
#[derive(Debug)]
pub struct Event {
    pub id: i64,
    pub kind: String,
    pub user_id: String,
    /// Unix milliseconds.
    pub occurred_at: i64,
    /// Whether `occurred_at` is the time of the transaction that wrote the event.
    pub is_now: bool,
    /// Sorted.
    pub changed: Vec<String>,
    pub payload: Value,
}

impl Fixture {
    /// Returns all events after the id `after`, in order.
    pub async fn events(&self, after: i64) -> Vec<Event> {
        let sql =
            "SELECT id, type, user_id, (extract(epoch FROM occurred_at) * 1000)::bigint, occurred_at = recorded_at,
            ARRAY(SELECT unnest(changed) ORDER BY 1), payload::text FROM clerk.user_events WHERE id > $1 ORDER BY id";
        let rows = self.db.client.query(sql, &[&after]).await.unwrap();
        let event = |row: &tokio_postgres::Row| Event {
            id: row.get(0),
            kind: row.get(1),
            user_id: row.get(2),
            occurred_at: row.get(3),
            is_now: row.get(4),
            changed: row.get(5),
            payload: serde_json::from_str(row.get(6)).unwrap(),
        };
        rows.iter().map(event).collect()
    }

    /// Returns the id of the last event.
    pub async fn last_event(&self) -> i64 {
        self.db
            .number("SELECT coalesce(max(id), 0) FROM clerk.user_events")
            .await
    }

    /// Returns type and user id of all events after the id `after`, sorted.
    pub async fn event_names(&self, after: i64) -> Vec<String> {
        let events = self.events(after).await;
        let mut names: Vec<_> = events.iter().map(|e| format!("{} {}", e.kind, e.user_id)).collect();
        names.sort();
        names
    }
}

/// Returns a connection that listens, and its notifications.
pub async fn listen(url: &str, channel: &str) -> (Client, UnboundedReceiver<String>) {
    let (client, mut connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    let (sender, receiver) = unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notification(notification) = message {
                let _ = sender.send(notification.payload().to_owned());
            }
        }
    });
    client.batch_execute(&format!("LISTEN {channel}")).await.unwrap();
    (client, receiver)
}
