//! clerk2pg keeps a Postgres database in sync with a Clerk instance by asking Clerk: creates, updates and deletes, with no public
//! endpoint.
//!
//! The flow, one module a step: what is mirrored ([`resource`]) → asking Clerk ([`clerk`]) → comparing ([`reconcile`], pure) → one sync
//! from beginning to end ([`sync`]) → writing it to Postgres ([`mirror`]) → doing it again and again ([`daemon`]). [`watch`] shows how it
//! goes; [`check`] tries what all of it needs, and writes nothing.

pub mod check;
pub mod clerk;
pub mod cli;
mod clock;
pub mod config;
pub mod daemon;
pub mod failure;
mod humanize;
pub mod logging;
pub mod mirror;
pub mod output;
pub mod progress;
pub mod reconcile;
pub mod resource;
mod schedule;
pub mod secret;
pub mod sync;
pub mod watch;
