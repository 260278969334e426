//! Cron expressions: whether one is valid, and the next time it names.

use std::time::Duration;

use chrono::{DateTime, Utc};
use croner::{
    Cron,
    parser::{CronParser, Seconds},
};

use crate::mirror::SyncKind;

/// The schedules of full and incremental syncs. By default nothing is ever due.
#[derive(Debug, Default)]
pub(crate) struct Timetable {
    full: Option<Cron>,
    incremental: Option<Cron>,
}

impl Timetable {
    /// Parses the schedules. An empty or invalid one is never due.
    pub(crate) fn new(full: &str, incremental: &str) -> Self {
        Self {
            full: parse(full),
            incremental: parse(incremental),
        }
    }

    /// Returns when the next sync of a kind is due after a moment; `None` if never.
    pub(crate) fn next(&self, kind: SyncKind, moment: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let schedule = match kind {
            SyncKind::Full => &self.full,
            SyncKind::Incremental => &self.incremental,
            SyncKind::OnDemand => return None,
        };
        schedule.as_ref()?.find_next_occurrence(&moment, false).ok()
    }

    /// Returns the time between the next two syncs of the kind that is due more often.
    pub(crate) fn shortest_period(&self, moment: DateTime<Utc>) -> Option<Duration> {
        let period = |kind| {
            let next = self.next(kind, moment)?;
            self.next_in(kind, next)
        };
        let periods = [SyncKind::Full, SyncKind::Incremental].into_iter().filter_map(period);
        periods.min()
    }

    /// Returns how long after a moment the next sync of a kind is due.
    pub(crate) fn next_in(&self, kind: SyncKind, moment: DateTime<Utc>) -> Option<Duration> {
        (self.next(kind, moment)? - moment).to_std().ok()
    }
}

/// Whether a text is a cron expression of six fields, seconds first.
pub(crate) fn is_valid(expression: &str) -> bool {
    parse(expression).is_some()
}

/// Parses an expression with the options that tokio-cron-scheduler uses, so that both agree on
/// every expression.
fn parse(expression: &str) -> Option<Cron> {
    let parser = CronParser::builder()
        .seconds(Seconds::Required)
        .dom_and_dow(true)
        .build();
    parser.parse(expression).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_of_each() {
        let check = |full, incremental, expected: [Option<&str>; 2]| {
            let moment: DateTime<Utc> = "2026-01-02T10:30:02Z".parse().unwrap();
            let timetable = Timetable::new(full, incremental);
            let next = [SyncKind::Full, SyncKind::Incremental].map(|kind| timetable.next(kind, moment));
            let expected = expected.map(|text| text.map(|text| text.parse().unwrap()));
            assert_eq!(next, expected, "{full:?} {incremental:?}");
        };
        let (hour, second) = (Some("2026-01-02T11:00:00Z"), Some("2026-01-02T10:30:05Z"));
        check("0 0 * * * *", "*/5 * * * * *", [hour, second]);
        check("0 0 * * * *", "", [hour, None]);
        check("", "", [None, None]);
        let period = |full, incremental| {
            Timetable::new(full, incremental).shortest_period("2026-01-02T10:30:02Z".parse().unwrap())
        };
        assert_eq!(period("0 0 * * * *", "*/5 * * * * *"), Some(Duration::from_secs(5)));
        assert_eq!(period("0 0 * * * *", ""), Some(Duration::from_secs(3600)));
        assert_eq!(period("", ""), None);
        // Day of the month and weekday must both fit: the next Friday the 13th.
        check("0 0 0 13 * 5", "", [Some("2026-02-13T00:00:00Z"), None]);
        check("", "0 0 0 31 2 *", [None, None]);
    }
}
