//! What a page by offset proves.

/// Entries by which pages by offset overlap, half a page at most. If objects are deleted between
/// two requests, everything after them moves up. A page that does not overlap with what is known
/// shows it, and the walk steps back.
pub(super) const OVERLAP: u64 = 10;

/// What the next page by offset must show to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PageExpectation {
    /// A known object: the page overlaps with the one before, so that no object slipped between
    /// them.
    Overlap,
    /// The page after it was empty: if it has no new object, the list has ended.
    End,
    /// Nothing: an unreadable object lies between.
    Gap,
}

/// What a page by offset is worth.
pub(super) enum OffsetVerdict {
    Believe,
    StepBack(u64, PageExpectation),
    End,
}

/// Judges a page by offset: by its length, by how many of its entries are in the range, and by how
/// many of those are met for the first time. `has_total` says whether its answer says how many objects
/// there are, as Clerk's do, which never show one object a page. `backs` is how often the walk has stepped back in a
/// row. Each step goes further, so that a list that has become much shorter does not take a step
/// for every ten objects.
pub(super) fn judge(
    offset: u64,
    expect: PageExpectation,
    backs: u32,
    length: usize,
    ours: usize,
    fresh: usize,
    has_total: bool,
) -> OffsetVerdict {
    let step = (length as u64).max(OVERLAP).saturating_mul(1 << backs.min(40));
    let back = offset.saturating_sub(step);
    match expect {
        _ if ours == 0 && offset == 0 => OffsetVerdict::End,
        // A step back would lead to the unreadable object again.
        PageExpectation::Gap if ours == 0 => OffsetVerdict::End,
        // The list may have shrunk to less than the offset. The end is where known objects are the
        // last ones.
        _ if ours == 0 => OffsetVerdict::StepBack(back, PageExpectation::End),
        PageExpectation::End if fresh == 0 => OffsetVerdict::End,
        // A page of one entry cannot both overlap and go on, unless it is the last one of a list with
        // a total.
        PageExpectation::Overlap | PageExpectation::End if offset > 0 && (length > 1 || has_total) && fresh == ours => {
            OffsetVerdict::StepBack(back, PageExpectation::Overlap)
        }
        _ => OffsetVerdict::Believe,
    }
}

/// Returns how far the next offset lies after a page's: its length without the overlap.
pub(super) fn advance(length: usize) -> u64 {
    let length = length as u64;
    length - OVERLAP.min(length / 2)
}
