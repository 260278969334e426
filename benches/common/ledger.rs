//! The changes that were made, the events that were seen, and the time between them.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use crate::{
    changes::Change,
    events::{Event, EventKind},
    table::{optional_seconds, percentile},
};

/// Pairs changes with their events.
#[derive(Default)]
pub struct Ledger {
    outstanding: HashMap<(String, EventKind), Instant>,
    latencies: BTreeMap<EventKind, Vec<Duration>>,
    unexpected: usize,
}

impl Ledger {
    pub fn add_change(&mut self, change: Change) {
        self.outstanding.insert((change.user, change.kind), change.at);
    }

    pub fn add_event(&mut self, event: Event) {
        match self.outstanding.remove(&(event.user, event.kind)) {
            Some(made) => self
                .latencies
                .entry(event.kind)
                .or_default()
                .push(event.at.saturating_duration_since(made)),
            None => self.unexpected += 1,
        }
    }

    /// The number of changes that were not seen yet.
    pub fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    /// A description of a change that was not seen.
    pub fn example(&self) -> Option<String> {
        let (user, kind) = self.outstanding.keys().next()?;
        Some(format!("{} of {user}", kind.name()))
    }

    /// The times of all changes that were seen, the shortest first.
    pub fn sorted(&self) -> Vec<Duration> {
        sorted(self.latencies.values().flatten().copied())
    }

    pub fn print(&self) {
        print_line("all", &self.sorted());
        for (kind, latencies) in &self.latencies {
            print_line(kind.name(), &sorted(latencies.iter().copied()));
        }
        if self.unexpected > 0 {
            println!("  {} events without a change, or sent twice", self.unexpected);
        }
    }
}

fn sorted(latencies: impl Iterator<Item = Duration>) -> Vec<Duration> {
    let mut latencies: Vec<_> = latencies.collect();
    latencies.sort();
    latencies
}

fn print_line(name: &str, sorted: &[Duration]) {
    let [p50, p99, most] = [50, 99, 100].map(|percent| optional_seconds(percentile(sorted, percent)));
    println!(
        "  {name:12} {:5} seen, p50 {p50}, p99 {p99}, at most {most}",
        sorted.len()
    );
}
