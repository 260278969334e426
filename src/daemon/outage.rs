//! Waits out failures with backoff, and logs each once when it begins and once when it ends.
//!
//! If Clerk or Postgres is unavailable, every kind of sync waits. Any other failure delays one kind
//! only.

use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tracing::{error, info, warn};

use crate::{
    failure::{Cause, Failure},
    mirror::SyncKind,
};

/// The failures that are not over yet; by default there are none.
#[derive(Debug, Default)]
pub(super) struct Outage {
    logged: Option<LoggedFailure>,
    /// Since when no sync succeeds.
    since: Option<Instant>,
    /// Clerk or Postgres is unavailable: all kinds wait.
    unavailable: Option<Backoff>,
    full: Option<Backoff>,
    incremental: Option<Backoff>,
    on_demand: Option<Backoff>,
}

/// The failure that was logged last.
#[derive(Debug)]
struct LoggedFailure {
    cause: Cause,
    /// Distinguishes failures of one cause. Their messages may contain a trace id of each request.
    hint: Option<String>,
    at: Instant,
}

/// When to try again after failures.
#[derive(Debug)]
struct Backoff {
    /// Clerk or Postgres was unavailable; the success of another kind of sync may end this.
    is_unavailable: bool,
    delays: ExponentialBackoff,
    /// When to try again.
    next: Instant,
}

impl Backoff {
    fn new() -> Self {
        Self {
            is_unavailable: false,
            delays: ExponentialBuilder::default()
                .with_min_delay(Duration::from_secs(1))
                .with_max_delay(Duration::from_secs(60))
                .without_max_times()
                .with_jitter()
                .build(),
            next: Instant::now(),
        }
    }

    /// Starts a backoff, or continues it with the next delay.
    fn extend(this: &mut Option<Self>, is_unavailable: bool) {
        let this = this.get_or_insert_with(Self::new);
        this.is_unavailable = is_unavailable;
        this.next = Instant::now() + this.delays.next().unwrap_or_default();
    }
}

impl Outage {
    fn backoff_of(&mut self, kind: SyncKind) -> &mut Option<Backoff> {
        match kind {
            SyncKind::Full => &mut self.full,
            SyncKind::Incremental => &mut self.incremental,
            SyncKind::OnDemand => &mut self.on_demand,
        }
    }

    /// Records a failed sync. A failure that continues is not logged again.
    pub(super) fn record_failure(&mut self, kind: SyncKind, failure: &Failure) {
        let stops_all_kinds = failure.stops_all_kinds();
        self.since.get_or_insert_with(Instant::now);
        if kind == SyncKind::OnDemand && !stops_all_kinds {
            // These users have delays of their own; users requested later need not wait for them.
            warn!(error = %failure, hint = failure.hint, "a sync on demand failed; its users are tried again later");
            return;
        }
        self.log_if_new(failure);
        if stops_all_kinds {
            Backoff::extend(&mut self.unavailable, true);
        }
        Backoff::extend(self.backoff_of(kind), stops_all_kinds);
    }

    fn log_if_new(&mut self, failure: &Failure) {
        let is_unavailable = matches!(failure.cause, Cause::ClerkUnavailable | Cause::PostgresUnavailable);
        let is_new = self
            .logged
            .as_ref()
            .is_none_or(|logged| logged.cause != failure.cause || (!is_unavailable && logged.hint != failure.hint));
        if !is_new {
            return;
        }
        match is_unavailable {
            true => warn!(error = %failure, hint = failure.hint, "waiting until it can be reached"),
            false => error!(error = %failure, hint = failure.hint, "the sync failed"),
        }
        self.logged = Some(LoggedFailure {
            cause: failure.cause,
            hint: failure.hint.clone(),
            at: self.logged.take().map_or_else(Instant::now, |logged| logged.at),
        });
    }

    /// Records a successful sync. Returns whether it ends all failures.
    pub(super) fn record_success(&mut self, kind: SyncKind) -> bool {
        (self.since, self.unavailable) = (None, None);
        // The success of a kind that had not failed proves nothing about the others.
        if self.backoff_of(kind).take().is_some() || kind == SyncKind::Full {
            for other in [&mut self.full, &mut self.incremental, &mut self.on_demand] {
                other.take_if(|backoff| backoff.is_unavailable);
            }
        }
        if self.full.is_some() || self.incremental.is_some() || self.on_demand.is_some() {
            return false;
        }
        let ended = self.logged.take();
        if let Some(logged) = &ended {
            info!(after_s = logged.at.elapsed().as_secs(), "back to normal");
        }
        ended.is_some()
    }

    /// Returns since when no sync succeeds.
    pub(super) fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Returns until when a kind of sync waits, whatever the schedule says; `None` if it need not
    /// wait.
    pub(super) fn waits_until(&self, kind: SyncKind) -> Option<Instant> {
        let own = match kind {
            SyncKind::Full => &self.full,
            SyncKind::Incremental => &self.incremental,
            SyncKind::OnDemand => &self.on_demand,
        };
        let waits = self.unavailable.iter().chain(own).map(|backoff| backoff.next).max();
        waits.filter(|next| *next > Instant::now())
    }

    /// Ends the current delays: the configuration has changed, or a person asks for a sync, so the
    /// cause may be gone. Later delays keep growing.
    pub(super) fn try_now(&mut self) {
        let backoffs = [
            &mut self.unavailable,
            &mut self.full,
            &mut self.incremental,
            &mut self.on_demand,
        ];
        for backoff in backoffs.into_iter().flatten() {
            backoff.next = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [SyncKind; 3] = [SyncKind::Full, SyncKind::Incremental, SyncKind::OnDemand];

    fn waiting(outage: &Outage) -> Vec<SyncKind> {
        KINDS
            .into_iter()
            .filter(|kind| outage.waits_until(*kind).is_some())
            .collect()
    }

    fn failure(cause: Cause) -> Failure {
        Failure::new(cause, "it failed")
    }

    #[test]
    fn every_kind_waits_for_an_unavailable_server_until_one_succeeds() {
        let mut outage = Outage::default();
        outage.record_failure(SyncKind::Incremental, &failure(Cause::ClerkUnavailable));
        assert_eq!(waiting(&outage), KINDS);
        assert!(outage.since().is_some());
        assert!(outage.record_success(SyncKind::Incremental));
        assert_eq!((waiting(&outage), outage.since()), (Vec::new(), None));
        outage.record_failure(SyncKind::Incremental, &failure(Cause::PostgresUnavailable));
        assert!(outage.record_success(SyncKind::Full), "a full sync sees everything");
        assert!(!outage.record_success(SyncKind::Full), "no failure has begun since");
    }

    #[test]
    fn a_kind_that_fails_alone_delays_no_other_kind() {
        for cause in [Cause::Other, Cause::NeedsPerson] {
            let mut outage = Outage::default();
            outage.record_failure(SyncKind::Full, &failure(cause));
            assert_eq!(waiting(&outage), [SyncKind::Full]);
            assert!(!outage.record_success(SyncKind::Incremental));
            assert_eq!(waiting(&outage), [SyncKind::Full]);
            outage.try_now();
            assert_eq!(waiting(&outage), []);
            assert!(outage.record_success(SyncKind::Full));
        }
    }

    #[test]
    fn delays_grow_for_a_kind_that_alone_finds_a_server_unavailable() {
        let mut outage = Outage::default();
        let mut waits = Vec::new();
        for _ in 0..8 {
            outage.record_failure(SyncKind::Full, &failure(Cause::ClerkUnavailable));
            assert!(!outage.record_success(SyncKind::Incremental));
            waits.push(outage.waits_until(SyncKind::Full).unwrap() - Instant::now());
            assert_eq!(waiting(&outage), [SyncKind::Full]);
        }
        assert!(waits[7] > Duration::from_secs(30), "{waits:?}");
    }

    #[test]
    fn users_that_fail_delay_no_others() {
        let mut outage = Outage::default();
        outage.record_failure(SyncKind::OnDemand, &failure(Cause::Other));
        assert_eq!(waiting(&outage), []);
        assert!(!outage.record_success(SyncKind::Incremental));
    }
}
