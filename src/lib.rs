//! clerk2pg keeps a Postgres database in sync with a Clerk instance by polling Clerk: creates,
//! updates and deletes, without a public endpoint.
//!
//! The flow, one module a step: what is mirrored ([`resource`]) → requests to Clerk ([`clerk`]) →
//! comparing, without I/O ([`reconcile`]) → one sync from beginning to end ([`sync`]) → writing to
//! Postgres ([`mirror`]) → syncing again and again ([`daemon`]). [`watch`] shows the state of the
//! daemon; [`check`] tries everything that a sync needs, and writes nothing.

pub mod check;
pub mod clerk;
pub mod cli;
mod clock;
pub mod config;
pub mod daemon;
pub mod deliver;
pub mod failure;
mod humanize;
pub mod init;
pub mod logging;
pub mod mirror;
mod nearest;
pub mod output;
pub mod print_schema;
pub mod printable;
pub mod progress;
pub mod reconcile;
pub mod resource;
pub mod schedule;
pub mod secret;
mod server_time;
pub mod sync;
pub mod watch;
