//! How large the program is, and how soon it asks Clerk.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use crate::{load::DATABASE, table::Table, world::World};

const MOST_MB: f64 = 20.0;
const WITHIN: Duration = Duration::from_millis(50);
const TIMES: usize = 5;

pub async fn run(world: &World, table: &mut Table) -> Result<()> {
    let size = std::fs::metadata(env!("CARGO_BIN_EXE_clerk2pg"))?.len() as f64 / 1e6;
    table.row(
        "size of the program",
        format!("< {MOST_MB} MB"),
        format!("{size:.1} MB"),
        size < MOST_MB,
    );
    world.server().empty(DATABASE).await?;
    let mut waits = Vec::new();
    for _ in 0..TIMES {
        let before = world.sim.log().len();
        let begun = SystemTime::now().duration_since(UNIX_EPOCH)?;
        world.once(DATABASE).await?;
        let first = world.sim.log()[before..]
            .first()
            .map(|request| request.at)
            .context("it asked nothing")?;
        waits.push(Duration::from_millis(u64::try_from(first)?).saturating_sub(begun));
    }
    waits.sort_unstable();
    let wait = waits[TIMES / 2];
    let measured = format!("{} ms", wait.as_millis());
    table.row(
        "from its start to its first request",
        format!("< {} ms", WITHIN.as_millis()),
        measured,
        wait < WITHIN,
    );
    Ok(())
}
