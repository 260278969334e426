//! The size of the program, and the time until its first request.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use crate::{load::DATABASE, table::Table, world::World};

/// Megabytes of the program, at most.
const MAX_MB: f64 = 20.0;
/// Time until the first request, at most.
const MAX_WAIT: Duration = Duration::from_millis(50);
/// Measurements, of which the median counts.
const TIMES: usize = 5;

pub async fn run(world: &World, table: &mut Table) -> Result<()> {
    let size = std::fs::metadata(env!("CARGO_BIN_EXE_clerk2pg"))?.len() as f64 / 1e6;
    table.row(
        "size of the program",
        format!("< {MAX_MB} MB"),
        format!("{size:.1} MB"),
        size < MAX_MB,
    );
    world.server().empty(DATABASE).await?;
    let mut waits = Vec::new();
    for _ in 0..TIMES {
        let before = world.sim.log().len();
        let started = SystemTime::now().duration_since(UNIX_EPOCH)?;
        world.once(DATABASE).await?;
        let first = world.sim.log()[before..]
            .first()
            .map(|request| request.at)
            .context("the program made no request")?;
        waits.push(Duration::from_millis(u64::try_from(first)?).saturating_sub(started));
    }
    waits.sort_unstable();
    let wait = waits[TIMES / 2];
    let measured = format!("{} ms", wait.as_millis());
    table.row(
        "from its start to its first request",
        format!("< {} ms", MAX_WAIT.as_millis()),
        measured,
        wait < MAX_WAIT,
    );
    Ok(())
}
