//! The service manager, where one listens (`NOTIFY_SOCKET`): it is told when the daemon is ready, what the last pass did, and that the loop is
//! alive. Elsewhere nothing is told.

use std::{pin::pin, time::Duration};

use chrono::{DateTime, Utc};
use sd_notify::NotifyState;
use tracing::debug;

use crate::pass::Report;

/// So often within its time is the watchdog told of life: two may be late.
const BEATS: u32 = 3;

/// The daemon takes signals, and its first pass is under way.
pub(super) fn ready() {
    tell(&NotifyState::Ready);
}

/// The configuration is read again; [`ready`] ends it.
pub(super) fn reloading() {
    tell(&NotifyState::Reloading);
}

/// The daemon ends.
pub(super) fn stopping() {
    tell(&NotifyState::Stopping);
}

/// What `systemctl status` shows.
pub(super) fn status(text: &str) {
    tell(&NotifyState::Status(&text.replace('\n', " ")));
}

/// Does the work of the loop, and feeds the watchdog as long as the loop's own thread comes by: waiting for a slow Clerk is no reason to be
/// restarted, being stuck is.
pub(super) async fn watched<T>(work: impl Future<Output = T>) -> T {
    let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| *limit > Duration::ZERO) else {
        return work.await;
    };
    let mut work = pin!(work);
    loop {
        tell(&NotifyState::Watchdog);
        tokio::select! {
            biased;
            result = &mut work => return result,
            () = tokio::time::sleep(limit / BEATS) => {}
        }
    }
}

/// The last pass in words, for people.
pub(super) fn words(pass: &str, report: &Report, at: DateTime<Utc>) -> String {
    let Report {
        created,
        updated,
        deleted,
        unchanged,
        held,
        rejected,
        ..
    } = report;
    let mut text = format!(
        "{}; last {pass} at {}: {created} created, {updated} updated, {deleted} deleted, {unchanged} unchanged",
        report.outcome.name().replace('_', " "),
        at.format("%T UTC"),
    );
    for (count, what) in [(held, "held"), (rejected, "rejected")] {
        if *count > 0 {
            text += &format!(", {count} {what}");
        }
    }
    text
}

fn tell(state: &NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        debug!(%error, "the service manager cannot be told");
    }
}
