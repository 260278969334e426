//! The users that Clerk's list left out, on their way to deletion.
//!
//! Missing → absent → held, or deletable → confirmed, or kept. A sync that writes keeps the ids in
//! `clerk.missing`, so that a held deletion outlives it. A dry run keeps them in memory.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Bound,
};

use super::{DeleteMode, PlanLine, SyncContext, dry_run::DryRun};
use crate::{
    failure::Failure,
    mirror::{Mirror, Run},
    reconcile::guard::Checksum,
};

/// How far the deletion of a missing user has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MissingState {
    /// Clerk's list left the user out. The sync asks for it by id.
    Missing,
    /// Clerk left the user out, too, when it was asked for many ids.
    Absent,
    /// The deletion waits for a person.
    Held,
    /// The guard or a person lets the deletion through. The sync asks for this id alone.
    Deletable,
    /// Clerk said that this id does not exist. The row is deleted.
    Confirmed,
    /// The same, but the application kept the row in an earlier sync.
    Kept,
}

/// What follows from Clerk's answers about some deletable ids.
pub(super) struct Deletions {
    /// Rows to delete.
    pub(super) confirmed: Vec<String>,
    /// Rows that the application kept in an earlier sync, without a person's approval to delete
    /// them.
    pub(super) kept: Vec<String>,
}

/// The missing users of a sync.
pub(super) enum MissingUsers<'a> {
    /// In `clerk.missing`, with their states in its columns `state` and `hold`.
    Stored { mirror: &'a Mirror, run: &'a Run },
    /// In memory, of a dry run.
    Planned(PlannedDeletions),
}

/// The missing users of a dry run.
pub(super) struct PlannedDeletions {
    /// In order, so that the plan is printed in order.
    states: BTreeMap<String, MissingState>,
    /// Ids whose deletion was held before, and whether a person approved it.
    held: HashMap<String, bool>,
    /// Ids of the rows that the application kept, with the reasons.
    kept: HashMap<String, String>,
}

impl<'a> SyncContext<'a> {
    /// The missing users of this sync; `None` if a dry run has no mirror to compare with.
    pub(super) async fn missing_users(&mut self) -> Result<Option<MissingUsers<'a>>, Failure> {
        let mirror = &self.syncer.mirror;
        if let Some(run) = self.mode.run() {
            return Ok(Some(MissingUsers::Stored { mirror, run }));
        }
        let Some(dry_run) = self.dry_run.as_mut().filter(|_| self.mode.has_schema()) else {
            return Ok(None);
        };
        let mut missing = std::mem::take(&mut dry_run.missing);
        missing.retain(|id| !dry_run.met.contains(id));
        let held = mirror.holds().all().await?;
        missing.extend(held.keys().cloned());
        if self.syncer.options.delete_mode == DeleteMode::Delete {
            missing.extend(mirror.rows().marked().await?);
        }
        Ok(Some(MissingUsers::Planned(PlannedDeletions {
            states: missing.into_iter().map(|id| (id, MissingState::Missing)).collect(),
            held,
            kept: mirror.rejected().kept_rows().await?,
        })))
    }
}

impl MissingUsers<'_> {
    /// The next missing ids, in order, after `after`.
    pub(super) async fn missing(&self, after: &str, limit: usize) -> Result<Vec<String>, Failure> {
        match self {
            Self::Stored { mirror, run } => Ok(mirror.missing().next(run, after, limit).await?),
            Self::Planned(planned) => Ok(planned.next(MissingState::Missing, after, limit)),
        }
    }

    /// Notes that Clerk left these ids out when it was asked for them.
    pub(super) async fn note_absent(&mut self, ids: &[String]) -> Result<(), Failure> {
        match self {
            Self::Stored { mirror, run } => Ok(mirror.missing().note_absent(run.lease(), ids).await?),
            Self::Planned(planned) => {
                planned.set(ids, MissingState::Absent);
                Ok(())
            }
        }
    }

    /// How many absent users the guard judges: those that no person approved, and whose rows the
    /// application did not keep.
    pub(super) async fn count_judged(&self) -> Result<u64, Failure> {
        match self {
            Self::Stored { mirror, .. } => Ok(mirror.holds().count_judged().await?),
            Self::Planned(planned) => Ok(planned.judged().count() as u64),
        }
    }

    /// Ends the guard's judgement: with `holds`, the deletions that it judged are held. Approved
    /// deletions never are.
    pub(super) async fn judge(&mut self, holds: bool) -> Result<(), Failure> {
        match self {
            Self::Stored { mirror, run } if holds => Ok(mirror.holds().hold_judged(run.lease()).await?),
            Self::Stored { .. } => Ok(()),
            Self::Planned(planned) => {
                planned.judge(holds);
                Ok(())
            }
        }
    }

    /// The next deletable ids, in order, after `after`.
    pub(super) async fn deletable(&self, after: &str, limit: usize) -> Result<Vec<String>, Failure> {
        match self {
            Self::Stored { mirror, run } => Ok(mirror.missing().deletable(run, after, limit).await?),
            Self::Planned(planned) => Ok(planned.next(MissingState::Deletable, after, limit)),
        }
    }

    /// Sets the rows apart that the application kept in an earlier sync.
    pub(super) async fn deletions(&self, confirmed: Vec<String>) -> Result<Deletions, Failure> {
        let kept: HashSet<String> = match self {
            Self::Stored { mirror, .. } => mirror.rejected().kept_among(&confirmed).await?.into_iter().collect(),
            Self::Planned(planned) => confirmed.iter().filter(|id| planned.is_kept(id)).cloned().collect(),
        };
        let (kept, confirmed) = confirmed.into_iter().partition(|id| kept.contains(id));
        Ok(Deletions { confirmed, kept })
    }
}

impl PlannedDeletions {
    /// The next ids in a state, in order, after `after`.
    fn next(&self, state: MissingState, after: &str, limit: usize) -> Vec<String> {
        let rows = self.states.range::<str, _>((Bound::Excluded(after), Bound::Unbounded));
        let ids = rows.filter(|(_, row)| **row == state).map(|(id, _)| id.clone());
        ids.take(limit).collect()
    }

    fn set(&mut self, ids: &[String], state: MissingState) {
        for id in ids {
            self.states.insert(id.clone(), state);
        }
    }

    fn is_approved(&self, id: &str) -> bool {
        self.held.get(id) == Some(&true)
    }

    /// Whether a row is expected to stay: the application kept it, and no person approved its
    /// deletion since.
    fn is_kept(&self, id: &str) -> bool {
        self.kept.contains_key(id) && !self.is_approved(id)
    }

    /// The absent ids that the guard judges.
    fn judged(&self) -> impl Iterator<Item = &String> {
        let absent = self.states.iter().filter(|(_, state)| **state == MissingState::Absent);
        absent
            .map(|(id, _)| id)
            .filter(|id| !self.is_approved(id) && !self.kept.contains_key(*id))
    }

    /// Makes each absent id held or deletable.
    fn judge(&mut self, holds: bool) {
        for (id, state) in &mut self.states {
            if *state != MissingState::Absent {
                continue;
            }
            let is_held = match self.held.get(id) {
                Some(is_approved) => !is_approved,
                None => holds && !self.kept.contains_key(id),
            };
            *state = match is_held {
                true => MissingState::Held,
                false => MissingState::Deletable,
            };
        }
    }

    /// Notes what a sync would do about some ids.
    pub(super) fn plan(&mut self, deletions: &Deletions) {
        self.set(&deletions.confirmed, MissingState::Confirmed);
        self.set(&deletions.kept, MissingState::Kept);
    }

    /// The ids in a state, in order.
    fn of(&self, state: MissingState) -> Vec<String> {
        let rows = self.states.iter().filter(|(_, row)| **row == state);
        rows.map(|(id, _)| id.clone()).collect()
    }

    /// The deletions that a sync would hold. One that was held before is released only if Clerk
    /// shows the user again: then the user is among those `met`.
    fn held(&self, met: &HashSet<String>) -> Vec<String> {
        let stays_held = |id: &String| self.held.get(id) == Some(&false) && !met.contains(id);
        let is_held = |id: &String, state: MissingState| match state {
            MissingState::Held => true,
            MissingState::Missing => stays_held(id),
            _ => false,
        };
        let rows = self.states.iter().filter(|(id, state)| is_held(id, **state));
        rows.map(|(id, _)| id.clone()).collect()
    }
}

impl SyncContext<'_> {
    /// Prints the deletions of a dry run, and counts them in its report.
    pub(super) fn print_deletions(&mut self, planned: &PlannedDeletions) {
        let Some(DryRun {
            print, met, deleted, ..
        }) = &mut self.dry_run
        else {
            return;
        };
        let (delete, kept) = (planned.of(MissingState::Confirmed), planned.of(MissingState::Kept));
        let held = planned.held(met);
        for id in &delete {
            print(PlanLine::Delete(id));
        }
        for id in &held {
            print(PlanLine::Hold(id));
        }
        for id in &kept {
            print(PlanLine::Reject(id, planned.kept.get(id).map_or("", String::as_str)));
        }
        self.report.deleted = delete.len() as u64;
        self.report.held = held.len() as u64;
        self.report.rejected += kept.len() as u64;
        self.report.plan = Checksum::of(if held.is_empty() { &delete } else { &held });
        *deleted = delete;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[&str]) -> Vec<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    /// Six missing users: one is approved, one held and one kept; the others are new. Clerk showed
    /// one of the new ones when it was asked by id.
    fn absent() -> PlannedDeletions {
        let all = ids(&["approved", "found", "held", "kept", "new_a", "new_b"]);
        let mut planned = PlannedDeletions {
            states: all.iter().map(|id| (id.clone(), MissingState::Missing)).collect(),
            held: HashMap::from([("approved".to_owned(), true), ("held".to_owned(), false)]),
            kept: HashMap::from([("kept".to_owned(), "an order".to_owned())]),
        };
        assert_eq!(planned.next(MissingState::Missing, "", 2), ids(&["approved", "found"]));
        assert_eq!(planned.next(MissingState::Missing, "new_a", 2), ids(&["new_b"]));
        planned.set(
            &ids(&["approved", "held", "kept", "new_a", "new_b"]),
            MissingState::Absent,
        );
        planned
    }

    #[test]
    fn the_guard_judges_what_no_person_approved_and_the_application_did_not_keep() {
        let planned = absent();
        let judged: Vec<&String> = planned.judged().collect();
        assert_eq!(judged, ["held", "new_a", "new_b"]);
    }

    #[test]
    fn too_many_deletions_are_held_and_approved_or_kept_ones_are_not() {
        for (holds, deletable, held) in [
            (true, &["approved", "kept"][..], &["held", "new_a", "new_b"][..]),
            (false, &["approved", "kept", "new_a", "new_b"], &["held"]),
        ] {
            let mut planned = absent();
            planned.judge(holds);
            assert_eq!(planned.next(MissingState::Deletable, "", 9), ids(deletable));
            assert_eq!(planned.held(&HashSet::new()), ids(held));
        }
    }

    #[tokio::test]
    async fn a_row_that_the_application_kept_is_expected_to_stay() {
        let mut planned = absent();
        planned.judge(false);
        let missing = MissingUsers::Planned(planned);
        let confirmed = missing.deletable("", 9).await.unwrap();
        let deletions = missing.deletions(confirmed).await.unwrap();
        assert_eq!(deletions.confirmed, ids(&["approved", "new_a", "new_b"]));
        assert_eq!(deletions.kept, ids(&["kept"]));
    }

    #[test]
    fn a_held_deletion_is_released_only_if_clerk_shows_the_user() {
        let mut planned = absent();
        planned.set(&ids(&["held"]), MissingState::Missing);
        planned.judge(false);
        assert_eq!(planned.held(&HashSet::new()), ids(&["held"]));
        assert_eq!(planned.held(&HashSet::from(["held".to_owned()])), ids(&[]));
    }
}
