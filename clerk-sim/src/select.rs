//! Finding the users that a query means.
//!
//! What walks and counts by `created_at` or `updated_at` is answered by the indexes alone. Exact values are looked up; everything
//! else reads every document, and so gets slow at a million users.

use std::cmp::Ordering;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use crate::document::Entry;
use crate::errors::Failure;
use crate::facts::Facts;
use crate::faults::{DeletedCursor, Quirks, Shuffle, WrongCount};
use crate::query::{Bounds, Filter, Order, Property, Query};
use crate::ranked::Ranked;
use crate::store::{Past, Store};

/// The users of a page, in order, as at that moment.
pub(crate) fn page(
    store: &Store,
    query: &Query,
    quirks: &Quirks,
    moment: Option<i64>,
) -> Result<Vec<Arc<Entry>>, Failure> {
    if quirks.empty_lists {
        return Ok(Vec::new());
    }
    let past = store.past(moment);
    let cursor = match &query.starting_after {
        Some(id) if !quirks.ignore_starting_after => match at(store, &past, id) {
            Some(entry) => Some((entry.created_at, entry.id.clone())),
            None => match quirks.deleted_cursor {
                DeletedCursor::NotFound => return Err(Failure::no_user(id)),
                DeletedCursor::Unprocessable => {
                    return Err(Failure::invalid(
                        "starting_after",
                        format!("No user was found with id {id}."),
                    ));
                }
                DeletedCursor::EmptyPage => return Ok(Vec::new()),
                DeletedCursor::Restart => None,
            },
        },
        _ => None,
    };
    let cursor = cursor.as_ref().map(|(time, id)| (*time, &**id));
    let visible = |entry: &Arc<Entry>| !quirks.hidden_from_lists.iter().any(|id| **id == *entry.id);
    let ranked = match query.order.by {
        Property::CreatedAt => Some(&store.by_created),
        Property::UpdatedAt => Some(&store.by_updated),
        _ => None,
    };
    let looked_up = !query.filter.user_id.include.is_empty() || query.filter.facts.exact().next().is_some();
    let (offset, limit) = (query.offset, query.limit);
    match ranked {
        Some(ranked) if !looked_up && past.changed.is_empty() && query.shuffle.is_none() => {
            let ranks = ranks(ranked, query, cursor);
            let wanted = |entry: &&Arc<Entry>| matches(&query.filter, entry) && visible(entry);
            Ok(if query.order.descending {
                ranked
                    .range(ranks)
                    .rev()
                    .filter(wanted)
                    .skip(offset)
                    .take(limit)
                    .cloned()
                    .collect()
            } else {
                ranked
                    .range(ranks)
                    .filter(wanted)
                    .skip(offset)
                    .take(limit)
                    .cloned()
                    .collect()
            })
        }
        _ => {
            let mut all = gather(store, &query.filter, &past);
            all.retain(visible);
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
            Ok(all.into_iter().skip(offset).take(limit).collect())
        }
    }
}

/// How many users a filter means, as at that moment.
pub(crate) fn count(store: &Store, filter: &Filter, quirks: &Quirks, moment: Option<i64>) -> u64 {
    let past = store.past(moment);
    let simple = filter.user_id.include.is_empty() && filter.user_id.exclude.is_empty() && filter.facts.is_empty();
    let count = if simple && past.changed.is_empty() {
        created(&store.by_created, filter.created_at).len()
    } else {
        gather(store, filter, &past).len()
    } as u64;
    match quirks.count {
        None => count,
        Some(WrongCount::Fixed(fixed)) => fixed,
        Some(WrongCount::Offset(offset)) => count.saturating_add_signed(offset),
    }
}

/// A user as the list knows it.
fn at<'a>(store: &'a Store, past: &'a Past, id: &str) -> Option<&'a Arc<Entry>> {
    if past.changed.contains(id) {
        past.before.iter().find(|entry| &*entry.id == id)
    } else {
        store.get(id)
    }
}

/// The ranks among which the page is, by bounds and cursor.
fn ranks(ranked: &Ranked, query: &Query, cursor: Option<(i64, &str)>) -> Range<usize> {
    if query.order.by != Property::CreatedAt {
        return 0..ranked.len();
    }
    let mut ranks = created(ranked, query.filter.created_at);
    if let Some((time, id)) = cursor {
        let rank = ranked.rank(time, id);
        if query.order.descending {
            ranks.end = ranks.end.min(rank);
        } else {
            ranks.start = ranks.start.max(rank + 1);
        }
    }
    ranks.start..ranks.end.max(ranks.start)
}

/// The ranks within bounds, in an index by `created_at`.
fn created(ranked: &Ranked, bounds: Bounds) -> Range<usize> {
    let start = bounds.after.map_or(0, |after| ranked.rank(after.saturating_add(1), ""));
    let end = bounds
        .before
        .map_or_else(|| ranked.len(), |before| ranked.rank(before, ""));
    start..end.max(start)
}

fn matches(filter: &Filter, entry: &Entry) -> bool {
    let is = |id: &String| **id == *entry.id;
    filter.created_at.hold(entry.created_at)
        && (filter.user_id.include.is_empty() || filter.user_id.include.iter().any(is))
        && !filter.user_id.exclude.iter().any(is)
        && filter.facts.matches(&entry.id, entry.stored())
}

/// Everybody whom the filter means, in no order.
fn gather(store: &Store, filter: &Filter, past: &Past) -> Vec<Arc<Entry>> {
    let present = |entry: &&Arc<Entry>| !past.changed.contains(&entry.id) && matches(filter, entry);
    let mut all: Vec<Arc<Entry>> = if !filter.user_id.include.is_empty() {
        filter
            .user_id
            .include
            .iter()
            .filter_map(|id| store.get(id))
            .filter(present)
            .cloned()
            .collect()
    } else if let Some((kind, values)) = filter.facts.exact().next() {
        values
            .iter()
            .flat_map(|value| store.candidates(kind, value))
            .filter(present)
            .cloned()
            .collect()
    } else {
        store
            .by_created
            .range(created(&store.by_created, filter.created_at))
            .filter(present)
            .cloned()
            .collect()
    };
    all.extend(past.before.iter().filter(|entry| matches(filter, entry)).cloned());
    // Asked for twice, or by two of its addresses, a user is still one.
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

/// What a document is sorted by. Users without the property come last when ascending, as in Postgres (a guess).
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum SortKey {
    Time(i64),
    Text(String),
    Absent,
}

fn sort(entries: &mut [Arc<Entry>], order: Order) {
    entries.sort_by_cached_key(|entry| (sort_key(entry, order.by), entry.id.clone()));
    if order.descending {
        entries.reverse();
    }
}

fn sort_shuffled(entries: &mut [Arc<Entry>], order: Order, shuffle: Shuffle, seed: u64) {
    let dice = |id: &str| {
        let mut hasher = DefaultHasher::new();
        (seed, id).hash(&mut hasher);
        hasher.finish()
    };
    match shuffle {
        Shuffle::Ties => entries.sort_by_cached_key(|entry| (sort_key(entry, order.by), dice(&entry.id))),
        Shuffle::All => entries.sort_by_cached_key(|entry| dice(&entry.id)),
    }
    if order.descending {
        entries.reverse();
    }
}

fn sort_key(entry: &Entry, by: Property) -> SortKey {
    let facts = || Facts::read(entry.stored()).unwrap_or_default();
    let text = |text: Option<String>| text.map_or(SortKey::Absent, |text| SortKey::Text(text.to_lowercase()));
    let time = |time: Option<i64>| time.map_or(SortKey::Absent, SortKey::Time);
    match by {
        Property::CreatedAt => SortKey::Time(entry.created_at),
        Property::UpdatedAt => SortKey::Time(entry.updated_at),
        Property::EmailAddress => text(facts().primary_email()),
        Property::Web3Wallet => text(facts().primary_wallet()),
        Property::FirstName => text(facts().first_name()),
        Property::LastName => text(facts().last_name()),
        Property::PhoneNumber => text(facts().primary_phone()),
        Property::Username => text(facts().username()),
        Property::LastActiveAt => time(facts().last_active_at()),
        Property::LastSignInAt => time(facts().last_sign_in_at()),
    }
}
