//! clerk2pg keeps a Postgres database in step with a Clerk instance by asking Clerk: creates, updates and deletes, with no public
//! endpoint.
//!
//! The way of a user through the program: fetch ([`clerk`]) → decode ([`user`]) → compare ([`split`], [`walk`], [`recent`], [`search`], [`compare`], [`guard`]:
//! pure) → apply ([`mirror`], one transaction) → publish (events, in that transaction). [`pass`] is the one place that sees every step; [`daemon`]
//! does what is [`due`], and lets others [`watch`] it. [`check`] tries what all of it needs, and writes nothing.

pub mod check;
pub mod clerk;
pub mod cli;
mod clock;
pub mod compare;
pub mod config;
pub mod daemon;
pub mod due;
pub mod failure;
pub mod guard;
pub mod logging;
pub mod mirror;
pub mod output;
pub mod pass;
pub mod progress;
pub mod recent;
pub mod search;
pub mod secret;
pub mod split;
pub mod user;
pub mod walk;
pub mod watch;
