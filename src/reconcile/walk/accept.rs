//! How a page that is believed moves the walk on.

use super::{
    AcceptedPage, ListEntry, Paging, Position, Range, Walk, WalkStep,
    answer::{from_bound, onwards_by_date},
    ties::TiedMoment,
};

/// Objects of tied moments that are remembered.
const MAX_TIED: u64 = 10_000;

impl Walk {
    /// Whether an object was created since the walk began. One whose `created_at` was set to the
    /// future was not.
    fn is_newcomer(&self, entry: &ListEntry<'_>) -> bool {
        let since = |at: i64| self.began.is_some_and(|began| at >= began);
        entry.created_at.is_some_and(since) && entry.updated_at.is_none_or(since)
    }

    /// Accepts a page. A page on which all fresh entries are newcomers ends the walk: all older
    /// objects are before them.
    pub(super) fn accept(&mut self, entries: &[ListEntry<'_>], fresh: Vec<usize>) -> WalkStep {
        let is_end = fresh.iter().all(|&at| self.is_newcomer(&entries[at]));
        if is_end && (entries.len() as u64) < u64::from(self.page_size.limit) {
            return self.accept_last(entries, fresh);
        }
        match self.go_on(entries, fresh) {
            // Objects that the mirror knows may follow a full page, so that no row after it is
            // judged.
            WalkStep::Page(page) if is_end => WalkStep::End(page),
            step => step,
        }
    }

    fn go_on(&mut self, entries: &[ListEntry<'_>], fresh: Vec<usize>) -> WalkStep {
        self.stale_page = None;
        self.backs = 0;
        let bound = fresh
            .iter()
            .rev()
            .find_map(|&at| entries[at].created_at)
            .max(self.bound);
        let carried = self.tied.clone();
        // Without a bound, the walk has passed nothing yet.
        let judged = bound.is_some().then_some(Range {
            from: self.judged_to,
            before: bound,
        });

        let moved = bound > self.bound;
        self.note_tied_moment(entries, &fresh, moved);
        if moved {
            self.is_bound_tied = fresh.iter().filter(|&&at| entries[at].created_at == bound).count() > 1;
            self.tied.clear();
            self.move_position(entries, &fresh, bound);
        }
        for &at in &fresh {
            let entry = entries[at];
            if entry.created_at.is_none() {
                self.undated.insert(entry.id.to_owned());
            }
            if entry.created_at.is_none() || entry.created_at == bound {
                self.tied.insert(entry.id.to_owned());
            }
            self.before_last = self.last.replace(entry.id.to_owned());
        }
        self.bound = bound;
        self.judged_to = bound;
        self.seen += fresh.len() as u64;

        match self.paging {
            Paging::Cursor => self.cursor_failures = 0,
            Paging::CursorBefore => self.paging = Paging::Cursor,
            Paging::Date { .. } if !self.lost_cursor() => self.paging = Paging::Cursor,
            Paging::Date { .. } if moved => self.paging = from_bound(),
            Paging::Date { offset, .. } => self.paging = onwards_by_date(offset, entries),
            Paging::Offset { .. } | Paging::Unordered { .. } => {}
        }
        WalkStep::Page(AcceptedPage { fresh, judged, carried })
    }

    /// Notes the last object before a new bound as the place where the walk can be continued.
    fn move_position(&mut self, entries: &[ListEntry<'_>], fresh: &[usize], bound: Option<i64>) {
        let before = fresh
            .iter()
            .rev()
            .map(|&at| entries[at])
            .find(|entry| entry.created_at.is_some() && entry.created_at < bound);
        if let Some(before) = before
            && let (Some(after_created_at), Some(judged_to)) = (before.created_at, bound)
        {
            let tied = fresh.iter().filter(|&&at| entries[at].created_at == bound).count();
            self.position = Some(Position {
                after: before.id.to_owned(),
                after_created_at,
                judged_to,
                seen: self.seen + (fresh.len() - tied) as u64,
            });
        }
    }

    /// Notes the bound that the walk leaves, unless all its objects were on one page with
    /// others around them.
    fn note_tied_moment(&mut self, entries: &[ListEntry<'_>], fresh: &[usize], is_left: bool) {
        let Some(at) = self.bound else { return };
        let there = fresh.iter().map(|&position| entries[position]);
        let more: Vec<&str> = there
            .filter(|entry| entry.created_at == Some(at))
            .map(|entry| entry.id)
            .collect();
        self.is_bound_tied |= !more.is_empty();
        let noted: u64 = self.tied_moments.iter().map(TiedMoment::met).sum();
        if is_left && self.is_bound_tied && noted < MAX_TIED {
            let dated = self.tied.difference(&self.undated).map(String::as_str);
            self.tied_moments.push(TiedMoment::new(at, dated.chain(more)));
        }
    }

    /// Accepts the page with the last fresh entry of the range.
    pub(super) fn accept_last(&mut self, entries: &[ListEntry<'_>], fresh: Vec<usize>) -> WalkStep {
        self.note_tied_moment(entries, &fresh, true);
        self.seen += fresh.len() as u64;
        WalkStep::End(AcceptedPage {
            fresh,
            judged: Some(self.rest()),
            carried: self.tied.clone(),
        })
    }

    pub(super) fn end(&mut self) -> WalkStep {
        self.note_tied_moment(&[], &[], true);
        WalkStep::End(AcceptedPage {
            fresh: Vec::new(),
            judged: self.is_ordered().then(|| self.rest()),
            carried: self.tied.clone(),
        })
    }

    /// Returns the part of the range that is not judged yet.
    fn rest(&self) -> Range {
        Range {
            from: self.judged_to,
            before: self.range.before,
        }
    }
}
