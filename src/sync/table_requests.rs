//! Requests a full sync if a table of the application has to be compared as a whole: its mapping is
//! new, or the table was made anew or repaired.

use std::time::{Duration, Instant};

use super::Syncer;
use crate::{
    failure::Failure,
    mirror::{SyncState, TableIdentities},
};

/// How often incremental syncs look at the tables.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The least time between two full syncs for new mappings. It doubles as long as they cannot be
/// applied, because their tables are locked or fail as a whole.
const LEAST_PAUSE: Duration = Duration::from_secs(10);

/// The greatest of these times.
const MOST_PAUSE: Duration = Duration::from_secs(600);

/// What is remembered about the application's tables from one sync to the next.
#[derive(Debug, Default)]
pub(super) struct TableRequests {
    identities: TableIdentities,
    looked_at: Option<Instant>,
    /// When a full sync was last requested for a new mapping, and the time until the next one.
    requested: Option<(Instant, Duration)>,
}

impl TableRequests {
    /// Whether a new mapping is a reason for a full sync now.
    fn may_request(&mut self, now: Instant) -> bool {
        let pause = match self.requested {
            None => LEAST_PAUSE,
            Some((at, pause)) if now.saturating_duration_since(at) >= pause => (pause * 2).min(MOST_PAUSE),
            Some(_) => return false,
        };
        self.requested = Some((now, pause));
        true
    }

    /// Whether it is time to look at the tables.
    fn is_look_due(&self) -> bool {
        self.looked_at.is_none_or(|at| at.elapsed() >= LOOK_EVERY)
    }

    /// Notes the identities of the tables. Returns whether they have changed.
    fn note(&mut self, identities: TableIdentities) -> bool {
        let is_first = self.looked_at.replace(Instant::now()).is_none();
        let before = std::mem::replace(&mut self.identities, identities);
        !is_first && before != self.identities
    }
}

impl Syncer {
    /// Returns why a full sync is due, if a table has to be compared as a whole.
    ///
    /// # Errors
    /// Postgres is away.
    pub(super) async fn full_sync_for_tables(
        &self,
        state: &SyncState,
        requests: &mut TableRequests,
    ) -> Result<Option<&'static str>, Failure> {
        let tables = self.mirror.app_tables();
        if !tables.has_any() {
            return Ok(None);
        }
        if tables.has_pending(state) {
            let is_due = requests.may_request(Instant::now());
            return Ok(is_due.then_some("a table has a new mapping"));
        }
        requests.requested = None;
        if !requests.is_look_due() {
            return Ok(None);
        }
        Ok(if requests.note(tables.identities().await?) {
            Some("a table of the application was made anew or dropped")
        } else if tables.has_recovered(state).await? {
            Some("a table of the application can be kept in sync again")
        } else {
            None
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_that_cannot_be_applied_is_tried_less_and_less_often() {
        let mut requests = TableRequests::default();
        let start = Instant::now();
        let tried: Vec<u64> = (0..3_000)
            .filter(|second| requests.may_request(start + Duration::from_secs(*second)))
            .collect();
        assert_eq!(tried, [0, 10, 30, 70, 150, 310, 630, 1230, 1830, 2430]);
        requests.requested = None;
        assert!(requests.may_request(start));
    }

    #[test]
    fn a_table_that_was_made_anew_is_noticed_once() {
        let mut requests = TableRequests::default();
        assert!(!requests.note(vec![Some(1), None]));
        assert!(!requests.note(vec![Some(1), None]));
        assert!(requests.note(vec![Some(1), Some(2)]));
        assert!(!requests.note(vec![Some(1), Some(2)]));
        assert!(requests.note(vec![Some(3), Some(2)]));
    }
}
