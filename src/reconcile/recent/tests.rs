use proptest::prelude::*;

use super::*;

/// A server's list: ids with their `updated_at`.
#[derive(Debug, Clone)]
struct ChangingList(Vec<(u32, i64)>, Option<fastrand::Rng>);

impl ChangingList {
    /// With dice, users that share a moment are in another order at each request.
    fn page(&mut self, (offset, limit): (u64, u32)) -> Vec<(String, i64)> {
        let mut list = self.0.clone();
        if let Some(dice) = &mut self.1 {
            dice.shuffle(&mut list);
            list.sort_by_key(|&(_, at)| std::cmp::Reverse(at));
        } else {
            list.sort_by_key(|&(id, at)| (std::cmp::Reverse(at), id));
        }
        list.into_iter()
            .skip(offset as usize)
            .take(limit as usize)
            .map(|(id, at)| (id.to_string(), at))
            .collect()
    }
}

/// What happens between two requests.
#[derive(Debug, Clone)]
enum ListEvent {
    Update(Vec<u8>),
    Delete(Vec<u8>),
    Create(u8),
}

fn event() -> impl Strategy<Value = ListEvent> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40).prop_map(ListEvent::Update),
        prop::collection::vec(any::<u8>(), 0..30).prop_map(ListEvent::Delete),
        (0u8..40).prop_map(ListEvent::Create),
        Just(ListEvent::Create(0)),
    ]
}

fn happen(server: &mut ChangingList, event: &ListEvent, now: i64) {
    let pick = |n: &u8, list: &[(u32, i64)]| (usize::from(*n) * list.len()) / 256;
    match event {
        ListEvent::Update(picks) => {
            for n in picks {
                let at = pick(n, &server.0);
                if let Some(user) = server.0.get_mut(at) {
                    user.1 = now;
                }
            }
        }
        ListEvent::Delete(picks) => {
            for n in picks {
                let at = pick(n, &server.0);
                if at < server.0.len() {
                    server.0.remove(at);
                }
            }
        }
        ListEvent::Create(count) => {
            let next = server.0.iter().map(|user| user.0).max().unwrap_or(0) + 1;
            server.0.extend((0..u32::from(*count)).map(|n| (next + n, now)));
        }
    }
}

/// Walks down to `floor`, past users that cannot be read. Returns which users it met with which
/// `updated_at`, how it ended, and after how many requests.
fn walk_past(
    broken: &HashSet<String>,
    server: &mut ChangingList,
    floor: i64,
    first: u32,
    events: &[ListEvent],
) -> (HashSet<(String, i64)>, RecentStep, usize) {
    let mut recent = RecentWalk::new(floor, first).among(10_000);
    let mut met = HashSet::new();
    let mut events = events.iter();
    for asked in 1..10_000 {
        let page = server.page(recent.query());
        if page.iter().any(|(id, _)| broken.contains(id)) {
            assert_ne!(recent.unreadable(), Unreadable::Broken);
            continue;
        }
        met.extend(page.iter().cloned());
        let entries: Vec<_> = page
            .iter()
            .map(|(id, at)| ListEntry {
                id,
                created_at: None,
                updated_at: Some(*at),
            })
            .collect();
        let step = recent.receive(&entries);
        if step != RecentStep::More {
            return (met, step, asked);
        }
        if let Some(event) = events.next() {
            happen(server, event, 100_000 + asked as i64);
        }
    }
    panic!("the walk does not end");
}

fn walk(
    server: &mut ChangingList,
    floor: i64,
    first: u32,
    events: &[ListEvent],
) -> (HashSet<(String, i64)>, RecentStep, usize) {
    walk_past(&HashSet::new(), server, floor, first, events)
}

proptest! {
    #[test]
    fn unreadable_users_cost_only_themselves(
        times in prop::collection::vec(0i64..200, 1..300), floor in 0i64..210, first in 1u32..40,
        broken in prop::collection::hash_set(0u32..300, 0..4),
    ) {
        let mut server = ChangingList(times.into_iter().enumerate().map(|(id, at)| (id as u32, at)).collect(), None);
        let broken: HashSet<String> = broken.iter().map(ToString::to_string).collect();
        let (met, step, asked) = walk_past(&broken, &mut server, floor, first, &[]);
        prop_assert_eq!(step, RecentStep::End);
        prop_assert!(asked < 200, "{} requests", asked);
        for (id, at) in server.0.iter().filter(|user| user.1 >= floor) {
            let id = id.to_string();
            prop_assert!(broken.contains(&id) || met.contains(&(id.clone(), *at)), "{}", id);
        }
    }

    /// Ties that are broken differently at each request: all users that share a moment with less
    /// than a page are met.
    #[test]
    fn no_user_is_missed_if_ties_are_shuffled(
        times in prop::collection::vec(prop_oneof![0i64..50, 20i64..22], 0..900), floor in 0i64..60, first in 1u32..40,
        events in prop::collection::vec(event(), 0..20), seed in any::<u64>(),
    ) {
        let users = times.into_iter().enumerate().map(|(id, at)| (id as u32, at)).collect();
        let mut server = ChangingList(users, Some(fastrand::Rng::with_seed(seed)));
        let before = server.0.clone();
        let (met, step, _) = walk(&mut server, floor, first, &events);
        prop_assert_eq!(step, RecentStep::End);
        let tied = |at: i64| before.iter().filter(|user| user.1 == at).count() >= 450;
        for user in before.iter().filter(|user| user.1 >= floor && server.0.contains(user) && !tied(user.1)) {
            prop_assert!(met.contains(&(user.0.to_string(), user.1)), "{:?}", user);
        }
    }

    /// Whatever a server answers, the walk ends after a number of requests that depends on the
    /// number of users.
    #[test]
    fn no_server_keeps_a_walk_for_ever(
        answers in prop::collection::vec(prop::option::weighted(0.8, prop::collection::vec((prop::option::of(0u8..40), 0i64..100), 0..30)), 1..8),
        users in 0u64..5_000, floor in 0i64..50, is_sorted in any::<bool>(),
    ) {
        let mut recent = RecentWalk::new(floor, 20).among(users);
        let mut next = 0;
        for request in 0.. {
            prop_assert!(request < 300 + users / 250, "the walk does not end");
            let Some(page) = &answers[request as usize % answers.len()] else {
                match recent.unreadable() {
                    Unreadable::Broken => break,
                    _ => continue,
                }
            };
            let mut page: Vec<(String, i64)> = page.iter().map(|(number, at)| {
                next += 1;
                (number.map_or_else(|| format!("new_{next}"), |number| number.to_string()), *at)
            }).collect();
            if is_sorted {
                page.sort_by_key(|(_, at)| std::cmp::Reverse(*at));
            }
            let entries: Vec<_> = page.iter().map(|(id, at)| ListEntry { id, created_at: None, updated_at: Some(*at) }).collect();
            if recent.receive(&entries) != RecentStep::More {
                break;
            }
        }
    }

    #[test]
    fn no_user_above_the_floor_is_missed(
        times in prop::collection::vec(0i64..50, 0..600), floor in 0i64..60, first in 1u32..40,
        events in prop::collection::vec(event(), 0..20),
    ) {
        let mut server = ChangingList(times.into_iter().enumerate().map(|(id, at)| (id as u32, at)).collect(), None);
        let before = server.clone();
        let (met, step, _) = walk(&mut server, floor, first, &events);
        prop_assert_eq!(step, RecentStep::End);
        // Users that changed meanwhile are at the top, for the next walk. All others are met.
        for user in before.0.iter().filter(|user| user.1 >= floor && server.0.contains(user)) {
            prop_assert!(met.contains(&(user.0.to_string(), user.1)), "{:?}", user);
        }
    }
}

#[test]
fn a_quiet_list_is_one_request() {
    let mut server = ChangingList((0..1000).map(|id| (id, 5)).collect(), None);
    assert_eq!(walk(&mut server, 6, 20, &[]).2, 1);
    let mut few = ChangingList((0..15).map(|id| (id, 5)).collect(), None);
    assert_eq!(walk(&mut few, 6, 20, &[]).2, 1);
    assert_eq!(walk(&mut few, 0, 20, &[]).2, 2);
}

#[test]
fn users_that_move_up_after_the_first_page_are_met() {
    let mut server = ChangingList((0..40).map(|id| (id, 100 - i64::from(id))).collect(), None);
    let (met, step, _) = walk(&mut server, 70, 1, &[ListEvent::Delete(vec![0; 10])]);
    assert_eq!(step, RecentStep::End);
    assert!((10..=30).all(|id| met.contains(&(id.to_string(), 100 - id))), "{met:?}");
}

#[test]
fn a_list_in_another_order_or_without_offsets_is_not_followed() {
    let entry = |id, at| ListEntry {
        id,
        created_at: None,
        updated_at: Some(at),
    };
    let mut recent = RecentWalk::new(0, 2);
    assert_eq!(recent.receive(&[entry("a", 1), entry("b", 2)]), RecentStep::Unordered);
    let mut recent = RecentWalk::new(0, 3);
    let page = [entry("a", 3), entry("b", 2), entry("c", 1)];
    assert_eq!(recent.receive(&page), RecentStep::More);
    recent.limit = 3;
    assert_eq!(recent.receive(&page), RecentStep::Unordered);
}

#[test]
fn an_unreadable_user_is_stepped_over() {
    let entry = |id, at| ListEntry {
        id,
        created_at: None,
        updated_at: Some(at),
    };
    let mut recent = RecentWalk::new(5, 20);
    assert_eq!(recent.unreadable(), Unreadable::Smaller);
    assert_eq!(recent.query(), (0, 2));
    assert_eq!(recent.unreadable(), Unreadable::Smaller);
    assert_eq!(
        recent.unreadable(),
        Unreadable::SteppedOver,
        "there is nothing smaller than one"
    );
    assert_eq!(recent.query(), (1, 1));
    assert_eq!(recent.receive(&[entry("b", 9)]), RecentStep::More);
    assert_eq!(recent.query(), (2, 4));
    assert_eq!(recent.receive(&[entry("c", 4)]), RecentStep::End);
    assert_eq!(recent.newest(None), Some(9));
}

#[test]
fn an_unreadable_only_user_ends_the_walk() {
    let mut recent = RecentWalk::new(5, 20);
    while recent.unreadable() == Unreadable::Smaller {}
    assert_eq!(recent.query(), (1, 1));
    assert_eq!(recent.receive(&[]), RecentStep::End);
}

#[test]
fn a_moment_that_no_page_can_show_is_tied() {
    let times = |shared| std::iter::repeat_n(50, shared).chain((0..40).rev());
    let walk = |shared: usize, floor| {
        let users = times(shared).enumerate().map(|(id, at)| (id as u32, at)).collect();
        let mut server = ChangingList(users, Some(fastrand::Rng::with_seed(5)));
        let mut recent = RecentWalk::new(floor, 20).among(5_000);
        let mut met = HashSet::new();
        for requests in 1.. {
            let page = server.page(recent.query());
            met.extend(page.iter().map(|(id, _)| id.clone()));
            let entries = page.iter().map(|(id, at)| ListEntry {
                id,
                created_at: None,
                updated_at: Some(*at),
            });
            if recent.receive(&entries.collect::<Vec<_>>()) == RecentStep::End {
                return (met.len(), recent.tied(None), recent.tied(Some(49)), requests);
            }
        }
        unreachable!()
    };
    assert_eq!(walk(3, 50), (20, None, None, 1));
    assert_eq!(walk(490, 50), (500, None, None, 4));
    let (met, tied, earlier, requests) = walk(3_000, 50);
    assert_eq!((tied, earlier), (Some(50), None));
    assert!(met < 3_000 && requests < 20, "{met} met, {requests} requests");
}

#[test]
fn a_time_of_the_future_does_not_become_the_watermark() {
    let mut recent = RecentWalk::new(0, 2);
    let page = [ListEntry {
        id: "a",
        created_at: None,
        updated_at: Some(4_000_000_000_000),
    }];
    recent.receive(&page);
    assert_eq!(recent.newest(Some(1_700_000_000_000)), Some(1_700_000_000_000));
    assert_eq!(recent.newest(None), Some(4_000_000_000_000));
}
