//! Notifies the service manager, if one listens (`NOTIFY_SOCKET`), when the daemon is ready, what
//! the last sync did, and that the loop is alive.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sd_notify::NotifyState;
use tracing::debug;

use crate::{
    failure::{Cause, Failure},
    humanize::number,
    printable::printable,
    sync::Report,
};

/// Watchdog pings per interval; two may be missed.
const PINGS_PER_INTERVAL: u32 = 3;

/// Reports that the daemon receives signals and runs its first sync.
pub(super) fn started() {
    notify(&[NotifyState::Ready, NotifyState::Status("first full sync running")]);
}

/// Reports that a reload has ended, with the new configuration or the old one.
pub(super) fn ready() {
    notify(&[NotifyState::Ready]);
}

/// Reports that a reload of the configuration begins; [`ready`] ends it.
pub(super) fn reloading() {
    notify(&[NotifyState::Reloading]);
}

/// Reports that the daemon stops.
pub(super) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// What `systemctl status` shows: the last sync that changed something, or what prevents the next
/// one.
#[derive(Debug, Default)]
pub(super) struct ServiceStatus {
    last: String,
    shown: String,
}

impl ServiceStatus {
    /// Shows a sync that changed something, or a full one.
    pub(super) fn done(&mut self, sync: &str, report: &Report, at: DateTime<Utc>) {
        self.last = describe(sync, report, at);
        self.show(self.last.clone());
    }

    /// Shows the last sync again: a sync that found nothing to do also ends a failure.
    pub(super) fn idle(&mut self) {
        if !self.shown.ends_with(&self.last) {
            self.show(self.last.clone());
        }
    }

    /// Shows that this daemon stands by, and why.
    pub(super) fn standing_by(&mut self, why: &str) {
        self.show(format!("standing by: {why}"));
    }

    /// Shows that this daemon leads now and begins with a full sync.
    pub(super) fn leading(&mut self) {
        self.show("leads now; full sync running".to_owned());
    }

    /// Shows a failed sync.
    pub(super) fn failing(&mut self, failure: &Failure) {
        // If another clerk2pg syncs, this one works as it should.
        let state = if failure.cause == Cause::Busy {
            "standing by"
        } else {
            "failing"
        };
        self.show(format!("{state}: {failure}"));
    }

    /// Shows that a failure is over.
    pub(super) fn recovered(&mut self) {
        let separator = if self.last.is_empty() { "" } else { "; " };
        self.show(format!("back to normal{separator}{}", self.last));
    }

    fn show(&mut self, text: String) {
        if text != self.shown {
            // In the protocol each line is a message of its own, and `systemctl status` shows the text.
            notify(&[NotifyState::Status(&printable(&text))]);
            self.shown = text;
        }
    }
}

/// Returns how often to ping the watchdog; `None` if there is none.
pub(super) fn watchdog_period() -> Option<Duration> {
    let limit = sd_notify::watchdog_enabled().filter(|limit| *limit > Duration::ZERO)?;
    Some(limit / PINGS_PER_INTERVAL)
}

/// Pings the watchdog.
pub(super) fn alive() {
    notify(&[NotifyState::Watchdog]);
}

/// Describes a report in a line.
fn describe(sync: &str, report: &Report, at: DateTime<Utc>) -> String {
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
        "{}; last {sync} at {}: {} created, {} updated, {} deleted, {} unchanged",
        report.outcome.name().replace('_', " "),
        at.format("%T UTC"),
        number(*created),
        number(*updated),
        number(*deleted),
        number(*unchanged),
    );
    for (count, what) in [(held, "held"), (rejected, "rejected")] {
        if *count > 0 {
            text += &format!(", {} {what}", number(*count));
        }
    }
    text
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "cannot notify the service manager");
    }
}
