//! What a request for the page asks for: the range of time of its plots, and whether it reloads.

use std::time::Duration;

/// What a request for the page asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// The range of time that the plots show.
    pub range: Range,
    /// Whether the browser loads the page again and again.
    pub reloads: bool,
}

impl View {
    /// Reads the query of an address. What it does not name, or names wrongly, has its default.
    pub fn of_query(query: Option<&str>) -> Self {
        let mut view = Self {
            range: Range::default(),
            reloads: true,
        };
        for pair in query.unwrap_or_default().split('&') {
            match pair.split_once('=') {
                Some(("range", name)) => {
                    let named = Range::ALL.into_iter().find(|range| range.name() == name);
                    view.range = named.unwrap_or_default();
                }
                Some(("reload", value)) => view.reloads = value != "off",
                _ => {}
            }
        }
        view
    }

    /// Returns the query that asks for this view.
    pub fn query(self) -> String {
        let reload = if self.reloads { "" } else { "&reload=off" };
        format!("?range={}{reload}", self.range.name())
    }
}

/// A range of time up to now, in periods of equal length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Range {
    /// 15 minutes: what happens now.
    Minutes,
    /// Six hours.
    #[default]
    Hours,
    /// Seven days, for as long as syncs are kept.
    Days,
}

impl Range {
    /// All ranges, the shortest first.
    pub const ALL: [Self; 3] = [Self::Minutes, Self::Hours, Self::Days];

    /// Returns its name in the address.
    pub fn name(self) -> &'static str {
        match self {
            Self::Minutes => "15m",
            Self::Hours => "6h",
            Self::Days => "7d",
        }
    }

    /// Returns its length in words.
    pub fn title(self) -> &'static str {
        match self {
            Self::Minutes => "15 minutes",
            Self::Hours => "6 hours",
            Self::Days => "7 days",
        }
    }

    /// Returns the number of its periods.
    pub fn periods(self) -> u32 {
        match self {
            Self::Minutes => 60,
            Self::Hours => 72,
            Self::Days => 84,
        }
    }

    /// Returns the length of a period.
    pub fn period(self) -> Duration {
        match self {
            Self::Minutes => Duration::from_secs(15),
            Self::Hours => Duration::from_mins(5),
            Self::Days => Duration::from_hours(2),
        }
    }

    /// Returns the times ago that the time axis names.
    pub fn marks(self) -> [Duration; 4] {
        match self {
            Self::Minutes => [15, 10, 5, 0].map(Duration::from_mins),
            Self::Hours => [6, 4, 2, 0].map(Duration::from_hours),
            Self::Days => [6 * 24, 4 * 24, 2 * 24, 0].map(Duration::from_hours),
        }
    }

    /// Returns the length of the whole range.
    pub fn length(self) -> Duration {
        self.period() * self.periods()
    }

    /// Returns how long an answer of the database about it is used. An answer about a longer range
    /// costs more, and changes less.
    pub(super) fn max_age(self) -> Duration {
        match self {
            Self::Minutes | Self::Hours => Duration::from_secs(5),
            Self::Days => Duration::from_secs(60),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_a_view() {
        let check = |query, range, reloads| {
            let view = View { range, reloads };
            assert_eq!(View::of_query(query), view, "{query:?}");
            assert_eq!(View::of_query(view.query().strip_prefix('?')), view);
        };
        check(None, Range::Hours, true);
        check(Some(""), Range::Hours, true);
        check(Some("range=15m"), Range::Minutes, true);
        check(Some("range=7d&reload=off"), Range::Days, false);
        check(Some("reload=off&range=6h"), Range::Hours, false);
        check(Some("range=<script>&reload=maybe&x"), Range::Hours, true);
        check(Some("range=7d&range=8d"), Range::Hours, true);
    }

    #[test]
    fn ranges_are_as_long_as_they_say() {
        let lengths = Range::ALL.map(Range::length);
        let [minutes, hours, days] = [15 * 60, 6 * 3600, 7 * 24 * 3600].map(Duration::from_secs);
        assert_eq!(lengths, [minutes, hours, days]);
        for range in Range::ALL {
            assert!(range.marks().iter().all(|mark| *mark <= range.length()), "{range:?}");
        }
    }
}
