//! The initial load, against psql's `\copy` of the same rows into the same empty table.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use crate::{
    options::{Options, Stage},
    run::{Measurement, measure, median, ratio_row, show},
    table::Table,
    world::{World, scratch},
};

/// The database, which the later stages also use.
pub const DATABASE: &str = "load";

/// The ratio, at most.
const MAX_RATIO: f64 = 1.3;
/// Peak memory, at most.
const MAX_MB: f64 = 96.0;

/// Loads once into an empty database.
pub async fn run_once(world: &World) -> Result<Measurement> {
    world.server().empty(DATABASE).await?;
    let measured = world.once(DATABASE).await?;
    let rows = world
        .server()
        .number(DATABASE, "SELECT count(*) FROM clerk.users")
        .await?;
    ensure!(usize::try_from(rows) == Ok(world.users), "the mirror has {rows} users");
    Ok(measured)
}

pub async fn run(world: &World, options: &Options, table: &mut Table) -> Result<Measurement> {
    println!("Initial load of {} users", world.users);
    if !options.has(Stage::Load) {
        let measured = run_once(world).await?;
        show("clerk2pg", &[measured]);
        return Ok(measured);
    }
    let file = ScratchFile::of("users")?;
    let (mut loads, mut copies) = (Vec::new(), Vec::new());
    for _ in 0..options.runs {
        loads.push(run_once(world).await?);
        // Each database has other digests. psql writes and reads the file, because the server may
        // not be allowed to.
        psql(
            world,
            DATABASE,
            &format!("\\copy clerk.users TO '{}'", file.0.display()),
        )
        .await?;
        world.server().execute(DATABASE, "TRUNCATE clerk.users").await?;
        world.server().execute(DATABASE, "CHECKPOINT").await?;
        let copy = format!("\\copy clerk.users FROM '{}'", file.0.display());
        copies.push(psql(world, DATABASE, &copy).await?);
    }
    show("clerk2pg", &loads);
    show("\\copy", &copies);
    let (load, copy) = (median(&loads), median(&copies));
    ratio_row(table, "initial load, against \\copy", MAX_RATIO, load.wall, copy.wall);
    let per_user = load.wall.as_secs_f64() * 1e6 / world.users as f64;
    println!(
        "  {per_user:.1} µs a user, {:.1} µs of CPU",
        load.cpu * 1e6 / world.users as f64
    );
    let peak = loads.iter().map(|load| load.peak_mb).fold(0.0, f64::max);
    table.row(
        "peak memory, initial load",
        format!("< {MAX_MB} MB"),
        format!("{peak:.0} MB"),
        peak < MAX_MB,
    );
    // The copied rows are those that were loaded, so the later stages can use them.
    Ok(load)
}

/// Runs a command in psql.
pub async fn psql(world: &World, database: &str, what: &str) -> Result<Measurement> {
    let folder = std::env::var("BENCH_PG_BIN").context("BENCH_PG_BIN is not set: run `make bench`")?;
    let mut command = Command::new(Path::new(&folder).join("psql"));
    command.args([
        "-X",
        "-q",
        "-v",
        "ON_ERROR_STOP=1",
        "-c",
        what,
        &world.server().url(database),
    ]);
    measure("psql", command).await
}

/// A file that is removed at the end.
pub struct ScratchFile(pub PathBuf);

impl ScratchFile {
    /// A file for the rows of a table.
    pub fn of(table: &str) -> Result<Self> {
        Ok(Self(scratch()?.join(format!("{table}.tsv"))))
    }
}

impl Drop for ScratchFile {
    fn drop(&mut self) {
        // Its folder is removed in any case.
        let _ = std::fs::remove_file(&self.0);
    }
}
