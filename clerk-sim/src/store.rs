//! The users and their indexes.

use std::collections::{HashSet, VecDeque};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::thread::ScopedJoinHandle;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::document::Entry;
use crate::facts::{Facts, Kind, normal};
use crate::ranked::Ranked;

/// How far back answers can be made to lag.
pub(crate) const JOURNAL_MS: i64 = 10 * 60 * 1000;
/// Bounds the memory of the journal under heavy churn.
const JOURNAL_LENGTH: usize = 100_000;

pub(crate) struct Store {
    by_id: HashTable<Arc<Entry>>,
    pub(crate) by_created: Ranked,
    pub(crate) by_updated: Ranked,
    /// By the hash of an identifier; whoever looks up compares, as hashes collide and odd users may share an address.
    identifiers: HashTable<(u64, Arc<Entry>)>,
    journal: VecDeque<Change>,
    hasher: DefaultHashBuilder,
}

struct Change {
    at: i64,
    id: Box<str>,
    before: Option<Arc<Entry>>,
}

/// What answers that lag must show differently from what is.
#[derive(Default)]
pub(crate) struct Past {
    /// Users that changed since.
    pub(crate) changed: HashSet<Box<str>>,
    /// As they were then; those created since are only in `changed`.
    pub(crate) before: Vec<Arc<Entry>>,
}

/// Entries with the hashes of their identifiers, prepared by several threads.
pub(crate) struct Prepared {
    entries: Vec<Arc<Entry>>,
    identifiers: Vec<(u64, u32)>,
    hasher: DefaultHashBuilder,
}

impl Prepared {
    pub(crate) fn new(hasher: DefaultHashBuilder) -> Self {
        Self {
            entries: Vec::new(),
            identifiers: Vec::new(),
            hasher,
        }
    }

    /// Adds a user with all that it can be looked up by, in normal form.
    pub(crate) fn push(&mut self, entry: Entry, identifiers: &[(Kind, String)]) {
        let index = u32::try_from(self.entries.len()).expect("fewer than four billion users fit in memory");
        for (kind, value) in identifiers {
            self.identifiers
                .push((identifier_hash(&self.hasher, *kind, value), index));
        }
        self.entries.push(Arc::new(entry));
    }
}

fn identifier_hash(hasher: &DefaultHashBuilder, kind: Kind, normal: &str) -> u64 {
    hasher.hash_one((kind, normal))
}

fn identifier_hashes(hasher: &DefaultHashBuilder, entry: &Entry) -> Vec<u64> {
    let identifiers = Facts::read(entry.stored())
        .map(|facts| facts.identifiers())
        .unwrap_or_default();
    identifiers
        .iter()
        .map(|(kind, value)| identifier_hash(hasher, *kind, value))
        .collect()
}

impl Store {
    /// The parts must have been prepared with this hasher.
    pub(crate) fn new(hasher: DefaultHashBuilder, parts: Vec<Prepared>) -> Self {
        let all = || parts.iter().flat_map(|part| &part.entries);
        let (by_created, by_updated, by_id, identifiers) = std::thread::scope(|scope| {
            let by_created = scope.spawn(|| Ranked::new(all(), |entry| entry.created_at));
            let by_updated = scope.spawn(|| Ranked::new(all(), |entry| entry.updated_at));
            let mut by_id = HashTable::with_capacity(all().count());
            let mut identifiers = HashTable::with_capacity(parts.iter().map(|part| part.identifiers.len()).sum());
            for part in &parts {
                for (hash, index) in &part.identifiers {
                    let entry = part.entries[*index as usize].clone();
                    identifiers.insert_unique(*hash, (*hash, entry), |(hash, _)| *hash);
                }
                for entry in &part.entries {
                    let hash = |entry: &Arc<Entry>| hasher.hash_one(&*entry.id);
                    by_id.insert_unique(hash(entry), entry.clone(), hash);
                }
            }
            let ranked = |thread: ScopedJoinHandle<'_, Ranked>| thread.join().expect("sorting does not panic");
            (ranked(by_created), ranked(by_updated), by_id, identifiers)
        });
        Self {
            by_id,
            by_created,
            by_updated,
            identifiers,
            journal: VecDeque::new(),
            hasher,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Arc<Entry>> {
        self.by_id.find(self.hasher.hash_one(id), |entry| &*entry.id == id)
    }

    /// Users that may have this identifier: a superset, to be compared.
    pub(crate) fn candidates(&self, kind: Kind, value: &str) -> impl Iterator<Item = &Arc<Entry>> {
        let hash = identifier_hash(&self.hasher, kind, &normal(kind, value));
        self.identifiers
            .iter_hash(hash)
            .filter(move |(found, _)| *found == hash)
            .map(|(_, entry)| entry)
    }

    /// Whether somebody other than `except` has this identifier.
    pub(crate) fn is_taken(&self, kind: Kind, value: &str, except: &str) -> bool {
        let wanted = (kind, normal(kind, value));
        self.candidates(kind, value).any(|entry| {
            &*entry.id != except
                && Facts::read(entry.stored()).is_some_and(|facts| facts.identifiers().contains(&wanted))
        })
    }

    /// Adds the user, or replaces the one with this id.
    pub(crate) fn put(&mut self, entry: Entry, now: i64) {
        let entry = Arc::new(entry);
        let before = self.unlink(&entry.id);
        self.note(now, &entry.id, before);
        for hash in identifier_hashes(&self.hasher, &entry) {
            self.identifiers
                .insert_unique(hash, (hash, entry.clone()), |(hash, _)| *hash);
        }
        self.by_created.insert(entry.clone());
        self.by_updated.insert(entry.clone());
        let hash = self.hasher.hash_one(&*entry.id);
        self.by_id.insert_unique(hash, entry, |e| self.hasher.hash_one(&*e.id));
    }

    pub(crate) fn remove(&mut self, id: &str, now: i64) -> bool {
        let before = self.unlink(id);
        let found = before.is_some();
        if found {
            self.note(now, id, before);
        }
        found
    }

    fn unlink(&mut self, id: &str) -> Option<Arc<Entry>> {
        let found = self
            .by_id
            .find_entry(self.hasher.hash_one(id), |entry| &*entry.id == id)
            .ok()?;
        let (entry, _) = found.remove();
        self.by_created.remove(&entry);
        self.by_updated.remove(&entry);
        for hash in identifier_hashes(&self.hasher, &entry) {
            if let Ok(found) = self
                .identifiers
                .find_entry(hash, |(h, e)| *h == hash && Arc::ptr_eq(e, &entry))
            {
                found.remove();
            }
        }
        Some(entry)
    }

    fn note(&mut self, now: i64, id: &str, before: Option<Arc<Entry>>) {
        // In order even where a writer read the clock before it got the lock.
        let at = self.journal.back().map_or(now, |last| last.at.max(now));
        self.journal.push_back(Change {
            at,
            id: id.into(),
            before,
        });
        while self.journal.len() > JOURNAL_LENGTH || self.journal.front().is_some_and(|c| c.at < now - JOURNAL_MS) {
            self.journal.pop_front();
        }
    }

    /// A user as at that moment; `None` is the present.
    pub(crate) fn at(&self, id: &str, moment: Option<i64>) -> Option<Arc<Entry>> {
        let mut since = self.since(moment);
        match since.find(|change| &*change.id == id) {
            Some(first) => first.before.clone(),
            None => self.get(id).cloned(),
        }
    }

    /// The changes since that moment; none of the present.
    fn since(&self, moment: Option<i64>) -> impl Iterator<Item = &Change> {
        let first = moment.map_or(self.journal.len(), |moment| {
            self.journal.partition_point(|change| change.at <= moment)
        });
        self.journal.range(first..)
    }

    /// What was different at that moment.
    pub(crate) fn past(&self, moment: Option<i64>) -> Past {
        let mut past = Past::default();
        for change in self.since(moment) {
            // The first change since tells how the user was then; later ones tell of states in between.
            if past.changed.insert(change.id.clone()) {
                past.before.extend(change.before.clone());
            }
        }
        past
    }
}
