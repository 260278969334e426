//! The metrics in Prometheus' text format.

use std::fmt;

use prometheus_client::{
    encoding::prometheus_text,
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
        info::Info,
    },
    registry::{Registry, Unit},
};

use super::{
    metrics::{Metrics, TimeGauge, unix_seconds},
    state::Watch,
};
use crate::{
    clerk::{Client, Tally},
    mirror::{EndpointStatus, ResourceStatus, Summary, TableState, TableStatus},
};

/// The content type of what [`render`] returns.
pub(super) const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// Renders all metrics. Those that come from the database are left out if `summary` is `None`.
pub(super) fn render(
    watch: &Watch,
    clerk: &Client,
    summary: Option<&Summary>,
    resources: &[ResourceStatus],
    tables: &[TableStatus],
    endpoints: &[EndpointStatus],
) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_with_unit(
        "process_start_time",
        "When the process started, in Unix time",
        Unit::Seconds,
        ConstGauge::new(unix_seconds(watch.started_at())),
    );
    let ours = registry.sub_registry_with_prefix("clerk2pg");
    let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
    ours.register("build", "The version that runs", version);
    health_metrics(ours, watch);
    sync_metrics(ours, watch.metrics());
    request_metrics(ours, &watch.requests(), clerk);
    if let Some(summary) = summary {
        summary_metrics(ours, summary);
    }
    resource_metrics(ours, resources);
    table_metrics(ours, tables);
    endpoint_metrics(ours, endpoints);
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry)?;
    Ok(text)
}

fn health_metrics(registry: &mut Registry, watch: &Watch) {
    let flag = |is_set: bool| ConstGauge::new(u64::from(is_set));
    registry.register("ready", "Whether /readyz answers 200", flag(watch.ready().is_ok));
    registry.register(
        "standing_by",
        "Whether another clerk2pg led, or had the lease, when this one last tried to sync",
        flag(watch.is_standing_by()),
    );
    registry.register(
        "leader",
        "Whether this process leads: of all that share the database, only the leader syncs",
        watch.metrics().leader.clone(),
    );
    registry.register(
        "lease_held",
        "Whether this process has the lease, which it needs to write",
        watch.metrics().lease_held.clone(),
    );
}

fn sync_metrics(registry: &mut Registry, metrics: &Metrics) {
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
        "Syncs by outcome; idle ones found nothing to do",
        metrics.syncs.clone(),
    );
    registry.register_with_unit(
        "sync_duration",
        "Duration of syncs that changed something, and of full syncs",
        Unit::Seconds,
        metrics.durations.clone(),
    );
    registry.register_with_unit(
        "freshness",
        "Age of changes at Clerk when they were committed; a first import does not count",
        Unit::Seconds,
        metrics.ages.clone(),
    );
    registry.register(
        "user_changes",
        "Users created, updated and deleted in the mirror, and rejections",
        metrics.changes.clone(),
    );
    registry.register(
        "deliveries",
        "Attempts to deliver an event by the status of the answer; \"none\" if no answer came",
        metrics.deliveries.clone(),
    );
}

fn request_metrics(registry: &mut Registry, tally: &Tally, clerk: &Client) {
    let requests = Family::<[(&'static str, String); 1], Counter>::default();
    for (status, count) in tally.answers() {
        let status = status.map_or_else(|| "none".to_owned(), |status| status.to_string());
        requests.get_or_create(&[("status", status)]).inc_by(count);
    }
    registry.register(
        "clerk_requests",
        "Requests to Clerk by the status of the answer; \"none\" if no answer came",
        requests,
    );
    registry.register(
        "clerk_rate_limited",
        "Answers that said that Clerk's rate limit is used up",
        ConstCounter::new(tally.rate_limited()),
    );
    registry.register(
        "clerk_request_limit_per_second",
        "Requests a second that clerk2pg sends to Clerk at most: its part of Clerk's rate limit",
        ConstGauge::new(clerk.requests_per_second()),
    );
    registry.register(
        "clerk_request_limit_used_ratio",
        "The part of clerk2pg's request limit that is in use now",
        ConstGauge::new(clerk.budget_used()),
    );
}

fn summary_metrics(registry: &mut Registry, summary: &Summary) {
    registry.register("users", "Users in the mirror", ConstGauge::new(summary.users));
    registry.register(
        "held_deletions",
        "Deletions that wait for approval",
        ConstGauge::new(summary.held),
    );
    registry.register(
        "rejected_users",
        "Users that cannot be stored, and rows that cannot be deleted",
        ConstGauge::new(summary.rejected),
    );
    registry.register(
        "unexpected_values",
        "Users with a value of an unexpected type, which is kept in extra; at most 10000",
        ConstGauge::new(summary.unexpected),
    );
}

/// Registers the state of the resources other than users.
fn resource_metrics(registry: &mut Registry, resources: &[ResourceStatus]) {
    let mut register = |name: &str, help: &str, value: fn(&ResourceStatus) -> i64| {
        let family = Family::<[(&'static str, String); 1], Gauge>::default();
        for status in resources {
            let gauge = family.get_or_create_owned(&[("resource", status.resource.clone())]);
            gauge.set(value(status));
        }
        registry.register(name, help, family);
    };
    register(
        "resource_objects",
        "Organizations, memberships and the like in the mirror",
        |status| status.objects,
    );
    register(
        "resource_held_deletions",
        "Deletions of organizations, memberships and the like that wait for approval",
        |status| status.held,
    );
    register(
        "resource_rejected",
        "Organizations, memberships and the like that cannot be stored, and rows that cannot be deleted",
        |status| status.rejected,
    );
    let synced = Family::<[(&'static str, String); 1], TimeGauge>::default();
    for status in resources {
        if let Some(at) = status.last_success_at {
            let gauge = synced.get_or_create_owned(&[("resource", status.resource.clone())]);
            gauge.set(unix_seconds(at));
        }
    }
    registry.register_with_unit(
        "resource_last_success_timestamp",
        "When a full sync of a resource last ended with its mirror in sync, in Unix time",
        Unit::Seconds,
        synced,
    );
}

/// Registers what is known of the application's tables. What a full sync counts is left out before
/// the first one.
fn table_metrics(registry: &mut Registry, tables: &[TableStatus]) {
    let mut register = |name: &str, help: &str, value: fn(&TableStatus) -> Option<u64>| {
        let family = Family::<[(&'static str, String); 1], Gauge>::default();
        for table in tables {
            if let Some(value) = value(table) {
                let gauge = family.get_or_create_owned(&[("table", table.table.clone())]);
                gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
            }
        }
        registry.register(name, help, family);
    };
    register(
        "table_in_sync",
        "Whether each sync keeps this table of the application in sync",
        |table| Some(u64::from(table.state == TableState::Applied)),
    );
    register(
        "table_rows",
        "Rows of a table of the application at the last full sync",
        |table| table.rows,
    );
    register(
        "table_repaired_rows",
        "Rows that differed at the last full sync although nobody had changed them at Clerk",
        |table| table.repaired,
    );
    register(
        "table_rejected_rows",
        "Rows of a table of the application that cannot be written or removed",
        |table| Some(table.rejected),
    );
    register(
        "table_held_rows",
        "Rows of a table of the application that wait for approval",
        |table| Some(table.held),
    );
    let compared = Family::<[(&'static str, String); 1], TimeGauge>::default();
    for table in tables {
        if let Some(at) = table.compared_at {
            let gauge = compared.get_or_create_owned(&[("table", table.table.clone())]);
            gauge.set(unix_seconds(at));
        }
    }
    registry.register_with_unit(
        "table_last_compared_timestamp",
        "When a full sync last compared a table of the application with the mirror, in Unix time",
        Unit::Seconds,
        compared,
    );
}

/// Registers how far the endpoints are.
fn endpoint_metrics(registry: &mut Registry, endpoints: &[EndpointStatus]) {
    let lag = Family::<[(&'static str, String); 1], TimeGauge>::default();
    for endpoint in endpoints {
        let gauge = lag.get_or_create_owned(&[("endpoint", endpoint.name.clone())]);
        gauge.set(endpoint.lag_seconds);
    }
    registry.register_with_unit(
        "endpoint_lag",
        "For how long the oldest event has been waiting that an endpoint still has to get",
        Unit::Seconds,
        lag,
    );
    let mut register = |name: &str, help: &str, value: fn(&EndpointStatus) -> i64| {
        let family = Family::<[(&'static str, String); 1], Gauge>::default();
        for endpoint in endpoints {
            let gauge = family.get_or_create_owned(&[("endpoint", endpoint.name.clone())]);
            gauge.set(value(endpoint));
        }
        registry.register(name, help, family);
    };
    register(
        "endpoint_waiting_events",
        "Events that an endpoint still has to get; an estimate beyond 10000",
        |endpoint| endpoint.waiting,
    );
    register(
        "endpoint_late_events",
        "Events that an endpoint did not accept, that follow such an event, or that are delivered again",
        |endpoint| endpoint.late,
    );
    register(
        "endpoint_dead_events",
        "Events that an endpoint did not accept at the last attempt; they are not tried again",
        |endpoint| endpoint.dead,
    );
    register(
        "endpoint_paused",
        "Whether an endpoint is tried only now and then: it does not work, or has asked for a pause",
        |endpoint| i64::from(endpoint.paused_at.is_some()),
    );
}
