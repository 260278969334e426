//! The time from the commit of an event until the receiver has answered.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    churn,
    endpoint::{EndpointFile, wait_for},
    events::{EventKind, Watcher},
    options::Options,
    receiver::{Received, Receiver},
    table::{Table, percentile},
    world::{Schedule, World},
};

const MAX_P50: Duration = Duration::from_millis(20);
const MAX_P99: Duration = Duration::from_millis(100);

/// Time limit for the last events to arrive.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A user, and what happened to it. Each user changes once.
type Key = (String, EventKind);

pub async fn run(world: &mut World, options: &Options, table: &mut Table) -> Result<()> {
    let receiver = Receiver::start(([127, 0, 0, 1], 0).into()).await?;
    let endpoint = EndpointFile::write(receiver.address())?;
    world
        .restart_daemon(Some(Schedule::EverySecond), |command| endpoint.configure(command))
        .await?;
    let before = receiver.count();
    let mut commits = world.watch().await?;
    let ledger = churn::run(world, options.seconds).await?;
    churn::verify(world, &ledger, table).await?;
    let changes = usize::try_from(options.seconds * churn::RATE)?;
    wait_for(world, "all events are delivered", TIMEOUT, async |_| {
        Ok(receiver.count() >= before + changes)
    })
    .await?;
    world.stop_daemon().await?;

    let committed = commit_times(&mut commits, changes).await?;
    let received = receiver.stop().await;
    let mut times = Vec::new();
    for request in &received {
        if let Some(committed_at) = committed.get(&key(request)?) {
            times.push(request.answered_at.saturating_duration_since(*committed_at));
        }
    }
    times.sort_unstable();
    println!(
        "{changes} changes, incremental syncs {}: {} events",
        Schedule::EverySecond.name(),
        times.len()
    );
    add_figures(&times, table);
    if times.len() != changes {
        table.failure(format!("{changes} events were committed, and {} received", times.len()));
    }
    Ok(())
}

/// When the events were committed, as an application sees it.
async fn commit_times(commits: &mut Watcher, count: usize) -> Result<HashMap<Key, Instant>> {
    let mut times = HashMap::new();
    while times.len() < count {
        let event = commits.next(Duration::from_secs(1)).await?;
        let event = event.context("an application did not see all events")?;
        times.insert((event.user, event.kind), event.announced_at);
    }
    Ok(times)
}

fn key(request: &Received) -> Result<Key> {
    let event: Value = serde_json::from_slice(&request.body)?;
    let (kind, user) = (event["type"].as_str(), event["data"]["id"].as_str());
    let kind = EventKind::ALL.into_iter().find(|known| Some(known.name()) == kind);
    Ok((
        user.context("an event has no user")?.to_owned(),
        kind.context("an event has an unknown type")?,
    ))
}

fn add_figures(times: &[Duration], table: &mut Table) {
    let most = percentile(times, 100).unwrap_or_default();
    println!("  at most {}", milliseconds(most));
    for (what, percent, max) in [("p50", 50, MAX_P50), ("p99", 99, MAX_P99)] {
        let measured = percentile(times, percent);
        table.row(
            format!("from commit to 200: {what}"),
            format!("≤ {} ms", max.as_millis()),
            measured.map_or_else(|| "–".to_owned(), milliseconds),
            measured.is_some_and(|measured| measured <= max),
        );
    }
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}
