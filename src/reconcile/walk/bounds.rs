//! Bounds of a walk, so that it neither goes on for ever nor gives up too early: how many users it asks for at a time, and how many answers
//! without a new user it may get.

use std::collections::HashSet;

use super::PAGE;
use crate::resource::{Digest, DigestKey};

/// Unreadable users in a row that are taken for a broken server, not for broken users.
const STEPS: u32 = 3;

/// Good pages after which a narrowed page is widened again.
const WIDENS_AFTER: u32 = 10;

/// Answers without a new user that any walk may meet.
const IDLE: u64 = 50;

/// Further answers without a new user, for each page with one.
const IDLE_PER_PAGE: u64 = 8;

/// Known users that may be shown again, for each answer that shows no new one: ties are read from their beginning where the cursor is lost.
const KNOWN_PER_IDLE: u64 = 10;

/// Pages with a new user that any walk may take, plus two for each user that Clerk counts: a server may show one user a page.
const PAGES: u64 = 200;

/// Users met for one further page with a new user that a walk may take.
const LARGE_PAGE: u64 = 50;

/// The number of users that is assumed if the server does not count them.
const UNCOUNTED: u64 = 10_000;

/// Users that may be met beyond twice those that Clerk counts.
const SURPLUS: u64 = 1_000_000;

/// What came of an answer that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// Ask again, for fewer users.
    Smaller,
    /// The user to blame is stepped over.
    SteppedOver,
    /// So many users in a row are unreadable that the server must be broken.
    Broken,
}

/// How many users are asked for at a time: fewer where a page cannot be read, down to the user to blame.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) limit: u32,
    /// Pages read since the limit was last changed.
    good: u32,
    /// Users stepped over since the last new one was met.
    stepped: u32,
    pub(super) has_left_out: bool,
}

impl Default for Reading {
    fn default() -> Self {
        Self {
            limit: PAGE,
            good: 0,
            stepped: 0,
            has_left_out: false,
        }
    }
}

impl Reading {
    /// A page could be read. Only new users show that the server is not broken: behind a user who cannot be read there may be nobody.
    pub(super) fn succeed(&mut self, has_fresh: bool) {
        self.good += 1;
        if has_fresh {
            self.stepped = 0;
        }
        if self.good > WIDENS_AFTER {
            self.limit = (self.limit * 10).min(PAGE);
            self.good = 0;
        }
    }

    pub(super) fn fail(&mut self) -> Unreadable {
        self.good = 0;
        if self.stepped >= STEPS {
            return Unreadable::Broken;
        }
        if self.limit > 1 {
            self.limit = (self.limit / 10).max(1);
            return Unreadable::Smaller;
        }
        self.stepped += 1;
        self.has_left_out = true;
        // Behind the user to blame, pages are whole again.
        self.limit = PAGE;
        Unreadable::SteppedOver
    }
}

/// How many answers a walk may take.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    /// Users that Clerk counts; `None` where it does not.
    pub(super) users: Option<u64>,
    /// Answers that showed somebody new.
    pages: u64,
    /// Answers that did not.
    idle: u64,
}

impl Bounds {
    pub(super) fn of(users: Option<u64>) -> Self {
        Self {
            users,
            ..Self::default()
        }
    }

    pub(super) fn count(&mut self, has_fresh: bool) {
        match has_fresh {
            true => self.pages += 1,
            false => self.idle += 1,
        }
    }

    /// Whether a walk that has met so many users has taken more answers than any honest list needs.
    pub(super) fn are_passed(&self, seen: u64) -> bool {
        let users = self.users.unwrap_or(UNCOUNTED);
        self.idle > IDLE + IDLE_PER_PAGE * self.pages + seen / KNOWN_PER_IDLE
            || self.pages > PAGES + 2 * users + seen / LARGE_PAGE
            || seen > 2 * users + SURPLUS
    }
}

/// A moment that was met on more than one page, or at the end of one. A server that breaks ties differently at each request may have let
/// users slip between the pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crowd {
    /// `created_at` of its users, in Unix milliseconds.
    pub at: i64,
    /// Users met there.
    met: HashSet<Digest>,
}

impl Crowd {
    pub(super) fn new<'a>(at: i64, ids: impl IntoIterator<Item = &'a str>) -> Self {
        let mut crowd = Self {
            at,
            met: HashSet::new(),
        };
        crowd.met.extend(ids.into_iter().map(name));
        crowd
    }

    /// Whether a user of it is met for the first time.
    pub fn meet(&mut self, id: &str) -> bool {
        self.met.insert(name(id))
    }

    /// How many users of it were met.
    pub fn met(&self) -> u64 {
        self.met.len() as u64
    }
}

/// The digest by which an id is remembered.
pub(super) fn name(id: &str) -> Digest {
    Digest::of(&DigestKey::default(), id.as_bytes())
}

/// The pages of a crowd that are read again until as many users are met as Clerk counts there: each shows others.
#[derive(Debug)]
pub struct Visits {
    users: u64,
    missing: u64,
    left: u64,
    offset: u64,
}

impl Visits {
    /// Visits of a crowd in which Clerk counts `users` users.
    pub fn new(crowd: &Crowd, users: u64) -> Self {
        let pages = users.div_ceil(PAGE.into());
        Self {
            users,
            missing: users.saturating_sub(crowd.met()),
            // Each page shows every user with the same chance; after twelve rounds hardly anybody is left.
            left: 12 * pages,
            offset: 0,
        }
    }

    /// The offset of the next page; `None` where all are met, or enough was asked.
    pub fn next_offset(&mut self) -> Option<u64> {
        if self.missing == 0 || self.left == 0 {
            return None;
        }
        self.left -= 1;
        let offset = self.offset;
        self.offset += u64::from(PAGE);
        if self.offset >= self.users {
            self.offset = 0;
        }
        Some(offset)
    }

    /// Records that `users` more of the crowd were met.
    pub fn found(&mut self, users: u64) {
        self.missing = self.missing.saturating_sub(users);
    }
}
