//! The search for deleted objects: if Clerk counts fewer than the mirror, buckets of `created_at`
//! whose counts differ are split until a page shows which objects are missing. Pure.
//!
//! Nothing here proves that an object is deleted. A count may be wrong for a moment and a page may
//! be short; missing objects are asked for by id.

use super::range::Range;
use crate::resource::MAX_PAGE;

/// Objects per page.
const PAGE: u64 = MAX_PAGE as u64;

/// Objects per bucket that is split by a page from its middle. Such a page shows how many are
/// missing on either side, as a count does, and 500 objects as well. Larger buckets are split by
/// counts, as large offsets are slow. Source: documented.
const MAX_BY_PAGE: u64 = 64 * PAGE;

/// By how much an object on a page may lie outside of its bucket: the bounds may include their own
/// moment, and emulators cut times to seconds.
const SLACK_MS: i64 = 1_000;

/// By how many a count may be off while objects are created and deleted.
const SLIP: i64 = 5;

/// A range of `created_at`, with the counts of both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// The range.
    pub range: Range,
    /// How many objects the mirror expects at Clerk.
    pub local: i64,
    /// How many Clerk has.
    pub remote: i64,
}

/// What to ask about a bucket whose counts differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// The count up to the middle of the mirror's rows in it.
    Count,
    /// A page of it, after this many objects.
    Page {
        /// Counted from the bucket's first object.
        offset: u64,
    },
    /// All objects that the mirror has in it, by id.
    ByIds,
}

impl Bucket {
    /// Whether its counts differ in the direction of the whole list: Clerk counts fewer, or else
    /// more. If an object is deleted during the search, Clerk seems to have more after it.
    pub fn matters(&self, counts_fewer: bool) -> bool {
        if counts_fewer {
            self.remote < self.local
        } else {
            self.remote > self.local
        }
    }

    /// Returns the cheapest question that shows more.
    pub fn probe(&self) -> Probe {
        let remote = u64::try_from(self.remote).unwrap_or_default();
        let is_one_moment =
            matches!(self.range, Range { from: Some(from), before: Some(before) } if from + 1 >= before);
        if remote == 0 || (is_one_moment && remote > PAGE) {
            Probe::ByIds
        } else if remote <= PAGE || self.local < 2 {
            Probe::Page { offset: 0 }
        } else if is_large(self.remote) {
            Probe::Count
        } else {
            Probe::Page {
                offset: (remote - PAGE) / 2,
            }
        }
    }

    /// Returns the two parts before and from a moment on; `None` if the counts cannot be those of
    /// parts of this bucket, for example because a server ignores the bounds.
    pub fn split(&self, at: i64, local: i64, remote: i64) -> Option<[Self; 2]> {
        let [before, after] = self.range.split(at);
        let before = Self {
            range: before,
            local,
            remote,
        };
        let after = Self {
            range: after,
            local: self.local - local,
            remote: self.remote - remote,
        };
        before.is_part(self.local - self.remote).then_some([before, after])
    }

    /// Whether it can be a part of a whole with this difference. Objects that are created and
    /// deleted meanwhile make small differences, but not a much larger one in a part than in the
    /// whole.
    pub fn is_part(&self, difference: i64) -> bool {
        (self.local - self.remote).abs() <= 10 * difference.abs() + 100
    }
}

/// Whether a bucket with this many objects is split by a count.
pub fn is_large(count: i64) -> bool {
    u64::try_from(count).is_ok_and(|count| count > MAX_BY_PAGE)
}

/// Returns in how many parts a search counts the list first. They are counted at the same time, as
/// one question after the other takes longer. It is not more parts than the missing objects are
/// likely to be in, as each count is a request of the budget.
pub fn first_parts(count: u64, missing: u64) -> usize {
    let for_missing = missing.clamp(2, 16).next_power_of_two();
    let large = (count / MAX_BY_PAGE).next_power_of_two();
    usize::try_from(for_missing.min(large)).unwrap_or(1)
}

/// What a page of a bucket proves.
#[derive(Debug, PartialEq, Eq)]
pub enum PageProof {
    /// Rows of the mirror in the judged part that are not on the page are missing. The other parts
    /// are left.
    Judged {
        /// The part that the page shows completely.
        judged: Range,
        /// What lies before and after it, with Clerk's counts.
        left: Vec<(Range, i64)>,
    },
    /// The page shows one moment only, which more objects share than fit on it: the bucket must be
    /// split there.
    OneMoment(i64),
    /// The page is empty although objects were counted, or shows many more than were counted: it
    /// proves nothing.
    Unclear,
    /// The page is not of this bucket, or has no order: this server does not list by `created_at`.
    Unusable,
}

/// Judges the page after the first `offset` objects of a bucket by the `created_at` of its
/// objects, in the page's order.
pub fn judge(bucket: &Bucket, offset: u64, times: &[i64]) -> PageProof {
    let Range { from, before } = bucket.range;
    let lies_in = |at: &i64| {
        from.is_none_or(|from| *at >= from - SLACK_MS) && before.is_none_or(|before| *at < before + SLACK_MS)
    };
    let offset = i64::try_from(offset).unwrap_or(i64::MAX);
    let unseen = bucket.remote - offset - times.len() as i64;
    let is_first = offset == 0;
    // A page that the server cut leaves more unseen than are created and deleted meanwhile.
    let is_last = unseen <= 0 || (unseen <= SLIP && (times.len() as u64) < PAGE);
    let (Some(&first), Some(&last)) = (times.first(), times.last()) else {
        return if is_first && is_last {
            PageProof::Judged {
                judged: bucket.range,
                left: Vec::new(),
            }
        } else {
            PageProof::Unclear
        };
    };
    if !times.is_sorted() || !times.iter().all(lies_in) {
        return PageProof::Unusable;
    }
    if unseen < -SLIP {
        return PageProof::Unclear;
    }
    if first == last && !(is_first && is_last) {
        return PageProof::OneMoment(first);
    }
    let mut left = Vec::new();
    let mut judged = bucket.range;
    if !is_first {
        // Objects that share the first moment may lie before the page.
        judged.from = Some(first + 1);
        let tied = times.iter().filter(|&&at| at == first).count() as i64;
        left.push((
            Range {
                from,
                before: Some(first + 1),
            },
            offset + tied,
        ));
    }
    if !is_last {
        judged.before = Some(last);
        let shown = times.iter().filter(|&&at| at < last).count() as i64;
        left.push((
            Range {
                from: Some(last),
                before,
            },
            bucket.remote - offset - shown,
        ));
    }
    PageProof::Judged { judged, left }
}

/// Whether a full walk over `count` objects is cheaper than a search for `missing` ones. For each
/// missing object, a search takes about a request for each time that its part of the list can be
/// halved before it is a page, and some more around that page.
pub fn walks_cheaper(count: u64, missing: u64) -> bool {
    let pages = (count / PAGE + 1) as f64;
    let places = (missing as f64).min(pages);
    places * ((pages / places).max(1.0).log2() + 2.0) > walk_costs(count) as f64
}

/// Whether a search that has sent `sent` requests, and has `waiting` more to send, is given up for
/// a full walk over `count` objects.
pub fn is_given_up(sent: u64, waiting: u64, count: u64) -> bool {
    sent + waiting > walk_costs(count)
}

/// Returns how many requests a full walk over `count` objects takes, with its counts.
pub fn walk_costs(count: u64) -> u64 {
    count / PAGE + 5
}

#[cfg(test)]
mod tests;
