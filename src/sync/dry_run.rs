//! What a dry run remembers and prints instead of writing it.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::{
    page_worker::{PageOutcome, PagePlan},
    planned_rows::{PlannedDepartures, TablePlan},
};
use crate::{
    mirror::RowChange,
    resource::{Digest, DigestKey},
};

/// One line of a dry run.
#[derive(Debug, Clone, Copy)]
pub enum PlanLine<'a> {
    /// A user would be created.
    Create(&'a str),
    /// A user would be updated in these fields.
    Update(&'a str, &'a [String]),
    /// A user would be deleted.
    Delete(&'a str),
    /// A user would be deleted if a person approved it.
    Hold(&'a str),
    /// A user cannot be stored, or its row cannot be deleted, for this reason.
    Reject(&'a str, &'a str),
    /// The next lines are about objects of this resource.
    Resource(&'a str),
    /// The next lines are about rows of this table: created, updated and so on.
    Table(&'a str),
    /// A row without a key would be given this one.
    Link(&'a str),
    /// A row would be removed, for this reason; held if a person has to approve it.
    Remove {
        /// The key of the row.
        key: &'a str,
        /// Why it is to go.
        why: &'static str,
        /// Whether it waits for a person.
        is_held: bool,
    },
}

/// Prints the lines of a dry run.
pub type Printer<'a> = &'a mut (dyn FnMut(PlanLine<'_>) + Send);

/// The plan of a dry run so far.
pub(super) struct DryRun<'a> {
    pub(super) print: Printer<'a>,
    /// Rows whose users the walk did not meet.
    pub(super) missing: BTreeSet<String>,
    /// Users that are not missing: they were found by id, or would be updated. A user whose
    /// `created_at` changed is missed at its old place in the list.
    pub(super) met: HashSet<String>,
    /// Users in the plan. A walk that starts over meets them again.
    planned: HashSet<Digest>,
    /// Users whose rows in the mirror would be written.
    stored: HashSet<Digest>,
    /// Users that would be deleted, in order.
    pub(super) deleted: Vec<String>,
    /// What would be done with the application's tables, by their names.
    pub(super) tables: BTreeMap<String, TablePlan>,
}

/// What stands for an id in memory.
fn digest(id: &str) -> Digest {
    Digest::of(&DigestKey::default(), id.as_bytes())
}

impl<'a> DryRun<'a> {
    /// An empty plan, whose lines are printed with `print`.
    pub(super) fn new(print: Printer<'a>) -> Self {
        Self {
            print,
            missing: BTreeSet::new(),
            met: HashSet::new(),
            planned: HashSet::new(),
            stored: HashSet::new(),
            deleted: Vec::new(),
            tables: BTreeMap::new(),
        }
    }

    /// Whether Clerk showed a user that is new or changed, or that cannot be stored.
    pub(super) fn has_planned(&self, id: &str) -> bool {
        self.planned.contains(&digest(id))
    }

    /// Whether the row of a user in the mirror stays as it is.
    pub(super) fn stays(&self, id: &str) -> bool {
        !self.stored.contains(&digest(id)) && self.deleted.binary_search_by(|deleted| (**deleted).cmp(id)).is_err()
    }

    /// Leaves out users that are in the plan already.
    pub(super) fn leave_out_planned(&mut self, outcome: &mut PageOutcome) {
        let mut is_new = |id: &String| self.planned.insert(digest(id));
        let planned = &mut outcome.planned;
        planned.create.retain(&mut is_new);
        planned.update.retain(|(id, _)| is_new(id));
        planned.reject.retain(|(id, _)| is_new(id));
        outcome.created = planned.create.len() as u64;
        outcome.updated = planned.update.len() as u64;
        outcome.rejected = planned.reject.len() as u64;
    }

    /// Prints what would happen to some users, and remembers which ids are missing or met.
    pub(super) fn record(&mut self, planned: PagePlan) {
        for id in &planned.create {
            (self.print)(PlanLine::Create(id));
        }
        for (id, changed) in &planned.update {
            (self.print)(PlanLine::Update(id, changed));
        }
        for (id, reason) in &planned.reject {
            (self.print)(PlanLine::Reject(id, reason));
        }
        self.stored.extend(planned.stored.iter().map(|id| digest(id)));
        for (table, differences) in planned.tables {
            let plan = self.tables.entry(table).or_default();
            match differences {
                Ok(differences) => plan.add(differences),
                Err(error) => plan.problem = Some(error),
            }
        }
        self.missing.extend(planned.missing);
        self.met.extend(planned.found);
        self.met.extend(planned.update.into_iter().map(|(id, _)| id));
    }
}

impl TablePlan {
    /// Prints a line for each row, in the order of the ids.
    pub(super) fn print(&self, table: &str, print: &mut (dyn FnMut(PlanLine<'_>) + Send)) {
        let PlannedDepartures { unknown, removed, held } = &self.departures;
        let ids: BTreeSet<&String> = self.rows.keys().chain(removed).chain(held).collect();
        if !ids.is_empty() {
            print(PlanLine::Table(table));
        }
        for id in ids {
            match self.rows.get(id) {
                Some(RowChange::Insert) => print(PlanLine::Create(id)),
                Some(RowChange::Update(columns)) => print(PlanLine::Update(id, columns)),
                Some(RowChange::Link { .. }) => print(PlanLine::Link(id)),
                Some(RowChange::Ambiguous { rows, users }) => {
                    print(PlanLine::Reject(id, &RowChange::ambiguity(*rows, *users)));
                }
                Some(RowChange::Fails(reason)) => print(PlanLine::Reject(id, reason)),
                None => {}
            }
            let is_held = held.contains(id);
            if is_held || removed.contains(id) {
                let why = match () {
                    () if unknown.contains(id) => "Clerk does not know it",
                    () if self.excluded.contains(id) => "`where` excludes it; it exists at Clerk",
                    () => "deleted at Clerk",
                };
                print(PlanLine::Remove { key: id, why, is_held });
            }
        }
    }
}
