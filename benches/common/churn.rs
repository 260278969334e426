//! Steady changes at Clerk, and the time until an application has read each of them.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::{changes::Changes, events::Watcher, ledger::Ledger, table::Table, world::World};

/// Changes per second.
pub const RATE: u64 = 10;

/// Time limit for the last changes to be seen.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Makes changes for a number of seconds, and waits until they are seen.
pub async fn run(world: &mut World, seconds: u64) -> Result<Ledger> {
    let changes = Changes::new(&world.sim);
    let mut watcher = world.watch().await?;
    let mut ledger = make_changes(world, changes, seconds).await?;
    wait_for_events(world, &mut watcher, &mut ledger).await?;
    Ok(ledger)
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
pub async fn verify(world: &World, ledger: &Ledger, table: &mut Table) -> Result<()> {
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
