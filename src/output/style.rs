//! The colours of the output. `anstream` removes them without a terminal, or with `NO_COLOR`.

use anstyle::{AnsiColor, Style};

pub(super) const GREEN: Style = AnsiColor::Green.on_default();
pub(super) const YELLOW: Style = AnsiColor::Yellow.on_default();
pub(super) const RED: Style = AnsiColor::Red.on_default();
pub(super) const BOLD: Style = Style::new().bold();
