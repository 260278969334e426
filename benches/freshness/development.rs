//! A development instance, whose rate limit is a tenth: a look every second is nearly all that the budget allows.

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

/// A quarter of a development instance's limit in ten seconds: the default budget.
const BUDGET: u64 = 25;

pub async fn run(options: &Options, server: &Server, table: &mut Table) -> Result<()> {
    let mut world = World::development(USERS, server).await?;
    world.follow(Schedule::EverySecond).await?;
    world.between_looks().await?;
    let from = now_ms();
    let lasted = options.development_seconds();
    world.sleep(Duration::from_secs(lasted)).await?;
    let requests = Requests::between(&world.sim, from, now_ms());

    let per_second = requests.looks() as f64 / lasted as f64;
    println!(
        "Development instance for {lasted} s: {per_second:.2} looks a second; {}",
        requests.kinds()
    );
    // Of all that this instance was ever asked: its first full sync has the same budget.
    let busiest = world.sim.busiest_window();
    table.row(
        "development key: requests in the busiest 10 s",
        format!("≤ {BUDGET}"),
        format!("{busiest}, with {per_second:.2} looks a second"),
        busiest <= BUDGET,
    );
    let refused = Requests::since(&world.sim, 0).with_status(429);
    table.at_most("development key: answers 429", 0, refused);
    world.end().await
}
