//! HTTP: connections, routes, answers, the rate limit and `/_sim`.

mod api;
mod control;
pub(crate) mod limit;
mod reply;
mod route;
pub(crate) mod server;
pub(crate) mod stats;
