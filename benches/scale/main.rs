//! Measures how fast the mirror of a million users is made and compared.
//!
//! The limits of the machine and of Clerk, and other tools, are the measure. `make bench` starts
//! it; benches/README.md says how each figure is measured. It ends with a table. It fails if
//! something does not work, but not if a figure is worse than wanted.

#[path = "../common/environment.rs"]
mod environment;
mod growth;
mod limit;
mod load;
mod options;
mod peers;
#[path = "../common/postgres.rs"]
mod postgres;
mod run;
mod start;
#[path = "../common/table.rs"]
#[allow(dead_code, reason = "the other benchmark shows other figures")]
mod table;
mod unchanged;
mod world;

use std::process::ExitCode;

use anyhow::Result;
use clerk_sim::RateLimit;

use options::{Options, Stage};
use table::Table;
use world::{Server, World};

#[tokio::main]
async fn main() -> ExitCode {
    let mut table = Table::default();
    let result = run(&mut table).await;
    table.print();
    if let Err(error) = result {
        println!("FAILED: {error:#}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

async fn run(table: &mut Table) -> Result<()> {
    let options = Options::from_environment()?;
    let server = Server::connect().await?;
    println!("{options}; {server}");
    let mut sizes = Vec::new();
    if options.has(Stage::Start) || options.has(Stage::Growth) || options.has(Stage::Peers) {
        small(&options, &server, &mut sizes, table).await?;
    }
    if options.needs_large() {
        let world = World::start(options.users, RateLimit::Off, &server).await?;
        let loaded = load::run(&world, &options, table).await?;
        let again = unchanged::run(&world, &options, table).await?;
        sizes.push((options.users, loaded, again));
        world.stop().await;
    }
    if options.has(Stage::Growth) {
        growth::show(&sizes, table);
    }
    if options.has(Stage::Limit) {
        // The same seed gives the same users, so the mirror of the last stage fits.
        let world = World::start(options.users, RateLimit::Production, &server).await?;
        limit::run(&world, &options, table).await?;
        world.stop().await;
    }
    Ok(())
}

/// Runs the stages with fewer users.
async fn small(options: &Options, server: &Server, sizes: &mut Vec<growth::Size>, table: &mut Table) -> Result<()> {
    for (users, with) in [(options.users / 100, Stage::Start), (options.users / 10, Stage::Peers)] {
        if !options.has(with) && !options.has(Stage::Growth) {
            continue;
        }
        let world = World::start(users, RateLimit::Off, server).await?;
        if options.has(Stage::Growth) {
            sizes.push(growth::measure(&world).await?);
        }
        if options.has(with) {
            match with {
                Stage::Peers => peers::run(&world, options, table).await?,
                _ => start::run(&world, table).await?,
            }
        }
        world.stop().await;
    }
    Ok(())
}
