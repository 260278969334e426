//! A sorted list that knows the rank of its members.
//!
//! A list needs "the 500 after this one", a count needs "how many between these two times", and
//! both must stay fast at a million users. So this is a list of sorted blocks, where a rank is a
//! binary search and a sum over block lengths. Written by hand instead of with a crate for ordered
//! sets, because both indexes share the entries and sort them by different times.

use std::ops::Range;
use std::sync::Arc;

use super::entry::Entry;

/// Entries per block. A block that grows beyond this is split in two halves.
const BLOCK: usize = 1024;

/// Entries in ascending (time, id) order.
pub(crate) struct Ranked {
    blocks: Vec<Vec<Arc<Entry>>>,
    time: fn(&Entry) -> i64,
}

impl Ranked {
    /// Sorts the entries by `time`, and by id if times are equal.
    pub(crate) fn new<'a>(entries: impl Iterator<Item = &'a Arc<Entry>>, time: fn(&Entry) -> i64) -> Self {
        // With the time beside it, an entry itself is read for ties only: a third of the work at a
        // million users.
        let mut entries: Vec<_> = entries.map(|entry| (time(entry), entry)).collect();
        entries.sort_unstable_by(|(a_time, a), (b_time, b)| a_time.cmp(b_time).then_with(|| a.id.cmp(&b.id)));
        let block = |part: &[(i64, &Arc<Entry>)]| part.iter().map(|(_, entry)| Arc::clone(entry)).collect();
        let blocks = entries.chunks(BLOCK * 3 / 4).map(block).collect();
        Self { blocks, time }
    }

    pub(crate) fn len(&self) -> usize {
        self.blocks.iter().map(Vec::len).sum()
    }

    pub(crate) fn insert(&mut self, entry: Arc<Entry>) {
        let (mut block, offset) = self.locate((self.time)(&entry), &entry.id);
        if self.blocks.is_empty() {
            self.blocks.push(vec![entry]);
            return;
        }
        if block == self.blocks.len() {
            block -= 1;
            self.blocks[block].push(entry);
        } else {
            self.blocks[block].insert(offset, entry);
        }
        if self.blocks[block].len() > BLOCK {
            let upper = self.blocks[block].split_off(BLOCK / 2);
            self.blocks.insert(block + 1, upper);
        }
    }

    pub(crate) fn remove(&mut self, entry: &Entry) {
        let (block, offset) = self.locate((self.time)(entry), &entry.id);
        let found = self.blocks.get(block).and_then(|b| b.get(offset));
        if found.is_some_and(|found| found.id == entry.id) {
            self.blocks[block].remove(offset);
            if self.blocks[block].is_empty() {
                self.blocks.remove(block);
            }
        }
    }

    /// The number of members that sort before (time, id).
    pub(crate) fn rank(&self, time: i64, id: &str) -> usize {
        let (block, offset) = self.locate(time, id);
        self.blocks[..block].iter().map(Vec::len).sum::<usize>() + offset
    }

    /// The member at a rank, counted from 0.
    pub(crate) fn nth(&self, rank: usize) -> Option<&Arc<Entry>> {
        let (block, offset) = self.position(rank);
        self.blocks.get(block)?.get(offset)
    }

    /// The members at these ranks, in ascending order. Can be walked from either end.
    pub(crate) fn range(&self, ranks: Range<usize>) -> impl DoubleEndedIterator<Item = &Arc<Entry>> {
        let (first, skip) = self.position(ranks.start);
        let (last, take) = self.position(ranks.end.max(ranks.start));
        let end = self.blocks.len().min(last + 1);
        let first = first.min(end);
        self.blocks[first..end]
            .iter()
            .enumerate()
            .flat_map(move |(index, block)| {
                let index = index + first;
                let from = if index == first { skip } else { 0 };
                let to = if index == last { take } else { block.len() };
                block[from..to].iter()
            })
    }

    /// The block of a rank, and the offset in it.
    fn position(&self, rank: usize) -> (usize, usize) {
        let mut rest = rank;
        for (index, block) in self.blocks.iter().enumerate() {
            if rest < block.len() {
                return (index, rest);
            }
            rest -= block.len();
        }
        (self.blocks.len(), 0)
    }

    /// The block of the first member at or after (time, id), and the offset in it.
    fn locate(&self, time: i64, id: &str) -> (usize, usize) {
        let before = |entry: &Arc<Entry>| ((self.time)(entry), &*entry.id) < (time, id);
        let block = self.blocks.partition_point(|block| block.last().is_some_and(before));
        let offset = self.blocks.get(block).map_or(0, |block| block.partition_point(before));
        (block, offset)
    }
}
