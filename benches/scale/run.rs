//! Runs a program to its end, and measures what it took.

use std::{
    fs,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

/// How often a process is asked for its memory.
const SAMPLE: Duration = Duration::from_millis(10);

/// The unit of times in /proc, which Linux shows in hundredths of a second on all common architectures.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a run took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Took {
    pub wall: Duration,
    /// User and system time, in seconds, with that of its children.
    pub cpu: f64,
    /// The most that was resident, of the process itself.
    pub peak_mb: f64,
}

/// Runs to the end; fails where the program does.
pub async fn measure(name: &str, mut command: Command) -> Result<Took> {
    let before = cpu_of_children()?;
    let begun = Instant::now();
    command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().with_context(|| format!("{name} does not start"))?;
    let pid = child.id().unwrap_or_default();
    let mut peak_kb = 0;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status?,
            () = tokio::time::sleep(SAMPLE) => peak_kb = peak_kb.max(peak(pid).unwrap_or_default()),
        }
    };
    let wall = begun.elapsed();
    ensure!(
        status.success(),
        "{name} ended with {status}; what it had to say is above"
    );
    Ok(Took {
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

/// User and system time of all children that have ended, in seconds: the 16th and 17th field; the second, the name, may hold anything.
fn cpu_of_children() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let (_, rest) = stat.rsplit_once(") ").context("/proc/self/stat cannot be read")?;
    let mut fields = rest.split(' ').skip(13);
    let mut next = || fields.next()?.parse::<u64>().ok();
    let ticks = next().zip(next()).context("/proc/self/stat cannot be read")?;
    Ok((ticks.0 + ticks.1) as f64 / TICKS_PER_SECOND)
}

/// The middle one by wall time, the lower one of two.
pub fn median(runs: &[Took]) -> Took {
    let mut sorted = runs.to_vec();
    sorted.sort_by_key(|took| took.wall);
    sorted
        .get(sorted.len().saturating_sub(1) / 2)
        .copied()
        .unwrap_or_default()
}

/// As many times as long as another.
pub fn ratio(one: Took, other: Took) -> f64 {
    one.wall.as_secs_f64() / other.wall.as_secs_f64()
}

/// For a line while it is measured.
pub fn show(name: &str, runs: &[Took]) {
    let each: Vec<_> = runs
        .iter()
        .map(|took| {
            format!(
                "{:.2} s ({:.1} s CPU, {:.0} MB)",
                took.wall.as_secs_f64(),
                took.cpu,
                took.peak_mb
            )
        })
        .collect();
    println!("  {name}: {}", each.join(", "));
}
