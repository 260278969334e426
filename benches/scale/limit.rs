//! A full sync within Clerk's rate limit for production instances, against the time that the limit
//! imposes.

use std::time::Duration;

use anyhow::Result;
use clerk_sim::{Effect, Rule};

use crate::{
    load::DATABASE,
    options::Options,
    run::{measure, median, ratio_row, show},
    table::Table,
    world::World,
};

/// The latency of Clerk's answers.
const LATENCY_MS: u64 = 100;
/// Users per page.
const PAGE: usize = 500;
const REQUESTS_PER_SECOND: usize = 100;
/// The ratio, at most.
const MAX_RATIO: f64 = 1.25;

pub async fn run(world: &World, options: &Options, table: &mut Table) -> Result<()> {
    println!(
        "Full sync of {} unchanged users, within the rate limit and with {LATENCY_MS} ms latency",
        world.users
    );
    world.sim.set_faults(Rule::new(Effect::LatencyMs(LATENCY_MS)));
    let before = world.sim.log().len();
    let mut syncs = Vec::new();
    for _ in 0..options.runs {
        let mut command = world.command(DATABASE);
        command.env("CLERK2PG_CLERK__RATE_LIMIT", "0");
        syncs.push(measure("clerk2pg", command).await?);
        // Wait until the window of the limit is empty.
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    show("clerk2pg", &syncs);
    let log = world.sim.log();
    let refused = log[before..].iter().filter(|request| request.status == 429).count();
    let minimum = Duration::from_secs_f64((world.users / PAGE) as f64 / REQUESTS_PER_SECOND as f64);
    ratio_row(
        table,
        "full sync, against Clerk's limit",
        MAX_RATIO,
        median(&syncs).wall,
        minimum,
    );
    table.at_most("answers 429 in it", 0, refused as u64);
    Ok(())
}
