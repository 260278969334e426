//! Tries everything that a sync needs, and writes nothing: the command `check`.
//!
//! Clerk and the database are asked at the same time, each step has a time limit, and neither side
//! stops the other. What could not be tried says why.

mod budget;
mod clerk;
mod clock;
mod database;
mod endpoints;
mod finding;
mod listener;
mod organizations;
mod permissions;
mod run;
mod tables;
mod time_limit;

pub use finding::{CheckStatus, Finding};
pub use run::{CheckInput, is_ok, is_unusable, run, unusable};
