//! The signal that stops all tasks of a simulator.

use tokio::sync::watch;

/// Waits until the simulator is stopped, or until its last handle is dropped.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
