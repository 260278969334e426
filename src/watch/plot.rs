//! The plots of the status page, as SVG: the last hours in intervals.

use std::fmt::{self, Write};

use super::cached::{INTERVAL, INTERVALS};
use crate::{
    humanize::{age, number},
    mirror::Period,
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
pub(super) fn freshness(periods: &[Period]) -> Result<String, fmt::Error> {
    let mut out = begin("How old changes were when they were committed")?;
    let worst = periods.iter().filter_map(|period| period.worst_ms).max();
    let Some(worst) = worst else {
        return nothing(out, "no changes in this time");
    };
    let lines = 1 + AGES
        .iter()
        .position(|(ms, _)| *ms >= worst)
        .unwrap_or(AGES.len() - 1)
        .max(2);
    let (bottom, top) = (AGES[0].0, AGES[lines - 1].0);
    let height = |ms: i64| (ms.clamp(bottom, top) as f64 / bottom as f64).ln() / (top as f64 / bottom as f64).ln();
    for (ms, label) in &AGES[..lines] {
        line(&mut out, height(*ms), label)?;
    }
    for period in periods {
        let (Some(median), Some(worst)) = (period.median_ms, period.worst_ms) else {
            continue;
        };
        let ages = [median, worst].map(|ms| age(chrono::TimeDelta::milliseconds(ms)));
        write!(
            out,
            "<g><title>{}: median {}, at worst {}</title>",
            when(period.ago),
            ages[0],
            ages[1]
        )?;
        // Even the freshest changes get a visible bar.
        let (median, worst) = (height(median).max(0.02), height(worst).max(0.02));
        bar(&mut out, "worst", period.ago, median, worst)?;
        bar(&mut out, "median", period.ago, 0.0, median)?;
        out.push_str("</g>");
    }
    Ok(out + "</svg>")
}

/// Draws how many users were changed.
pub(super) fn changes(periods: &[Period]) -> Result<String, fmt::Error> {
    let mut out = begin("How many users were changed")?;
    let total = |period: &Period| period.created + period.updated + period.deleted;
    let mut totals: Vec<i64> = periods.iter().map(total).filter(|total| *total > 0).collect();
    totals.sort_unstable();
    let Some(&most) = totals.last() else {
        return nothing(out, "no changes in this time");
    };
    let top = match totals.as_slice() {
        [.., next, most] if *most > CUT_RATIO * next => round_up(2 * next),
        _ => round_up(most),
    };
    let height = |users: i64| (users as f64 / top as f64).min(1.0);
    for users in [0, top / 2, top] {
        line(&mut out, height(users), &short(users))?;
    }
    for period in periods.iter().filter(|period| total(period) > 0) {
        let Period {
            ago,
            created,
            updated,
            deleted,
            ..
        } = *period;
        let [c, u, d] = [created, updated, deleted].map(|users| number(users.unsigned_abs()));
        write!(
            out,
            "<g><title>{}: {c} created, {u} updated, {d} deleted</title>",
            when(ago)
        )?;
        let mut from = 0;
        for (class, users) in [("created", created), ("updated", updated), ("deleted", deleted)] {
            bar(&mut out, class, ago, height(from), height(from + users))?;
            from += users;
        }
        if total(period) > top {
            let x = x(ago).min(RIGHT - 30.0);
            write!(
                out,
                r#"<text class="cut" x="{x:.1}" y="{:.1}">↑ {}</text>"#,
                TOP - 2.0,
                short(total(period))
            )?;
        }
        out.push_str("</g>");
    }
    Ok(out + "</svg>")
}

/// Starts a drawing with its time axis.
fn begin(label: &str) -> Result<String, fmt::Error> {
    let mut out = String::new();
    write!(
        out,
        r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">"#
    )?;
    let hours = INTERVALS as f64 * INTERVAL.as_secs_f64() / 3600.0;
    for part in 0..=3 {
        let part = f64::from(part) / 3.0;
        let (label, class) = match hours * (1.0 - part) {
            0.0 => ("now".to_owned(), "x last"),
            hours => (format!("{hours:.0} h ago"), "x"),
        };
        let x = LEFT + (RIGHT - LEFT) * part;
        write!(
            out,
            r#"<text class="{class}" x="{x:.1}" y="{:.1}">{label}</text>"#,
            BOTTOM + 16.0
        )?;
    }
    Ok(out)
}

/// Ends a drawing that has nothing to show.
fn nothing(mut out: String, why: &str) -> Result<String, fmt::Error> {
    line(&mut out, 0.0, "")?;
    let (x, y) = ((LEFT + RIGHT) / 2.0, (TOP + BOTTOM) / 2.0);
    write!(out, r#"<text class="nothing" x="{x:.1}" y="{y:.1}">{why}</text></svg>"#)?;
    Ok(out)
}

/// Returns the y coordinate of a height from 0 to 1.
fn y(height: f64) -> f64 {
    BOTTOM - (BOTTOM - TOP) * height
}

/// Returns the x coordinate of the bar of an interval.
fn x(ago: i64) -> f64 {
    LEFT + (RIGHT - LEFT) * (INTERVALS - 1 - ago) as f64 / INTERVALS as f64
}

fn line(out: &mut String, height: f64, label: &str) -> fmt::Result {
    let y = y(height);
    write!(out, r#"<line x1="{LEFT}" x2="{RIGHT}" y1="{y:.1}" y2="{y:.1}"/>"#)?;
    write!(
        out,
        r#"<text class="y" x="{:.1}" y="{:.1}">{label}</text>"#,
        LEFT - 5.0,
        y + 3.5
    )
}

fn bar(out: &mut String, class: &str, ago: i64, from: f64, to: f64) -> fmt::Result {
    if to <= from {
        return Ok(());
    }
    let width = (RIGHT - LEFT) / INTERVALS as f64 - 0.8;
    let (x, top, height) = (x(ago), y(to), y(from) - y(to));
    write!(
        out,
        r#"<rect class="{class}" x="{x:.1}" y="{top:.1}" width="{width:.1}" height="{height:.1}"/>"#
    )
}

fn when(ago: i64) -> String {
    match ago * i64::try_from(INTERVAL.as_secs()).unwrap_or_default() / 60 {
        0 => "just now".to_owned(),
        minutes @ 1..60 => format!("{minutes} min ago"),
        minutes => format!("{} h {} min ago", minutes / 60, minutes % 60),
    }
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
        let plot = changes(&[period(0, 3, None), period(1, 4, None), period(71, 10_000, None)]).unwrap();
        assert!(plot.contains("↑ 10k") && plot.contains(">10<"), "{plot}");
        let plot = changes(&[period(0, 30, None), period(1, 4, None)]).unwrap();
        assert!(!plot.contains('↑'), "{plot}");
    }

    #[test]
    fn every_bar_is_within_the_plot() {
        let periods: Vec<_> = (0..INTERVALS)
            .map(|ago| period(ago, 1 << (ago % 40), Some(1 << (ago % 40))))
            .collect();
        for plot in [freshness(&periods).unwrap(), changes(&periods).unwrap()] {
            let bars: Vec<&str> = plot.split("<rect ").skip(1).collect();
            assert!(bars.len() >= 72, "{plot}");
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
        assert!(freshness(&[period(0, 1, None)]).unwrap().contains("no changes"));
        assert!(changes(&[]).unwrap().contains("no changes"));
    }
}
