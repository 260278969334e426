//! HTTP: connections, routes, answers and `/_sim`.

mod api;
mod control;
mod objects;
mod reply;
mod request;
mod route;
pub(crate) mod server;
