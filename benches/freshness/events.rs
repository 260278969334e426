//! What the daemon tells those who listen: rows of `clerk.user_events`, as they come.

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

/// What can happen to a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Created,
    Updated,
    Deleted,
}

impl Kind {
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

/// A row of `clerk.user_events`, and when an application had read it.
pub struct Event {
    pub kind: Kind,
    pub user: String,
    pub at: Instant,
}

/// An application that listens, and reads what is new whenever it is told.
pub struct Watcher {
    events: UnboundedReceiver<Event>,
    reader: JoinHandle<()>,
}

impl Watcher {
    /// From now on.
    pub async fn start(url: &str) -> Result<Self> {
        let (client, notified) = listen(url).await?;
        let last = "SELECT coalesce(max(id), 0) FROM clerk.user_events";
        let last = client.query_one(last, &[]).await?.get(0);
        let (tell, events) = mpsc::unbounded_channel();
        // A task of its own: when an event arrives must not depend on when it is asked for.
        let reader = tokio::spawn(async move {
            if let Err(error) = read(&client, notified, last, &tell).await {
                println!("Events cannot be read: {error:#}");
            }
        });
        Ok(Self { events, reader })
    }

    /// The next event, if one comes within this time.
    pub async fn next(&mut self, within: Duration) -> Result<Option<Event>> {
        match tokio::time::timeout(within, self.events.recv()).await {
            Ok(event) => Ok(Some(event.context("there are no more events to be had")?)),
            Err(_) => Ok(None),
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// A connection that listens, and what it is told.
async fn listen(url: &str) -> Result<(Client, UnboundedReceiver<()>)> {
    let (client, mut connection) = tokio_postgres::connect(url, NoTls).await?;
    let (tell, notified) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notification(_) = message {
                // Where nobody waits for it any more, the client is gone as well, and with it the connection.
                let _ = tell.send(());
            }
        }
    });
    client.batch_execute("LISTEN clerk_user_events").await?;
    Ok((client, notified))
}

/// Reads what is new, until the connection or whoever wants the events is gone.
async fn read(
    client: &Client,
    mut notified: UnboundedReceiver<()>,
    mut last: i64,
    tell: &UnboundedSender<Event>,
) -> Result<()> {
    let new = "SELECT id, type, user_id FROM clerk.user_events WHERE id > $1 ORDER BY id";
    let new = client.prepare(new).await?;
    while notified.recv().await.is_some() {
        // One reading does for all that was told so far.
        while notified.try_recv().is_ok() {}
        let rows = client.query(&new, &[&last]).await?;
        let at = Instant::now();
        for row in rows {
            last = row.get(0);
            let (name, user): (&str, String) = (row.get(1), row.get(2));
            let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name);
            let kind = kind.with_context(|| format!("the event {last} has the unknown type {name:?}"))?;
            if tell.send(Event { kind, user, at }).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}
