use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// What a server does with a cursor whose user is gone.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Refuse,
    Empty,
    FromTheTop,
}

/// A list as Clerk or one of its emulators serves it.
#[derive(Debug, Clone)]
struct Server {
    users: BTreeSet<(i64, String)>,
    limit: usize,
    fate: Fate,
    ignores_cursor: bool,
    ignores_dates: bool,
    ignores_offset: bool,
    descending: bool,
}

impl Server {
    fn new(users: impl IntoIterator<Item = (i64, String)>, limit: usize) -> Self {
        Self {
            users: users.into_iter().collect(),
            limit,
            fate: Fate::Refuse,
            ignores_cursor: false,
            ignores_dates: false,
            ignores_offset: false,
            descending: false,
        }
    }

    fn answer(&self, query: &Query) -> Option<Vec<(i64, String)>> {
        let mut list: Vec<_> = self.users.iter().cloned().collect();
        if self.descending {
            list.reverse();
        }
        if let (Some(after), false) = (&query.after, self.ignores_cursor) {
            match list.iter().position(|(_, id)| id == after) {
                Some(at) => drop(list.drain(..=at)),
                None => match self.fate {
                    Fate::Refuse => return None,
                    Fate::Empty => return Some(Vec::new()),
                    Fate::FromTheTop => {}
                },
            }
        }
        if let (Some(after), false) = (query.created_after, self.ignores_dates) {
            list.retain(|(at, _)| *at > after);
        }
        let offset = if self.ignores_offset { 0 } else { query.offset as usize };
        Some(list.into_iter().skip(offset).take(self.limit).collect())
    }
}

/// Walks to the end; `between` may change the server before each request. Returns every id met, and every stretch judged.
fn walk(
    server: &mut Server,
    walk: &mut Walk,
    mut between: impl FnMut(&mut Server, usize, &Query),
) -> (Vec<String>, Vec<Interval>) {
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
            .map(|(at, id)| Entry {
                id,
                created_at: Some(*at),
            })
            .collect();
        match walk.receive(&entries) {
            Step::Again => {}
            Step::Page(page) => {
                met.extend(page.fresh.iter().map(|&at| entries[at].id.to_owned()));
                judged.extend(page.judged);
            }
            Step::End(page) => {
                met.extend(page.fresh.iter().map(|&at| entries[at].id.to_owned()));
                judged.extend(page.judged);
                break;
            }
            Step::Unfit => panic!("unfit"),
        }
    }
    (met, judged)
}

fn check(server: &mut Server) {
    let (met, judged) = walk(server, &mut Walk::new(), |_, _, _| {});
    let expected: Vec<_> = server.users.iter().map(|(_, id)| id.clone()).collect();
    assert_eq!(met, expected);
    assert_tiles(&judged);
}

/// The judged stretches touch, overlap nowhere and cover all time, so that nobody in the mirror is left unjudged.
fn assert_tiles(judged: &[Interval]) {
    assert_eq!(judged.first().map(|interval| interval.from), Some(None));
    assert_eq!(judged.last().map(|interval| interval.before), Some(None));
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
fn nobody_is_there() {
    check(&mut Server::new([], 5));
}

#[test]
fn ties_longer_than_a_page() {
    let tied = |n| users(&vec![7; n]);
    for n in [1, 4, 5, 6, 23] {
        check(&mut Server::new(tied(n), 5));
        check(&mut Server {
            ignores_cursor: true,
            ..Server::new(tied(n), 15)
        });
    }
}

#[test]
fn emulators_that_ignore_things() {
    let dates: Vec<_> = (0..60).map(|n| n / 3).collect();
    for limit in [12, 20, 30, 60, 100] {
        let server = Server::new(users(&dates), limit);
        check(&mut Server {
            ignores_cursor: true,
            ..server.clone()
        });
        check(&mut Server {
            ignores_cursor: true,
            ignores_dates: true,
            ..server.clone()
        });
    }
    let everything_at_once = Server::new(users(&dates), 100);
    check(&mut Server {
        ignores_cursor: true,
        ignores_dates: true,
        ignores_offset: true,
        ..everything_at_once
    });
}

#[test]
fn a_list_in_another_order_is_read_but_nobody_is_judged() {
    let mut server = Server {
        descending: true,
        ..Server::new(users(&[1, 2, 3, 4, 5, 6, 7]), 3)
    };
    let mut state = Walk::new();
    let (met, judged) = walk(&mut server, &mut state, |_, _, _| {});
    assert_eq!(met.len(), 7);
    assert_eq!(judged, []);
    assert!(!state.is_ordered());
}

#[test]
fn a_page_that_cannot_be_read_costs_its_user_only() {
    let mut server = Server::new(users(&[1, 2, 2, 2, 3, 4]), 1);
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
            .map(|(at, id)| Entry {
                id,
                created_at: Some(*at),
            })
            .collect();
        match state.receive(&entries) {
            Step::Page(page) => met.extend(page.fresh.iter().map(|&at| entries[at].id.to_owned())),
            Step::Again => {}
            Step::End(_) | Step::Unfit => break,
        }
    }
    assert!(skipped);
    assert_eq!(met, ["user_000", "user_001", "user_003", "user_004", "user_005"]);
}

#[test]
fn a_page_without_a_single_date_judges_nobody() {
    let mut state = Walk::new();
    let undated = ["a", "b"].map(|id| Entry { id, created_at: None });
    let Step::Page(page) = state.receive(&undated) else {
        panic!("not a page")
    };
    assert_eq!((page.fresh.len(), page.judged), (2, None));
    let dated = [Entry {
        id: "c",
        created_at: Some(5),
    }];
    let Step::Page(page) = state.receive(&dated) else {
        panic!("not a page")
    };
    assert_eq!(
        page.judged,
        Some(Interval {
            from: None,
            before: Some(5)
        })
    );
    assert!(page.carried.contains("a"));
}

#[test]
fn a_server_that_does_not_keep_to_a_stretch_is_unfit_for_it() {
    let stretch = Interval {
        from: Some(5_000),
        before: Some(9_000),
    };
    let entry = |at| Entry {
        id: "a",
        created_at: Some(at),
    };
    assert_eq!(Walk::over(stretch).receive(&[entry(3_999), entry(6_000)]), Step::Unfit);
    assert_eq!(Walk::over(stretch).receive(&[entry(7_000), entry(6_000)]), Step::Unfit);
    // One that cuts times to seconds, or whose bounds include their moment.
    let all = Step::End(Page {
        fresh: vec![1],
        judged: Some(stretch),
        carried: HashSet::new(),
    });
    assert_eq!(Walk::over(stretch).receive(&[4_999, 6_000, 9_000].map(entry)), all);
}

#[test]
fn whoever_has_no_date_belongs_to_one_stretch() {
    let stretch = Interval {
        from: None,
        before: Some(5),
    };
    let entry = |id, created_at| Entry { id, created_at };
    // The one behind the stretch's end is on the next one's first page, too.
    let page = [("a", Some(1)), ("b", None), ("c", Some(7)), ("d", None)].map(|(id, at)| entry(id, at));
    let Step::End(last) = Walk::over(stretch).receive(&page) else {
        panic!("not the end")
    };
    assert_eq!(last.fresh, [0, 1]);
    let next = Interval {
        from: Some(5),
        before: None,
    };
    let Step::Page(first) = Walk::over(next).receive(&page[2..]) else {
        panic!("not a page")
    };
    assert_eq!(first.fresh, [0, 1]);
}

proptest! {
    /// Whatever a server ignores, the walk ends, and takes nobody for fresh twice where the list is in order.
    #[test]
    fn every_walk_ends(
        dates in prop::collection::vec(0i64..12, 0..40), limit in 1usize..15,
        ignores_cursor in any::<bool>(), ignores_dates in any::<bool>(), ignores_offset in any::<bool>(), descending in any::<bool>(),
    ) {
        let mut server = Server { ignores_cursor, ignores_dates, ignores_offset, descending, ..Server::new(users(&dates), limit) };
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
        check(&mut Server::new(users(&dates), limit));
    }

    /// Deletions between the pages, cursors' users among them: whoever stays is met exactly once, in every fate.
    #[test]
    fn whoever_stays_is_met(
        dates in prop::collection::vec(0i64..30, 1..80),
        limit in 2usize..12,
        fate in prop::sample::select(vec![Fate::Refuse, Fate::Empty, Fate::FromTheTop]),
        deletions in prop::collection::vec((0usize..40, 0usize..80), 0..30),
        cursors_die in any::<bool>(),
    ) {
        let mut server = Server { fate, ..Server::new(users(&dates), limit) };
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

    /// A server that knows neither cursors nor filters: as long as no more users go between two requests than pages overlap, nobody is
    /// skipped; when more go, the walk steps back until it meets known ones.
    #[test]
    fn whoever_stays_is_met_by_offset(
        count in 1usize..200,
        limit in 21usize..40,
        ignores_dates in any::<bool>(),
        deletions in prop::collection::vec((0usize..20, 0usize..200), 0..60),
    ) {
        let dates: Vec<i64> = (0..count as i64).collect();
        let mut server = Server { ignores_cursor: true, ignores_dates, ..Server::new(users(&dates), limit) };
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

    /// Stretches walked one by one meet whoever stays exactly once, whatever goes meanwhile and however the server pages.
    #[test]
    fn stretches_meet_whoever_stays(
        dates in prop::collection::vec(0i64..30, 1..120),
        mut bounds in prop::collection::vec(0i64..32, 0..4),
        limit in 2usize..30,
        fate in prop::sample::select(vec![Fate::Refuse, Fate::Empty, Fate::FromTheTop]),
        ignores_cursor in any::<bool>(),
        deletions in prop::collection::vec((0usize..40, 0usize..120), 0..30),
    ) {
        // Offsets overlap by ten, so that a smaller page by offset may not.
        let limit = if ignores_cursor { limit + 20 } else { limit };
        bounds.sort_unstable();
        bounds.dedup();
        let ends = bounds.iter().map(|at| Some(*at));
        let stretches = std::iter::once(None).chain(ends.clone()).zip(ends.chain([None]));
        let mut server = Server { fate, ignores_cursor, ..Server::new(users(&dates), limit) };
        let (mut met, mut judged) = (Vec::new(), Vec::new());
        let mut requests = 0;
        for (from, before) in stretches {
            let mut state = Walk::over(Interval { from, before });
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

    /// A walk cut off anywhere and taken up at its position meets everybody in its two parts, and judges all time.
    #[test]
    fn a_walk_is_taken_up_again(
        dates in prop::collection::vec(0i64..20, 1..60), limit in 1usize..12, cut in 1usize..12,
    ) {
        let server = Server::new(users(&dates), limit);
        let mut first = Walk::new();
        let mut met = HashSet::new();
        for _ in 0..cut {
            let list = server.answer(&first.query()).unwrap();
            let entries: Vec<_> = list.iter().map(|(at, id)| Entry { id, created_at: Some(*at) }).collect();
            if let Step::Page(page) = first.receive(&entries) {
                met.extend(page.fresh.iter().map(|&at| entries[at].id.to_owned()));
            }
        }
        if let Some(position) = first.position().cloned() {
            let mut second = Walk::resume(Interval::ALL, position.clone());
            let (rest, judged) = walk(&mut server.clone(), &mut second, |_, _, _| {});
            prop_assert_eq!(judged[0].from, Some(position.judged_to));
            prop_assert_eq!(position.seen as usize + rest.len(), dates.len());
            met.extend(rest);
            prop_assert_eq!(met.len(), dates.len());
        }
    }
}
