//! The search for users who are gone: where Clerk counts fewer than the mirror, stretches of `created_at` whose counts differ are parted until
//! a page shows who is missing. Pure: it sees neither HTTP nor SQL.
//!
//! Nothing here says that anybody is gone. A count may be wrong for a moment and a page may be short; whoever is missing is asked for by id.

use crate::reconcile::walk::{self, Range};

/// Users on a page.
const PAGE: u64 = walk::PAGE as u64;

/// Stretches up to this many users are parted by a page out of their middle: it tells how many are missing on either side, as a count
/// does, and shows 500 users besides. Larger ones are parted by counts, as large offsets are slow. Source: documented.
const PAGED: u64 = 64 * PAGE;

/// How far outside of a stretch a user on its page may lie: the bounds may include their own moment, and emulators cut times to seconds.
const SLACK_MS: i64 = 1_000;

/// By how many users a count may be off while people come and go.
const SLIP: i64 = 5;

/// A stretch of `created_at` as both sides count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// Where it lies.
    pub interval: Range,
    /// How many users the mirror expects at Clerk.
    pub local: i64,
    /// How many Clerk has.
    pub remote: i64,
}

/// What to do with a stretch whose counts differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Count at Clerk up to the middle of the mirror's users in it.
    Halve,
    /// Look at a page of it, behind this many users.
    Page {
        /// From the stretch's first user on.
        offset: u64,
    },
    /// Ask by id for everybody whom the mirror has in it.
    Names,
}

impl Stretch {
    /// Whether it is worth a look where Clerk counts fewer in all, or else more. Who goes during the search makes the part behind it look as if
    /// Clerk had more there.
    pub fn matters(&self, counts_fewer: bool) -> bool {
        if counts_fewer {
            self.remote < self.local
        } else {
            self.remote > self.local
        }
    }

    /// The cheapest way to learn more.
    pub fn how(&self) -> How {
        let remote = u64::try_from(self.remote).unwrap_or_default();
        let is_one_moment =
            matches!(self.interval, Range { from: Some(from), before: Some(before) } if from + 1 >= before);
        if remote == 0 || (is_one_moment && remote > PAGE) {
            How::Names
        } else if remote <= PAGE || self.local < 2 {
            How::Page { offset: 0 }
        } else if is_large(self.remote) {
            How::Halve
        } else {
            How::Page {
                offset: (remote - PAGE) / 2,
            }
        }
    }

    /// The two parts before and behind a moment; none where the counts cannot be of parts of this stretch, as when a server ignores the
    /// bounds.
    pub fn part(&self, at: i64, local: i64, remote: i64) -> Option<[Self; 2]> {
        let [before, behind] = self.interval.split(at);
        let before = Self {
            interval: before,
            local,
            remote,
        };
        let behind = Self {
            interval: behind,
            local: self.local - local,
            remote: self.remote - remote,
        };
        before.is_part(self.local - self.remote).then_some([before, behind])
    }

    /// Whether it can be a part of a whole with this difference. Users who come and go meanwhile make small differences; many more in a part than
    /// in the whole are no accident.
    pub fn is_part(&self, difference: i64) -> bool {
        (self.local - self.remote).abs() <= 10 * difference.abs() + 100
    }
}

/// Whether a stretch with so many users is parted by a count.
pub fn is_large(users: i64) -> bool {
    u64::try_from(users).is_ok_and(|users| users > PAGED)
}

/// In how many parts a search counts the users to begin with: at once, as one question after the other takes longer. Not in more than the
/// missing are likely to lie in, as each count is one of the budget.
pub fn first_parts(users: u64, missing: u64) -> usize {
    let for_missing = missing.clamp(2, 16).next_power_of_two();
    let large = (users / PAGED).next_power_of_two();
    usize::try_from(for_missing.min(large)).unwrap_or(1)
}

/// What a page of a stretch proves.
#[derive(Debug, PartialEq, Eq)]
pub enum Paged {
    /// Whoever the mirror has in this part, but not the page, is missing; and the parts that are left, with Clerk's counts.
    Partition {
        /// What the page lets judge.
        judged: Range,
        /// What lies before and behind it; the mirror's counts are still to be had.
        left: Vec<(Range, i64)>,
    },
    /// The page shows one moment only, which more users share than it holds: the stretch is to be parted there.
    OneMoment(i64),
    /// The page shows nobody, though users were counted, or many more than were: nothing is learned.
    Unclear,
    /// The page is not of this stretch, or in no order: this server does not list by `created_at`.
    Unusable,
}

/// Judges the page behind the first `offset` users of a stretch by its users' `created_at`, in the page's order.
pub fn judge(stretch: &Stretch, offset: u64, times: &[i64]) -> Paged {
    let Range { from, before } = stretch.interval;
    let lies_in = |at: &i64| {
        from.is_none_or(|from| *at >= from - SLACK_MS) && before.is_none_or(|before| *at < before + SLACK_MS)
    };
    let offset = i64::try_from(offset).unwrap_or(i64::MAX);
    let unseen = stretch.remote - offset - times.len() as i64;
    let is_first = offset == 0;
    // A page cut short by the server leaves more unseen than come and go meanwhile.
    let is_last = unseen <= 0 || (unseen <= SLIP && (times.len() as u64) < PAGE);
    let (Some(&first), Some(&last)) = (times.first(), times.last()) else {
        return if is_first && is_last {
            Paged::Partition {
                judged: stretch.interval,
                left: Vec::new(),
            }
        } else {
            Paged::Unclear
        };
    };
    if !times.is_sorted() || !times.iter().all(lies_in) {
        return Paged::Unusable;
    }
    if unseen < -SLIP {
        return Paged::Unclear;
    }
    if first == last && !(is_first && is_last) {
        return Paged::OneMoment(first);
    }
    let mut left = Vec::new();
    let mut judged = stretch.interval;
    if !is_first {
        // Those who share the first moment may lie before the page.
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
            stretch.remote - offset - shown,
        ));
    }
    Paged::Partition { judged, left }
}

/// Whether a full walk over `users` is cheaper than to look for `missing` ones among them: a search takes about a request for each time that
/// a missing user's part of the list can be halved before it is a page, and some more around that page.
pub fn walks_cheaper(users: u64, missing: u64) -> bool {
    let pages = (users / PAGE + 1) as f64;
    let places = (missing as f64).min(pages);
    places * ((pages / places).max(1.0).log2() + 2.0) > walk_costs(users) as f64
}

/// Whether a search that has sent `sent` requests, and has `waiting` more to send, is given up for a full walk over `users`.
pub fn is_given_up(sent: u64, waiting: u64, users: u64) -> bool {
    sent + waiting > walk_costs(users)
}

/// How many requests a full walk over `users` takes, its counts among them.
pub fn walk_costs(users: u64) -> u64 {
    users / PAGE + 5
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const ALL: Range = Range::ALL;

    /// The part of a list, sorted by time, that lies in a stretch.
    fn within(list: &[(i64, u32)], interval: Range) -> &[(i64, u32)] {
        let rank = |moment: i64| list.partition_point(|(at, _)| *at < moment);
        let from = interval.from.map_or(0, rank);
        let before = interval.before.map_or(list.len(), rank);
        &list[from..before.max(from)]
    }

    fn count(list: &[(i64, u32)], interval: Range) -> i64 {
        within(list, interval).len() as i64
    }

    /// Searches as the sync does, and returns who is to be asked for by id, who was seen, and the number of requests.
    fn search(mirror: &[(i64, u32)], clerk: &[(i64, u32)]) -> (BTreeSet<u32>, BTreeSet<u32>, usize) {
        let missing = mirror.len().abs_diff(clerk.len()) as u64;
        let mut parts = vec![ALL];
        while parts.len() < first_parts(mirror.len() as u64, missing) {
            let halve = |part: Range| {
                let ours = within(mirror, part);
                part.split(ours[ours.len() / 2].0)
            };
            parts = parts.into_iter().flat_map(halve).collect();
        }
        let (mut asked, mut seen, mut requests) = (BTreeSet::new(), BTreeSet::new(), parts.len());
        let mut open: Vec<Stretch> = parts
            .into_iter()
            .map(|interval| Stretch {
                interval,
                local: count(mirror, interval),
                remote: count(clerk, interval),
            })
            .collect();
        while let Some(stretch) = open.pop() {
            if !stretch.matters(clerk.len() < mirror.len()) {
                continue;
            }
            assert!(requests < 10_000, "the search does not end");
            let part = |at: i64| {
                let [interval, _] = stretch.interval.split(at);
                stretch
                    .part(at, count(mirror, interval), count(clerk, interval))
                    .unwrap()
            };
            let ours = within(mirror, stretch.interval);
            match stretch.how() {
                How::Names => asked.extend(ours.iter().map(|(_, id)| *id)),
                How::Halve => {
                    requests += 1;
                    let middle = ours[ours.len() / 2].0;
                    let at = if middle > ours[0].0 { middle } else { middle + 1 };
                    open.extend(part(at));
                }
                How::Page { offset } => {
                    requests += 1;
                    let page: Vec<_> = within(clerk, stretch.interval)
                        .iter()
                        .copied()
                        .skip(offset as usize)
                        .take(PAGE as usize)
                        .collect();
                    let times: Vec<i64> = page.iter().map(|(at, _)| *at).collect();
                    match judge(&stretch, offset, &times) {
                        Paged::Partition { judged, left } => {
                            let shown: BTreeSet<u32> = page.iter().map(|(_, id)| *id).collect();
                            asked.extend(
                                ours.iter()
                                    .filter(|(at, id)| judged.contains(*at) && !shown.contains(id))
                                    .map(|(_, id)| *id),
                            );
                            seen.extend(shown);
                            open.extend(left.into_iter().map(|(interval, remote)| Stretch {
                                interval,
                                local: count(mirror, interval),
                                remote,
                            }));
                        }
                        Paged::OneMoment(at) => {
                            requests += 2;
                            let [before, rest] = part(at);
                            let interval = Range {
                                from: Some(at),
                                before: Some(at + 1),
                            };
                            let [moment, behind] = rest
                                .part(at + 1, count(mirror, interval), count(clerk, interval))
                                .unwrap();
                            open.extend([before, moment, behind]);
                        }
                        other => panic!("{other:?}: {stretch:?} {offset}"),
                    }
                }
            }
        }
        (asked, seen, requests)
    }

    fn users(times: Vec<i64>) -> Vec<(i64, u32)> {
        let mut users: Vec<_> = times.into_iter().zip(0..).collect();
        users.sort_unstable();
        users
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn all_who_are_gone_are_asked_for_and_all_who_are_new_are_seen(
            times in prop::collection::vec(prop_oneof![0i64..100, 0i64..1_000_000], 0..3000),
            gone in prop::collection::hash_set(0u32..3000, 0..30),
            new in prop::collection::vec(0i64..1_000_000, 0..3),
        ) {
            let all = users(times);
            let mirror = all.clone();
            let mut clerk: Vec<_> = all.iter().copied().filter(|(_, id)| !gone.contains(id)).collect();
            clerk.extend(new.iter().copied().zip(10_000..));
            clerk.sort_unstable();
            let (asked, seen, _) = search(&mirror, &clerk);
            let lost: Vec<_> = mirror.iter().filter(|user| !clerk.contains(user)).collect();
            // One that came and one that went may hide each other, until the one that came is in the mirror.
            if new.is_empty() {
                prop_assert!(lost.iter().all(|(_, id)| asked.contains(id)));
            } else if lost.is_empty() {
                prop_assert!(clerk.iter().filter(|(_, id)| *id >= 10_000).all(|(_, id)| seen.contains(id)));
            }
        }

        #[test]
        fn a_page_parts_its_stretch_without_a_gap(
            mut times in prop::collection::vec(0i64..40, 1..60), offset in 0usize..50, shown in 1usize..20,
        ) {
            times.sort_unstable();
            let offset = offset.min(times.len() - 1);
            let page: Vec<i64> = times.iter().copied().skip(offset).take(shown).collect();
            // A page that ends just before the last users is taken for the last one.
            prop_assume!(offset + page.len() == times.len() || offset + page.len() + 5 < times.len());
            let stretch = Stretch { interval: ALL, local: 0, remote: times.len() as i64 };
            if let Paged::Partition { judged, left } = judge(&stretch, offset as u64, &page) {
                for at in -1..41 {
                    let covers = left.iter().filter(|(interval, _)| interval.contains(at)).count()
                        + usize::from(judged.contains(at));
                    prop_assert_eq!(covers, 1, "{}", at);
                    // All of the judged part is on the page.
                    let there = times.iter().filter(|&&time| time == at).count();
                    prop_assert!(!judged.contains(at) || page.iter().filter(|&&time| time == at).count() == there);
                }
                for (interval, remote) in left {
                    prop_assert_eq!(times.iter().filter(|&&at| interval.contains(at)).count() as i64, remote);
                }
            }
        }
    }

    proptest! {
        /// Whatever a server counts and lists, the search ends before it has cost more than a walk.
        #[test]
        fn no_server_keeps_a_search_for_ever(
            counts in prop::collection::vec(0i64..60_000, 1..20), pages in prop::collection::vec(prop::collection::vec(0i64..1_000_000, 0..6), 1..6),
            users in 1i64..60_000, is_sorted in any::<bool>(),
        ) {
            let mut counts = counts.iter().copied().cycle();
            let mut pages = pages.iter().cloned().cycle();
            let mut open = vec![Stretch { interval: ALL, local: users, remote: counts.next().unwrap() }];
            let (mut sent, mut steps) = (0, 0);
            while let Some(stretch) = open.pop() {
                steps += 1;
                prop_assert!(steps <= 4 * walk_costs(users as u64), "the search does not end");
                match stretch.how() {
                    How::Names => {}
                    How::Halve => {
                        sent += 1;
                        let at = stretch.interval.from.unwrap_or(0) + 500;
                        let Some(parts) = stretch.part(at, stretch.local / 2, counts.next().unwrap()) else { break };
                        open.extend(parts);
                    }
                    How::Page { offset } => {
                        sent += 1;
                        let mut page = pages.next().unwrap();
                        if is_sorted {
                            page.sort_unstable();
                        }
                        match judge(&stretch, offset, &page) {
                            Paged::Partition { left, .. } => open.extend(left.into_iter().map(|(interval, remote)| Stretch {
                                interval,
                                local: counts.next().unwrap(),
                                remote,
                            })),
                            Paged::OneMoment(at) => {
                                sent += 2;
                                let Some(parts) = stretch.part(at, stretch.local / 2, counts.next().unwrap()) else { break };
                                open.extend(parts);
                            }
                            Paged::Unclear => {}
                            Paged::Unusable => break,
                        }
                    }
                }
                if is_given_up(sent, open.len() as u64, users as u64) {
                    break;
                }
            }
        }
    }

    #[test]
    fn one_among_a_million_takes_fourteen_requests_and_a_hundred_less_than_four_hundred() {
        let mirror = users((0..1_000_000).map(|n| n * 90_000).collect());
        let without = |gone: &BTreeSet<u32>| -> Vec<(i64, u32)> {
            mirror.iter().copied().filter(|(_, id)| !gone.contains(id)).collect()
        };
        for gone in [0, 3, 123_456, 500_000, 999_999] {
            let (asked, _, requests) = search(&mirror, &without(&BTreeSet::from([gone])));
            assert_eq!(asked, BTreeSet::from([gone]));
            assert!(requests <= 14, "{requests}");
        }
        let mut dice = fastrand::Rng::with_seed(7);
        let gone: BTreeSet<u32> = std::iter::repeat_with(|| dice.u32(..1_000_000)).take(100).collect();
        let (asked, _, requests) = search(&mirror, &without(&gone));
        assert_eq!(asked, gone);
        assert!(requests < 400, "{requests}");
    }

    #[test]
    fn counts_that_ignore_the_bounds_are_not_believed() {
        let whole = Stretch {
            interval: ALL,
            local: 100_000,
            remote: 99_999,
        };
        assert_eq!(whole.part(50, 50_000, 99_999), None);
        assert!(whole.part(50, 50_000, 49_999).is_some());
        let page: Vec<i64> = (0..500).map(|n| n * 1_000_000).collect();
        let part = Stretch {
            interval: Range {
                from: Some(1_000_000),
                before: Some(2_000_000),
            },
            local: 20,
            remote: 19,
        };
        assert_eq!(judge(&part, 0, &page), Paged::Unusable);
    }

    #[test]
    fn a_page_that_is_shorter_than_counted_is_no_gap_of_the_server() {
        let stretch = Stretch {
            interval: ALL,
            local: 4,
            remote: 3,
        };
        let all = |page| matches!(judge(&stretch, 0, page), Paged::Partition { judged: ALL, left } if left.is_empty());
        assert!(all(&[1]) && all(&[1, 2]) && all(&[]));
        assert_eq!(judge(&stretch, 1, &[]), Paged::Unclear);
        assert_eq!(judge(&stretch, 0, &[1, 2, 3, 4, 5, 6, 7, 8, 9]), Paged::Unclear);
        let many = Stretch { remote: 300, ..stretch };
        assert_eq!(judge(&many, 0, &[]), Paged::Unclear);
        assert_eq!(judge(&many, 0, &[7, 7]), Paged::OneMoment(7));
    }

    #[test]
    fn a_search_begins_with_more_parts_where_more_are_missing() {
        let of_a_million = |missing| first_parts(1_000_000, missing);
        assert_eq!([1, 2, 4, 5, 8, 9, 100].map(of_a_million), [2, 2, 4, 8, 8, 16, 16]);
        assert_eq!(
            [0, 500, PAGED, 3 * PAGED].map(|users| first_parts(users, 1)),
            [1, 1, 1, 2]
        );
    }

    #[test]
    fn many_missing_ones_are_met_by_a_walk() {
        assert!(!walks_cheaper(1_000_000, 1));
        assert!(!walks_cheaper(1_000_000, 100));
        assert!(walks_cheaper(1_000_000, 2_000));
        assert!(!walks_cheaper(300, 30));
        assert!(!walks_cheaper(10_000, 5));
        assert!(walks_cheaper(10_000, 15));
    }
}
