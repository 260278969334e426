//! Limits of a walk, so that it neither goes on forever nor gives up too early: how many objects it
//! asks for at a time, and how many answers without a new object it may get.

use super::{MAX_PAGE, Unreadable};

/// Unreadable objects in a row after which the server is taken for broken.
const MAX_STEPS: u32 = 3;

/// Good pages after which a smaller page becomes larger again.
const WIDENS_AFTER: u32 = 10;

/// Answers without a new object that any walk may get.
const IDLE: u64 = 50;

/// Further answers without a new object, for each page with one.
const IDLE_PER_PAGE: u64 = 8;

/// Known objects per further answer without a new one: ties are read from their beginning if the
/// cursor is lost.
const KNOWN_PER_IDLE: u64 = 10;

/// Pages with a new object that any walk may take, plus two for each object that Clerk counts: a
/// server may show one object a page.
const PAGES: u64 = 200;

/// Objects met per further page with a new object that a walk may take.
const LARGE_PAGE: u64 = 50;

/// The number of objects that is assumed if the server does not count them.
const UNCOUNTED: u64 = 10_000;

/// Objects that may be met beyond twice as many as Clerk counts.
const SURPLUS: u64 = 1_000_000;

/// How many objects are asked for at a time: fewer if a page cannot be read, down to one.
#[derive(Debug, Clone)]
pub(super) struct PageSize {
    pub(super) limit: u32,
    /// Pages read since the limit was last changed.
    good: u32,
    /// Objects stepped over since the last new one was met.
    stepped: u32,
    pub(super) has_stepped_over: bool,
}

impl Default for PageSize {
    fn default() -> Self {
        Self {
            limit: MAX_PAGE,
            good: 0,
            stepped: 0,
            has_stepped_over: false,
        }
    }
}

impl PageSize {
    /// Counts a page that could be read. Only new objects show that the server is not broken: an
    /// unreadable object may be the last one.
    pub(super) fn succeed(&mut self, has_fresh: bool) {
        self.good += 1;
        if has_fresh {
            self.stepped = 0;
        }
        if self.good > WIDENS_AFTER {
            self.limit = (self.limit * 10).min(MAX_PAGE);
            self.good = 0;
        }
    }

    /// Counts a page that could not be read.
    pub(super) fn fail(&mut self) -> Unreadable {
        self.good = 0;
        if self.stepped >= MAX_STEPS {
            return Unreadable::Broken;
        }
        if self.limit > 1 {
            self.limit = (self.limit / 10).max(1);
            return Unreadable::Smaller;
        }
        self.stepped += 1;
        self.has_stepped_over = true;
        // After the unreadable object, pages have their full size again.
        self.limit = MAX_PAGE;
        Unreadable::SteppedOver
    }
}

/// How many answers a walk may take.
#[derive(Debug, Clone, Default)]
pub(super) struct AnswerLimits {
    /// Objects that Clerk counts; `None` if it does not.
    pub(super) counted: Option<u64>,
    /// Answers that showed a new object.
    pages: u64,
    /// Answers that did not.
    idle: u64,
}

impl AnswerLimits {
    pub(super) fn of(counted: Option<u64>) -> Self {
        Self {
            counted,
            ..Self::default()
        }
    }

    pub(super) fn count(&mut self, has_fresh: bool) {
        match has_fresh {
            true => self.pages += 1,
            false => self.idle += 1,
        }
    }

    /// Whether a walk that has met `seen` objects has taken more answers than any finite list
    /// needs.
    pub(super) fn are_exceeded(&self, seen: u64) -> bool {
        let counted = self.counted.unwrap_or(UNCOUNTED);
        self.idle > IDLE + IDLE_PER_PAGE * self.pages + seen / KNOWN_PER_IDLE
            || self.pages > PAGES + 2 * counted + seen / LARGE_PAGE
            || seen > 2 * counted + SURPLUS
    }
}
