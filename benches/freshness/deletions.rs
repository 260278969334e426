//! The cost of finding deleted users, which no list shows.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use crate::{
    changes::Changes,
    events::{EventKind, Watcher},
    requests::{Requests, now_ms},
    table::{Table, percentile, seconds},
    world::{Schedule, World},
};

/// Measurements of a single deletion.
const TIMES: usize = 5;
/// Requests for a single deletion, at most.
const MAX_FOR_ONE: u64 = 20;

/// Users that are deleted at once.
const MANY: usize = 100;
/// Requests for these, at most.
const MAX_FOR_MANY: u64 = 500;

/// Requests of a sync if no user was deleted. The search makes the others.
const IDLE_REQUESTS: u64 = 2;

/// Time limit for a deletion to be seen.
const TIMEOUT: Duration = Duration::from_secs(120);

/// The time that a sync may continue after its last event.
const TAIL: Duration = Duration::from_secs(1);

/// What deletions cost.
struct Cost {
    requests: Requests,
    took: Duration,
}

impl Cost {
    /// Requests that would not have been made without the deletion.
    fn beyond_idle(&self) -> u64 {
        self.requests
            .count()
            .saturating_sub(IDLE_REQUESTS * self.requests.incremental_syncs())
    }

    fn print(&self) {
        let (count, took) = (self.requests.count(), seconds(self.took));
        println!("  {count} requests, in {took}: {}", self.requests.kinds());
    }
}

pub async fn run(world: &mut World, table: &mut Table) -> Result<()> {
    world.ensure_daemon(Schedule::Default).await?;
    let mut changes = Changes::new(&world.sim);
    let mut watcher = world.watch().await?;

    println!("One deletion, {TIMES} times");
    let mut costs = Vec::new();
    for _ in 0..TIMES {
        let cost = delete(world, &mut changes, &mut watcher, 1).await?;
        cost.print();
        costs.push(cost.beyond_idle());
    }
    costs.sort_unstable();
    let (median, most) = (percentile(&costs, 50), percentile(&costs, 100));
    let (median, most) = (median.unwrap_or(0), most.unwrap_or(0));
    table.row(
        "requests for one deletion, beyond idle syncs",
        format!("≤ {MAX_FOR_ONE}"),
        format!("{most} at most, median {median}"),
        most <= MAX_FOR_ONE,
    );

    println!("{MANY} deletions at once");
    let cost = delete(world, &mut changes, &mut watcher, MANY).await?;
    cost.print();
    let what = format!("requests for {MANY} deletions, idle syncs included");
    table.at_most(what, MAX_FOR_MANY, cost.requests.count());
    Ok(())
}

/// Deletes users at random, and counts requests until all deletions are seen.
async fn delete(world: &mut World, changes: &mut Changes, watcher: &mut Watcher, count: usize) -> Result<Cost> {
    world.between_syncs().await?;
    let (from, started) = (now_ms(), Instant::now());
    let mut unseen: HashSet<String> = (0..count).map(|_| changes.delete(&world.sim).user).collect();
    let mut last = started;
    while !unseen.is_empty() {
        world.daemon()?.check()?;
        let left = unseen.len();
        ensure!(
            started.elapsed() < TIMEOUT,
            "{left} of {count} deletions were not seen within {}",
            seconds(TIMEOUT)
        );
        if let Some(event) = watcher.next(Duration::from_secs(1)).await?
            && event.kind == EventKind::Deleted
            && unseen.remove(&event.user)
        {
            last = event.at;
        }
    }
    world.sleep(TAIL).await?;
    Ok(Cost {
        requests: Requests::since(&world.sim, from),
        took: last - started,
    })
}
