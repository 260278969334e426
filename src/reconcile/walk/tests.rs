mod ends;
mod fake_list;
mod properties;

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
        walk.note_total(server.total());
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
fn pages_by_offset_are_known_before_they_are_due() {
    let offsets = |walk: &Walk, most| -> Vec<u64> { walk.queries(most).iter().map(|query| query.offset).collect() };
    let mut walk = Walk::new().by_offset();
    assert_eq!(offsets(&walk, 4), [0], "the total is not known");
    walk.note_total(Some(1_481));
    assert_eq!(offsets(&walk, 9), [0, 490, 980, 1_470]);
    assert_eq!(offsets(&walk, 2), [0, 490]);
    walk.note_total(Some(1_480));
    assert_eq!(offsets(&walk, 9), [0, 490, 980], "the last page holds the last object");
    assert_eq!(Walk::new().queries(4), [Walk::new().query()], "a cursor is not known");
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

/// A user that was created and changed at that moment.
fn entry(id: &str, at: i64) -> ListEntry<'_> {
    ListEntry {
        id,
        created_at: Some(at),
        updated_at: Some(at),
    }
}
