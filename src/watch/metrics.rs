//! Metrics in Prometheus' text format. No label holds anything of a user.

use std::{fmt, sync::atomic::AtomicU64, time::Duration};

use chrono::{DateTime, Utc};
use prometheus_client::{
    encoding::prometheus_text,
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::Histogram,
        info::Info,
    },
    registry::{Registry, Unit},
};

use super::Watch;
use crate::{
    clerk::Client,
    mirror::{Summary, SyncKind},
};

/// What [`render`](Watch::render) renders.
pub(super) const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// From a look at once to a full sync that finds what looks do not see.
const AGES: [f64; 16] = [
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3_600.0, 21_600.0, 86_400.0,
];

/// From one changed user to a first import of millions.
const DURATIONS: [f64; 14] = [
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3_600.0,
];

const KINDS: [SyncKind; 3] = [SyncKind::Full, SyncKind::Incremental, SyncKind::OnDemand];

/// How syncs end, besides by standing by and in blindness, which say little where they never occur.
const OUTCOMES: [&str; 6] = ["idle", "in_sync", "changed", "held", "incomplete", "failed"];

type Labels<const N: usize> = [(&'static str, &'static str); N];
type Time = Gauge<f64, AtomicU64>;
type Histograms = Family<Labels<1>, Histogram, fn() -> Histogram>;

/// Users that were changed in the mirror.
#[derive(Debug, Clone, Copy, Default)]
pub struct Changes {
    /// New to the mirror.
    pub created: u64,
    /// Changed.
    pub updated: u64,
    /// Deleted, or marked so.
    pub deleted: u64,
    /// Left out, or not deleted, for a reason of their own.
    pub rejected: u64,
}

/// What is counted as it happens.
#[derive(Debug)]
pub(super) struct Metrics {
    pub(super) lease_held: Gauge,
    pub(super) leader: Gauge,
    attempts: Family<Labels<1>, Time>,
    successes: Family<Labels<1>, Time>,
    syncs: Family<Labels<2>, Counter>,
    durations: Histograms,
    ages: Histograms,
    changes: Family<Labels<1>, Counter>,
}

impl Default for Metrics {
    /// Series that are there from the beginning at zero: else their first increase could not be seen.
    fn default() -> Self {
        let metrics = Self {
            lease_held: Gauge::default(),
            leader: Gauge::default(),
            attempts: Family::default(),
            successes: Family::default(),
            syncs: Family::default(),
            durations: Histograms::new_with_constructor(|| Histogram::new(DURATIONS)),
            ages: Histograms::new_with_constructor(|| Histogram::new(AGES)),
            changes: Family::default(),
        };
        for kind in KINDS {
            drop(metrics.durations.get_or_create(&of(kind)));
            drop(metrics.ages.get_or_create(&of(kind)));
            for outcome in OUTCOMES {
                drop(metrics.syncs.get_or_create(&ended(kind, outcome)));
            }
        }
        metrics.changed(Changes::default());
        metrics
    }
}

fn of(kind: SyncKind) -> Labels<1> {
    [("kind", kind.name())]
}

fn ended(kind: SyncKind, outcome: &'static str) -> Labels<2> {
    [("kind", kind.name()), ("outcome", outcome)]
}

/// In seconds since 1970.
fn seconds(at: DateTime<Utc>) -> f64 {
    at.timestamp_millis() as f64 / 1000.0
}

impl Metrics {
    pub(super) fn attempted(&self, kind: SyncKind, at: DateTime<Utc>) {
        self.attempts.get_or_create(&of(kind)).set(seconds(at));
    }

    pub(super) fn succeeded(&self, kind: SyncKind, at: DateTime<Utc>) {
        self.successes.get_or_create(&of(kind)).set(seconds(at));
    }

    pub(super) fn ended(&self, kind: SyncKind, outcome: &'static str) {
        self.syncs.get_or_create(&ended(kind, outcome)).inc();
    }

    pub(super) fn took(&self, kind: SyncKind, time: Duration) {
        self.durations.get_or_create(&of(kind)).observe(time.as_secs_f64());
    }

    pub(super) fn fresh(&self, kind: SyncKind, age: Duration) {
        self.ages.get_or_create(&of(kind)).observe(age.as_secs_f64());
    }

    pub(super) fn changed(&self, changes: Changes) {
        let Changes {
            created,
            updated,
            deleted,
            rejected,
        } = changes;
        for (change, users) in [
            ("created", created),
            ("updated", updated),
            ("deleted", deleted),
            ("rejected", rejected),
        ] {
            self.changes.get_or_create(&[("change", change)]).inc_by(users);
        }
    }
}

impl Watch {
    /// All metrics as text. What only the database knows is left out where it does not tell.
    pub(super) fn render(&self, clerk: &Client, glance: Option<&Summary>) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_with_unit(
            "process_start_time",
            "When the process started, in Unix time",
            Unit::Seconds,
            ConstGauge::new(seconds(self.0.started)),
        );
        let ours = registry.sub_registry_with_prefix("clerk2pg");
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        ours.register("build", "What runs here", version);
        self.health_metrics(ours);
        self.sync_metrics(ours);
        self.request_metrics(ours, clerk);
        if let Some(glance) = glance {
            summary_metrics(ours, glance);
        }
        let mut text = String::new();
        prometheus_text::encode(&mut text, &registry)?;
        Ok(text)
    }

    fn health_metrics(&self, registry: &mut Registry) {
        let flag = |is_set: bool| ConstGauge::new(u64::from(is_set));
        registry.register("ready", "Whether /readyz answers 200", flag(self.ready().is_good));
        registry.register(
            "standing_by",
            "Whether another clerk2pg led, or had the lease, when this one last looked",
            flag(self.is_standing_by()),
        );
        registry.register(
            "leader",
            "Whether this process leads the others on its database, and asks Clerk for all of them",
            self.0.metrics.leader.clone(),
        );
        registry.register(
            "lease_held",
            "Whether this process has the lease, which it takes to write",
            self.0.metrics.lease_held.clone(),
        );
    }

    fn sync_metrics(&self, registry: &mut Registry) {
        let metrics = &self.0.metrics;
        registry.register_with_unit(
            "last_attempt_timestamp",
            "When a sync of this kind last began, in Unix time",
            Unit::Seconds,
            metrics.attempts.clone(),
        );
        registry.register_with_unit(
            "last_success_timestamp",
            "When a sync of this kind last ended with the mirror in sync, in Unix time",
            Unit::Seconds,
            metrics.successes.clone(),
        );
        registry.register(
            "syncs",
            "Syncs by how they ended; idle ones found nothing to do",
            metrics.syncs.clone(),
        );
        registry.register_with_unit(
            "sync_duration",
            "How long syncs took that did something",
            Unit::Seconds,
            metrics.durations.clone(),
        );
        registry.register_with_unit(
            "freshness",
            "How old changes at Clerk were when they were committed; a first import tells nothing",
            Unit::Seconds,
            metrics.ages.clone(),
        );
        registry.register(
            "user_changes",
            "Users created, updated and deleted in the mirror, and rejections",
            metrics.changes.clone(),
        );
    }

    fn request_metrics(&self, registry: &mut Registry, clerk: &Client) {
        let requests = Family::<[(&'static str, String); 1], Counter>::default();
        for (status, count) in self.0.requests.answers() {
            let status = status.map_or_else(|| "none".to_owned(), |status| status.to_string());
            requests.get_or_create(&[("status", status)]).inc_by(count);
        }
        registry.register(
            "clerk_requests",
            "Requests to Clerk by the status of the answer; none where no answer came",
            requests,
        );
        registry.register(
            "clerk_rate_limited",
            "Answers that Clerk's rate limit is used up",
            ConstCounter::new(self.0.requests.rate_limited()),
        );
        registry.register(
            "clerk_request_limit_per_second",
            "Requests that clerk2pg sends to Clerk in a second at most, over time: its part of Clerk's rate limit",
            ConstGauge::new(clerk.requests_per_second()),
        );
        registry.register(
            "clerk_request_limit_used_ratio",
            "The part of that limit that is spent at this moment",
            ConstGauge::new(clerk.budget_used()),
        );
    }
}

fn summary_metrics(registry: &mut Registry, glance: &Summary) {
    registry.register("users", "Users in the mirror", ConstGauge::new(glance.users));
    registry.register(
        "held_deletions",
        "Deletions that wait for a person",
        ConstGauge::new(glance.held),
    );
    registry.register(
        "rejected_users",
        "Users that cannot be stored, and rows that cannot be deleted",
        ConstGauge::new(glance.rejected),
    );
    registry.register(
        "unexpected_values",
        "Users with a value of an unexpected type, which is kept in extra; at most 10000",
        ConstGauge::new(glance.unexpected),
    );
}
