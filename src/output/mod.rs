//! What is printed on stdout: reports, plans and the status, for people and for programs.

mod commands;
mod report;
mod status;

use anstyle::{AnsiColor, Style};

pub use commands::{approved, findings, health, migrated, repinned};
pub use report::{failure, plan_line, report};
pub use status::status;

const GREEN: Style = AnsiColor::Green.on_default();
const YELLOW: Style = AnsiColor::Yellow.on_default();
const RED: Style = AnsiColor::Red.on_default();
const BOLD: Style = Style::new().bold();
