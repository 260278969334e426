//! The time from a change at Clerk until an application has read it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::{
    changes::Changes,
    events::Watcher,
    ledger::Ledger,
    options::Options,
    requests::{Requests, now_ms},
    table::{Table, percentile},
    world::{Schedule, World},
};

/// Changes per second.
const RATE: u64 = 10;

/// Time limit for the last changes to be seen.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The wanted p50 and p99.
fn wanted(schedule: Schedule) -> (Duration, Duration) {
    match schedule {
        Schedule::EverySecond | Schedule::EverySecondOnHalf => (Duration::from_millis(1500), Duration::from_secs(3)),
        Schedule::Default => (Duration::from_secs(4), Duration::from_secs(8)),
    }
}

pub async fn run(world: &mut World, schedule: Schedule, options: &Options, table: &mut Table) -> Result<()> {
    world.ensure_daemon(schedule).await?;
    let changes = Changes::new(&world.sim);
    let mut watcher = world.watch().await?;
    let from = now_ms();
    let mut ledger = make_changes(world, changes, options.seconds).await?;
    wait_for_events(world, &mut watcher, &mut ledger).await?;
    let requests = Requests::since(&world.sim, from);

    let name = schedule.name();
    println!("{} changes, an incremental sync {name}", options.seconds * RATE);
    ledger.print();
    println!("  {} requests: {}", requests.count(), requests.kinds());
    let (p50, p99) = wanted(schedule);
    let sorted = ledger.sorted();
    table.within(format!("a change, {name}: p50"), p50, percentile(&sorted, 50));
    table.within(format!("a change, {name}: p99"), p99, percentile(&sorted, 99));
    let what = format!("requests in the busiest 10 s, {name}");
    table.at_most(what, schedule.budget(), requests.busiest_window());
    table.at_most(format!("changes never seen, {name}"), 0, ledger.outstanding() as u64);
    verify(world, &ledger, table).await
}

/// Makes changes evenly for a number of seconds.
async fn make_changes(world: &mut World, mut changes: Changes, seconds: u64) -> Result<Ledger> {
    let mut ledger = Ledger::default();
    let mut ticks = tokio::time::interval(Duration::from_millis(1000 / RATE));
    for _ in 0..seconds * RATE {
        ticks.tick().await;
        world.daemon()?.check()?;
        ledger.add_change(changes.make(&world.sim));
    }
    Ok(ledger)
}

/// Adds all events to the ledger, up to the time limit.
async fn wait_for_events(world: &mut World, watcher: &mut Watcher, ledger: &mut Ledger) -> Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    while ledger.outstanding() > 0 && Instant::now() < deadline {
        world.daemon()?.check()?;
        if let Some(event) = watcher.next(Duration::from_secs(1)).await? {
            ledger.add_event(event);
        }
    }
    Ok(())
}

/// Checks that the mirror is right: fast is of no use if it is wrong.
async fn verify(world: &World, ledger: &Ledger, table: &mut Table) -> Result<()> {
    if let Some(example) = ledger.example() {
        table.failure(format!(
            "{} changes were never seen, such as {example}",
            ledger.outstanding()
        ));
        return Ok(());
    }
    let (mirror, clerk) = (world.database.users().await?, world.sim.count());
    ensure!(
        usize::try_from(mirror) == Ok(clerk),
        "the mirror has {mirror} users and Clerk {clerk}, although all changes were seen"
    );
    Ok(())
}
