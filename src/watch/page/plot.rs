//! The plots of the status page, as SVG: a range of time in periods.

use std::fmt::{self, Write};

use chrono::TimeDelta;

use super::html::ago_of;
use crate::{
    humanize::{age, number},
    mirror::Period,
    watch::view::Range,
};

/// Size of the drawing, in its own units; on a phone, one unit is about one pixel.
const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 170.0;

/// The area of the bars.
const LEFT: f64 = 46.0;
const RIGHT: f64 = 396.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 146.0;

/// Ages that are marked with a line, in milliseconds; the first is at the bottom.
const AGES: [(i64, &str); 7] = [
    (100, "0.1 s"),
    (1_000, "1 s"),
    (10_000, "10 s"),
    (60_000, "1 min"),
    (600_000, "10 min"),
    (3_600_000, "1 h"),
    (86_400_000, "1 day"),
];

/// A bar is cut off if it is more than this many times as high as the next one, so that the others
/// stay visible.
const CUT_RATIO: i64 = 10;

/// Draws how old changes were: from the bottom to the median, and on to the oldest. The scale is
/// logarithmic, because one second matters only for fresh changes.
pub(super) fn freshness(range: Range, periods: &[Period]) -> Result<String, fmt::Error> {
    const WHAT: &str = "Age of changes when committed";
    let worst = periods.iter().filter_map(|period| period.worst_ms).max();
    let Some(worst) = worst else {
        return nothing(range, WHAT);
    };
    let oldest = age(TimeDelta::milliseconds(worst));
    let label = format!("{WHAT} in the last {}: the oldest was {oldest}", range.title());
    let mut plot = Plot::new(range, &label)?;
    let lines = 1 + AGES
        .iter()
        .position(|(ms, _)| *ms >= worst)
        .unwrap_or(AGES.len() - 1)
        .max(2);
    let (bottom, top) = (AGES[0].0, AGES[lines - 1].0);
    let height = |ms: i64| (ms.clamp(bottom, top) as f64 / bottom as f64).ln() / (top as f64 / bottom as f64).ln();
    for (ms, label) in &AGES[..lines] {
        plot.line(height(*ms), label)?;
    }
    for period in periods {
        let (Some(median), Some(worst)) = (period.median_ms, period.worst_ms) else {
            continue;
        };
        let ages = [median, worst].map(|ms| age(TimeDelta::milliseconds(ms)));
        plot.group(period.ago, &format!("median {}, at worst {}", ages[0], ages[1]))?;
        // Even the freshest changes get a visible bar.
        let (median, worst) = (height(median).max(0.02), height(worst).max(0.02));
        plot.bar("worst", period.ago, median, worst)?;
        plot.bar("median", period.ago, 0.0, median)?;
        plot.svg.push_str("</g>");
    }
    Ok(plot.end())
}

/// Draws how many users were changed.
pub(super) fn changes(range: Range, periods: &[Period]) -> Result<String, fmt::Error> {
    const WHAT: &str = "Users changed";
    let total = |period: &Period| period.created + period.updated + period.deleted;
    let mut totals: Vec<i64> = periods.iter().map(total).filter(|total| *total > 0).collect();
    totals.sort_unstable();
    let Some(&most) = totals.last() else {
        return nothing(range, WHAT);
    };
    let top = match totals.as_slice() {
        [.., next, most] if *most > CUT_RATIO * next => round_up(2 * next),
        _ => round_up(most),
    };
    let sum = |of: fn(&Period) -> i64| periods.iter().map(of).sum::<i64>();
    let all = counts(
        sum(|period| period.created),
        sum(|period| period.updated),
        sum(|period| period.deleted),
    );
    let mut plot = Plot::new(range, &format!("{WHAT} in the last {}: {all}", range.title()))?;
    let height = |users: i64| (users as f64 / top as f64).min(1.0);
    for users in [0, top / 2, top] {
        plot.line(height(users), &short(users))?;
    }
    for period in periods.iter().filter(|period| total(period) > 0) {
        let Period {
            ago,
            created,
            updated,
            deleted,
            ..
        } = *period;
        plot.group(ago, &counts(created, updated, deleted))?;
        let mut from = 0;
        for (class, users) in [("created", created), ("updated", updated), ("deleted", deleted)] {
            plot.bar(class, ago, height(from), height(from + users))?;
            from += users;
        }
        if total(period) > top {
            let x = plot.x(ago).min(RIGHT - 30.0);
            write!(
                plot.svg,
                r#"<text class="cut" x="{x:.1}" y="{:.1}">↑ {}</text>"#,
                TOP - 2.0,
                short(total(period))
            )?;
        }
        plot.svg.push_str("</g>");
    }
    Ok(plot.end())
}

/// A plot without anything in it.
fn nothing(range: Range, what: &str) -> Result<String, fmt::Error> {
    let mut plot = Plot::new(range, &format!("{what} in the last {}: no changes", range.title()))?;
    plot.line(0.0, "")?;
    let (x, y) = ((LEFT + RIGHT) / 2.0, (TOP + BOTTOM) / 2.0);
    write!(
        plot.svg,
        r#"<text class="nothing" x="{x:.1}" y="{y:.1}">no changes in this time</text>"#
    )?;
    Ok(plot.end())
}

/// A plot that is being drawn.
struct Plot {
    svg: String,
    range: Range,
}

impl Plot {
    /// Starts a plot with its time axis.
    fn new(range: Range, label: &str) -> Result<Self, fmt::Error> {
        let mut svg = String::new();
        write!(
            svg,
            r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">"#
        )?;
        for mark in range.marks() {
            let part = 1.0 - mark.as_secs_f64() / range.length().as_secs_f64();
            let (label, class) = match mark.is_zero() {
                true => ("now".to_owned(), "x last"),
                false if mark == range.length() => (ago_of(TimeDelta::from_std(mark).unwrap_or_default()), "x first"),
                false => (ago_of(TimeDelta::from_std(mark).unwrap_or_default()), "x"),
            };
            let x = LEFT + (RIGHT - LEFT) * part;
            write!(
                svg,
                r#"<text class="{class}" x="{x:.1}" y="{:.1}">{label}</text>"#,
                BOTTOM + 16.0
            )?;
        }
        Ok(Self { svg, range })
    }

    fn end(self) -> String {
        self.svg + "</svg>"
    }

    /// Starts the bars of a period, with a text that browsers show beside the pointer.
    fn group(&mut self, ago: i64, text: &str) -> fmt::Result {
        let period = TimeDelta::from_std(self.range.period()).unwrap_or_default();
        let when = match i32::try_from(ago) {
            Ok(0) | Err(_) => "just now".to_owned(),
            Ok(ago) => ago_of(period * ago),
        };
        write!(self.svg, "<g><title>{when}: {text}</title>")
    }

    /// Returns the x coordinate of the bar of a period.
    fn x(&self, ago: i64) -> f64 {
        let periods = i64::from(self.range.periods());
        LEFT + (RIGHT - LEFT) * (periods - 1 - ago) as f64 / periods as f64
    }

    /// Draws a line across the plot at a height from 0 to 1.
    fn line(&mut self, height: f64, label: &str) -> fmt::Result {
        let y = y(height);
        write!(
            self.svg,
            r#"<line x1="{LEFT}" x2="{RIGHT}" y1="{y:.1}" y2="{y:.1}"/><text class="y" x="{:.1}" y="{:.1}">{label}</text>"#,
            LEFT - 5.0,
            y + 3.5
        )
    }

    /// Draws a bar between two heights.
    fn bar(&mut self, class: &str, ago: i64, from: f64, to: f64) -> fmt::Result {
        if to <= from {
            return Ok(());
        }
        let width = (RIGHT - LEFT) / f64::from(self.range.periods()) - 0.8;
        let (x, top, height) = (self.x(ago), y(to), y(from) - y(to));
        write!(
            self.svg,
            r#"<rect class="{class}" x="{x:.1}" y="{top:.1}" width="{width:.1}" height="{height:.1}"/>"#
        )
    }
}

/// Returns the y coordinate of a height from 0 to 1.
fn y(height: f64) -> f64 {
    BOTTOM - (BOTTOM - TOP) * height
}

/// Says how many users were changed.
fn counts(created: i64, updated: i64, deleted: i64) -> String {
    let [created, updated, deleted] = [created, updated, deleted].map(|users| number(users.unsigned_abs()));
    format!("{created} created, {updated} updated, {deleted} deleted")
}

/// Rounds up to an even number that is 2, 4 or 10 times a power of ten. It is even for the line in
/// the middle.
fn round_up(users: i64) -> i64 {
    let mut step = 1;
    loop {
        for top in [2 * step, 4 * step, 10 * step] {
            if top >= users {
                return top;
            }
        }
        step *= 10;
    }
}

/// Formats a number for the small space beside a plot.
fn short(users: i64) -> String {
    match users {
        0..10_000 => number(users.unsigned_abs()),
        10_000..1_000_000 => format!("{}k", users / 1_000),
        users => format!("{:.1}M", users as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn period(ago: i64, created: i64, median_ms: Option<i64>) -> Period {
        Period {
            ago,
            median_ms,
            worst_ms: median_ms.map(|ms| 3 * ms),
            created,
            updated: 0,
            deleted: 0,
        }
    }

    #[test]
    fn scales_end_above_what_they_show() {
        let check = |users, top| assert_eq!(round_up(users), top);
        check(1, 2);
        check(3, 4);
        check(5, 10);
        check(11, 20);
        check(41, 100);
        assert_eq!([999, 12_345, 3_400_000].map(short), ["999", "12k", "3.4M"]);
    }

    #[test]
    fn one_high_bar_does_not_hide_the_others() {
        let plot = changes(
            Range::Hours,
            &[period(0, 3, None), period(1, 4, None), period(71, 10_000, None)],
        )
        .unwrap();
        assert!(plot.contains("↑ 10k") && plot.contains(">10<"), "{plot}");
        let plot = changes(Range::Hours, &[period(0, 30, None), period(1, 4, None)]).unwrap();
        assert!(!plot.contains('↑'), "{plot}");
    }

    #[test]
    fn every_bar_is_within_the_plot() {
        for range in Range::ALL {
            let periods: Vec<_> = (0..i64::from(range.periods()))
                .map(|ago| period(ago, 1 << (ago % 40), Some(1 << (ago % 40))))
                .collect();
            for plot in [freshness(range, &periods).unwrap(), changes(range, &periods).unwrap()] {
                let bars: Vec<&str> = plot.split("<rect ").skip(1).collect();
                assert!(bars.len() >= periods.len(), "{plot}");
                for bar in bars {
                    let value = |name: &str| -> f64 {
                        let rest = bar.split_once(&format!("{name}=\"")).unwrap().1;
                        rest.split('"').next().unwrap().parse().unwrap()
                    };
                    let (left, top) = (value("x"), value(" y"));
                    assert!(left >= LEFT && left + value("width") <= RIGHT, "{bar}");
                    assert!(top >= TOP - 0.1 && top + value("height") <= BOTTOM + 0.2, "{bar}");
                }
            }
        }
    }

    #[test]
    fn the_name_of_a_plot_says_what_it_shows() {
        let periods = [period(0, 3, Some(2_000)), period(1, 4, None)];
        let name = r#"aria-label="Users changed in the last 15 minutes: 7 created, 0 updated, 0 deleted""#;
        assert!(changes(Range::Minutes, &periods).unwrap().contains(name));
        let plot = freshness(Range::Days, &periods).unwrap();
        let name = r#"aria-label="Age of changes when committed in the last 7 days: the oldest was 6 s""#;
        assert!(plot.contains(name), "{plot}");
        assert!(plot.contains(">6 days ago</text>") && plot.contains("<title>just now: median 2 s, at worst 6 s"));
        for plot in [freshness(Range::Hours, &[]), changes(Range::Hours, &[])] {
            assert!(plot.unwrap().contains(": no changes\""));
        }
        assert!(
            freshness(Range::Hours, &[period(0, 1, None)])
                .unwrap()
                .contains("no changes")
        );
    }
}
