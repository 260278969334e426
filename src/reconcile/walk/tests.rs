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
            .map(|(at, id)| Entry {
                id,
                created_at: Some(*at),
                updated_at: None,
            })
            .collect();
        match walk.receive(&entries) {
            Step::Again => {}
            Step::Anew => met.clear(),
            Step::Endless => panic!("given up after {request} requests"),
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
fn assert_tiles(judged: &[Range]) {
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
                updated_at: None,
            })
            .collect();
        match state.receive(&entries) {
            Step::Page(page) => met.extend(page.fresh.iter().map(|&at| entries[at].id.to_owned())),
            Step::Again => {}
            step => {
                assert!(matches!(step, Step::End(_)), "{step:?}");
                break;
            }
        }
    }
    assert!(skipped);
    assert_eq!(met, ["user_000", "user_001", "user_003", "user_004", "user_005"]);
}

#[test]
fn a_page_without_a_single_date_judges_nobody() {
    let mut state = Walk::new();
    let undated = ["a", "b"].map(|id| Entry {
        id,
        created_at: None,
        updated_at: None,
    });
    let Step::Page(page) = state.receive(&undated) else {
        panic!("not a page")
    };
    assert_eq!((page.fresh.len(), page.judged), (2, None));
    let dated = [Entry {
        id: "c",
        created_at: Some(5),
        updated_at: None,
    }];
    let Step::Page(page) = state.receive(&dated) else {
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
fn a_server_that_does_not_keep_to_a_stretch_is_unfit_for_it() {
    let stretch = Range {
        from: Some(5_000),
        before: Some(9_000),
    };
    let entry = |at| Entry {
        id: "a",
        created_at: Some(at),
        updated_at: None,
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
    let stretch = Range {
        from: None,
        before: Some(5),
    };
    let entry = |id, created_at| Entry {
        id,
        created_at,
        updated_at: None,
    };
    // The one behind the stretch's end is on the next one's first page, too.
    let page = [("a", Some(1)), ("b", None), ("c", Some(7)), ("d", None)].map(|(id, at)| entry(id, at));
    let Step::End(last) = Walk::over(stretch).receive(&page) else {
        panic!("not the end")
    };
    assert_eq!(last.fresh, [0, 1]);
    let next = Range {
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
            let entries: Vec<_> = list.iter().map(|(at, id)| Entry { id, created_at: Some(*at), updated_at: None }).collect();
            if let Step::Page(page) = first.receive(&entries) {
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

/// A user who was created and changed at that moment.
fn entry(id: &str, at: i64) -> Entry<'_> {
    Entry {
        id,
        created_at: Some(at),
        updated_at: Some(at),
    }
}

#[test]
fn a_page_of_newcomers_ends_the_walk() {
    let mut state = Walk::new().began(100, Some(2));
    let Step::Page(first) = state.receive(&[entry("a", 1), entry("b", 100)]) else {
        panic!("not a page")
    };
    assert_eq!(first.fresh, [0, 1]);
    let Step::End(last) = state.receive(&[entry("c", 100), entry("d", 101)]) else {
        panic!("not the end")
    };
    // A short page is followed by nobody.
    assert_eq!((last.fresh.len(), last.judged.unwrap().before), (2, None));
}

#[test]
fn nobody_behind_a_whole_page_of_newcomers_is_judged() {
    let mut state = Walk::new().began(100, Some(2));
    let ids: Vec<String> = (0..PAGE).map(|n| format!("user_{n:03}")).collect();
    let page: Vec<_> = ids.iter().zip(100..).map(|(id, at)| entry(id, at)).collect();
    let Step::End(last) = state.receive(&page) else {
        panic!("not the end")
    };
    let bound = 100 + i64::from(PAGE) - 1;
    assert_eq!((last.fresh.len(), last.judged.unwrap().before), (500, Some(bound)));
}

#[test]
fn whoever_was_created_in_the_future_is_no_newcomer() {
    let mut state = Walk::new().began(100, Some(2));
    let future = Entry {
        id: "a",
        created_at: Some(1_000),
        updated_at: Some(50),
    };
    assert!(matches!(state.receive(&[future]), Step::Page(_)));
    assert!(matches!(state.receive(&[entry("b", 2_000)]), Step::End(_)));
}

#[test]
fn an_only_user_who_cannot_be_read_ends_the_walk() {
    let mut state = Walk::new().began(100, Some(1));
    for (limit, came) in [
        (500, Unreadable::Smaller),
        (50, Unreadable::Smaller),
        (5, Unreadable::Smaller),
        (1, Unreadable::SteppedOver),
    ] {
        assert_eq!((state.limit(), state.unreadable()), (limit, came));
    }
    assert_eq!((state.limit(), state.query().offset), (PAGE, 1));
    assert!(matches!(state.receive(&[]), Step::End(_)));
    assert!(state.has_left_out());
}

#[test]
fn a_server_that_nobody_can_read_is_broken() {
    let mut state = Walk::new().began(100, Some(10));
    let came = std::iter::repeat_with(|| state.unreadable()).position(|came| came == Unreadable::Broken);
    assert_eq!(came, Some(12));
}

#[test]
fn a_list_that_has_shrunk_to_nearly_nothing_is_not_searched_in_small_steps() {
    let mut server = Server {
        ignores_cursor: true,
        ignores_dates: true,
        ..Server::new(users(&(0..50_000).collect::<Vec<_>>()), 500)
    };
    let mut state = Walk::new().began(1_000_000, Some(50_000));
    let mut requests = 0;
    walk(&mut server, &mut state, |server, request, _| {
        requests = request;
        if request == 90 {
            server.users.retain(|(at, _)| *at < 3);
        }
    });
    assert!(requests < 120, "{requests} requests");
}

#[test]
fn a_list_that_is_shuffled_at_each_request_is_met_whole_and_once() {
    let mut dice = fastrand::Rng::with_seed(3);
    let mut ids: Vec<String> = (0..701).map(|n| format!("user_{n:03}")).collect();
    let mut state = Walk::new().began(1_000_000, Some(701));
    let mut met = Vec::new();
    let mut requests = 0;
    loop {
        requests += 1;
        dice.shuffle(&mut ids);
        let offset = state.query().offset as usize;
        let page: Vec<_> = ids
            .iter()
            .skip(offset)
            .take(500)
            .map(|id| entry(id, id[5..].parse().unwrap()))
            .collect();
        match state.receive(&page) {
            Step::Page(accepted) => met.extend(accepted.fresh.iter().map(|&at| page[at].id.to_owned())),
            Step::Anew => met.clear(),
            Step::Again => {}
            step => {
                assert!(matches!(step, Step::End(Page { judged: None, .. })), "{step:?}");
                break;
            }
        }
    }
    let unique: HashSet<_> = met.iter().collect();
    assert_eq!((unique.len(), met.len(), state.seen()), (701, 701, 701));
    assert!(requests < 40, "{requests} requests");
}

#[test]
fn moments_that_reach_over_a_page_are_crowds() {
    let mut server = Server::new(users(&[1, 2, 2, 2, 3, 4, 4, 5]), 3);
    let mut state = Walk::new();
    walk(&mut server, &mut state, |_, _, _| {});
    let crowds = state.take_crowds();
    let met: Vec<_> = crowds.iter().map(|crowd| (crowd.at, crowd.met())).collect();
    assert_eq!(met, [(2, 3), (4, 2)]);

    let ids: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    let crowd = Crowd::new(2, ids.iter().map(String::as_str));
    let mut visits = Visits::new(&crowd, 620);
    let offsets: Vec<_> = std::iter::from_fn(|| visits.next_offset()).take(3).collect();
    assert_eq!(offsets, [0, 500, 0]);
    visits.found(119);
    assert_eq!(visits.next_offset(), Some(500));
    visits.found(1);
    assert_eq!(visits.next_offset(), None);
    let mut in_vain = Visits::new(&crowd, 620);
    assert_eq!(std::iter::from_fn(|| in_vain.next_offset()).count(), 24);
}

/// What a hostile server answers.
#[derive(Debug, Clone)]
enum Answer {
    Refused,
    Unreadable,
    /// Users by number, with their `created_at`; a new number each where it is `None`.
    Page(Vec<(Option<u8>, Option<i64>)>),
    /// The same in ascending order.
    Sorted(Vec<(Option<u8>, i64)>),
}

fn answer() -> impl Strategy<Value = Answer> {
    let number = prop_oneof![Just(None), any::<u8>().prop_map(Some)];
    prop_oneof![
        1 => Just(Answer::Refused),
        1 => Just(Answer::Unreadable),
        1 => prop::collection::vec((number.clone(), prop::option::of(0i64..50)), 0..6).prop_map(Answer::Page),
        4 => prop::collection::vec((number, 0i64..1_000), 0..6).prop_map(Answer::Sorted),
    ]
}

proptest! {
    /// Whatever a server answers, over and over again, the walk ends after a number of requests that depends on the number of users.
    #[test]
    fn no_server_keeps_a_walk_for_ever(answers in prop::collection::vec(answer(), 1..8), users in 0u64..40, moves in any::<bool>()) {
        let mut state = Walk::new().began(2_000, Some(users));
        let mut next = 0u64;
        let most = 50 + 17 * (200 + 2 * users);
        for request in 0.. {
            prop_assert!(request < most, "the walk does not end");
            let shift = if moves { request as i64 / 8 * 3 } else { 0 };
            let mut name = |number: Option<u8>| {
                next += 1;
                number.map_or_else(|| format!("new_{next}"), |number| format!("user_{number}"))
            };
            let list: Vec<(String, Option<i64>)> = match &answers[request as usize % answers.len()] {
                Answer::Refused if state.refused() => continue,
                Answer::Refused => break,
                Answer::Unreadable if state.unreadable() == Unreadable::Broken => break,
                Answer::Unreadable => continue,
                Answer::Page(page) => page.iter().map(|(number, at)| (name(*number), *at)).collect(),
                Answer::Sorted(page) => {
                    let mut page = page.clone();
                    page.sort_by_key(|(_, at)| *at);
                    page.iter().map(|(number, at)| (name(*number), Some(at + shift))).collect()
                }
            };
            let entries: Vec<_> = list.iter().map(|(id, at)| Entry { id, created_at: *at, updated_at: *at }).collect();
            if matches!(state.receive(&entries), Step::End(_) | Step::Endless | Step::Unfit) {
                break;
            }
        }
    }

    /// Somebody signs up between any two requests, or several do: the walk meets whoever was there, and ends.
    #[test]
    fn people_who_sign_up_do_not_keep_a_walk_for_ever(
        dates in prop::collection::vec(0i64..1_000, 1..400), limit in 3usize..60, new in 1usize..120,
        ignores_cursor in any::<bool>(), ignores_dates in any::<bool>(),
    ) {
        let limit = if ignores_cursor { limit + 20 } else { limit };
        let mut server = Server { ignores_cursor, ignores_dates, ..Server::new(users(&dates), limit) };
        let old = server.users.clone();
        let mut state = Walk::new().began(1_000, Some(dates.len() as u64));
        let mut requests = 0;
        let mut met = Vec::new();
        loop {
            for n in 0..new {
                server.users.insert((1_000 + requests, format!("new_{requests:05}_{n:03}")));
            }
            requests += 1;
            prop_assert!(requests < 20 + 4 * dates.len() as i64, "the walk does not end");
            let list = server.answer(&state.query()).unwrap();
            let page: Vec<_> = list.iter().map(|(at, id)| entry(id, *at)).collect();
            match state.receive(&page) {
                Step::Page(accepted) => met.extend(accepted.fresh.iter().map(|&at| list[at].1.clone())),
                Step::End(accepted) => {
                    met.extend(accepted.fresh.iter().map(|&at| list[at].1.clone()));
                    break;
                }
                Step::Again => {}
                step => panic!("{step:?}"),
            }
        }
        let unique: HashSet<_> = met.iter().collect();
        prop_assert_eq!(unique.len(), met.len(), "met twice");
        for (_, id) in &old {
            prop_assert!(unique.contains(id), "{} was skipped", id);
        }
        if !ignores_cursor {
            let pages = dates.len() as i64 / limit as i64;
            prop_assert!(requests <= pages + 3, "{} requests for {} pages", requests, pages);
        }
    }
}
