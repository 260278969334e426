//! What a daemon shows: probes, metrics and a status page. The loop and its syncs record in a
//! [`Watch`] how they are doing; an [`HttpServer`] answers requests from it.

mod cached;
mod connections;
mod exposition;
mod health;
mod metrics;
mod page;
mod plot;
mod probe;
mod server;
mod state;

pub use cached::Sources;
pub use health::{CompletedSync, HeldKind, ProbeResult};
pub use metrics::Changes;
pub use probe::{probe, try_probe};
pub use server::HttpServer;
pub use state::{LeaseGuard, Watch};
