//! Measures how fast the mirror of a million users is made and compared.
//!
//! The limits of the machine and of Clerk, and other tools, are the measure. `make bench` starts
//! it; benches/README.md says how each figure is measured. It ends with a table. It fails if
//! something does not work, but not if a figure is worse than wanted.

mod app_table;
#[path = "../common/environment.rs"]
mod environment;
mod growth;
mod limit;
mod load;
mod options;
mod organizations;
mod peers;
#[path = "../common/postgres.rs"]
mod postgres;
mod run;
mod start;
#[path = "../common/table.rs"]
#[allow(dead_code, reason = "the other benchmark shows other figures")]
mod table;
mod tables;
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
    small(&options, &server, &mut sizes, table).await?;
    if options.needs_large() {
        let world = World::start(options.users, RateLimit::Off, &server).await?;
        if options.needs_mirror() {
            let loaded = load::run(&world, &options, table).await?;
            let again = unchanged::run(&world, &options, table).await?;
            sizes.push((options.users, loaded, again));
        }
        if options.has(Stage::Tables) {
            tables::run(&world, &options, table).await?;
        }
        world.stop().await;
    }
    if options.has(Stage::Organizations) {
        organizations::run(&options, &server, table).await?;
    }
    if options.has(Stage::Growth) {
        growth::show(&sizes, table);
    }
    if options.has(Stage::Limit) {
        // The same seed gives the same users, so the mirror of the stages before fits.
        let world = World::start(options.users, RateLimit::Production, &server).await?;
        limit::run(&world, &options, table).await?;
        world.stop().await;
    }
    Ok(())
}

/// Runs the stages with fewer users.
async fn small(options: &Options, server: &Server, sizes: &mut Vec<growth::Size>, table: &mut Table) -> Result<()> {
    let parts: [(usize, &[Stage]); 2] = [(100, &[Stage::Start]), (10, &[Stage::Peers, Stage::Prisma])];
    for (part, stages) in parts {
        let stages: Vec<Stage> = stages.iter().copied().filter(|stage| options.has(*stage)).collect();
        if stages.is_empty() && !options.has(Stage::Growth) {
            continue;
        }
        let world = World::start(options.users / part, RateLimit::Off, server).await?;
        if options.has(Stage::Growth) {
            sizes.push(growth::measure(&world).await?);
        }
        for stage in stages {
            match stage {
                Stage::Peers => peers::run(&world, options, table).await?,
                Stage::Prisma => peers::run_prisma(&world, options, table).await?,
                _ => start::run(&world, table).await?,
            }
        }
        world.stop().await;
    }
    Ok(())
}
