//! Options from the environment: what to measure.

use std::fmt;

use anyhow::{Result, ensure};

use crate::environment::{number, stages};

/// Seconds of changes by default.
const SECONDS: u64 = 120;
/// Seconds of changes at most: with more, the guard would hold deletions.
const MAX_SECONDS: u64 = 300;

/// Users at least, for the same reason.
const MIN_USERS: usize = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Throughput,
    Latency,
    Dead,
}

const STAGES: [(&str, Stage); 3] = [
    ("throughput", Stage::Throughput),
    ("latency", Stage::Latency),
    ("dead", Stage::Dead),
];

pub struct Options {
    /// `BENCH_USERS`: the users, and the waiting events, of the stage `dead`.
    pub users: usize,
    /// `BENCH_SECONDS`: the seconds of changes.
    pub seconds: u64,
    /// `BENCH_ONLY`: the stages, by default all.
    stages: Vec<Stage>,
}

impl Options {
    pub fn from_environment() -> Result<Self> {
        let options = Self {
            users: number("BENCH_USERS", 1_000_000)?,
            seconds: number("BENCH_SECONDS", SECONDS)?,
            stages: stages(&STAGES)?,
        };
        ensure!(options.users >= MIN_USERS, "BENCH_USERS must be at least {MIN_USERS}");
        ensure!(
            (1..=MAX_SECONDS).contains(&options.seconds),
            "BENCH_SECONDS must be from 1 to {MAX_SECONDS}"
        );
        Ok(options)
    }

    pub fn has(&self, stage: Stage) -> bool {
        self.stages.contains(&stage)
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        write!(f, "{} users, {} s of changes; {cores} cores", self.users, self.seconds)
    }
}
