mod ends;
mod fake_list;

use proptest::prelude::*;

use super::*;
use fake_list::{CursorFate, FakeList};

/// Walks to the end. `between` may change the server before each request. Returns all ids met, and
/// all ranges judged.
fn walk(
    server: &mut FakeList,
    walk: &mut Walk,
    mut between: impl FnMut(&mut FakeList, usize, &ListQuery),
) -> (Vec<String>, Vec<Range>) {
    let (mut met, mut judged) = (Vec::new(), Vec::new());
    for request in 0.. {
        assert!(request < 2_000, "the walk does not end");
        let query = walk.query();
        between(server, request, &query);
        let Some(list) = server.answer(&query) else {
            assert!(walk.refused(), "no way left");
            continue;
        };
        let entries: Vec<_> = list
            .iter()
            .map(|(at, id)| ListEntry {
                id,
                created_at: Some(*at),
                updated_at: None,
            })
            .collect();
        match walk.receive(&entries) {
            WalkStep::Again => {}
            WalkStep::Restart => met.clear(),
            WalkStep::Endless => panic!("given up after {request} requests"),
            WalkStep::Page(page) => {
                met.extend(page.fresh.iter().map(|&at| entries[at].id.to_owned()));
                judged.extend(page.judged);
            }
            WalkStep::End(page) => {
                met.extend(page.fresh.iter().map(|&at| entries[at].id.to_owned()));
                judged.extend(page.judged);
                break;
            }
            WalkStep::CannotPartition => panic!("the list ignores its range"),
        }
    }
    (met, judged)
}

fn check(server: &mut FakeList) {
    let (met, judged) = walk(server, &mut Walk::new(), |_, _, _| {});
    let expected: Vec<_> = server.users.iter().map(|(_, id)| id.clone()).collect();
    assert_eq!(met, expected);
    assert_tiles(&judged);
}

/// Asserts that the judged ranges touch, do not overlap and cover all time, so that all rows of the
/// mirror are judged.
fn assert_tiles(judged: &[Range]) {
    assert_eq!(judged.first().map(|range| range.from), Some(None));
    assert_eq!(judged.last().map(|range| range.before), Some(None));
    for pair in judged.windows(2) {
        assert_eq!(pair[0].before, pair[1].from);
    }
}

fn users(dates: &[i64]) -> Vec<(i64, String)> {
    dates
        .iter()
        .enumerate()
        .map(|(n, at)| (*at, format!("user_{n:03}")))
        .collect()
}

#[test]
fn an_empty_list_is_walked() {
    check(&mut FakeList::new([], 5));
}

#[test]
fn ties_longer_than_a_page() {
    let tied = |n| users(&vec![7; n]);
    for n in [1, 4, 5, 6, 23] {
        check(&mut FakeList::new(tied(n), 5));
        check(&mut FakeList {
            ignores_cursor: true,
            ..FakeList::new(tied(n), 15)
        });
    }
}

#[test]
fn emulators_that_ignore_things() {
    let dates: Vec<_> = (0..60).map(|n| n / 3).collect();
    for limit in [12, 20, 30, 60, 100] {
        let server = FakeList::new(users(&dates), limit);
        check(&mut FakeList {
            ignores_cursor: true,
            ..server.clone()
        });
        check(&mut FakeList {
            ignores_cursor: true,
            ignores_dates: true,
            ..server.clone()
        });
    }
    let everything_at_once = FakeList::new(users(&dates), 100);
    check(&mut FakeList {
        ignores_cursor: true,
        ignores_dates: true,
        ignores_offset: true,
        ..everything_at_once
    });
}

#[test]
fn a_list_in_another_order_is_read_but_not_judged() {
    let mut server = FakeList {
        descending: true,
        ..FakeList::new(users(&[1, 2, 3, 4, 5, 6, 7]), 3)
    };
    let mut state = Walk::new();
    let (met, judged) = walk(&mut server, &mut state, |_, _, _| {});
    assert_eq!(met.len(), 7);
    assert_eq!(judged, []);
    assert!(!state.is_ordered());
}

#[test]
fn a_page_that_cannot_be_read_costs_its_user_only() {
    let mut server = FakeList::new(users(&[1, 2, 2, 2, 3, 4]), 1);
    let mut state = Walk::new();
    let mut skipped = false;
    let mut met = Vec::new();
    loop {
        let list = server.answer(&state.query()).unwrap();
        if list.iter().any(|(_, id)| id == "user_002") {
            state.step_over();
            skipped = true;
            server.limit = 5;
            continue;
        }
        let entries: Vec<_> = list
            .iter()
            .map(|(at, id)| ListEntry {
                id,
                created_at: Some(*at),
                updated_at: None,
            })
            .collect();
        match state.receive(&entries) {
            WalkStep::Page(page) => met.extend(page.fresh.iter().map(|&at| entries[at].id.to_owned())),
            WalkStep::Again => {}
            step => {
                assert!(matches!(step, WalkStep::End(_)), "{step:?}");
                break;
            }
        }
    }
    assert!(skipped);
    assert_eq!(met, ["user_000", "user_001", "user_003", "user_004", "user_005"]);
}

#[test]
fn a_page_without_dates_judges_nothing() {
    let mut state = Walk::new();
    let undated = ["a", "b"].map(|id| ListEntry {
        id,
        created_at: None,
        updated_at: None,
    });
    let WalkStep::Page(page) = state.receive(&undated) else {
        panic!("not a page")
    };
    assert_eq!((page.fresh.len(), page.judged), (2, None));
    let dated = [ListEntry {
        id: "c",
        created_at: Some(5),
        updated_at: None,
    }];
    let WalkStep::Page(page) = state.receive(&dated) else {
        panic!("not a page")
    };
    assert_eq!(
        page.judged,
        Some(Range {
            from: None,
            before: Some(5)
        })
    );
    assert!(page.carried.contains("a"));
}

#[test]
fn a_server_that_ignores_a_range_cannot_be_partitioned() {
    let range = Range {
        from: Some(5_000),
        before: Some(9_000),
    };
    let entry = |at| ListEntry {
        id: "a",
        created_at: Some(at),
        updated_at: None,
    };
    assert_eq!(
        Walk::over(range).receive(&[entry(3_999), entry(6_000)]),
        WalkStep::CannotPartition
    );
    assert_eq!(
        Walk::over(range).receive(&[entry(7_000), entry(6_000)]),
        WalkStep::CannotPartition
    );
    // A server that cuts times to seconds, or whose bounds include their moment.
    let all = WalkStep::End(AcceptedPage {
        fresh: vec![1],
        judged: Some(range),
        carried: HashSet::new(),
    });
    assert_eq!(Walk::over(range).receive(&[4_999, 6_000, 9_000].map(entry)), all);
}

#[test]
fn an_entry_without_a_date_belongs_to_one_range() {
    let range = Range {
        from: None,
        before: Some(5),
    };
    let entry = |id, created_at| ListEntry {
        id,
        created_at,
        updated_at: None,
    };
    // The entry after the range's end is on the first page of the next range, too.
    let page = [("a", Some(1)), ("b", None), ("c", Some(7)), ("d", None)].map(|(id, at)| entry(id, at));
    let WalkStep::End(last) = Walk::over(range).receive(&page) else {
        panic!("not the end")
    };
    assert_eq!(last.fresh, [0, 1]);
    let next = Range {
        from: Some(5),
        before: None,
    };
    let WalkStep::Page(first) = Walk::over(next).receive(&page[2..]) else {
        panic!("not a page")
    };
    assert_eq!(first.fresh, [0, 1]);
}

proptest! {
    /// The walk ends whatever a server ignores, and meets each user once if the list is in order.
    #[test]
    fn every_walk_ends(
        dates in prop::collection::vec(0i64..12, 0..40), limit in 1usize..15,
        ignores_cursor in any::<bool>(), ignores_dates in any::<bool>(), ignores_offset in any::<bool>(), descending in any::<bool>(),
    ) {
        let mut server = FakeList { ignores_cursor, ignores_dates, ignores_offset, descending, ..FakeList::new(users(&dates), limit) };
        let mut state = Walk::new();
        let (met, judged) = walk(&mut server, &mut state, |_, _, _| {});
        if state.is_ordered() {
            let unique: HashSet<_> = met.iter().collect();
            prop_assert_eq!(unique.len(), met.len(), "met twice");
            assert_tiles(&judged);
        }
    }

    #[test]
    fn a_quiet_list_is_met_once_each_in_order(
        dates in prop::collection::vec(0i64..12, 0..60), limit in 1usize..20,
    ) {
        check(&mut FakeList::new(users(&dates), limit));
    }

    /// Users are deleted between the pages, also the cursor's. All others are met exactly once.
    #[test]
    fn users_that_stay_are_met(
        dates in prop::collection::vec(0i64..30, 1..80),
        limit in 2usize..12,
        fate in prop::sample::select(vec![CursorFate::Refuse, CursorFate::Empty, CursorFate::FromTheTop]),
        deletions in prop::collection::vec((0usize..40, 0usize..80), 0..30),
        cursors_die in any::<bool>(),
    ) {
        let mut server = FakeList { fate, ..FakeList::new(users(&dates), limit) };
        let mut state = Walk::new();
        let (met, judged) = walk(&mut server, &mut state, |server, request, query| {
                for (_, victim) in deletions.iter().filter(|(when, _)| *when == request) {
                    let id = format!("user_{victim:03}");
                    server.users.retain(|(_, user)| *user != id);
                }
                if cursors_die && request % 3 == 2 && let Some(cursor) = &query.after {
                    server.users.retain(|(_, user)| user != cursor);
                }
            });
        let unique: HashSet<_> = met.iter().collect();
        prop_assert_eq!(unique.len(), met.len(), "met twice");
        for (_, id) in &server.users {
            prop_assert!(unique.contains(id), "{} was skipped", id);
        }
        assert_tiles(&judged);
    }

    /// A server without cursors and filters: as long as fewer users are deleted between two
    /// requests than pages overlap, none is skipped. After more deletions, the walk steps back
    /// until it meets known users.
    #[test]
    fn users_that_stay_are_met_by_offset(
        count in 1usize..200,
        limit in 21usize..40,
        ignores_dates in any::<bool>(),
        deletions in prop::collection::vec((0usize..20, 0usize..200), 0..60),
    ) {
        let dates: Vec<i64> = (0..count as i64).collect();
        let mut server = FakeList { ignores_cursor: true, ignores_dates, ..FakeList::new(users(&dates), limit) };
        let (met, judged) = walk(&mut server, &mut Walk::new(), |server, request, _| {
            for (_, victim) in deletions.iter().filter(|(when, _)| *when == request) {
                let id = format!("user_{victim:03}");
                server.users.retain(|(_, user)| *user != id);
            }
        });
        let unique: HashSet<_> = met.iter().collect();
        prop_assert_eq!(unique.len(), met.len(), "met twice");
        for (_, id) in &server.users {
            prop_assert!(unique.contains(id), "{} was skipped", id);
        }
        assert_tiles(&judged);
    }

    /// Ranges walked one by one meet all users that stay exactly once, whatever is deleted
    /// meanwhile and however the server pages.
    #[test]
    fn ranges_meet_users_that_stay(
        dates in prop::collection::vec(0i64..30, 1..120),
        mut bounds in prop::collection::vec(0i64..32, 0..4),
        limit in 2usize..30,
        fate in prop::sample::select(vec![CursorFate::Refuse, CursorFate::Empty, CursorFate::FromTheTop]),
        ignores_cursor in any::<bool>(),
        deletions in prop::collection::vec((0usize..40, 0usize..120), 0..30),
    ) {
        // Offsets overlap by ten, so that a smaller page by offset may not.
        let limit = if ignores_cursor { limit + 20 } else { limit };
        bounds.sort_unstable();
        bounds.dedup();
        let ends = bounds.iter().map(|at| Some(*at));
        let ranges = std::iter::once(None).chain(ends.clone()).zip(ends.chain([None]));
        let mut server = FakeList { fate, ignores_cursor, ..FakeList::new(users(&dates), limit) };
        let (mut met, mut judged) = (Vec::new(), Vec::new());
        let mut requests = 0;
        for (from, before) in ranges {
            let mut state = Walk::over(Range { from, before });
            let (part, tiles) = walk(&mut server, &mut state, |server, _, _| {
                for (_, victim) in deletions.iter().filter(|(when, _)| *when == requests) {
                    let id = format!("user_{victim:03}");
                    server.users.retain(|(_, user)| *user != id);
                }
                requests += 1;
            });
            prop_assert_eq!(state.seen() as usize, part.len());
            met.extend(part);
            judged.extend(tiles);
        }
        let unique: HashSet<_> = met.iter().collect();
        prop_assert_eq!(unique.len(), met.len(), "met twice");
        for (_, id) in &server.users {
            prop_assert!(unique.contains(id), "{} was skipped", id);
        }
        assert_tiles(&judged);
    }

    /// A walk that is interrupted anywhere and continued at its position meets all users, and
    /// judges all time.
    #[test]
    fn a_walk_is_taken_up_again(
        dates in prop::collection::vec(0i64..20, 1..60), limit in 1usize..12, cut in 1usize..12,
    ) {
        let server = FakeList::new(users(&dates), limit);
        let mut first = Walk::new();
        let mut met = HashSet::new();
        for _ in 0..cut {
            let list = server.answer(&first.query()).unwrap();
            let entries: Vec<_> = list.iter().map(|(at, id)| ListEntry { id, created_at: Some(*at), updated_at: None }).collect();
            if let WalkStep::Page(page) = first.receive(&entries) {
                met.extend(page.fresh.iter().map(|&at| entries[at].id.to_owned()));
            }
        }
        if let Some(position) = first.position().cloned() {
            let mut second = Walk::resume(Range::ALL, position.clone());
            let (rest, judged) = walk(&mut server.clone(), &mut second, |_, _, _| {});
            prop_assert_eq!(judged[0].from, Some(position.judged_to));
            prop_assert_eq!(position.seen as usize + rest.len(), dates.len());
            met.extend(rest);
            prop_assert_eq!(met.len(), dates.len());
        }
    }
}

/// A user that was created and changed at that moment.
fn entry(id: &str, at: i64) -> ListEntry<'_> {
    ListEntry {
        id,
        created_at: Some(at),
        updated_at: Some(at),
    }
}
