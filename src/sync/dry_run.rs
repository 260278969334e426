//! What a dry run remembers and prints instead of writing it.

use std::collections::{BTreeSet, HashSet};

use super::page_worker::{PageOutcome, PagePlan};
use crate::resource::{Digest, DigestKey};

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
}

impl<'a> DryRun<'a> {
    /// An empty plan, whose lines are printed with `print`.
    pub(super) fn new(print: Printer<'a>) -> Self {
        Self {
            print,
            missing: BTreeSet::new(),
            met: HashSet::new(),
            planned: HashSet::new(),
        }
    }

    /// Leaves out users that are in the plan already.
    pub(super) fn leave_out_planned(&mut self, outcome: &mut PageOutcome) {
        let mut is_new = |id: &String| self.planned.insert(Digest::of(&DigestKey::default(), id.as_bytes()));
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
        self.missing.extend(planned.missing);
        self.met.extend(planned.found);
        self.met.extend(planned.update.into_iter().map(|(id, _)| id));
    }
}
