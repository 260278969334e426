//! HTTP: connections, routes, answers and `/_sim`.

mod api;
mod control;
mod reply;
mod route;
pub(crate) mod server;
