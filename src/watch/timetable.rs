//! When a pass should have come, by the schedules.

use chrono::{DateTime, Utc};
use croner::{
    Cron,
    parser::{CronParser, Seconds},
};

/// The schedules; by default nothing is ever due.
#[derive(Debug, Default)]
pub(crate) struct Timetable {
    full: Option<Cron>,
    incremental: Option<Cron>,
}

impl Timetable {
    /// Reads the schedules as the scheduler does. One that is empty, or that it would refuse, is never due.
    pub(crate) fn new(full: &str, incremental: &str) -> Self {
        let read = |schedule: &str| {
            let parser = CronParser::builder()
                .seconds(Seconds::Required)
                .dom_and_dow(true)
                .build();
            parser.parse(schedule).ok()
        };
        Self {
            full: read(full),
            incremental: read(incremental),
        }
    }

    /// When the next pass is due behind a moment, if ever; with `only_full`, the next full sync.
    pub(crate) fn next(&self, moment: DateTime<Utc>, only_full: bool) -> Option<DateTime<Utc>> {
        let incremental = self.incremental.as_ref().filter(|_| !only_full);
        let schedules = self.full.iter().chain(incremental);
        schedules
            .filter_map(|schedule| schedule.find_next_occurrence(&moment, false).ok())
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_of_both() {
        let check = |full, incremental, only_full, expected: Option<&str>| {
            let moment: DateTime<Utc> = "2026-01-02T10:30:02Z".parse().unwrap();
            let next = Timetable::new(full, incremental).next(moment, only_full);
            assert_eq!(
                next,
                expected.map(|text| text.parse().unwrap()),
                "{full:?} {incremental:?}"
            );
        };
        check("0 0 * * * *", "*/5 * * * * *", false, Some("2026-01-02T10:30:05Z"));
        check("0 0 * * * *", "*/5 * * * * *", true, Some("2026-01-02T11:00:00Z"));
        check("0 0 * * * *", "", false, Some("2026-01-02T11:00:00Z"));
        check("", "", false, None);
        // Day of the month and weekday must both fit: the next Friday the 13th.
        check("0 0 0 13 * 5", "", false, Some("2026-02-13T00:00:00Z"));
        check("", "0 0 0 31 2 *", false, None);
    }
}
