//! Measures how fast events are delivered, and what an endpoint that does not work costs.
//!
//! It runs the real binary against simulated users. `make bench-delivery` starts it;
//! benches/README.md says how each figure is measured. It ends with a table. It fails if something
//! does not work, but not if a figure is worse than wanted.

#[path = "../common/changes.rs"]
#[allow(dead_code, reason = "another benchmark deletes single users")]
mod changes;
#[path = "../common/churn.rs"]
mod churn;
#[path = "../common/daemon.rs"]
#[allow(dead_code, reason = "another benchmark shows the peak of memory")]
mod daemon;
mod dead;
mod endpoint;
#[path = "../common/environment.rs"]
mod environment;
#[path = "../common/events.rs"]
mod events;
mod latency;
#[path = "../common/ledger.rs"]
mod ledger;
mod monitor;
mod options;
#[path = "../common/postgres.rs"]
mod postgres;
mod receiver;
#[path = "../common/requests.rs"]
#[allow(dead_code, reason = "another benchmark counts requests")]
mod requests;
#[path = "../common/server.rs"]
#[allow(dead_code, reason = "another benchmark counts statements and rows")]
mod server;
#[path = "../common/table.rs"]
#[allow(dead_code, reason = "the other benchmarks show other figures")]
mod table;
mod throughput;
#[path = "../common/world.rs"]
#[allow(dead_code, reason = "another benchmark has more schedules and instances")]
mod world;
mod wrk;

use std::process::ExitCode;

use anyhow::Result;

use options::{Options, Stage};
use server::Server;
use table::Table;
use world::World;

// The daemon ends with the thread that starts it. Here that is the main thread, which ends last.
#[tokio::main]
async fn main() -> ExitCode {
    let mut table = Table::default();
    let result = run(&mut table).await;
    table.print();
    let mut works = true;
    for failure in table.failures() {
        println!("FAILED: {failure}");
        works = false;
    }
    if let Err(error) = result {
        println!("FAILED: {error:#}");
        works = false;
    }
    if works { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn run(table: &mut Table) -> Result<()> {
    let options = Options::from_environment()?;
    let server = Server::connect().await?;
    println!("{options}; {server}");
    if options.has(Stage::Throughput) || options.has(Stage::Latency) {
        let mut world = World::production(throughput::EVENTS, "bench_delivery", &server).await?;
        if options.has(Stage::Throughput) {
            throughput::run(&mut world, table).await?;
        }
        if options.has(Stage::Latency) {
            latency::run(&mut world, &options, table).await?;
        }
        world.end().await?;
    }
    if options.has(Stage::Dead) {
        let mut world = World::production(options.users, "bench_dead", &server).await?;
        dead::run(&mut world, table, options.seconds).await?;
        world.end().await?;
    }
    Ok(())
}
