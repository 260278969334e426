//! Delivers events while this daemon leads.

use std::{pin::pin, time::Duration};

use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::election::Role;
use crate::deliver::Delivery;

/// How long a daemon that has lost the lead waits until it is told so, or tries again.
const PAUSE: Duration = Duration::from_secs(1);

/// The longest time from the beginning of a stop to its end, whatever receivers and the database
/// do: the process ends within five seconds.
const STOP_WITHIN: Duration = Duration::from_secs(3);

/// Delivers in a task of its own, which no sync delays and which delays no sync.
pub(super) struct Deliverer {
    delivery: Delivery,
    stop: CancellationToken,
    /// Ends when this is dropped.
    task: JoinSet<()>,
}

impl Deliverer {
    /// Delivers nothing until [`Self::follow`]. `stop` begins a stop as well, so that deliveries and
    /// a sync stop side by side.
    pub(super) fn new(delivery: Delivery, stop: &CancellationToken) -> Self {
        Self {
            delivery,
            stop: stop.child_token(),
            task: JoinSet::new(),
        }
    }

    /// Delivers whenever this daemon leads. It replaces an earlier election.
    pub(super) fn follow(&mut self, role: watch::Receiver<Role>) {
        self.task.abort_all();
        self.task
            .spawn(deliver_while_leading(self.delivery.clone(), role, self.stop.clone()));
    }

    /// Stops, and notes what is delivered, unless the database takes too long.
    pub(super) async fn stop(mut self) {
        self.stop.cancel();
        while self.task.join_next().await.is_some() {}
    }
}

async fn deliver_while_leading(delivery: Delivery, mut role: watch::Receiver<Role>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        tokio::select! {
            () = stop.cancelled() => return,
            is_leader = role.wait_for(|role| *role == Role::Leader) => if is_leader.is_err() { return },
        }
        let mut lost = pin!(async { drop(role.wait_for(|role| *role != Role::Leader).await) });
        tokio::select! {
            biased;
            // What is being sent is given up: another daemon may send it already.
            () = &mut lost => {}
            // What is not noted is sent again.
            () = overdue(&stop) => {}
            // It was stopped, or it lost the lead before this daemon noticed.
            () = delivery.run(&stop) => {
                let _ = tokio::time::timeout(PAUSE, lost).await;
            }
        }
    }
}

/// Waits until a stop has taken too long.
async fn overdue(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(STOP_WITHIN).await;
}
