//! Runs a program to its end, and measures it.

use std::{
    fs,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use crate::table::Table;

/// The interval between samples of the memory of a process.
const SAMPLE: Duration = Duration::from_millis(10);

/// Times in /proc are in hundredths of a second on all common architectures.
const TICKS_PER_SECOND: f64 = 100.0;

/// The cost of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measurement {
    pub wall: Duration,
    /// User and system time of the process and its children, in seconds.
    pub cpu: f64,
    /// The peak of resident memory of the process itself.
    pub peak_mb: f64,
}

/// Runs a program to its end. Fails if the program fails.
pub async fn measure(name: &str, mut command: Command) -> Result<Measurement> {
    let before = cpu_of_children()?;
    let started = Instant::now();
    command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
    let pid = child.id().unwrap_or_default();
    let mut peak_kb = 0;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status?,
            () = tokio::time::sleep(SAMPLE) => peak_kb = peak_kb.max(peak(pid).unwrap_or_default()),
        }
    };
    let wall = started.elapsed();
    ensure!(status.success(), "{name} ended with {status}; its output is above");
    Ok(Measurement {
        wall,
        cpu: cpu_of_children()? - before,
        peak_mb: peak_kb as f64 / 1024.0,
    })
}

fn peak(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// User and system time of all children that have ended, in seconds.
///
/// They are the 16th and 17th field. The second, the name, may contain anything.
fn cpu_of_children() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let (_, rest) = stat.rsplit_once(") ").context("cannot read /proc/self/stat")?;
    let mut fields = rest.split(' ').skip(13);
    let mut next = || fields.next()?.parse::<u64>().ok();
    let ticks = next().zip(next()).context("cannot read /proc/self/stat")?;
    Ok((ticks.0 + ticks.1) as f64 / TICKS_PER_SECOND)
}

/// The median by wall time. The lower one of two.
pub fn median(runs: &[Measurement]) -> Measurement {
    let mut sorted = runs.to_vec();
    sorted.sort_by_key(|run| run.wall);
    sorted
        .get(sorted.len().saturating_sub(1) / 2)
        .copied()
        .unwrap_or_default()
}

/// Adds the ratio of two times to the table. It should be at most `max`.
pub fn ratio_row(table: &mut Table, what: &str, max: f64, time: Duration, reference: Duration) {
    let (time, reference) = (time.as_secs_f64(), reference.as_secs_f64());
    let ratio = time / reference;
    let measured = format!("{ratio:.2} × ({time:.1} s, {reference:.1} s)");
    table.row(what, format!("≤ {max} ×"), measured, ratio <= max);
}

/// Prints a line with all runs.
pub fn show(name: &str, runs: &[Measurement]) {
    let each: Vec<_> = runs
        .iter()
        .map(|run| {
            format!(
                "{:.2} s ({:.1} s CPU, {:.0} MB)",
                run.wall.as_secs_f64(),
                run.cpu,
                run.peak_mb
            )
        })
        .collect();
    println!("  {name}: {}", each.join(", "));
}
