//! Delivers events while this daemon leads.

use std::{pin::pin, time::Duration};

use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::election::Role;
use crate::deliver::Delivery;

/// How long a daemon that has lost the lead waits until it is told so, or tries again.
const PAUSE: Duration = Duration::from_secs(1);

/// Delivers in a task of its own, which no sync delays and which delays no sync.
pub(super) struct Deliverer {
    delivery: Delivery,
    stop: CancellationToken,
    /// Ends when this is dropped.
    task: JoinSet<()>,
}

impl Deliverer {
    /// Delivers nothing until [`Self::follow`].
    pub(super) fn new(delivery: Delivery) -> Self {
        Self {
            delivery,
            stop: CancellationToken::new(),
            task: JoinSet::new(),
        }
    }

    /// Delivers whenever this daemon leads. It replaces an earlier election.
    pub(super) fn follow(&mut self, role: watch::Receiver<Role>) {
        self.task.abort_all();
        self.task
            .spawn(deliver_while_leading(self.delivery.clone(), role, self.stop.clone()));
    }

    /// Stops, and notes what is delivered.
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
            // It was stopped, or it lost the lead before this daemon noticed.
            () = delivery.run(&stop) => {
                let _ = tokio::time::timeout(PAUSE, lost).await;
            }
        }
    }
}
