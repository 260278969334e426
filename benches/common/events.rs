//! Reads the rows of `clerk.user_events` as they come, as an application does.

use std::{
    future::poll_fn,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio::{
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
    task::JoinHandle,
};
use tokio_postgres::{AsyncMessage, Client, NoTls};

/// What happened to a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventKind {
    Created,
    Updated,
    Deleted,
}

impl EventKind {
    pub const ALL: [Self; 3] = [Self::Created, Self::Updated, Self::Deleted];

    /// The type of its events.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "user.created",
            Self::Updated => "user.updated",
            Self::Deleted => "user.deleted",
        }
    }
}

/// A row of `clerk.user_events` that an application has read.
pub struct Event {
    pub kind: EventKind,
    pub user: String,
    /// When the notification came after which it was read. It is that of its commit or of an
    /// earlier one.
    pub announced_at: Instant,
    /// When it had been read.
    pub at: Instant,
}

/// An application that waits for notifications, and reads new events at each.
pub struct Watcher {
    events: UnboundedReceiver<Event>,
    reader: JoinHandle<()>,
}

impl Watcher {
    /// Watches events from now on.
    pub async fn start(url: &str) -> Result<Self> {
        let (client, notifications) = listen(url).await?;
        let last = "SELECT coalesce(max(id), 0) FROM clerk.user_events";
        let last = client.query_one(last, &[]).await?.get(0);
        let (sender, events) = mpsc::unbounded_channel();
        // A separate task: the time of arrival must not depend on when `next` is called.
        let reader = tokio::spawn(async move {
            if let Err(error) = read(&client, notifications, last, &sender).await {
                println!("cannot read events: {error:#}");
            }
        });
        Ok(Self { events, reader })
    }

    /// The next event, if one comes within this time.
    pub async fn next(&mut self, within: Duration) -> Result<Option<Event>> {
        match tokio::time::timeout(within, self.events.recv()).await {
            Ok(event) => Ok(Some(event.context("the connection for events has ended")?)),
            Err(_) => Ok(None),
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// A connection that listens, and when its notifications came.
async fn listen(url: &str) -> Result<(Client, UnboundedReceiver<Instant>)> {
    let (client, mut connection) = tokio_postgres::connect(url, NoTls).await?;
    let (sender, notifications) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notification(_) = message {
                // If the receiver is gone, so is the client, and with it the connection.
                let _ = sender.send(Instant::now());
            }
        }
    });
    client.batch_execute("LISTEN clerk_user_events").await?;
    Ok((client, notifications))
}

/// Reads new events until the connection ends or the receiver is gone.
async fn read(
    client: &Client,
    mut notifications: UnboundedReceiver<Instant>,
    mut last: i64,
    sender: &UnboundedSender<Event>,
) -> Result<()> {
    let new = "SELECT id, type, user_id FROM clerk.user_events WHERE id > $1 ORDER BY id";
    let new = client.prepare(new).await?;
    while let Some(announced_at) = notifications.recv().await {
        // One query reads the events of all notifications so far.
        while notifications.try_recv().is_ok() {}
        let rows = client.query(&new, &[&last]).await?;
        let at = Instant::now();
        for row in rows {
            last = row.get(0);
            let (name, user): (&str, String) = (row.get(1), row.get(2));
            let kind = EventKind::ALL.into_iter().find(|kind| kind.name() == name);
            let kind = kind.with_context(|| format!("the event {last} has the unknown type {name:?}"))?;
            let event = Event {
                kind,
                user,
                announced_at,
                at,
            };
            if sender.send(event).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}
