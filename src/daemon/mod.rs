//! The daemon: one loop that runs one sync at a time, on schedule, until a signal stops it.

mod delivery;
mod election;
mod interrupt;
mod notifications;
mod outage;
mod report;
mod run;
mod service;
mod signals;
mod task;
mod throttle;
mod waiting;

pub use interrupt::once;
pub use run::{DaemonSetup, Reload, run};
