//! What the daemon costs while nobody changes.

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

/// Postgres counts a backend's writes when its transaction ends or, where it did so a moment ago, after ten seconds.
const COUNTED_WITHIN: Duration = Duration::from_secs(12);

const MOST_REQUESTS: f64 = 2.0;
const MOST_STATEMENTS: f64 = 3.0;
const MOST_CPU_PERCENT: f64 = 0.5;
const MOST_MB: f64 = 40.0;

pub async fn run(world: &mut World, server: &Server, options: &Options, table: &mut Table) -> Result<()> {
    world.follow(Schedule::Default).await?;
    world.sleep(COUNTED_WITHIN).await?;
    world.between_looks().await?;

    server.forget_statements().await?;
    let rows_before = world.database.rows_written().await?;
    let before = world.daemon()?.usage()?;
    let (from, begun) = (now_ms(), Instant::now());
    world.sleep(Duration::from_secs(options.idle_seconds())).await?;
    let requests = Requests::between(&world.sim, from, now_ms());
    let (after, lasted) = (world.daemon()?.usage()?, begun.elapsed());
    let statements = server.statements().await?;
    world.sleep(COUNTED_WITHIN).await?;
    let rows = world.database.rows_written().await? - rows_before;

    let looks = requests.looks();
    ensure!(looks > 0, "there was no look at all");
    println!(
        "Nothing to do for {} s: {looks} looks; {}",
        lasted.as_secs(),
        requests.kinds()
    );
    let per_look = |count: f64| count / looks as f64;
    figure(
        table,
        "requests of an idle sync",
        MOST_REQUESTS,
        per_look(requests.count() as f64),
    );
    of_statements(table, statements, per_look);
    table.row("rows written by idle syncs", "0", rows.to_string(), rows == 0);
    of_process(table, &before, &after, lasted);
    Ok(())
}

fn figure(table: &mut Table, what: &str, most: f64, measured: f64) {
    table.row(what, format!("≤ {most}"), format!("{measured:.2}"), measured <= most);
}

fn of_statements(table: &mut Table, statements: Option<Vec<Statement>>, per_look: impl Fn(f64) -> f64) {
    let what = "statements of an idle sync";
    let Some(statements) = statements else {
        table.unmeasured(what, format!("≤ {MOST_STATEMENTS}"), "no pg_stat_statements");
        return;
    };
    for Statement { text, calls } in &statements {
        let text: String = text.chars().take(120).collect();
        println!("  {calls} × {text}");
    }
    let calls: i64 = statements.iter().map(|statement| statement.calls).sum();
    figure(table, what, MOST_STATEMENTS, per_look(calls as f64));
}

fn of_process(table: &mut Table, before: &Usage, after: &Usage, lasted: Duration) {
    let percent = (after.cpu - before.cpu) / lasted.as_secs_f64() * 100.0;
    let wanted = format!("< {MOST_CPU_PERCENT} %");
    table.row(
        "CPU while idle, of a core",
        wanted,
        format!("{percent:.2} %"),
        percent < MOST_CPU_PERCENT,
    );
    let [resident, peak] = [after.resident_kb, after.peak_kb].map(|kb| kb as f64 / 1024.0);
    let measured = format!("{resident:.1} MB, at most {peak:.1} MB since its start");
    table.row(
        "resident while idle",
        format!("< {MOST_MB} MB"),
        measured,
        resident < MOST_MB,
    );
}
