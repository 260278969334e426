//! Where a walk ends: at newcomers, at unreadable users, and with servers that never stop.

use proptest::prelude::*;

use super::*;

#[test]
fn a_page_of_newcomers_ends_the_walk() {
    let mut state = Walk::new().began(100, Some(2));
    let WalkStep::Page(first) = state.receive(&[entry("a", 1), entry("b", 100)]) else {
        panic!("not a page")
    };
    assert_eq!(first.fresh, [0, 1]);
    let WalkStep::End(last) = state.receive(&[entry("c", 100), entry("d", 101)]) else {
        panic!("not the end")
    };
    // Nothing follows a short page.
    assert_eq!((last.fresh.len(), last.judged.unwrap().before), (2, None));
}

#[test]
fn nothing_after_a_full_page_of_newcomers_is_judged() {
    let mut state = Walk::new().began(100, Some(2));
    let ids: Vec<String> = (0..MAX_PAGE).map(|n| format!("user_{n:03}")).collect();
    let page: Vec<_> = ids.iter().zip(100..).map(|(id, at)| entry(id, at)).collect();
    let WalkStep::End(last) = state.receive(&page) else {
        panic!("not the end")
    };
    let bound = 100 + i64::from(MAX_PAGE) - 1;
    assert_eq!((last.fresh.len(), last.judged.unwrap().before), (500, Some(bound)));
}

#[test]
fn a_user_created_in_the_future_is_no_newcomer() {
    let mut state = Walk::new().began(100, Some(2));
    let future = ListEntry {
        id: "a",
        created_at: Some(1_000),
        updated_at: Some(50),
    };
    assert!(matches!(state.receive(&[future]), WalkStep::Page(_)));
    assert!(matches!(state.receive(&[entry("b", 2_000)]), WalkStep::End(_)));
}

#[test]
fn an_unreadable_only_user_ends_the_walk() {
    let mut state = Walk::new().began(100, Some(1));
    for (limit, came) in [
        (500, Unreadable::Smaller),
        (50, Unreadable::Smaller),
        (5, Unreadable::Smaller),
        (1, Unreadable::SteppedOver),
    ] {
        assert_eq!((state.limit(), state.unreadable()), (limit, came));
    }
    assert_eq!((state.limit(), state.query().offset), (MAX_PAGE, 1));
    assert!(matches!(state.receive(&[]), WalkStep::End(_)));
    assert!(state.has_left_out());
}

#[test]
fn a_server_without_readable_pages_is_broken() {
    let mut state = Walk::new().began(100, Some(10));
    let came = std::iter::repeat_with(|| state.unreadable()).position(|came| came == Unreadable::Broken);
    assert_eq!(came, Some(12));
}

#[test]
fn a_list_that_has_shrunk_to_nearly_nothing_is_not_searched_in_small_steps() {
    let mut server = FakeList {
        ignores_cursor: true,
        ignores_dates: true,
        ..FakeList::new(users(&(0..50_000).collect::<Vec<_>>()), 500)
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
            WalkStep::Page(accepted) => met.extend(accepted.fresh.iter().map(|&at| page[at].id.to_owned())),
            WalkStep::Restart => met.clear(),
            WalkStep::Again => {}
            step => {
                assert!(
                    matches!(step, WalkStep::End(AcceptedPage { judged: None, .. })),
                    "{step:?}"
                );
                break;
            }
        }
    }
    let unique: HashSet<_> = met.iter().collect();
    assert_eq!((unique.len(), met.len(), state.seen()), (701, 701, 701));
    assert!(requests < 40, "{requests} requests");
}

#[test]
fn moments_that_reach_over_a_page_are_tied() {
    let mut server = FakeList::new(users(&[1, 2, 2, 2, 3, 4, 4, 5]), 3);
    let mut state = Walk::new();
    walk(&mut server, &mut state, |_, _, _| {});
    let moments = state.take_tied_moments();
    let met: Vec<_> = moments.iter().map(|moment| (moment.at, moment.met())).collect();
    assert_eq!(met, [(2, 3), (4, 2)]);

    let ids: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    let moment = TiedMoment::new(2, ids.iter().map(String::as_str));
    let mut rereads = TieRereads::new(&moment, 620);
    let offsets: Vec<_> = std::iter::from_fn(|| rereads.next_offset()).take(3).collect();
    assert_eq!(offsets, [0, 500, 0]);
    rereads.found(119);
    assert_eq!(rereads.next_offset(), Some(500));
    rereads.found(1);
    assert_eq!(rereads.next_offset(), None);
    let mut in_vain = TieRereads::new(&moment, 620);
    assert_eq!(std::iter::from_fn(|| in_vain.next_offset()).count(), 24);
}

/// What a hostile server answers.
#[derive(Debug, Clone)]
enum FakeAnswer {
    Refused,
    Unreadable,
    /// Users by number, with their `created_at`; a new number for each `None`.
    Page(Vec<(Option<u8>, Option<i64>)>),
    /// The same in ascending order.
    Sorted(Vec<(Option<u8>, i64)>),
}

fn answer() -> impl Strategy<Value = FakeAnswer> {
    let number = prop_oneof![Just(None), any::<u8>().prop_map(Some)];
    prop_oneof![
        1 => Just(FakeAnswer::Refused),
        1 => Just(FakeAnswer::Unreadable),
        1 => prop::collection::vec((number.clone(), prop::option::of(0i64..50)), 0..6).prop_map(FakeAnswer::Page),
        4 => prop::collection::vec((number, 0i64..1_000), 0..6).prop_map(FakeAnswer::Sorted),
    ]
}

proptest! {
    /// Whatever a server answers, the walk ends after a number of requests that depends on the
    /// number of users.
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
                FakeAnswer::Refused if state.refused() => continue,
                FakeAnswer::Refused => break,
                FakeAnswer::Unreadable if state.unreadable() == Unreadable::Broken => break,
                FakeAnswer::Unreadable => continue,
                FakeAnswer::Page(page) => page.iter().map(|(number, at)| (name(*number), *at)).collect(),
                FakeAnswer::Sorted(page) => {
                    let mut page = page.clone();
                    page.sort_by_key(|(_, at)| *at);
                    page.iter().map(|(number, at)| (name(*number), Some(at + shift))).collect()
                }
            };
            let entries: Vec<_> = list.iter().map(|(id, at)| ListEntry { id, created_at: *at, updated_at: *at }).collect();
            if matches!(state.receive(&entries), WalkStep::End(_) | WalkStep::Endless | WalkStep::CannotPartition) {
                break;
            }
        }
    }

    /// Users sign up between any two requests. The walk meets all older users, and ends.
    #[test]
    fn new_users_do_not_keep_a_walk_for_ever(
        dates in prop::collection::vec(0i64..1_000, 1..400), limit in 3usize..60, new in 1usize..120,
        ignores_cursor in any::<bool>(), ignores_dates in any::<bool>(),
    ) {
        let limit = if ignores_cursor { limit + 20 } else { limit };
        let mut server = FakeList { ignores_cursor, ignores_dates, ..FakeList::new(users(&dates), limit) };
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
                WalkStep::Page(accepted) => met.extend(accepted.fresh.iter().map(|&at| list[at].1.clone())),
                WalkStep::End(accepted) => {
                    met.extend(accepted.fresh.iter().map(|&at| list[at].1.clone()));
                    break;
                }
                WalkStep::Again => {}
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
