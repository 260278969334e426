use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const ALL: Range = Range::ALL;

/// The part of a list, sorted by time, that lies in a range.
fn within(list: &[(i64, u32)], range: Range) -> &[(i64, u32)] {
    let rank = |moment: i64| list.partition_point(|(at, _)| *at < moment);
    let from = range.from.map_or(0, rank);
    let before = range.before.map_or(list.len(), rank);
    &list[from..before.max(from)]
}

fn count(list: &[(i64, u32)], range: Range) -> i64 {
    within(list, range).len() as i64
}

/// Searches as the sync does. Returns the users to ask for by id, the users seen, and the number of
/// requests.
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
    let mut open: Vec<Bucket> = parts
        .into_iter()
        .map(|range| Bucket {
            range,
            local: count(mirror, range),
            remote: count(clerk, range),
        })
        .collect();
    while let Some(bucket) = open.pop() {
        if !bucket.matters(clerk.len() < mirror.len()) {
            continue;
        }
        assert!(requests < 10_000, "the search does not end");
        let part = |at: i64| {
            let [range, _] = bucket.range.split(at);
            bucket.split(at, count(mirror, range), count(clerk, range)).unwrap()
        };
        let ours = within(mirror, bucket.range);
        match bucket.probe() {
            Probe::ByIds => asked.extend(ours.iter().map(|(_, id)| *id)),
            Probe::Count => {
                requests += 1;
                let middle = ours[ours.len() / 2].0;
                let at = if middle > ours[0].0 { middle } else { middle + 1 };
                open.extend(part(at));
            }
            Probe::Page { offset } => {
                requests += 1;
                let page: Vec<_> = within(clerk, bucket.range)
                    .iter()
                    .copied()
                    .skip(offset as usize)
                    .take(PAGE as usize)
                    .collect();
                let times: Vec<i64> = page.iter().map(|(at, _)| *at).collect();
                match judge(&bucket, offset, &times) {
                    PageProof::Judged { judged, left } => {
                        let shown: BTreeSet<u32> = page.iter().map(|(_, id)| *id).collect();
                        asked.extend(
                            ours.iter()
                                .filter(|(at, id)| judged.contains(*at) && !shown.contains(id))
                                .map(|(_, id)| *id),
                        );
                        seen.extend(shown);
                        open.extend(left.into_iter().map(|(range, remote)| Bucket {
                            range,
                            local: count(mirror, range),
                            remote,
                        }));
                    }
                    PageProof::OneMoment(at) => {
                        requests += 2;
                        let [before, rest] = part(at);
                        let range = Range {
                            from: Some(at),
                            before: Some(at + 1),
                        };
                        let [moment, after] = rest.split(at + 1, count(mirror, range), count(clerk, range)).unwrap();
                        open.extend([before, moment, after]);
                    }
                    other => panic!("{other:?}: {bucket:?} {offset}"),
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
    fn deleted_users_are_asked_for_and_new_ones_are_seen(
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
        // A new user and a deleted one may hide each other, until the new one is in the mirror.
        if new.is_empty() {
            prop_assert!(lost.iter().all(|(_, id)| asked.contains(id)));
        } else if lost.is_empty() {
            prop_assert!(clerk.iter().filter(|(_, id)| *id >= 10_000).all(|(_, id)| seen.contains(id)));
        }
    }

    #[test]
    fn a_page_splits_its_bucket_without_a_gap(
        mut times in prop::collection::vec(0i64..40, 1..60), offset in 0usize..50, shown in 1usize..20,
    ) {
        times.sort_unstable();
        let offset = offset.min(times.len() - 1);
        let page: Vec<i64> = times.iter().copied().skip(offset).take(shown).collect();
        // A page that ends just before the last users is taken for the last one.
        prop_assume!(offset + page.len() == times.len() || offset + page.len() + 5 < times.len());
        let bucket = Bucket { range: ALL, local: 0, remote: times.len() as i64 };
        if let PageProof::Judged { judged, left } = judge(&bucket, offset as u64, &page) {
            for at in -1..41 {
                let covers = left.iter().filter(|(range, _)| range.contains(at)).count()
                    + usize::from(judged.contains(at));
                prop_assert_eq!(covers, 1, "{}", at);
                // The page shows the judged part completely.
                let there = times.iter().filter(|&&time| time == at).count();
                prop_assert!(!judged.contains(at) || page.iter().filter(|&&time| time == at).count() == there);
            }
            for (range, remote) in left {
                prop_assert_eq!(times.iter().filter(|&&at| range.contains(at)).count() as i64, remote);
            }
        }
    }
}

proptest! {
    /// Whatever a server counts and lists, the search ends before it costs more than a walk.
    #[test]
    fn no_server_keeps_a_search_for_ever(
        counts in prop::collection::vec(0i64..60_000, 1..20), pages in prop::collection::vec(prop::collection::vec(0i64..1_000_000, 0..6), 1..6),
        users in 1i64..60_000, is_sorted in any::<bool>(),
    ) {
        let mut counts = counts.iter().copied().cycle();
        let mut pages = pages.iter().cloned().cycle();
        let mut open = vec![Bucket { range: ALL, local: users, remote: counts.next().unwrap() }];
        let (mut sent, mut steps) = (0, 0);
        while let Some(bucket) = open.pop() {
            steps += 1;
            prop_assert!(steps <= 4 * walk_costs(users as u64), "the search does not end");
            match bucket.probe() {
                Probe::ByIds => {}
                Probe::Count => {
                    sent += 1;
                    let at = bucket.range.from.unwrap_or(0) + 500;
                    let Some(parts) = bucket.split(at, bucket.local / 2, counts.next().unwrap()) else { break };
                    open.extend(parts);
                }
                Probe::Page { offset } => {
                    sent += 1;
                    let mut page = pages.next().unwrap();
                    if is_sorted {
                        page.sort_unstable();
                    }
                    match judge(&bucket, offset, &page) {
                        PageProof::Judged { left, .. } => open.extend(left.into_iter().map(|(range, remote)| Bucket {
                            range,
                            local: counts.next().unwrap(),
                            remote,
                        })),
                        PageProof::OneMoment(at) => {
                            sent += 2;
                            let Some(parts) = bucket.split(at, bucket.local / 2, counts.next().unwrap()) else { break };
                            open.extend(parts);
                        }
                        PageProof::Unclear => {}
                        PageProof::Unusable => break,
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
    let whole = Bucket {
        range: ALL,
        local: 100_000,
        remote: 99_999,
    };
    assert_eq!(whole.split(50, 50_000, 99_999), None);
    assert!(whole.split(50, 50_000, 49_999).is_some());
    let page: Vec<i64> = (0..500).map(|n| n * 1_000_000).collect();
    let part = Bucket {
        range: Range {
            from: Some(1_000_000),
            before: Some(2_000_000),
        },
        local: 20,
        remote: 19,
    };
    assert_eq!(judge(&part, 0, &page), PageProof::Unusable);
}

#[test]
fn a_page_that_is_shorter_than_counted_is_no_gap_of_the_server() {
    let bucket = Bucket {
        range: ALL,
        local: 4,
        remote: 3,
    };
    let all = |page| matches!(judge(&bucket, 0, page), PageProof::Judged { judged: ALL, left } if left.is_empty());
    assert!(all(&[1]) && all(&[1, 2]) && all(&[]));
    assert_eq!(judge(&bucket, 1, &[]), PageProof::Unclear);
    assert_eq!(judge(&bucket, 0, &[1, 2, 3, 4, 5, 6, 7, 8, 9]), PageProof::Unclear);
    let many = Bucket { remote: 300, ..bucket };
    assert_eq!(judge(&many, 0, &[]), PageProof::Unclear);
    assert_eq!(judge(&many, 0, &[7, 7]), PageProof::OneMoment(7));
}

#[test]
fn a_search_begins_with_more_parts_where_more_are_missing() {
    let of_a_million = |missing| first_parts(1_000_000, missing);
    assert_eq!([1, 2, 4, 5, 8, 9, 100].map(of_a_million), [2, 2, 4, 8, 8, 16, 16]);
    assert_eq!(
        [0, 500, MAX_BY_PAGE, 3 * MAX_BY_PAGE].map(|users| first_parts(users, 1)),
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
