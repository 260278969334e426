//! Which changes were seen in the mirror, and how long that took.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use crate::{
    changes::Change,
    events::{Event, Kind},
    table::{optional_seconds, percentile},
};

#[derive(Default)]
pub struct Ledger {
    outstanding: HashMap<(String, Kind), Instant>,
    took: BTreeMap<Kind, Vec<Duration>>,
    strange: usize,
}

impl Ledger {
    pub fn made(&mut self, change: Change) {
        self.outstanding.insert((change.user, change.kind), change.at);
    }

    pub fn seen(&mut self, event: Event) {
        match self.outstanding.remove(&(event.user, event.kind)) {
            Some(made) => self
                .took
                .entry(event.kind)
                .or_default()
                .push(event.at.saturating_duration_since(made)),
            None => self.strange += 1,
        }
    }

    /// How many were not seen yet.
    pub fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    /// One that was not seen, in words.
    pub fn example(&self) -> Option<String> {
        let (user, kind) = self.outstanding.keys().next()?;
        Some(format!("{} of {user}", kind.name()))
    }

    /// How long all took that were seen, the shortest first.
    pub fn sorted(&self) -> Vec<Duration> {
        sorted(self.took.values().flatten().copied())
    }

    pub fn print(&self) {
        print_line("all", &self.sorted());
        for (kind, took) in &self.took {
            print_line(kind.name(), &sorted(took.iter().copied()));
        }
        if self.strange > 0 {
            println!("  {} events of what was not done, or was told before", self.strange);
        }
    }
}

fn sorted(took: impl Iterator<Item = Duration>) -> Vec<Duration> {
    let mut took: Vec<_> = took.collect();
    took.sort();
    took
}

fn print_line(name: &str, sorted: &[Duration]) {
    let [p50, p99, most] = [50, 99, 100].map(|percent| optional_seconds(percentile(sorted, percent)));
    println!(
        "  {name:12} {:5} seen, p50 {p50}, p99 {p99}, at most {most}",
        sorted.len()
    );
}
