//! The cost of the daemon while no user changes.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::{
    daemon::Usage,
    options::Options,
    requests::{Requests, now_ms},
    server::{Server, Statement},
    table::Table,
    world::{Schedule, World},
};

/// The delay of Postgres' counters.
///
/// Postgres counts the writes of a backend when a transaction ends, but at most every ten seconds.
const COUNTER_DELAY: Duration = Duration::from_secs(12);

const MAX_REQUESTS: f64 = 2.0;
const MAX_STATEMENTS: f64 = 3.0;
const MAX_CPU_PERCENT: f64 = 0.5;
const MAX_MB: f64 = 40.0;

pub async fn run(world: &mut World, server: &Server, options: &Options, table: &mut Table) -> Result<()> {
    world.ensure_daemon(Schedule::Default).await?;
    world.sleep(COUNTER_DELAY).await?;
    world.between_syncs().await?;

    server.reset_statements().await?;
    let rows_before = world.database.rows_written().await?;
    let before = world.daemon()?.usage()?;
    let (from, started) = (now_ms(), Instant::now());
    // What happens in this time is the figure.
    world.sleep(Duration::from_secs(options.idle_seconds())).await?;
    let requests = Requests::between(&world.sim, from, now_ms());
    let (after, duration) = (world.daemon()?.usage()?, started.elapsed());
    let statements = server.statements().await?;
    world.sleep(COUNTER_DELAY).await?;
    let rows = world.database.rows_written().await? - rows_before;

    let syncs = requests.incremental_syncs();
    ensure!(syncs > 0, "there was no incremental sync");
    println!(
        "Nothing to do for {} s: {syncs} incremental syncs; {}",
        duration.as_secs(),
        requests.kinds()
    );
    let per_sync = |count: f64| count / syncs as f64;
    add_figure(
        table,
        "requests of an idle sync",
        MAX_REQUESTS,
        per_sync(requests.count() as f64),
    );
    add_statements(table, statements, per_sync);
    table.row("rows written by idle syncs", "0", rows.to_string(), rows == 0);
    add_process(table, &before, &after, duration);
    Ok(())
}

fn add_figure(table: &mut Table, what: &str, max: f64, measured: f64) {
    table.row(what, format!("≤ {max}"), format!("{measured:.2}"), measured <= max);
}

fn add_statements(table: &mut Table, statements: Option<Vec<Statement>>, per_sync: impl Fn(f64) -> f64) {
    let what = "statements of an idle sync";
    let Some(statements) = statements else {
        table.unmeasured(what, format!("≤ {MAX_STATEMENTS}"), "no pg_stat_statements");
        return;
    };
    for Statement { text, calls } in &statements {
        let text: String = text.chars().take(120).collect();
        println!("  {calls} × {text}");
    }
    let calls: i64 = statements.iter().map(|statement| statement.calls).sum();
    add_figure(table, what, MAX_STATEMENTS, per_sync(calls as f64));
}

fn add_process(table: &mut Table, before: &Usage, after: &Usage, duration: Duration) {
    let percent = (after.cpu - before.cpu) / duration.as_secs_f64() * 100.0;
    let wanted = format!("< {MAX_CPU_PERCENT} %");
    table.row(
        "CPU while idle, of a core",
        wanted,
        format!("{percent:.2} %"),
        percent < MAX_CPU_PERCENT,
    );
    let [resident, peak] = [after.resident_kb, after.peak_kb].map(|kb| kb as f64 / 1024.0);
    let measured = format!("{resident:.1} MB, at most {peak:.1} MB since its start");
    table.row(
        "resident while idle",
        format!("< {MAX_MB} MB"),
        measured,
        resident < MAX_MB,
    );
}
