//! Finds the objects that a query means.
//!
//! The indexes alone answer walks and counts by `created_at` or `updated_at`, of a whole kind or of
//! a group. Exact identifiers are looked up. All other filters read every document, and so are slow
//! at a million objects.

use std::cmp::Ordering;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use super::condition::properties;
use super::filter::Filter;
use super::query::{Order, Query};
use super::query_string::Bounds;
use super::resource::{Resource, SortKey};
use crate::errors::Failure;
use crate::faults::{DeletedCursor, Quirks, Shuffle, WrongCount};
use crate::store::entry::Entry;
use crate::store::ranked::Ranked;
use crate::stores::View;

/// The objects of a page, in order.
pub(crate) fn page(view: &View<'_>, query: &Query, quirks: &Quirks) -> Result<Vec<Arc<Entry>>, Failure> {
    if quirks.empty_lists {
        return Ok(Vec::new());
    }
    let resource = query.filter.resource;
    let cursor = match &query.starting_after {
        Some(id) if !quirks.ignore_starting_after => match view.of(resource.kind).get(id) {
            Some(entry) => Some((entry.created_at, entry.id.clone())),
            None => match quirks.deleted_cursor {
                DeletedCursor::NotFound => return Err(Failure::no_object(resource.object, id)),
                DeletedCursor::Unprocessable => return Err(Failure::unknown_cursor(resource.object, id)),
                DeletedCursor::EmptyPage => return Ok(Vec::new()),
                DeletedCursor::Restart => None,
            },
        },
        _ => None,
    };
    let cursor = cursor.as_ref().map(|(time, id)| (*time, &**id));
    if let Some(index) = index(view, query) {
        return Ok(page_of_index(view, index, query, cursor, &quirks.hidden_from_lists));
    }
    let mut all = gather(view, &query.filter);
    all.retain(|entry| !is_hidden(entry, &quirks.hidden_from_lists));
    match query.shuffle {
        None => {
            all.retain(|entry| cursor.is_none_or(|cursor| follows(entry, cursor, query.order)));
            sort(view, resource, &mut all, query.order);
        }
        Some((shuffle, seed)) => {
            sort_shuffled(view, resource, &mut all, query.order, shuffle, seed);
            let last = cursor.and_then(|(_, id)| all.iter().position(|entry| *entry.id == *id));
            all.drain(..last.map_or(0, |last| last + 1));
        }
    }
    Ok(all.into_iter().skip(query.offset).take(query.limit).collect())
}

/// The index that has all objects of a list in its order. `None` if there is none.
fn index<'a>(view: &'a View<'_>, query: &Query) -> Option<&'a Ranked> {
    let filter = &query.filter;
    let snapshot = view.of(filter.resource.kind);
    let is_looked_up = !filter.ids.include.is_empty() || filter.indexed(view).is_some();
    if is_looked_up || query.shuffle.is_some() || !snapshot.is_present() {
        return None;
    }
    match query.order.by {
        SortKey::CreatedAt => match filter.only_group() {
            Some((by, value)) => Some(snapshot.store.group(by, value)),
            None => filter.lookups.is_empty().then_some(&snapshot.store.by_created_at),
        },
        SortKey::UpdatedAt => filter.lookups.is_empty().then_some(&snapshot.store.by_updated_at),
        _ => None,
    }
}

fn is_hidden(entry: &Entry, hidden: &[String]) -> bool {
    hidden.iter().any(|id| **id == *entry.id)
}

/// A page that one of the indexes has in order.
fn page_of_index(
    view: &View<'_>,
    index: &Ranked,
    query: &Query,
    cursor: Option<(i64, &str)>,
    hidden: &[String],
) -> Vec<Arc<Entry>> {
    let (mut ranks, mut offset, limit) = (ranks(index, query, cursor), query.offset, query.limit);
    let is_by_created_at = matches!(query.order.by, SortKey::CreatedAt);
    if is_by_created_at && hidden.is_empty() && query.filter.has_only_groups_and_created_at() {
        // All that is skipped is wanted, so it need not be looked at.
        let skipped = std::mem::take(&mut offset).min(ranks.len());
        if query.order.descending {
            ranks.end -= skipped;
        } else {
            ranks.start += skipped;
        }
    }
    let range = index.range(ranks);
    let is_wanted = |entry: &&Arc<Entry>| query.filter.matches_within_groups(view, entry) && !is_hidden(entry, hidden);
    if query.order.descending {
        let page = range.rev().filter(is_wanted).skip(offset).take(limit);
        page.cloned().collect()
    } else {
        let page = range.filter(is_wanted).skip(offset).take(limit);
        page.cloned().collect()
    }
}

/// The number of objects that a filter means.
pub(crate) fn count(view: &View<'_>, filter: &Filter, quirks: &Quirks) -> u64 {
    let snapshot = view.of(filter.resource.kind);
    let index = match filter.only_group() {
        Some((by, value)) => Some(snapshot.store.group(by, value)),
        None => filter.lookups.is_empty().then_some(&snapshot.store.by_created_at),
    };
    let index = index.filter(|_| filter.has_only_groups_and_created_at() && snapshot.is_present());
    let count = match index {
        Some(index) => created_within(index, filter.created_at).len(),
        None => gather(view, filter).len(),
    } as u64;
    match quirks.count {
        None => count,
        Some(WrongCount::Fixed(fixed)) => fixed,
        Some(WrongCount::Offset(offset)) => count.saturating_add_signed(offset),
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

/// The ranks within bounds, in an index by `created_at`.
fn created_within(index: &Ranked, bounds: Bounds) -> Range<usize> {
    let start = bounds.after.map_or(0, |after| index.rank(after.saturating_add(1), ""));
    let end = bounds
        .before
        .map_or_else(|| index.len(), |before| index.rank(before, ""));
    start..end.max(start)
}

/// All objects that the filter means, in no particular order.
fn gather(view: &View<'_>, filter: &Filter) -> Vec<Arc<Entry>> {
    let snapshot = view.of(filter.resource.kind);
    let (store, difference) = (snapshot.store, snapshot.difference());
    let is_unchanged_match = |entry: &&Arc<Entry>| !difference.has_changed(&entry.id) && filter.matches(view, entry);
    // The groups of which an object must be in one, with the fewest objects in all.
    let lookups = filter.lookups.iter().filter(|lookup| !lookup.values.include.is_empty());
    let groups = lookups.map(|lookup| {
        let values = lookup.values.include.iter();
        values.map(|value| store.group(lookup.by, value)).collect::<Vec<_>>()
    });
    let groups = groups.min_by_key(|groups| groups.iter().map(|group| group.len()).sum::<usize>());
    let mut all: Vec<Arc<Entry>> = if !filter.ids.include.is_empty() {
        let found = filter.ids.include.iter().filter_map(|id| store.get(id));
        found.filter(is_unchanged_match).cloned().collect()
    } else if let Some(groups) = groups {
        let found = groups.iter().flat_map(|group| group.range(0..group.len()));
        found.filter(is_unchanged_match).cloned().collect()
    } else if let Some((kind, values)) = filter.indexed(view) {
        let found = values.iter().flat_map(|value| store.candidates(kind, value));
        found.filter(is_unchanged_match).cloned().collect()
    } else {
        let found = store
            .by_created_at
            .range(created_within(&store.by_created_at, filter.created_at));
        found.filter(is_unchanged_match).cloned().collect()
    };
    let before = difference.entries().filter(|entry| filter.matches(view, entry));
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
    Size(u64),
    Text(String),
    Absent,
}

impl SortValue {
    fn of(view: &View<'_>, resource: &Resource, entry: &Entry, key: &SortKey) -> Self {
        let properties = || properties(view, resource, entry).unwrap_or_default();
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
            SortKey::GroupSize(kind, by) => Self::Size(view.of(*kind).group_len(by, &entry.id)),
        }
    }
}

fn sort(view: &View<'_>, resource: &Resource, entries: &mut [Arc<Entry>], order: Order) {
    let value = |entry: &Arc<Entry>| SortValue::of(view, resource, entry, order.by);
    entries.sort_by_cached_key(|entry| (value(entry), entry.id.clone()));
    if order.descending {
        entries.reverse();
    }
}

fn sort_shuffled(
    view: &View<'_>,
    resource: &Resource,
    entries: &mut [Arc<Entry>],
    order: Order,
    shuffle: Shuffle,
    seed: u64,
) {
    let value = |entry: &Arc<Entry>| SortValue::of(view, resource, entry, order.by);
    let random = |id: &str| {
        let mut hasher = DefaultHasher::new();
        (seed, id).hash(&mut hasher);
        hasher.finish()
    };
    match shuffle {
        Shuffle::Ties => entries.sort_by_cached_key(|entry| (value(entry), random(&entry.id))),
        Shuffle::All => entries.sort_by_cached_key(|entry| random(&entry.id)),
    }
    if order.descending {
        entries.reverse();
    }
}
