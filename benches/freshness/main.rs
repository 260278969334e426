//! Measures how fresh the mirror is and what that costs at Clerk, in Postgres and on the machine.
//!
//! It runs the real binary against a million simulated users. `make bench-freshness` starts it;
//! benches/README.md says how each figure is measured. It ends with a table. It fails if something
//! does not work, but not if a figure is worse than wanted.

#[path = "../common/changes.rs"]
mod changes;
#[path = "../common/churn.rs"]
mod churn;
#[path = "../common/daemon.rs"]
#[allow(dead_code, reason = "another benchmark samples the memory")]
mod daemon;
mod deletions;
mod development;
#[path = "../common/environment.rs"]
mod environment;
#[path = "../common/events.rs"]
#[allow(dead_code, reason = "another benchmark needs the times of commits")]
mod events;
mod idle;
mod latency;
#[path = "../common/ledger.rs"]
mod ledger;
mod memberships;
mod options;
#[path = "../common/postgres.rs"]
mod postgres;
#[path = "../common/requests.rs"]
mod requests;
#[path = "../common/server.rs"]
mod server;
#[path = "../common/table.rs"]
mod table;
#[path = "../common/world.rs"]
mod world;

use std::process::ExitCode;

use anyhow::Result;

use options::{Options, Stage};
use server::Server;
use table::Table;
use world::{Schedule, World};

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
    if options.needs_production() {
        production(&options, &server, table).await?;
    }
    if options.has(Stage::Development) {
        development::run(&options, &server, table).await?;
    }
    if options.has(Stage::Memberships) {
        memberships::run(&options, &server, table).await?;
    }
    Ok(())
}

/// Runs all stages on the large instance.
///
/// The order changes the schedule rarely, because each start of the daemon is a full sync.
async fn production(options: &Options, server: &Server, table: &mut Table) -> Result<()> {
    let mut world = World::production(options.users, "bench", server).await?;
    if options.has(Stage::Idle) {
        idle::run(&mut world, server, options, table).await?;
    }
    if options.has(Stage::Five) {
        latency::run(&mut world, Schedule::Default, options, table).await?;
    }
    if options.has(Stage::Deletions) {
        deletions::run(&mut world, table).await?;
    }
    if options.has(Stage::Second) {
        latency::run(&mut world, Schedule::EverySecond, options, table).await?;
    }
    if options.has(Stage::Half) {
        latency::run(&mut world, Schedule::EverySecondOnHalf, options, table).await?;
    }
    world.end().await
}
