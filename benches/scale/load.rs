//! The initial load, against psql's `\copy` of the very rows into the same empty table.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use crate::{
    options::{Options, Stage},
    run::{Took, measure, median, ratio, show},
    table::Table,
    world::World,
};

/// The database that the later stages go on with.
pub const DATABASE: &str = "load";

const MOST: f64 = 1.3;
const MOST_MB: f64 = 96.0;

/// Without the stage, loads once for the others.
pub async fn run_once(world: &World) -> Result<Took> {
    world.server().empty(DATABASE).await?;
    let took = world.once(DATABASE).await?;
    let rows = world
        .server()
        .number(DATABASE, "SELECT count(*) FROM clerk.users")
        .await?;
    ensure!(usize::try_from(rows) == Ok(world.users), "the mirror has {rows} users");
    Ok(took)
}

pub async fn run(world: &World, options: &Options, table: &mut Table) -> Result<Took> {
    println!("Initial load of {} users", world.users);
    if !options.has(Stage::Load) {
        let took = run_once(world).await?;
        show("clerk2pg", &[took]);
        return Ok(took);
    }
    let file = Scratch::new()?;
    let (mut loads, mut copies) = (Vec::new(), Vec::new());
    for _ in 0..options.runs {
        loads.push(run_once(world).await?);
        // Each database has digests of its own. The server may not reach our files: psql does the writing and the reading.
        psql(world, &format!("\\copy clerk.users TO '{}'", file.0.display())).await?;
        world.server().execute(DATABASE, "TRUNCATE clerk.users").await?;
        world.server().execute(DATABASE, "CHECKPOINT").await?;
        copies.push(psql(world, &format!("\\copy clerk.users FROM '{}'", file.0.display())).await?);
    }
    show("clerk2pg", &loads);
    show("\\copy", &copies);
    let (load, copy) = (median(&loads), median(&copies));
    let measured = format!(
        "{:.2} × ({:.1} s, {:.1} s)",
        ratio(load, copy),
        load.wall.as_secs_f64(),
        copy.wall.as_secs_f64()
    );
    table.row(
        "initial load, against \\copy",
        format!("≤ {MOST} ×"),
        measured,
        ratio(load, copy) <= MOST,
    );
    let per_user = load.wall.as_secs_f64() * 1e6 / world.users as f64;
    println!(
        "  {per_user:.1} µs a user, {:.1} µs of CPU",
        load.cpu * 1e6 / world.users as f64
    );
    let peak = loads.iter().map(|took| took.peak_mb).fold(0.0, f64::max);
    table.row(
        "peak memory, initial load",
        format!("< {MOST_MB} MB"),
        format!("{peak:.0} MB"),
        peak < MOST_MB,
    );
    // What was copied is what was loaded, so that the later stages may go on with it.
    Ok(load)
}

async fn psql(world: &World, what: &str) -> Result<Took> {
    let folder = std::env::var("BENCH_PG_BIN").context("run it with `make bench`, which says where psql is")?;
    let mut command = Command::new(Path::new(&folder).join("psql"));
    command.args([
        "-X",
        "-q",
        "-v",
        "ON_ERROR_STOP=1",
        "-c",
        what,
        &world.server().url(DATABASE),
    ]);
    measure("psql", command).await
}

/// A file that goes again.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let folder = std::env::var("BENCH_SCRATCH").context("run it with `make bench`, which makes a folder")?;
        Ok(Self(Path::new(&folder).join("users.tsv")))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It lies in a folder that goes in any case.
        let _ = std::fs::remove_file(&self.0);
    }
}
