//! Options from the environment: what to measure.

use std::fmt;

use anyhow::{Result, ensure};

use crate::environment::{number, stages};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Start,
    Growth,
    Peers,
    Prisma,
    Load,
    Unchanged,
    Tables,
    Organizations,
    Limit,
}

const STAGES: [(&str, Stage); 9] = [
    ("start", Stage::Start),
    ("growth", Stage::Growth),
    ("peers", Stage::Peers),
    ("prisma", Stage::Prisma),
    ("load", Stage::Load),
    ("unchanged", Stage::Unchanged),
    ("tables", Stage::Tables),
    ("organizations", Stage::Organizations),
    ("limit", Stage::Limit),
];

pub struct Options {
    /// `BENCH_USERS`: the users of the large instance.
    pub users: usize,
    /// `BENCH_RUNS`: the number of runs of each measurement.
    pub runs: usize,
    /// `BENCH_ONLY`: the stages, by default all.
    stages: Vec<Stage>,
}

impl Options {
    pub fn from_environment() -> Result<Self> {
        let options = Self {
            users: number("BENCH_USERS", 1_000_000)?,
            runs: number("BENCH_RUNS", 3)?,
            stages: stages(&STAGES)?,
        };
        ensure!(options.users >= 100_000, "BENCH_USERS must be at least 100000");
        ensure!(options.runs > 0, "BENCH_RUNS must be at least 1");
        Ok(options)
    }

    pub fn has(&self, stage: Stage) -> bool {
        self.stages.contains(&stage)
    }

    /// Whether a stage needs the large instance without a rate limit.
    pub fn needs_large(&self) -> bool {
        self.needs_mirror() || self.has(Stage::Tables)
    }

    /// Whether a stage needs the mirror of the large instance.
    pub fn needs_mirror(&self) -> bool {
        use Stage::{Growth, Limit, Load, Unchanged};
        [Growth, Limit, Load, Unchanged].iter().any(|stage| self.has(*stage))
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        write!(f, "{} users, medians of {}; {cores} cores", self.users, self.runs)
    }
}
