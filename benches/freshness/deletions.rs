//! What it costs to find out who is gone, of whom no list tells.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use crate::{
    changes::Changes,
    events::{Kind, Watcher},
    requests::{Requests, now_ms},
    table::{Table, percentile, seconds},
    world::{Schedule, World},
};

/// How often one user is deleted alone.
const TIMES: usize = 5;
const MOST_FOR_ONE: u64 = 20;

/// How many are deleted at once, and the requests that this may take.
const MANY: usize = 100;
const MOST_FOR_MANY: u64 = 500;

/// What a sync may ask with nobody gone; whatever is beyond this is the search's.
const IDLE_REQUESTS: u64 = 2;

/// How long a deletion may remain unseen.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long a sync may go on after its last event.
const TAIL: Duration = Duration::from_secs(1);

struct Cost {
    requests: Requests,
    took: Duration,
}

impl Cost {
    /// What would not have been asked without the deletion.
    fn beyond_idle(&self) -> u64 {
        self.requests
            .count()
            .saturating_sub(IDLE_REQUESTS * self.requests.looks())
    }

    fn print(&self) {
        let (count, took) = (self.requests.count(), seconds(self.took));
        println!("  {count} requests, in {took}: {}", self.requests.kinds());
    }
}

pub async fn run(world: &mut World, table: &mut Table) -> Result<()> {
    world.follow(Schedule::Default).await?;
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
        format!("≤ {MOST_FOR_ONE}"),
        format!("{most} at most, median {median}"),
        most <= MOST_FOR_ONE,
    );

    println!("{MANY} deletions at once");
    let cost = delete(world, &mut changes, &mut watcher, MANY).await?;
    cost.print();
    let what = format!("requests for {MANY} deletions, idle syncs included");
    table.at_most(what, MOST_FOR_MANY, cost.requests.count());
    Ok(())
}

/// Deletes so many users at random, and counts until all of them are known to be gone.
async fn delete(world: &mut World, changes: &mut Changes, watcher: &mut Watcher, count: usize) -> Result<Cost> {
    world.between_looks().await?;
    let (from, begun) = (now_ms(), Instant::now());
    let mut unseen: HashSet<String> = (0..count).map(|_| changes.delete(&world.sim).user).collect();
    let mut last = begun;
    while !unseen.is_empty() {
        world.daemon()?.check()?;
        let left = unseen.len();
        ensure!(
            begun.elapsed() < PATIENCE,
            "{left} of {count} deletions were not seen within {}",
            seconds(PATIENCE)
        );
        if let Some(event) = watcher.next(Duration::from_secs(1)).await?
            && event.kind == Kind::Deleted
            && unseen.remove(&event.user)
        {
            last = event.at;
        }
    }
    world.sleep(TAIL).await?;
    Ok(Cost {
        requests: Requests::since(&world.sim, from),
        took: last - begun,
    })
}
