//! What a page by offset proves.

/// By how many users pages asked for by offset overlap, half a page at most. Where users are deleted between two requests everything
/// behind them moves up; a page that no longer overlaps with what is known shows it, and the walk steps back.
pub(super) const OVERLAP: u64 = 10;

/// What the next page by offset must show to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expect {
    /// Somebody known: it overlaps with the page before, so that nobody slipped between them.
    Overlap,
    /// The page behind it was empty: where it holds nobody new, the list has ended.
    End,
    /// Nothing: an unreadable user lies between.
    Gap,
}

/// What a page by offset is worth.
pub(super) enum Verdict {
    Believe,
    StepBack(u64, Expect),
    End,
}

/// Judges a page by offset: its length, how many on it are of the stretch, and how many of those are met for the first time. `backs` is how
/// often the walk has stepped back in a row: each time further, so that a list that has become much shorter does not take a step for
/// every ten users.
pub(super) fn judge(offset: u64, expect: Expect, backs: u32, length: usize, ours: usize, fresh: usize) -> Verdict {
    let step = (length as u64).max(OVERLAP).saturating_mul(1 << backs.min(40));
    let back = offset.saturating_sub(step);
    match expect {
        _ if ours == 0 && offset == 0 => Verdict::End,
        // Stepping back leads to the unreadable user again.
        Expect::Gap if ours == 0 => Verdict::End,
        // The list may have shrunk to less than the offset: the end is where known users are followed by nobody.
        _ if ours == 0 => Verdict::StepBack(back, Expect::End),
        Expect::End if fresh == 0 => Verdict::End,
        // A page of one cannot both overlap and go on.
        Expect::Overlap | Expect::End if offset > 0 && length > 1 && fresh == ours => {
            Verdict::StepBack(back, Expect::Overlap)
        }
        _ => Verdict::Believe,
    }
}

/// How far the next offset lies behind a page's: all of it less the overlap.
pub(super) fn advance(length: usize) -> u64 {
    let length = length as u64;
    length - OVERLAP.min(length / 2)
}
