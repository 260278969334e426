//! Delivers events while this daemon leads.

use std::{io, panic::AssertUnwindSafe, pin::pin, time::Duration};

use futures_util::FutureExt;
use tokio::{
    runtime::Builder,
    sync::{oneshot, watch},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::error;

use super::election::Role;
use crate::{deliver::Delivery, humanize::duration};

/// How long a daemon that has lost the lead waits until it is told so, or tries again.
const PAUSE: Duration = Duration::from_secs(1);

/// How long deliveries rest after a panic, which may come again at once.
const PAUSE_AFTER_PANIC: Duration = Duration::from_secs(10);

/// The longest time from the beginning of a stop to its end, whatever receivers and the database
/// do: the process ends within five seconds.
const STOP_WITHIN: Duration = Duration::from_secs(3);

/// Delivers in a thread of its own, which no sync delays and which delays no sync. One thread is
/// enough, and spares the work of waking others for each event.
pub(super) struct Deliverer {
    delivery: Delivery,
    stop: CancellationToken,
    thread: Option<DeliveryThread>,
}

/// A thread that delivers.
struct DeliveryThread {
    /// Gives up what is being sent when this is dropped.
    _abort: DropGuard,
    /// Ends together with the thread.
    ended: oneshot::Receiver<()>,
}

impl Deliverer {
    /// Delivers nothing until [`Self::follow`]. `stop` begins a stop as well, so that deliveries and
    /// a sync stop side by side.
    pub(super) fn new(delivery: Delivery, stop: &CancellationToken) -> Self {
        Self {
            delivery,
            stop: stop.child_token(),
            thread: None,
        }
    }

    /// Delivers whenever this daemon leads. It replaces an earlier election.
    ///
    /// # Errors
    /// The system starts no thread.
    pub(super) fn follow(&mut self, role: watch::Receiver<Role>) -> io::Result<()> {
        self.thread = None;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (abort, (end, ended)) = (CancellationToken::new(), oneshot::channel());
        let aborted = abort.clone();
        let work = deliver_while_leading(self.delivery.clone(), role, self.stop.clone());
        std::thread::Builder::new().name("delivery".to_owned()).spawn(move || {
            runtime.block_on(aborted.run_until_cancelled(work));
            // Dropping it would wait for names that are being looked up, however long that takes.
            runtime.shutdown_background();
            drop::<oneshot::Sender<()>>(end);
        })?;
        self.thread = Some(DeliveryThread {
            _abort: abort.drop_guard(),
            ended,
        });
        Ok(())
    }

    /// Stops, and notes what is delivered, unless the database takes too long.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        if let Some(thread) = self.thread {
            // An error says that the thread has ended.
            let _ = thread.ended.await;
        }
    }
}

async fn deliver_while_leading(delivery: Delivery, mut role: watch::Receiver<Role>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        tokio::select! {
            () = stop.cancelled() => return,
            is_leader = role.wait_for(|role| *role == Role::Leader) => if is_leader.is_err() { return },
        }
        let mut lost = pin!(async { role.wait_for(|role| *role != Role::Leader).await.map(drop) });
        tokio::select! {
            biased;
            // What is being sent is given up: another daemon may send it already.
            is_standby = &mut lost => if is_standby.is_err() {
                // The election has ended. The role stays what it was last.
                return;
            },
            // What is not noted is sent again.
            () = overdue(&stop) => {}
            // It was stopped, or it lost the lead before this daemon noticed.
            ended = AssertUnwindSafe(delivery.run(&stop)).catch_unwind() => {
                let pause = match ended {
                    Ok(()) => PAUSE,
                    Err(_) => {
                        error!("deliveries failed because of a bug in clerk2pg; they start again in {}", duration(PAUSE_AFTER_PANIC));
                        PAUSE_AFTER_PANIC
                    }
                };
                let _ = stop.run_until_cancelled(tokio::time::timeout(pause, lost)).await;
            }
        }
    }
}

/// Waits until a stop has taken too long.
async fn overdue(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(STOP_WITHIN).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        mirror::{Mirror, MirrorSettings},
        resource::USERS,
        secret::Secret,
        watch::Watch,
    };

    /// Delivers to nobody, and finds no database.
    fn delivery() -> Delivery {
        let settings = MirrorSettings {
            url: Secret::from("postgres://nobody@127.0.0.1:1/none".to_owned()),
            variables: Default::default(),
            max_connections: 1,
            application_name: "test",
            tables: Vec::new(),
        };
        let mirror = Mirror::new(&settings, &USERS).unwrap();
        let committed = mirror.outbox().committed();
        Delivery::new(
            Vec::new(),
            mirror.deliveries(),
            committed,
            ("me", Duration::from_secs(1)),
            Vec::new(),
            false,
            Watch::default(),
        )
        .unwrap()
    }

    #[tokio::test]
    async fn deliveries_end_with_the_election_of_a_leader() {
        let (sender, role) = watch::channel(Role::Leader);
        let work = tokio::spawn(deliver_while_leading(delivery(), role, CancellationToken::new()));
        tokio::task::yield_now().await;
        assert!(!work.is_finished());
        drop(sender);
        tokio::time::timeout(Duration::from_secs(10), work)
            .await
            .unwrap()
            .unwrap();
    }
}
