//! Signals that control the daemon.

use tokio::signal::unix::{self, SignalKind};

use crate::failure::{Cause, Failure};

/// Receives the signals that a service gets.
pub(super) struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hangup: unix::Signal,
    user1: unix::Signal,
}

/// What a signal requests.
pub(super) enum Signal {
    /// Stop the daemon; with the name of the signal.
    Stop(&'static str),
    /// Reload the configuration.
    Reload,
    /// Sync immediately.
    Sync,
}

impl Signals {
    /// Starts to receive signals.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn new() -> Result<Self, Failure> {
        let listen = |kind| {
            unix::signal(kind).map_err(|error| Failure::new(Cause::Other, format!("cannot receive signals: {error}")))
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
            user1: listen(SignalKind::user_defined1())?,
        })
    }

    /// Waits for the next signal.
    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Signal::Stop("SIGINT"),
            _ = self.hangup.recv() => Signal::Reload,
            _ = self.user1.recv() => Signal::Sync,
        }
    }
}
