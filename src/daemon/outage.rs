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

/// The state of an outage; by default there is none.
#[derive(Debug, Default)]
pub(super) struct Outage {
    told: Option<Told>,
    /// Since when no sync goes through.
    since: Option<Instant>,
    /// Clerk or Postgres is unavailable: all kinds wait.
    away: Option<Failing>,
    full: Option<Failing>,
    incremental: Option<Failing>,
    on_demand: Option<Failing>,
}

#[derive(Debug)]
struct Told {
    cause: Cause,
    /// Tells failures of one cause apart; their words may hold a trace of each request.
    hint: Option<String>,
    at: Instant,
}

#[derive(Debug)]
struct Failing {
    /// Clerk or Postgres was unavailable; a success of another kind of sync may end this.
    is_away: bool,
    backoff: ExponentialBackoff,
    /// When to try again.
    next: Instant,
}

impl Failing {
    fn new() -> Self {
        Self {
            is_away: false,
            backoff: ExponentialBuilder::default()
                .with_min_delay(Duration::from_secs(1))
                .with_max_delay(Duration::from_secs(60))
                .without_max_times()
                .with_jitter()
                .build(),
            next: Instant::now(),
        }
    }

    fn again(this: &mut Option<Self>, is_away: bool) {
        let this = this.get_or_insert_with(Self::new);
        this.is_away = is_away;
        this.next = Instant::now() + this.backoff.next().unwrap_or_default();
    }
}

impl Outage {
    fn of(&mut self, kind: SyncKind) -> &mut Option<Failing> {
        match kind {
            SyncKind::Full => &mut self.full,
            SyncKind::Incremental => &mut self.incremental,
            SyncKind::OnDemand => &mut self.on_demand,
        }
    }

    /// Records a failed sync. A failure that continues is not logged again.
    pub(super) fn note(&mut self, kind: SyncKind, failure: &Failure) {
        let is_of_all = failure.is_of_all();
        self.since.get_or_insert_with(Instant::now);
        if kind == SyncKind::OnDemand && !is_of_all {
            // These users have their own pauses; users requested later need not wait for them.
            warn!(error = %failure, hint = failure.hint, "a sync on demand failed; its users are tried again later");
            return;
        }
        self.tell(failure);
        if is_of_all {
            Failing::again(&mut self.away, true);
        }
        Failing::again(self.of(kind), is_of_all);
    }

    fn tell(&mut self, failure: &Failure) {
        let is_away = matches!(failure.cause, Cause::ClerkAway | Cause::PostgresAway);
        let is_new = self
            .told
            .as_ref()
            .is_none_or(|told| told.cause != failure.cause || (!is_away && told.hint != failure.hint));
        if !is_new {
            return;
        }
        match is_away {
            true => warn!(error = %failure, hint = failure.hint, "waiting until it can be reached"),
            false => error!(error = %failure, hint = failure.hint, "the sync failed"),
        }
        self.told = Some(Told {
            cause: failure.cause,
            hint: failure.hint.clone(),
            at: self.told.take().map_or_else(Instant::now, |told| told.at),
        });
    }

    /// A sync went through. Returns whether that ends all trouble.
    pub(super) fn end(&mut self, kind: SyncKind) -> bool {
        (self.since, self.away) = (None, None);
        // The success of a kind that had not failed proves nothing about the others.
        if self.of(kind).take().is_some() || kind == SyncKind::Full {
            for other in [&mut self.full, &mut self.incremental, &mut self.on_demand] {
                other.take_if(|failing| failing.is_away);
            }
        }
        if self.full.is_some() || self.incremental.is_some() || self.on_demand.is_some() {
            return false;
        }
        let ended = self.told.take();
        if let Some(told) = &ended {
            info!(after_s = told.at.elapsed().as_secs(), "back to normal");
        }
        ended.is_some()
    }

    /// Since when no sync goes through.
    pub(super) fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Until when a kind of sync waits, whatever the schedule says; `None` if it need not wait.
    pub(super) fn waits_until(&self, kind: SyncKind) -> Option<Instant> {
        let own = match kind {
            SyncKind::Full => &self.full,
            SyncKind::Incremental => &self.incremental,
            SyncKind::OnDemand => &self.on_demand,
        };
        let waits = self.away.iter().chain(own).map(|failing| failing.next).max();
        waits.filter(|next| *next > Instant::now())
    }

    /// Ends the waiting: the configuration changed, or a person asked, so its cause may be gone. Later pauses keep growing.
    pub(super) fn try_now(&mut self) {
        let failing = [
            &mut self.away,
            &mut self.full,
            &mut self.incremental,
            &mut self.on_demand,
        ];
        for failing in failing.into_iter().flatten() {
            failing.next = Instant::now();
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
    fn who_is_away_is_waited_for_by_all_until_one_gets_through() {
        let mut outage = Outage::default();
        outage.note(SyncKind::Incremental, &failure(Cause::ClerkAway));
        assert_eq!(waiting(&outage), KINDS);
        assert!(outage.since().is_some());
        assert!(outage.end(SyncKind::Incremental));
        assert_eq!((waiting(&outage), outage.since()), (Vec::new(), None));
        outage.note(SyncKind::Incremental, &failure(Cause::PostgresAway));
        assert!(outage.end(SyncKind::Full), "a full sync sees everything");
        assert!(!outage.end(SyncKind::Full), "nothing has begun since");
    }

    #[test]
    fn a_kind_that_fails_alone_keeps_nobody_else_waiting() {
        for cause in [Cause::Other, Cause::NeedsPerson] {
            let mut outage = Outage::default();
            outage.note(SyncKind::Full, &failure(cause));
            assert_eq!(waiting(&outage), [SyncKind::Full]);
            assert!(!outage.end(SyncKind::Incremental));
            assert_eq!(waiting(&outage), [SyncKind::Full]);
            outage.try_now();
            assert_eq!(waiting(&outage), []);
            assert!(outage.end(SyncKind::Full));
        }
    }

    #[test]
    fn a_server_that_fails_one_kind_alone_is_asked_less_and_less_for_it() {
        let mut outage = Outage::default();
        let mut waits = Vec::new();
        for _ in 0..8 {
            outage.note(SyncKind::Full, &failure(Cause::ClerkAway));
            assert!(!outage.end(SyncKind::Incremental));
            waits.push(outage.waits_until(SyncKind::Full).unwrap() - Instant::now());
            assert_eq!(waiting(&outage), [SyncKind::Full]);
        }
        assert!(waits[7] > Duration::from_secs(30), "{waits:?}");
    }

    #[test]
    fn users_who_fail_keep_no_others_waiting() {
        let mut outage = Outage::default();
        outage.note(SyncKind::OnDemand, &failure(Cause::Other));
        assert_eq!(waiting(&outage), []);
        assert!(!outage.end(SyncKind::Incremental));
    }
}
