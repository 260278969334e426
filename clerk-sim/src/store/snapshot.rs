//! The objects of one kind as they were at one time.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::Arc;

use super::Store;
use super::entry::Entry;
use super::groups::group_of;
use super::identifier::IdentifierKind;
use super::journal::Difference;
use super::properties::Text;

/// A store in the state at one time, of up to ten minutes ago.
pub(crate) struct Snapshot<'a> {
    pub(crate) store: &'a Store,
    /// In Unix milliseconds. `None` is the present.
    as_of: Option<i64>,
    difference: OnceCell<Difference>,
    /// For each text, how the sizes of groups differ from the present ones.
    sizes: Vec<(&'static Text, OnceCell<HashMap<String, i64>>)>,
}

impl<'a> Snapshot<'a> {
    pub(crate) fn new(store: &'a Store, as_of: Option<i64>) -> Self {
        let texts = store.indexes.groups.iter();
        Self {
            store,
            as_of,
            difference: OnceCell::new(),
            sizes: texts.map(|text| (*text, OnceCell::new())).collect(),
        }
    }

    /// How this state differs from the present one.
    pub(crate) fn difference(&self) -> &Difference {
        self.difference.get_or_init(|| self.store.difference(self.as_of))
    }

    /// Whether this state is the present one.
    pub(crate) fn is_present(&self) -> bool {
        self.as_of.is_none() || self.difference().is_empty()
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Arc<Entry>> {
        if self.as_of.is_none() {
            return self.store.get(id);
        }
        match self.difference().before(id) {
            Some(before) => before,
            None => self.store.get(id),
        }
    }

    /// An object with this identifier. `None` if there is none.
    pub(crate) fn by_identifier(&self, kind: &IdentifierKind, value: &str) -> Option<&Arc<Entry>> {
        let present = self.store.candidates(kind, value);
        let unchanged = present.filter(|entry| !self.difference().has_changed(&entry.id));
        let mut all = unchanged.chain(self.difference().entries());
        all.find(|entry| kind.is_held_by(entry, value))
    }

    /// All objects, in no particular order.
    pub(crate) fn all(&self) -> Vec<Arc<Entry>> {
        let present = self.store.in_order();
        let unchanged = present.filter(|entry| !self.difference().has_changed(&entry.id));
        unchanged.chain(self.difference().entries()).cloned().collect()
    }

    /// The objects of a group, in no particular order.
    pub(crate) fn group(&self, by: &'static Text, value: &str) -> Vec<Arc<Entry>> {
        let group = self.store.group(by, value);
        let unchanged = group.range(0..group.len());
        let mut all: Vec<_> = unchanged
            .filter(|entry| !self.difference().has_changed(&entry.id))
            .cloned()
            .collect();
        let before = self.difference().entries();
        all.extend(
            before
                .filter(|entry| group_of(entry, by).as_deref() == Some(value))
                .cloned(),
        );
        all
    }

    /// The number of objects in a group.
    pub(crate) fn group_len(&self, by: &'static Text, value: &str) -> u64 {
        let present = self.store.group(by, value).len() as u64;
        if self.is_present() {
            return present;
        }
        let (_, sizes) = self
            .sizes
            .iter()
            .find(|(text, _)| std::ptr::eq(*text, by))
            .expect("the store has groups by this text");
        let sizes = sizes.get_or_init(|| self.sizes_of(by));
        present.saturating_add_signed(sizes.get(value).copied().unwrap_or_default())
    }

    fn sizes_of(&self, by: &Text) -> HashMap<String, i64> {
        let mut sizes = HashMap::new();
        let mut add = |entry: Option<&Arc<Entry>>, by_how_much: i64| {
            if let Some(group) = entry.and_then(|entry| group_of(entry, by)) {
                *sizes.entry(group).or_default() += by_how_much;
            }
        };
        for (id, before) in self.difference().changes() {
            add(self.store.get(id), -1);
            add(before, 1);
        }
        sizes
    }
}
