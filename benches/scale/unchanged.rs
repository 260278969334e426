//! A full sync of unchanged users, against curl fetching the same pages over as many connections.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};
use tokio::process::Command;

use crate::{
    load::DATABASE,
    options::{Options, Stage},
    run::{Measurement, measure, median, ratio_row, show},
    table::Table,
    world::{World, scratch},
};

/// Connections of curl: the concurrent requests of clerk2pg by default if the rate limit allows.
const CONNECTIONS: &str = "16";

/// The ratio, at most.
const MAX_RATIO: f64 = 1.5;
/// Microseconds of CPU per user, at most.
const MAX_MICROSECONDS: f64 = 8.0;
/// Peak memory, at most.
const MAX_MB: f64 = 96.0;

/// The number of rows of users that were ever written.
const WRITTEN: &str = "SELECT (n_tup_ins + n_tup_upd + n_tup_del)::bigint FROM pg_stat_user_tables
    WHERE schemaname = 'clerk' AND relname = 'users'";

pub async fn run(world: &World, options: &Options, table: &mut Table) -> Result<Measurement> {
    println!("Full sync of {} unchanged users", world.users);
    // As autovacuum would do later.
    world.server().execute(DATABASE, "VACUUM ANALYZE clerk.users").await?;
    world.server().execute(DATABASE, "CHECKPOINT").await?;
    let written = world.server().number(DATABASE, WRITTEN).await?;
    let before = world.sim.log().len();
    let mut syncs = vec![world.once(DATABASE).await?];
    if !options.has(Stage::Unchanged) {
        show("clerk2pg", &syncs);
        return Ok(syncs[0]);
    }
    let list = page_list(world, before)?;
    let mut curls = Vec::new();
    for number in 0..options.runs {
        if number > 0 {
            syncs.push(world.once(DATABASE).await?);
        }
        curls.push(measure("curl", curl(world, &list)).await?);
    }
    show("clerk2pg", &syncs);
    show("curl", &curls);
    let (sync, curl) = (median(&syncs), median(&curls));
    ratio_row(
        table,
        "unchanged full sync, against curl",
        MAX_RATIO,
        sync.wall,
        curl.wall,
    );
    let microseconds = sync.cpu * 1e6 / world.users as f64;
    let is_met = microseconds < MAX_MICROSECONDS;
    table.row(
        "its CPU a user",
        format!("< {MAX_MICROSECONDS} µs"),
        format!("{microseconds:.1} µs"),
        is_met,
    );
    let written = world.server().number(DATABASE, WRITTEN).await? - written;
    table.row("rows of users that it writes", "0", written.to_string(), written == 0);
    let peak = syncs.iter().map(|sync| sync.peak_mb).fold(0.0, f64::max);
    table.row(
        "peak memory, unchanged full sync",
        format!("< {MAX_MB} MB"),
        format!("{peak:.0} MB"),
        peak < MAX_MB,
    );
    Ok(sync)
}

/// Writes the pages that were asked for after some requests into a file for curl.
pub fn page_list(world: &World, before: usize) -> Result<PathBuf> {
    let pages: Vec<String> = world.sim.log()[before..]
        .iter()
        .map(|request| request.path.clone())
        .filter(|path| path.contains("order_by=created_at"))
        .collect();
    ensure!(
        pages.len() * 500 >= world.users,
        "the simulator's log does not hold all requests"
    );
    let list = scratch()?.join("pages");
    let mut config = String::new();
    for page in &pages {
        writeln!(config, "url = \"{}{page}\"\noutput = \"/dev/null\"", world.sim.url())?;
    }
    std::fs::write(&list, config)?;
    Ok(list)
}

/// A command of curl that fetches the pages in the file `list`.
pub fn curl(world: &World, list: &Path) -> Command {
    let mut curl = Command::new("curl");
    curl.args([
        "-s",
        "--fail",
        "--compressed",
        "--parallel",
        "--parallel-max",
        CONNECTIONS,
        "-H",
    ])
    .arg(format!("Authorization: Bearer {}", world.sim.secret_key()))
    .arg("-K")
    .arg(list)
    // curl shows a progress meter despite -s with --parallel.
    .stderr(std::process::Stdio::null());
    curl
}
