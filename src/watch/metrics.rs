//! Metrics that are counted as they happen. No label contains data of a user.

use std::{sync::atomic::AtomicU64, time::Duration};

use chrono::{DateTime, Utc};
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram};

use crate::mirror::{Outcome, SyncKind};

/// Buckets for the age of changes, in seconds: from an immediate incremental sync to a full sync
/// that finds what incremental ones miss.
const AGE_BUCKETS: [f64; 16] = [
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3_600.0, 21_600.0, 86_400.0,
];

/// Buckets for the duration of syncs, in seconds: from one changed user to a first import of
/// millions.
const DURATION_BUCKETS: [f64; 14] = [
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3_600.0,
];

const KINDS: [SyncKind; 3] = [SyncKind::Full, SyncKind::Incremental, SyncKind::OnDemand];

/// Outcomes that are exported from the start. `standing_by` and `blind` are not: many installations
/// never have them.
const OUTCOMES: [OutcomeLabel; 6] = [
    OutcomeLabel::Idle,
    OutcomeLabel::Ended(Outcome::InSync),
    OutcomeLabel::Ended(Outcome::Changed),
    OutcomeLabel::Ended(Outcome::Held),
    OutcomeLabel::Ended(Outcome::Incomplete),
    OutcomeLabel::Ended(Outcome::Failed),
];

/// How a sync ended, as the metrics count it.
#[derive(Debug, Clone, Copy)]
pub(super) enum OutcomeLabel {
    /// It found nothing to do.
    Idle,
    /// It was left to another clerk2pg.
    StandingBy,
    /// The server does not show recent changes.
    Blind,
    /// It ended as its report says.
    Ended(Outcome),
}

impl OutcomeLabel {
    fn name(self) -> &'static str {
        match self {
            OutcomeLabel::Idle => "idle",
            OutcomeLabel::StandingBy => "standing_by",
            OutcomeLabel::Blind => "blind",
            OutcomeLabel::Ended(outcome) => outcome.name(),
        }
    }
}

type Labels<const N: usize> = [(&'static str, &'static str); N];
pub(super) type TimeGauge = Gauge<f64, AtomicU64>;
type Histograms = Family<Labels<1>, Histogram, fn() -> Histogram>;

/// Numbers of users that were changed in the mirror.
#[derive(Debug, Clone, Copy, Default)]
pub struct Changes {
    /// New to the mirror.
    pub created: u64,
    /// Updated.
    pub updated: u64,
    /// Deleted, or marked so.
    pub deleted: u64,
    /// Not stored, or not deleted, because of a problem with the user.
    pub rejected: u64,
}

/// The metrics.
#[derive(Debug)]
pub(super) struct Metrics {
    pub(super) lease_held: Gauge,
    pub(super) leader: Gauge,
    pub(super) attempts: Family<Labels<1>, TimeGauge>,
    pub(super) successes: Family<Labels<1>, TimeGauge>,
    pub(super) syncs: Family<Labels<2>, Counter>,
    pub(super) durations: Histograms,
    pub(super) ages: Histograms,
    pub(super) changes: Family<Labels<1>, Counter>,
    pub(super) deliveries: Family<[(&'static str, String); 2], Counter>,
}

impl Default for Metrics {
    /// Series start at zero; otherwise their first increase would not be visible.
    fn default() -> Self {
        let metrics = Self {
            lease_held: Gauge::default(),
            leader: Gauge::default(),
            attempts: Family::default(),
            successes: Family::default(),
            syncs: Family::default(),
            durations: Histograms::new_with_constructor(|| Histogram::new(DURATION_BUCKETS)),
            ages: Histograms::new_with_constructor(|| Histogram::new(AGE_BUCKETS)),
            changes: Family::default(),
            deliveries: Family::default(),
        };
        for kind in KINDS {
            drop(metrics.durations.get_or_create(&kind_label(kind)));
            drop(metrics.ages.get_or_create(&kind_label(kind)));
            for outcome in OUTCOMES {
                drop(metrics.syncs.get_or_create(&outcome_labels(kind, outcome)));
            }
        }
        metrics.record_changes(Changes::default());
        metrics
    }
}

fn kind_label(kind: SyncKind) -> Labels<1> {
    [("kind", kind.name())]
}

fn outcome_labels(kind: SyncKind, outcome: OutcomeLabel) -> Labels<2> {
    [("kind", kind.name()), ("outcome", outcome.name())]
}

/// Returns a time in seconds since 1970.
pub(super) fn unix_seconds(at: DateTime<Utc>) -> f64 {
    at.timestamp_millis() as f64 / 1000.0
}

impl Metrics {
    pub(super) fn attempted(&self, kind: SyncKind, at: DateTime<Utc>) {
        self.attempts.get_or_create(&kind_label(kind)).set(unix_seconds(at));
    }

    pub(super) fn succeeded(&self, kind: SyncKind, at: DateTime<Utc>) {
        self.successes.get_or_create(&kind_label(kind)).set(unix_seconds(at));
    }

    pub(super) fn ended(&self, kind: SyncKind, outcome: OutcomeLabel) {
        self.syncs.get_or_create(&outcome_labels(kind, outcome)).inc();
    }

    pub(super) fn took(&self, kind: SyncKind, time: Duration) {
        self.durations
            .get_or_create(&kind_label(kind))
            .observe(time.as_secs_f64());
    }

    pub(super) fn record_freshness(&self, kind: SyncKind, age: Duration) {
        self.ages.get_or_create(&kind_label(kind)).observe(age.as_secs_f64());
    }

    pub(super) fn record_delivery(&self, endpoint: &str, status: Option<u16>) {
        let status = status.map_or_else(|| "none".to_owned(), |status| status.to_string());
        let labels = [("endpoint", endpoint.to_owned()), ("status", status)];
        self.deliveries.get_or_create(&labels).inc();
    }

    pub(super) fn record_changes(&self, changes: Changes) {
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
