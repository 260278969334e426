//! The time from a change at Clerk until an application has read it.

use std::time::Duration;

use anyhow::Result;

use crate::{
    churn,
    options::Options,
    requests::{Requests, now_ms},
    table::{Table, percentile},
    world::{Schedule, World},
};

/// The wanted p50 and p99.
fn wanted(schedule: Schedule) -> (Duration, Duration) {
    match schedule {
        Schedule::EverySecond | Schedule::EverySecondOnHalf => (Duration::from_millis(1500), Duration::from_secs(3)),
        Schedule::Default => (Duration::from_secs(4), Duration::from_secs(8)),
    }
}

pub async fn run(world: &mut World, schedule: Schedule, options: &Options, table: &mut Table) -> Result<()> {
    world.ensure_daemon(schedule).await?;
    let from = now_ms();
    let ledger = churn::run(world, options.seconds).await?;
    let requests = Requests::since(&world.sim, from);

    let name = schedule.name();
    println!("{} changes, an incremental sync {name}", options.seconds * churn::RATE);
    ledger.print();
    println!("  {} requests: {}", requests.count(), requests.kinds());
    let (p50, p99) = wanted(schedule);
    let sorted = ledger.sorted();
    table.within(format!("a change, {name}: p50"), p50, percentile(&sorted, 50));
    table.within(format!("a change, {name}: p99"), p99, percentile(&sorted, 99));
    let what = format!("requests in the busiest 10 s, {name}");
    table.at_most(what, schedule.budget(), requests.busiest_window());
    table.at_most(format!("changes never seen, {name}"), 0, ledger.outstanding() as u64);
    churn::verify(world, &ledger, table).await
}
