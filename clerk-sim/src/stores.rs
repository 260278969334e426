//! All objects of an instance.

use std::sync::Arc;

use crate::kind::Kind;
use crate::organizations::resource::{INVITED_TO, MEMBER_IN, MEMBER_USER};
use crate::store::Store;
use crate::store::entry::Entry;
use crate::store::properties::Text;
use crate::store::snapshot::Snapshot;

/// What is deleted together with an object: objects of the second kind, in the group of its id.
///
/// For organizations this is documented, for users it is a guess.
const DEPENDENTS: [(Kind, Kind, &Text); 3] = [
    (Kind::Users, Kind::OrganizationMemberships, &MEMBER_USER),
    (Kind::Organizations, Kind::OrganizationMemberships, &MEMBER_IN),
    (Kind::Organizations, Kind::OrganizationInvitations, &INVITED_TO),
];

/// A store for each kind.
pub(crate) struct Stores([Store; Kind::ALL.len()]);

/// All objects in the state at one time.
pub(crate) struct View<'a>([Snapshot<'a>; Kind::ALL.len()]);

impl Stores {
    /// The stores must be in the order of [`Kind::ALL`].
    pub(crate) fn new(stores: [Store; Kind::ALL.len()]) -> Self {
        Self(stores)
    }

    pub(crate) fn of(&self, kind: Kind) -> &Store {
        &self.0[kind as usize]
    }

    pub(crate) fn of_mut(&mut self, kind: Kind) -> &mut Store {
        &mut self.0[kind as usize]
    }

    /// The state at `as_of`, in Unix milliseconds. `None` is the present.
    pub(crate) fn at(&self, as_of: Option<i64>) -> View<'_> {
        View(Kind::ALL.map(|kind| Snapshot::new(self.of(kind), as_of)))
    }

    /// Deletes an object with all that depends on it. Returns the object; `None` if there is none.
    pub(crate) fn remove(&mut self, kind: Kind, id: &str, now: i64) -> Option<Arc<Entry>> {
        let removed = self.of_mut(kind).remove(id, now)?;
        for (of, dependent, group) in DEPENDENTS {
            if of == kind {
                let group = self.of(dependent).group(group, id);
                let ids: Vec<_> = group.range(0..group.len()).map(|entry| entry.id.clone()).collect();
                for id in ids {
                    self.of_mut(dependent).remove(&id, now);
                }
            }
        }
        Some(removed)
    }
}

impl<'a> View<'a> {
    pub(crate) fn of(&self, kind: Kind) -> &Snapshot<'a> {
        &self.0[kind as usize]
    }
}
