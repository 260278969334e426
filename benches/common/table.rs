//! The table of figures: what was wanted, and what was measured.

use std::time::Duration;

/// Figures and failures.
#[derive(Default)]
pub struct Table {
    rows: Vec<[String; 4]>,
    failures: Vec<String>,
}

impl Table {
    /// Adds a figure.
    pub fn row(
        &mut self,
        what: impl Into<String>,
        wanted: impl Into<String>,
        measured: impl Into<String>,
        is_met: bool,
    ) {
        let result = if is_met { "ok" } else { "missed" };
        self.rows
            .push([what.into(), wanted.into(), measured.into(), result.to_owned()]);
    }

    /// Adds a figure that could not be measured, with the reason.
    pub fn unmeasured(&mut self, what: impl Into<String>, wanted: impl Into<String>, why: impl Into<String>) {
        self.rows
            .push([what.into(), wanted.into(), why.into(), "not measured".to_owned()]);
    }

    /// Adds a number that should be at most `max`.
    pub fn at_most(&mut self, what: impl Into<String>, max: u64, measured: u64) {
        let wanted = if max == 0 { "0".to_owned() } else { format!("≤ {max}") };
        self.row(what, wanted, measured.to_string(), measured <= max);
    }

    /// Adds a time that should be at most `max`. `None` if nothing was measured.
    pub fn within(&mut self, what: impl Into<String>, max: Duration, measured: Option<Duration>) {
        let is_met = measured.is_some_and(|measured| measured <= max);
        self.row(what, format!("≤ {}", seconds(max)), optional_seconds(measured), is_met);
    }

    /// Adds something that does not work.
    pub fn failure(&mut self, what: impl Into<String>) {
        self.failures.push(what.into());
    }

    pub fn failures(&self) -> &[String] {
        &self.failures
    }

    /// Prints the figures in Markdown, with aligned columns.
    pub fn print(&self) {
        if self.rows.is_empty() {
            return;
        }
        let head = ["what", "wanted", "measured", ""].map(str::to_owned);
        let all = || std::iter::once(&head).chain(&self.rows);
        let width = |column: usize| all().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths = [width(0), width(1), width(2), width(3)];
        println!();
        for (index, row) in all().enumerate() {
            println!("{}", line(row, &widths));
            if index == 0 {
                println!("|{}|", widths.map(|width| "-".repeat(width + 2)).join("|"));
            }
        }
        println!();
    }
}

fn line(row: &[String; 4], widths: &[usize; 4]) -> String {
    row.iter()
        .zip(widths)
        .fold("|".to_owned(), |line, (cell, width)| format!("{line} {cell:width$} |"))
}

pub fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

pub fn optional_seconds(duration: Option<Duration>) -> String {
    duration.map_or_else(|| "–".to_owned(), seconds)
}

/// The value that `percent` of a sorted list do not exceed. `None` if the list is empty.
pub fn percentile<T: Copy>(sorted: &[T], percent: usize) -> Option<T> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}
