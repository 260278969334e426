//! Runs a sync while listening to signals, and stops it when one says so.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{
    service,
    signals::{Signal, Signals},
};
use crate::{
    failure::{Cause, Failure},
    sync::{SyncOutcome, Syncer},
};

/// How long a sync may take to stop: its current batch is committed, or given up. The process ends
/// within five seconds, and leaving the election takes some of them.
const GRACE: Duration = Duration::from_millis(3_500);

/// Runs one sync, and stops it at SIGTERM and SIGINT.
///
/// # Errors
/// The sync failed or was stopped.
pub async fn once<T>(stop: &CancellationToken, sync: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let mut signals = Signals::new()?;
    // Boxed: its type is nested too deeply for the layers around it.
    let mut sync = Box::pin(sync);
    loop {
        tokio::select! {
            biased;
            result = &mut sync => return result,
            signal = signals.next() => match signal {
                Signal::Stop(name) => {
                    info!(signal = name, "stopping");
                    return stop_within_grace(stop, sync).await;
                }
                // A single sync has nothing to reload, and is itself the sync asked for.
                Signal::Reload | Signal::Sync => {}
            },
        }
    }
}

/// Runs a sync of the daemon. Returns its result, and a signal that the loop has to handle.
pub(super) async fn run_interruptibly(
    syncer: &Syncer,
    signals: &mut Signals,
    sync: impl Future<Output = Result<SyncOutcome, Failure>>,
) -> (Result<SyncOutcome, Failure>, Option<Signal>) {
    // Boxed: its type is nested too deeply for the layers around it.
    let mut sync = Box::pin(sync);
    let mut later = None;
    loop {
        tokio::select! {
            biased;
            result = &mut sync => return (result, later),
            signal = signals.next() => match signal {
                Signal::Sync => {
                    syncer.due.incremental();
                    // If this sync fails, the one that was asked for does not wait out the backoff.
                    later.get_or_insert(Signal::Sync);
                }
                Signal::Reload => later = Some(Signal::Reload),
                Signal::Stop(name) => {
                    service::stopping();
                    let result = stop_within_grace(&syncer.stop, sync).await;
                    return (result, Some(Signal::Stop(name)));
                }
            },
        }
    }
}

async fn stop_within_grace<T>(
    stop: &CancellationToken,
    sync: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    stop.cancel();
    let message = "stopped in the middle of a batch, which was not committed; the next sync does it again";
    let given_up = || Err(Failure::new(Cause::Stopped, message));
    tokio::time::timeout(GRACE, sync).await.unwrap_or_else(|_| given_up())
}
