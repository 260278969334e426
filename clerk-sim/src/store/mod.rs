//! The objects of one kind, with their indexes.

pub(crate) mod canonical;
pub(crate) mod edit;
pub(crate) mod entry;
pub(crate) mod groups;
pub(crate) mod identifier;
pub(crate) mod journal;
pub(crate) mod properties;
pub(crate) mod ranked;
pub(crate) mod snapshot;

use std::hash::BuildHasher;
use std::sync::Arc;
use std::thread::ScopedJoinHandle;

use hashbrown::{DefaultHashBuilder, HashTable};

use self::entry::Entry;
use self::groups::Groups;
use self::identifier::{Identifier, IdentifierKind, identifiers};
use self::journal::{Difference, Journal};
use self::properties::Text;
use self::ranked::Ranked;

/// What objects of a kind are found by, besides their ids and times.
#[derive(Debug)]
pub(crate) struct Indexes {
    /// What is unique, and so can be looked up exactly.
    pub(crate) identifiers: &'static [&'static IdentifierKind],
    /// Texts that many objects share.
    pub(crate) groups: &'static [&'static Text],
}

/// All objects of one kind. Reads can ask for a state of up to ten minutes ago: see
/// [`snapshot::Snapshot`].
pub(crate) struct Store {
    by_id: HashTable<Arc<Entry>>,
    pub(crate) by_created_at: Ranked,
    pub(crate) by_updated_at: Ranked,
    /// By the hash of an identifier. A lookup must compare: hashes collide, and odd users may share
    /// an address.
    by_identifier: HashTable<(u64, Arc<Entry>)>,
    groups: Vec<Groups>,
    pub(crate) indexes: &'static Indexes,
    journal: Journal,
    hasher: DefaultHashBuilder,
}

/// Entries with the hashes of their identifiers, made by one of several threads.
pub(crate) struct HashedEntries {
    entries: Vec<Arc<Entry>>,
    identifiers: Vec<(u64, u32)>,
    hasher: DefaultHashBuilder,
}

impl HashedEntries {
    /// No entries yet. The store must be made with the same hasher.
    pub(crate) fn new(hasher: DefaultHashBuilder) -> Self {
        Self {
            entries: Vec::new(),
            identifiers: Vec::new(),
            hasher,
        }
    }

    /// Adds an entry with all its identifiers.
    pub(crate) fn push(&mut self, entry: Entry, identifiers: &[Identifier]) {
        let index = u32::try_from(self.entries.len()).expect("fewer than four billion entries fit in memory");
        for (kind, value) in identifiers {
            self.identifiers
                .push((identifier_hash(&self.hasher, kind, value), index));
        }
        self.entries.push(Arc::new(entry));
    }
}

fn identifier_hash(hasher: &DefaultHashBuilder, kind: &IdentifierKind, normalized: &str) -> u64 {
    hasher.hash_one((kind.name, normalized))
}

impl Store {
    /// Makes a store of these entries. All of them must have been hashed with this hasher.
    pub(crate) fn new(indexes: &'static Indexes, hasher: DefaultHashBuilder, parts: Vec<HashedEntries>) -> Self {
        let all = || parts.iter().flat_map(|part| &part.entries);
        let (by_created_at, by_updated_at, by_id, by_identifier) = std::thread::scope(|scope| {
            let by_created_at = scope.spawn(|| Ranked::new(all(), |entry| entry.created_at));
            let by_updated_at = scope.spawn(|| Ranked::new(all(), |entry| entry.updated_at));
            let mut by_id = HashTable::with_capacity(all().count());
            let mut by_identifier = HashTable::with_capacity(parts.iter().map(|part| part.identifiers.len()).sum());
            for part in &parts {
                for (hash, index) in &part.identifiers {
                    let entry = part.entries[*index as usize].clone();
                    by_identifier.insert_unique(*hash, (*hash, entry), |(hash, _)| *hash);
                }
                for entry in &part.entries {
                    let hash = |entry: &Arc<Entry>| hasher.hash_one(&*entry.id);
                    by_id.insert_unique(hash(entry), entry.clone(), hash);
                }
            }
            let ranked = |thread: ScopedJoinHandle<'_, Ranked>| thread.join().expect("sorting does not panic");
            (ranked(by_created_at), ranked(by_updated_at), by_id, by_identifier)
        });
        let groups = indexes.groups.iter().map(|by| Groups::new(by, all())).collect();
        Self {
            by_id,
            by_created_at,
            by_updated_at,
            by_identifier,
            groups,
            indexes,
            journal: Journal::default(),
            hasher,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Arc<Entry>> {
        self.by_id.find(self.hasher.hash_one(id), |entry| &*entry.id == id)
    }

    /// All entries in ascending (`created_at`, id) order.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.by_created_at.range(0..self.len())
    }

    /// Entries that may have this identifier. The caller must compare.
    pub(crate) fn candidates(&self, kind: &IdentifierKind, value: &str) -> impl Iterator<Item = &Arc<Entry>> {
        let hash = identifier_hash(&self.hasher, kind, &kind.normalize(value));
        self.by_identifier
            .iter_hash(hash)
            .filter(move |(found, _)| *found == hash)
            .map(|(_, entry)| entry)
    }

    /// The objects of a group, which is empty if no object is in it.
    pub(crate) fn group(&self, by: &Text, value: &str) -> &Ranked {
        let groups = self.groups.iter().find(|groups| groups.are_by(by));
        groups.expect("the store has groups by this text").get(value)
    }

    /// Whether an object other than `except` has this identifier.
    pub(crate) fn is_taken(&self, kind: &IdentifierKind, value: &str, except: &str) -> bool {
        self.candidates(kind, value)
            .any(|entry| &*entry.id != except && kind.is_held_by(entry, value))
    }

    /// Adds the entry, or replaces the one with this id.
    pub(crate) fn put(&mut self, entry: Entry, now: i64) {
        let entry = Arc::new(entry);
        let before = self.unlink(&entry.id);
        self.journal.record(now, &entry.id, before);
        for hash in self.identifier_hashes(&entry) {
            self.by_identifier
                .insert_unique(hash, (hash, entry.clone()), |(hash, _)| *hash);
        }
        for groups in &mut self.groups {
            groups.insert(&entry);
        }
        self.by_created_at.insert(entry.clone());
        self.by_updated_at.insert(entry.clone());
        let hash = self.hasher.hash_one(&*entry.id);
        self.by_id.insert_unique(hash, entry, |e| self.hasher.hash_one(&*e.id));
    }

    /// Removes an entry, and returns it. `None` if there is none with this id.
    pub(crate) fn remove(&mut self, id: &str, now: i64) -> Option<Arc<Entry>> {
        let removed = self.unlink(id)?;
        self.journal.record(now, id, Some(removed.clone()));
        Some(removed)
    }

    fn unlink(&mut self, id: &str) -> Option<Arc<Entry>> {
        let found = self
            .by_id
            .find_entry(self.hasher.hash_one(id), |entry| &*entry.id == id)
            .ok()?;
        let (entry, _) = found.remove();
        self.by_created_at.remove(&entry);
        self.by_updated_at.remove(&entry);
        for groups in &mut self.groups {
            groups.remove(&entry);
        }
        for hash in self.identifier_hashes(&entry) {
            if let Ok(found) = self
                .by_identifier
                .find_entry(hash, |(h, e)| *h == hash && Arc::ptr_eq(e, &entry))
            {
                found.remove();
            }
        }
        Some(entry)
    }

    fn identifier_hashes(&self, entry: &Entry) -> Vec<u64> {
        identifiers(entry, self.indexes.identifiers)
            .iter()
            .map(|(kind, value)| identifier_hash(&self.hasher, kind, value))
            .collect()
    }

    /// How the state at `as_of`, in Unix milliseconds, differs from the present one. `None` is the
    /// present.
    fn difference(&self, as_of: Option<i64>) -> Difference {
        self.journal.difference(as_of)
    }
}
