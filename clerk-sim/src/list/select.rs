//! Finds the objects that a query means.
//!
//! The indexes alone answer walks and counts by `created_at` or `updated_at`. Exact identifiers are
//! looked up. All other filters read every document, and so are slow at a million objects.

use std::cmp::Ordering;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use super::filter::Filter;
use super::query::{Order, Query};
use super::query_string::Bounds;
use super::resource::SortKey;
use crate::errors::Failure;
use crate::faults::{DeletedCursor, Quirks, Shuffle, WrongCount};
use crate::store::Store;
use crate::store::entry::Entry;
use crate::store::journal::Difference;
use crate::store::properties::Properties;
use crate::store::ranked::Ranked;

/// The objects of a page, in order, from the state at `as_of`.
pub(crate) fn page(
    store: &Store,
    query: &Query,
    quirks: &Quirks,
    as_of: Option<i64>,
) -> Result<Vec<Arc<Entry>>, Failure> {
    if quirks.empty_lists {
        return Ok(Vec::new());
    }
    let difference = store.difference(as_of);
    let cursor = match &query.starting_after {
        Some(id) if !quirks.ignore_starting_after => match find(store, &difference, id) {
            Some(entry) => Some((entry.created_at, entry.id.clone())),
            None => match quirks.deleted_cursor {
                DeletedCursor::NotFound => return Err(Failure::no_object(query.resource.object, id)),
                DeletedCursor::Unprocessable => {
                    return Err(Failure::unknown_cursor(query.resource.object, id));
                }
                DeletedCursor::EmptyPage => return Ok(Vec::new()),
                DeletedCursor::Restart => None,
            },
        },
        _ => None,
    };
    let cursor = cursor.as_ref().map(|(time, id)| (*time, &**id));
    let is_visible = |entry: &Arc<Entry>| !quirks.hidden_from_lists.iter().any(|id| **id == *entry.id);
    let index = match query.order.by {
        SortKey::CreatedAt => Some(&store.by_created_at),
        SortKey::UpdatedAt => Some(&store.by_updated_at),
        _ => None,
    };
    let is_looked_up = !query.filter.ids.include.is_empty() || query.filter.indexed().is_some();
    match index {
        Some(index) if !is_looked_up && difference.changed.is_empty() && query.shuffle.is_none() => {
            Ok(page_of_index(index, query, cursor, is_visible))
        }
        _ => {
            let mut all = gather(store, &query.filter, &difference);
            all.retain(is_visible);
            match query.shuffle {
                None => {
                    all.retain(|entry| cursor.is_none_or(|cursor| follows(entry, cursor, query.order)));
                    sort(&mut all, query.order);
                }
                Some((shuffle, seed)) => {
                    sort_shuffled(&mut all, query.order, shuffle, seed);
                    let last = cursor.and_then(|(_, id)| all.iter().position(|entry| *entry.id == *id));
                    all.drain(..last.map_or(0, |last| last + 1));
                }
            }
            Ok(all.into_iter().skip(query.offset).take(query.limit).collect())
        }
    }
}

/// A page that one of the indexes has in order.
fn page_of_index(
    index: &Ranked,
    query: &Query,
    cursor: Option<(i64, &str)>,
    is_visible: impl Fn(&Arc<Entry>) -> bool,
) -> Vec<Arc<Entry>> {
    let range = index.range(ranks(index, query, cursor));
    let is_wanted = |entry: &&Arc<Entry>| query.filter.matches(entry) && is_visible(entry);
    let (offset, limit) = (query.offset, query.limit);
    if query.order.descending {
        let page = range.rev().filter(is_wanted).skip(offset).take(limit);
        page.cloned().collect()
    } else {
        let page = range.filter(is_wanted).skip(offset).take(limit);
        page.cloned().collect()
    }
}

/// The number of objects that a filter means, in the state at `as_of`.
pub(crate) fn count(store: &Store, filter: &Filter, quirks: &Quirks, as_of: Option<i64>) -> u64 {
    let difference = store.difference(as_of);
    let count = if filter.is_by_created_at_only() && difference.changed.is_empty() {
        created_within(&store.by_created_at, filter.created_at).len()
    } else {
        gather(store, filter, &difference).len()
    } as u64;
    match quirks.count {
        None => count,
        Some(WrongCount::Fixed(fixed)) => fixed,
        Some(WrongCount::Offset(offset)) => count.saturating_add_signed(offset),
    }
}

/// An entry as the list shows it.
fn find<'a>(store: &'a Store, difference: &'a Difference, id: &str) -> Option<&'a Arc<Entry>> {
    if difference.changed.contains(id) {
        difference.before.iter().find(|entry| &*entry.id == id)
    } else {
        store.get(id)
    }
}

/// The ranks that bounds and cursor leave for the page.
fn ranks(index: &Ranked, query: &Query, cursor: Option<(i64, &str)>) -> Range<usize> {
    if !matches!(query.order.by, SortKey::CreatedAt) {
        return 0..index.len();
    }
    let mut ranks = created_within(index, query.filter.created_at);
    if let Some((time, id)) = cursor {
        let rank = index.rank(time, id);
        if query.order.descending {
            ranks.end = ranks.end.min(rank);
        } else {
            ranks.start = ranks.start.max(rank + 1);
        }
    }
    ranks.start..ranks.end.max(ranks.start)
}

/// The ranks within bounds, in the index by `created_at`.
fn created_within(index: &Ranked, bounds: Bounds) -> Range<usize> {
    let start = bounds.after.map_or(0, |after| index.rank(after.saturating_add(1), ""));
    let end = bounds
        .before
        .map_or_else(|| index.len(), |before| index.rank(before, ""));
    start..end.max(start)
}

/// All objects that the filter means, in no particular order.
fn gather(store: &Store, filter: &Filter, difference: &Difference) -> Vec<Arc<Entry>> {
    let is_unchanged_match = |entry: &&Arc<Entry>| !difference.changed.contains(&entry.id) && filter.matches(entry);
    let mut all: Vec<Arc<Entry>> = if !filter.ids.include.is_empty() {
        let found = filter.ids.include.iter().filter_map(|id| store.get(id));
        found.filter(is_unchanged_match).cloned().collect()
    } else if let Some((kind, values)) = filter.indexed() {
        let found = values.iter().flat_map(|value| store.candidates(kind, value));
        found.filter(is_unchanged_match).cloned().collect()
    } else {
        let found = store
            .by_created_at
            .range(created_within(&store.by_created_at, filter.created_at));
        found.filter(is_unchanged_match).cloned().collect()
    };
    let before = difference.before.iter().filter(|entry| filter.matches(entry));
    all.extend(before.cloned());
    // An object that is asked for twice, or by two of its addresses, is still one.
    all.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    all.dedup_by(|a, b| a.id == b.id);
    all
}

fn follows(entry: &Entry, cursor: (i64, &str), order: Order) -> bool {
    let compared = (entry.created_at, &*entry.id).cmp(&cursor);
    compared
        == if order.descending {
            Ordering::Less
        } else {
            Ordering::Greater
        }
}

/// The value that an object is sorted by.
///
/// Objects without it come last in ascending order, as in Postgres (a guess).
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum SortValue {
    Time(i64),
    Text(String),
    Absent,
}

impl SortValue {
    fn of(entry: &Entry, key: &SortKey) -> Self {
        let properties = || Properties::read(entry.stored()).unwrap_or_default();
        match key {
            SortKey::CreatedAt => Self::Time(entry.created_at),
            SortKey::UpdatedAt => Self::Time(entry.updated_at),
            SortKey::Time(key) => properties().value(key).map_or(Self::Absent, Self::Time),
            SortKey::Text(text) => {
                let texts = text.read(&entry.id, &properties());
                texts
                    .first()
                    .map_or(Self::Absent, |text| Self::Text(text.to_lowercase()))
            }
        }
    }
}

fn sort(entries: &mut [Arc<Entry>], order: Order) {
    entries.sort_by_cached_key(|entry| (SortValue::of(entry, order.by), entry.id.clone()));
    if order.descending {
        entries.reverse();
    }
}

fn sort_shuffled(entries: &mut [Arc<Entry>], order: Order, shuffle: Shuffle, seed: u64) {
    let random = |id: &str| {
        let mut hasher = DefaultHasher::new();
        (seed, id).hash(&mut hasher);
        hasher.finish()
    };
    match shuffle {
        Shuffle::Ties => entries.sort_by_cached_key(|entry| (SortValue::of(entry, order.by), random(&entry.id))),
        Shuffle::All => entries.sort_by_cached_key(|entry| random(&entry.id)),
    }
    if order.descending {
        entries.reverse();
    }
}
