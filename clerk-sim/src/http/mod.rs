//! HTTP: connections, routes, answers and `/_sim`.

mod api;
mod control;
mod objects;
mod organization_api;
mod organization_route;
mod reply;
mod request;
mod route;
pub(crate) mod server;
