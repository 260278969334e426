//! What a daemon shows: probes, metrics and a status page. The loop and its syncs record in a
//! [`Watch`] how they are doing; an [`HttpServer`] answers requests from it.

mod cached;
mod condition;
mod connections;
mod exposition;
mod health;
mod metrics;
pub mod page;
mod probe;
mod server;
mod state;
mod view;

pub use cached::{Sources, Unread};
pub use condition::{Condition, HeldKind, ProbeResult};
pub use health::CompletedSync;
pub use metrics::Changes;
pub use probe::{probe, try_probe};
pub use server::HttpServer;
pub use state::{LeaseGuard, Watch};
pub use view::{Range, View};
