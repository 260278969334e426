//! The objects of a store by a text that many of them share, such as the id of an organization.

use std::sync::Arc;

use hashbrown::HashMap;

use super::entry::Entry;
use super::properties::{Properties, Text};
use super::ranked::Ranked;

/// The objects of a store in groups. Each group is in ascending (`created_at`, id) order.
pub(crate) struct Groups {
    by: &'static Text,
    members: HashMap<Box<str>, Ranked>,
    /// What a group without objects is.
    empty: Ranked,
}

/// The text of an object by which it is in a group. `None` if it has none.
pub(crate) fn group_of(entry: &Entry, by: &Text) -> Option<String> {
    by.read(&entry.id, &Properties::read(entry.stored())?)
        .into_iter()
        .next()
}

fn ranked<'a>(entries: impl Iterator<Item = &'a Arc<Entry>>) -> Ranked {
    Ranked::new(entries, |entry| entry.created_at)
}

impl Groups {
    /// The groups of these entries by this text.
    pub(crate) fn new<'a>(by: &'static Text, entries: impl Iterator<Item = &'a Arc<Entry>>) -> Self {
        let mut lists: HashMap<Box<str>, Vec<&Arc<Entry>>> = HashMap::new();
        for entry in entries {
            if let Some(value) = group_of(entry, by) {
                lists.entry(value.into()).or_default().push(entry);
            }
        }
        let lists = lists.into_iter();
        Self {
            by,
            members: lists.map(|(value, list)| (value, ranked(list.into_iter()))).collect(),
            empty: ranked(std::iter::empty()),
        }
    }

    pub(crate) fn are_by(&self, text: &Text) -> bool {
        std::ptr::eq(self.by, text)
    }

    pub(crate) fn get(&self, value: &str) -> &Ranked {
        self.members.get(value).unwrap_or(&self.empty)
    }

    pub(crate) fn insert(&mut self, entry: &Arc<Entry>) {
        if let Some(value) = group_of(entry, self.by) {
            let group = self.members.entry(value.into());
            group
                .or_insert_with(|| ranked(std::iter::empty()))
                .insert(entry.clone());
        }
    }

    pub(crate) fn remove(&mut self, entry: &Entry) {
        let Some(value) = group_of(entry, self.by) else { return };
        if let Some(group) = self.members.get_mut(&*value) {
            group.remove(entry);
            if group.len() == 0 {
                self.members.remove(&*value);
            }
        }
    }
}
