//! Proposes a configuration from what the database has: the command `init`.
//!
//! [`propose`] makes a mapping from what the catalog says about a table, and [`entry`] prints it.

mod key;
mod propose;
mod toml;
mod values;

pub use key::looks_mapped;
pub use propose::{NoProposal, Proposal, propose, target};
pub use toml::entry;
