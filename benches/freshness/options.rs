//! What to measure, out of the environment.

use std::fmt;

use anyhow::{Result, ensure};

use crate::environment::{number, stages};

/// The default stretch of changes, and the longest that fits into the simulator's log of requests.
const SECONDS: u64 = 120;
const MOST_SECONDS: u64 = 300;

/// Fewer users, and a hundred deletions would be held by the guard.
const FEWEST_USERS: usize = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Idle,
    Five,
    Deletions,
    Second,
    Half,
    Development,
}

const STAGES: [(&str, Stage); 6] = [
    ("idle", Stage::Idle),
    ("five", Stage::Five),
    ("deletions", Stage::Deletions),
    ("second", Stage::Second),
    ("half", Stage::Half),
    ("development", Stage::Development),
];

pub struct Options {
    /// `BENCH_USERS`: of the production instance.
    pub users: usize,
    /// `BENCH_SECONDS`: how long changes are made.
    pub seconds: u64,
    /// `BENCH_ONLY`: all stages where it is not set.
    stages: Vec<Stage>,
}

impl Options {
    pub fn from_environment() -> Result<Self> {
        let options = Self {
            users: number("BENCH_USERS", 1_000_000)?,
            seconds: number("BENCH_SECONDS", SECONDS)?,
            stages: stages(&STAGES)?,
        };
        ensure!(
            options.users >= FEWEST_USERS,
            "BENCH_USERS must be at least {FEWEST_USERS}"
        );
        ensure!(
            (1..=MOST_SECONDS).contains(&options.seconds),
            "BENCH_SECONDS must be from 1 to {MOST_SECONDS}"
        );
        Ok(options)
    }

    pub fn has(&self, stage: Stage) -> bool {
        self.stages.contains(&stage)
    }

    pub fn needs_production(&self) -> bool {
        self.stages.iter().any(|stage| *stage != Stage::Development)
    }

    /// How long to look at a daemon with nothing to do: a whole number of looks at the default schedule.
    pub fn idle_seconds(&self) -> u64 {
        self.seconds.min(60).next_multiple_of(5)
    }

    /// How long to look at a development instance.
    pub fn development_seconds(&self) -> u64 {
        self.seconds.min(30)
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        write!(f, "{} users, {} s of changes; {cores} cores", self.users, self.seconds)
    }
}
