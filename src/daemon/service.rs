//! The service manager, where one listens (`NOTIFY_SOCKET`): it is told when the daemon is ready, what the last sync did, and that the loop is
//! alive. Elsewhere nothing is told.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sd_notify::NotifyState;
use tracing::debug;

use crate::{
    failure::{Cause, Failure},
    sync::Report,
};

/// So often within its time is the watchdog told of life: two may be late.
const BEATS: u32 = 3;

/// The daemon takes signals, and its first sync is under way.
pub(super) fn started() {
    tell(&[
        NotifyState::Ready,
        NotifyState::Status("the first full sync is under way"),
    ]);
}

/// The daemon is ready again, be it with the old configuration.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The configuration is read again; [`ready`] ends it.
pub(super) fn reloading() {
    tell(&[NotifyState::Reloading]);
}

/// The daemon ends.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// What `systemctl status` shows: the last sync that did something in words, or what keeps the next one from being done.
#[derive(Debug, Default)]
pub(super) struct Status {
    last: String,
    shown: String,
}

impl Status {
    /// A sync did something, or a full one came to its end.
    pub(super) fn done(&mut self, sync: &str, report: &Report, at: DateTime<Utc>) {
        self.last = words(sync, report, at);
        self.show(self.last.clone());
    }

    /// There was nothing to do, so that nothing stands in the way any more.
    pub(super) fn idle(&mut self) {
        if !self.shown.ends_with(&self.last) {
            self.show(self.last.clone());
        }
    }

    /// Another clerk2pg has to be waited for.
    pub(super) fn standing_by(&mut self, why: &str) {
        self.show(format!("standing by: {why}"));
    }

    /// This one leads from now on, and begins with a full sync.
    pub(super) fn leading(&mut self) {
        self.show("leads now; a full sync is under way".to_owned());
    }

    /// A sync failed.
    pub(super) fn failing(&mut self, failure: &Failure) {
        // Where another clerk2pg is at work, this one does what it should.
        let state = if failure.cause == Cause::Busy {
            "standing by"
        } else {
            "failing"
        };
        self.show(format!("{state}: {failure}"));
    }

    /// What syncs failed of is over.
    pub(super) fn recovered(&mut self) {
        let separator = if self.last.is_empty() { "" } else { "; " };
        self.show(format!("back to normal{separator}{}", self.last));
    }

    fn show(&mut self, text: String) {
        if text != self.shown {
            // The protocol has a line for each word.
            tell(&[NotifyState::Status(&text.replace('\n', " "))]);
            self.shown = text;
        }
    }
}

/// How often the watchdog wants to hear of life, where there is one.
pub(super) fn pulse() -> Option<Duration> {
    let limit = sd_notify::watchdog_enabled().filter(|limit| *limit > Duration::ZERO)?;
    Some(limit / BEATS)
}

/// The loop that does the work is alive.
pub(super) fn alive() {
    tell(&[NotifyState::Watchdog]);
}

fn words(sync: &str, report: &Report, at: DateTime<Utc>) -> String {
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
        "{}; last {sync} at {}: {created} created, {updated} updated, {deleted} deleted, {unchanged} unchanged",
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

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "the service manager cannot be told");
    }
}
