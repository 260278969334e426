//! A development instance. Its rate limit is a tenth of the usual one: an incremental sync every
//! second needs almost the whole budget.

use std::time::Duration;

use anyhow::Result;

use crate::{
    options::Options,
    requests::{Requests, now_ms},
    server::Server,
    table::Table,
    world::{Schedule, World},
};

const USERS: usize = 10_000;

/// Requests per ten seconds: the default budget, a quarter of the limit of a development instance.
const BUDGET: u64 = 25;

pub async fn run(options: &Options, server: &Server, table: &mut Table) -> Result<()> {
    let mut world = World::development(USERS, server).await?;
    world.ensure_daemon(Schedule::EverySecond).await?;
    world.between_syncs().await?;
    let from = now_ms();
    let duration = options.development_seconds();
    // What happens in this time is the figure.
    world.sleep(Duration::from_secs(duration)).await?;
    let requests = Requests::between(&world.sim, from, now_ms());

    let per_second = requests.incremental_syncs() as f64 / duration as f64;
    println!(
        "Development instance for {duration} s: {per_second:.2} incremental syncs a second; {}",
        requests.kinds()
    );
    // This includes the first full sync, which has the same budget.
    let busiest = world.sim.busiest_window();
    table.row(
        "development key: requests in the busiest 10 s",
        format!("≤ {BUDGET}"),
        format!("{busiest}, with {per_second:.2} incremental syncs a second"),
        busiest <= BUDGET,
    );
    let refused = Requests::since(&world.sim, 0).with_status(429);
    table.at_most("development key: answers 429", 0, refused);
    world.end().await
}
