//! What programs do with objects of any kind.

use serde_json::Value;

use super::Sim;
use crate::clock::now;
use crate::kind::Kind;
use crate::resources;
use crate::store::edit::{Touch, edit};
use crate::store::entry::Entry;

impl Sim {
    /// The ids of all objects of a kind in ascending (`created_at`, id) order.
    pub fn ids(&self, kind: Kind) -> Vec<String> {
        let stores = self.state().read();
        let ids = stores.of(kind).in_order().map(|entry| entry.id.to_string());
        ids.collect()
    }

    /// The number of objects of a kind.
    pub fn count_of(&self, kind: Kind) -> usize {
        self.state().read().of(kind).len()
    }

    /// An object as it is served, whatever the faults: an organization with its counts, an
    /// invitation as its organization's list shows it. `None` if there is no such object, or its
    /// bytes are not JSON.
    pub fn object(&self, kind: Kind, id: &str) -> Option<Value> {
        serde_json::from_slice(&self.raw_object(kind, id)?).ok()
    }

    /// The bytes of [`Sim::object`]. `None` if there is no such object.
    pub fn raw_object(&self, kind: Kind, id: &str) -> Option<Vec<u8>> {
        resources::shown(self.state(), kind, id)
    }

    /// Adds any document, or replaces the one with its id. Returns the id.
    ///
    /// Nothing in it is checked. See [`Sim::insert`] for users. The counts of an organization, if
    /// it has none, are added where it is served. A membership whose `organization` is just
    /// `{"id":"org_…"}`, and an invitation without `public_inviter_data`, are completed there, too;
    /// others are served as they are.
    ///
    /// # Panics
    /// If `id` is not a string or `created_at` is not in milliseconds. See
    /// [`Sim::insert_raw_object`] for such objects.
    pub fn insert_object(&self, kind: Kind, document: Value) -> String {
        let id = document
            .get("id")
            .and_then(Value::as_str)
            .expect("a document needs an id that is a string")
            .to_owned();
        let created_at = document.get("created_at").and_then(Value::as_i64);
        assert!(
            created_at.is_some(),
            "a document needs a created_at in milliseconds; use the raw form for those without"
        );
        let entry = Entry::new(&id, &document, None);
        self.state().write().of_mut(kind).put(entry, now());
        id
    }

    /// Adds any bytes, to be served verbatim, or replaces those with this id.
    ///
    /// Lists are ordered by these times, in Unix milliseconds.
    pub fn insert_raw_object(&self, kind: Kind, id: &str, created_at: i64, updated_at: i64, bytes: Vec<u8>) {
        let entry = Entry::verbatim(id, created_at, updated_at, bytes);
        self.state().write().of_mut(kind).put(entry, now());
    }

    /// Changes an object, and sets `updated_at` to now unless the closure changes it.
    ///
    /// The closure sees what is stored: an organization without counts, a membership with just the
    /// ids of its organization and its user. False if there is no such object, or its bytes are not
    /// JSON. The closure runs while all objects are locked: it must not use the simulator.
    pub fn update_object(&self, kind: Kind, id: &str, change: impl FnOnce(&mut Value)) -> bool {
        edit(self.state().write().of_mut(kind), id, Touch::UpdatedAt, change)
    }

    /// Deletes an object. Memberships go with their user or organization, invitations with their
    /// organization. False if there is no such object.
    pub fn delete_object(&self, kind: Kind, id: &str) -> bool {
        self.state().write().remove(kind, id, now()).is_some()
    }
}
