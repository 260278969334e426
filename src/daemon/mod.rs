//! The daemon: one loop that runs one pass at a time, on schedule, until it is told to stop.

mod outage;
mod schedule;

use std::time::Duration;

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    failure::{Cause, Failure},
    pass::{Outcome, Pass, Report},
};
use outage::Outage;
use schedule::Schedule;
pub use schedule::is_schedule;

/// How long a pass may take to stop: the batch under way is committed, or given up.
const GRACE: Duration = Duration::from_millis(4_500);

/// What a daemon runs by: replaced as a whole when the configuration is reloaded.
pub struct Setup {
    /// The pass, connected to both sides.
    pub pass: Pass,
    /// When full syncs are due; empty for never, but for the first.
    pub full: String,
}

/// Makes a [`Setup`] out of the configuration as it is now.
pub type Reload<'a> = &'a mut dyn FnMut() -> Result<Setup, Failure>;

/// The signals that a service gets.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

enum Told {
    Stop(&'static str),
    Reload,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Told::Stop("SIGINT"),
            _ = self.hangup.recv() => Told::Reload,
        }
    }
}

/// Runs one pass, and stops it at SIGTERM and SIGINT.
///
/// # Errors
/// The pass failed or was stopped.
pub async fn once<T>(stop: &CancellationToken, pass: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let mut signals = Signals::new().map_err(no_signals)?;
    tokio::pin!(pass);
    loop {
        tokio::select! {
            biased;
            result = &mut pass => return result,
            told = signals.next() => match told {
                Told::Stop(name) => {
                    info!(signal = name, "stopping");
                    stop.cancel();
                    return tokio::time::timeout(GRACE, pass).await.unwrap_or_else(|_| Err(given_up()));
                }
                // There is nothing to reload in a single pass.
                Told::Reload => {}
            },
        }
    }
}

/// Runs passes until SIGTERM or SIGINT.
///
/// # Errors
/// The first pass met something that a person has to change: a refused key, another instance's database, a strange schema.
pub async fn run(mut setup: Setup, reload: Reload<'_>) -> Result<(), Failure> {
    let mut signals = Signals::new().map_err(no_signals)?;
    let (due, mut is_due) = mpsc::channel(1);
    let mut schedule = start_schedule(&setup.full, &due).await?;
    // The first pass is due at once.
    let _ = due.try_send(());
    let mut outage = Outage::default();
    let mut succeeded_once = false;
    loop {
        let told = tokio::select! {
            biased;
            told = signals.next() => Some(told),
            // During an outage a tick stays where it is, else a tight schedule would be the end of all backoff.
            _ = is_due.recv(), if !outage.is_waiting() => None,
            () = outage.over() => None,
        };
        let told = match told {
            Some(told) => Some(told),
            None => {
                // This pass is the one that a waiting tick asks for.
                let _ = is_due.try_recv();
                let (result, told) = guarded(&setup.pass, &mut signals).await;
                match result {
                    Ok(report) => {
                        succeeded_once = true;
                        outage.end();
                        tell(&report);
                    }
                    Err(failure) if failure.cause == Cause::Stopped => {}
                    Err(failure) if failure.cause == Cause::NeedsPerson && !succeeded_once => return Err(failure),
                    Err(failure) => outage.note(&failure),
                }
                told
            }
        };
        match told {
            None => {}
            Some(Told::Stop(name)) => {
                info!(signal = name, "stopping");
                schedule.stop().await;
                return Ok(());
            }
            Some(Told::Reload) => match reload() {
                Ok(new) => {
                    schedule.stop().await;
                    setup = new;
                    schedule = start_schedule(&setup.full, &due).await?;
                    info!("configuration reloaded");
                    outage.try_now();
                    let _ = due.try_send(());
                }
                Err(failure) => {
                    error!(error = %failure, hint = failure.hint, "the new configuration cannot be used; the old one stays");
                }
            },
        }
    }
}

/// Runs a pass while listening to signals; a signal that came meanwhile is handed back.
async fn guarded(pass: &Pass, signals: &mut Signals) -> (Result<Report, Failure>, Option<Told>) {
    let sync = pass.full_sync();
    tokio::pin!(sync);
    let mut reload = None;
    loop {
        tokio::select! {
            biased;
            result = &mut sync => return (result, reload),
            told = signals.next() => match told {
                Told::Reload => reload = Some(Told::Reload),
                Told::Stop(name) => {
                    pass.stop.cancel();
                    let result = tokio::time::timeout(GRACE, sync).await.unwrap_or_else(|_| Err(given_up()));
                    return (result, Some(Told::Stop(name)));
                }
            },
        }
    }
}

async fn start_schedule(cron: &str, due: &mpsc::Sender<()>) -> Result<Schedule, Failure> {
    Schedule::start(cron, due.clone())
        .await
        .map_err(|error| Failure::new(Cause::Other, format!("the schedule {cron:?} does not start: {error}")))
}

fn tell(report: &Report) {
    let Report {
        outcome,
        created,
        updated,
        deleted,
        unchanged,
        held,
        rejected,
        requests,
        duration_ms,
        ..
    } = report;
    let outcome_name = outcome.name();
    if *outcome == Outcome::Incomplete {
        let why = report.notes.join("; ");
        warn!(
            outcome = outcome_name,
            why, created, updated, deleted, unchanged, rejected, requests, duration_ms, "full sync"
        );
    } else {
        info!(
            outcome = outcome_name,
            created, updated, deleted, unchanged, held, rejected, requests, duration_ms, "full sync"
        );
    }
}

fn given_up() -> Failure {
    Failure::new(
        Cause::Stopped,
        "stopped in the middle of a batch, which was not committed; the next pass does it again",
    )
}

fn no_signals(error: std::io::Error) -> Failure {
    Failure::new(Cause::Other, format!("signals cannot be received: {error}"))
}
