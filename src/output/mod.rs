//! What is printed on stdout: reports, plans and the status, for people and for programs.

mod commands;
mod endpoints;
mod init;
mod report;
mod status;
mod style;

use std::io::{self, Write};

use serde::Serialize;

pub use commands::{approved, approved_rows, findings, health, migrated, repinned};
pub use endpoints::{endpoints, redelivered, tested};
pub use init::{Initialized, ProposedTable, initialized};
pub use report::{PlanLines, failure, report};
pub use status::{status, status_again, status_failed};

use crate::printable::printable_json;

/// Writes an object for programs on one line.
fn json(out: &mut impl Write, object: &impl Serialize) -> io::Result<()> {
    writeln!(out, "{}", printable_json(&serde_json::to_string(object)?))
}

/// Whether output failed because its reader is gone.
pub fn is_closed(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}
