//! Waits until a sync is due and may run.

use std::time::{Duration, Instant};

use crate::sync::Syncer;

/// A pause that stands for "not now".
const NOT_NOW: Duration = Duration::from_secs(86_400);

/// The earliest time for each kind of sync; `None` if it may run now.
#[derive(Clone, Copy)]
pub(super) struct EarliestTimes {
    pub(super) full: Option<Instant>,
    pub(super) incremental: Option<Instant>,
    pub(super) on_demand: Option<Instant>,
}

/// Waits until something is due that may run.
pub(super) async fn wait_until_due(syncer: &Syncer, earliest: EarliestTimes) {
    loop {
        let is_free = syncer.clerk.free_for_notifications() > 0;
        let on_demand = match is_free {
            true => earliest.on_demand,
            false => Some(Instant::now() + NOT_NOW),
        };
        let next = syncer.due.next(earliest.full, earliest.incremental, on_demand);
        let over = async {
            match next {
                Some(next) => tokio::time::sleep_until(next.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = over => return,
            () = syncer.due.changed() => {}
            () = syncer.clerk.is_free_for_notifications(), if !is_free && syncer.due.has_users() => {}
        }
    }
}
