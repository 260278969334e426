//! A table of the application that is kept in sync: the load and the unchanged full sync with it,
//! against those without it, and the repair of changed rows, against the join that finds them.

use std::{
    fs::{self, File},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    app_table::{AppTable, DIFFERENT},
    load,
    options::Options,
    postgres::connect,
    run::{Measurement, measure, median, ratio_row, show},
    table::{Table, percentile, seconds},
    world::{World, scratch},
};

/// The database with the table. That without it is the one of the stage `load`.
const DATABASE: &str = "tables";

/// The ratio of the initial loads, at most.
const MAX_LOAD: f64 = 1.25;
/// The ratio of the unchanged full syncs, at most.
const MAX_UNCHANGED: f64 = 1.3;
/// The ratio of the repair and the join, at most.
const MAX_REPAIR: f64 = 1.5;

/// Rows that are changed before a repair.
const CHANGED: i64 = 1000;

/// The number of rows of both tables that were ever written.
const WRITTEN: &str = "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del)::bigint FROM pg_stat_user_tables
    WHERE schemaname = 'clerk' AND relname = 'users' OR schemaname = 'public' AND relname = 'User'";

/// What the log says when a table has been compared and repaired.
const COMPARED: &str = "compared the table with the mirror";

pub async fn run(world: &World, options: &Options, table: &mut Table) -> Result<()> {
    let app = AppTable::new()?;
    load(world, options, &app, table).await?;
    unchanged(world, options, &app, table).await?;
    repair(world, options, &app, table).await
}

/// Loads both databases several times.
async fn load(world: &World, options: &Options, app: &AppTable, table: &mut Table) -> Result<()> {
    println!("Initial load of {} users into an application's table", world.users);
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..options.runs {
        without.push(load::run_once(world).await?);
        app.empty(world.server(), DATABASE).await?;
        with.push(measure("clerk2pg", app.command(world, DATABASE)).await?);
    }
    app.ensure_equal(world, DATABASE).await?;
    compare(
        table,
        "initial load with a table, against none",
        MAX_LOAD,
        &with,
        &without,
    );
    Ok(())
}

/// Syncs both databases several times, while no user changes.
async fn unchanged(world: &World, options: &Options, app: &AppTable, table: &mut Table) -> Result<()> {
    println!(
        "Full sync of {} unchanged users and an application's table",
        world.users
    );
    let server = world.server();
    // As autovacuum would do later.
    server.execute(load::DATABASE, "VACUUM ANALYZE clerk.users").await?;
    server.execute(DATABASE, "VACUUM ANALYZE").await?;
    server.execute(DATABASE, "CHECKPOINT").await?;
    let written = server.number(DATABASE, WRITTEN).await?;
    let transaction = server
        .number(DATABASE, "SELECT pg_current_xact_id()::text::bigint")
        .await?;
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..options.runs {
        without.push(world.once(load::DATABASE).await?);
        with.push(measure("clerk2pg", app.command(world, DATABASE)).await?);
    }
    compare(
        table,
        "unchanged full sync with a table, against none",
        MAX_UNCHANGED,
        &with,
        &without,
    );
    let written = server.number(DATABASE, WRITTEN).await? - written;
    table.row(
        "rows of users and of the table that it writes",
        "0",
        written.to_string(),
        written == 0,
    );
    // Those are counted by the server, with a delay. Each row also knows the transaction that wrote
    // it, and `updatedAt` only changes when a row is written.
    let newer = format!(r#"SELECT count(*) FROM public."User" t WHERE age(t.xmin) <= age('{transaction}'::xid)"#);
    let newer = server.number(DATABASE, &newer).await?;
    table.row("rows of the table with a new xmin", "0", newer.to_string(), newer == 0);
    Ok(())
}

/// Changes rows of the table and has them repaired, several times.
async fn repair(world: &World, options: &Options, app: &AppTable, table: &mut Table) -> Result<()> {
    println!("Repair of {CHANGED} changed rows of an application's table");
    let server = world.server();
    // The ids are random, so the rows are all over the table.
    let change = format!(
        r#"UPDATE public."User" SET email = 'changed ' || email
            WHERE id IN (SELECT id FROM public."User" ORDER BY id LIMIT {CHANGED})"#
    );
    let (mut repairs, mut joins) = (Vec::new(), Vec::new());
    for _ in 0..options.runs {
        server.execute(DATABASE, &change).await?;
        server.execute(DATABASE, "CHECKPOINT").await?;
        joins.push(join(world).await?);
        repairs.push(repair_once(world, app).await?);
        app.ensure_equal(world, DATABASE).await?;
    }
    let what = format!("repair of {CHANGED} rows of the table, against a join");
    let (repair, join) = (
        show_times("clerk2pg, the table", repairs),
        show_times("the join", joins),
    );
    ratio_row(table, &what, MAX_REPAIR, repair, join);
    Ok(())
}

/// The time of the bare join that finds the changed rows.
async fn join(world: &World) -> Result<Duration> {
    let client = connect(&world.server().url(DATABASE)).await?;
    let started = Instant::now();
    let found: i64 = client.query_one(DIFFERENT, &[]).await?.get(0);
    let duration = started.elapsed();
    ensure!(found == CHANGED, "the join finds {found} changed rows");
    Ok(duration)
}

/// The time in which a full sync compares the table and repairs it, by its log.
async fn repair_once(world: &World, app: &AppTable) -> Result<Duration> {
    let file = scratch()?.join("repair.log");
    let mut command = app.command(world, DATABASE);
    command
        .env("RUST_LOG", "warn,clerk2pg::sync=debug")
        .stderr(File::create(&file)?);
    let run = measure("clerk2pg", command).await;
    let log = fs::read_to_string(&file)?;
    run.with_context(|| log.clone())?;
    let event = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|event| event["message"] == COMPARED)
        .with_context(|| format!("the log does not say {COMPARED:?}"))?;
    let changed = &event["changed"];
    ensure!(
        changed.as_i64() == Some(CHANGED),
        "clerk2pg changed {changed} rows of the table"
    );
    let seconds = event["seconds"].as_f64().context("the log has no time")?;
    Ok(Duration::from_secs_f64(seconds))
}

/// Adds the ratio of runs with the table to those without.
fn compare(table: &mut Table, what: &str, max: f64, with: &[Measurement], without: &[Measurement]) {
    show("with the table", with);
    show("without", without);
    ratio_row(table, what, max, median(with).wall, median(without).wall);
}

/// Prints all times, and returns their median, the lower one of two.
fn show_times(name: &str, mut times: Vec<Duration>) -> Duration {
    let each: Vec<_> = times.iter().copied().map(seconds).collect();
    println!("  {name}: {}", each.join(", "));
    times.sort_unstable();
    percentile(&times, 50).unwrap_or_default()
}
