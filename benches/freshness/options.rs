//! Options from the environment: what to measure.

use std::fmt;

use anyhow::{Result, ensure};

use crate::environment::{number, stages};

/// Seconds of changes by default.
const SECONDS: u64 = 120;
/// Seconds of changes at most: the simulator's log of requests holds no more.
const MAX_SECONDS: u64 = 300;

/// Users at least: with fewer, the guard would hold a hundred deletions.
const MIN_USERS: usize = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Idle,
    Five,
    Deletions,
    Second,
    Half,
    Development,
    Memberships,
}

const STAGES: [(&str, Stage); 7] = [
    ("idle", Stage::Idle),
    ("five", Stage::Five),
    ("deletions", Stage::Deletions),
    ("second", Stage::Second),
    ("half", Stage::Half),
    ("development", Stage::Development),
    ("memberships", Stage::Memberships),
];

pub struct Options {
    /// `BENCH_USERS`: the users of the production instance.
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

    pub fn needs_production(&self) -> bool {
        self.stages
            .iter()
            .any(|stage| !matches!(stage, Stage::Development | Stage::Memberships))
    }

    /// Seconds to measure an idle daemon: a whole number of incremental syncs at the default
    /// schedule.
    pub fn idle_seconds(&self) -> u64 {
        self.seconds.min(60).next_multiple_of(5)
    }

    /// Seconds to measure a development instance.
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
