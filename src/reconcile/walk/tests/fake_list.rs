//! A list as Clerk or one of its emulators serves it.

use std::collections::BTreeSet;

use super::super::ListQuery;

/// What a server does with a cursor whose user was deleted.
#[derive(Debug, Clone, Copy)]
pub(super) enum CursorFate {
    Refuse,
    Empty,
    FromTheTop,
}

/// A list as Clerk or one of its emulators serves it.
#[derive(Debug, Clone)]
pub(super) struct FakeList {
    pub(super) users: BTreeSet<(i64, String)>,
    pub(super) limit: usize,
    pub(super) fate: CursorFate,
    pub(super) ignores_cursor: bool,
    pub(super) ignores_dates: bool,
    pub(super) ignores_offset: bool,
    pub(super) descending: bool,
    /// Whether each page says how many users there are.
    pub(super) shows_total: bool,
}

impl FakeList {
    pub(super) fn new(users: impl IntoIterator<Item = (i64, String)>, limit: usize) -> Self {
        Self {
            users: users.into_iter().collect(),
            limit,
            fate: CursorFate::Refuse,
            ignores_cursor: false,
            ignores_dates: false,
            ignores_offset: false,
            descending: false,
            shows_total: false,
        }
    }

    /// A list that is only read by offset, and shows its total.
    pub(super) fn by_offset(users: impl IntoIterator<Item = (i64, String)>, limit: usize) -> Self {
        Self {
            ignores_cursor: true,
            ignores_dates: true,
            shows_total: true,
            ..Self::new(users, limit)
        }
    }

    /// How many users a page says that there are.
    pub(super) fn total(&self) -> Option<u64> {
        self.shows_total.then_some(self.users.len() as u64)
    }

    pub(super) fn answer(&self, query: &ListQuery) -> Option<Vec<(i64, String)>> {
        let mut list: Vec<_> = self.users.iter().cloned().collect();
        if self.descending {
            list.reverse();
        }
        if let (Some(after), false) = (&query.after, self.ignores_cursor) {
            match list.iter().position(|(_, id)| id == after) {
                Some(at) => drop(list.drain(..=at)),
                None => match self.fate {
                    CursorFate::Refuse => return None,
                    CursorFate::Empty => return Some(Vec::new()),
                    CursorFate::FromTheTop => {}
                },
            }
        }
        if let (Some(after), false) = (query.created_after, self.ignores_dates) {
            list.retain(|(at, _)| *at > after);
        }
        let offset = if self.ignores_offset { 0 } else { query.offset as usize };
        Some(list.into_iter().skip(offset).take(self.limit).collect())
    }
}
