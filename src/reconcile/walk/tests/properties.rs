//! Properties of walks over lists that change meanwhile.

use proptest::prelude::*;

use std::collections::VecDeque;

use super::*;

/// The users on a page, and how many there are in all.
type Answer = (Vec<(i64, String)>, Option<u64>);

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

    /// A list that is only read by offset: however many users are deleted between two requests, all
    /// others are met exactly once.
    #[test]
    fn users_that_stay_are_met_in_a_list_by_offset(
        count in 0usize..200,
        limit in 21usize..60,
        deletions in prop::collection::vec((0usize..20, 0usize..200), 0..60),
    ) {
        let dates: Vec<i64> = (0..count as i64).collect();
        let mut server = FakeList::by_offset(users(&dates), limit);
        let (met, judged) = walk(&mut server, &mut Walk::new().by_offset(), |server, request, query| {
            assert_eq!((&query.after, query.created_after), (&None, None));
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

    /// A quiet list by offset takes no request more than it has pages, which overlap.
    #[test]
    fn a_quiet_list_by_offset_takes_a_request_a_page(count in 0usize..300, limit in 21usize..60) {
        let dates: Vec<i64> = (0..count as i64).collect();
        let mut server = FakeList::by_offset(users(&dates), limit);
        let mut requests = 0;
        let (met, _) = walk(&mut server, &mut Walk::new().by_offset(), |_, _, _| requests += 1);
        prop_assert_eq!(met.len(), count);
        prop_assert!(requests <= 1 + count.saturating_sub(1) / (limit - 10), "{} requests", requests);
    }

    /// Pages that are asked for ahead, and that arrive from a list which has become shorter between any
    /// two of them, in any order, show all users that stay.
    #[test]
    fn users_that_stay_are_met_on_pages_fetched_ahead(
        dates in prop::collection::vec(0i64..150, 0..200),
        limit in 21usize..60,
        order in prop::collection::vec((0usize..4, prop::collection::vec(0usize..200, 0..4)), 0..60),
    ) {
        let mut server = FakeList::by_offset(users(&dates), limit);
        let mut walk = Walk::new().by_offset();
        let mut order = order.into_iter();
        let mut ahead: VecDeque<(ListQuery, Option<Answer>)> = VecDeque::new();
        let (mut met, mut judged, mut is_end) = (Vec::new(), Vec::new(), false);
        for request in 0.. {
            assert!(request < 2_000, "the walk does not end");
            // As many as this server gives.
            walk.page_size.limit = limit as u32;
            let queries = walk.queries(4);
            if !ahead.iter().zip(&queries).all(|((asked, _), query)| asked == query) {
                ahead.clear();
            }
            ahead.extend(queries.into_iter().skip(ahead.len()).map(|query| (query, None)));
            // Some of them arrive, and users are deleted in between.
            while ahead[0].1.is_none() {
                let (first, gone) = order.next().unwrap_or_default();
                let at = first % ahead.len();
                let (query, answer) = &mut ahead[at];
                answer.get_or_insert_with(|| (server.answer(query).unwrap(), server.total()));
                server.users.retain(|(_, user)| !gone.iter().any(|victim| *user == format!("user_{victim:03}")));
            }
            let (list, total) = ahead.pop_front().and_then(|(_, answer)| answer).unwrap();
            let entries: Vec<_> = list.iter().map(|(at, id)| ListEntry { id, created_at: Some(*at), updated_at: None }).collect();
            walk.note_total(total);
            let page = match walk.receive(&entries) {
                WalkStep::Page(page) => page,
                WalkStep::End(page) => {
                    is_end = true;
                    page
                }
                WalkStep::Again => continue,
                step => panic!("{step:?}"),
            };
            met.extend(page.fresh.iter().map(|&at| entries[at].id.to_owned()));
            judged.extend(page.judged);
            if is_end {
                break;
            }
        }
        let unique: HashSet<_> = met.iter().collect();
        prop_assert_eq!(unique.len(), met.len(), "met twice");
        for (_, id) in &server.users {
            prop_assert!(unique.contains(id), "{} was skipped", id);
        }
        assert_tiles(&judged);
    }

    /// A walk by offset that is interrupted anywhere goes on, although users were deleted meanwhile.
    #[test]
    fn a_walk_by_offset_is_taken_up_again(
        count in 1usize..200, limit in 21usize..60, cut in 1usize..6, gone in prop::collection::btree_set(0usize..200, 0..150),
    ) {
        let dates: Vec<i64> = (0..count as i64).collect();
        let mut server = FakeList::by_offset(users(&dates), limit);
        let mut first = Walk::new().by_offset();
        let mut met = HashSet::new();
        for _ in 0..cut {
            let list = server.answer(&first.query()).unwrap();
            let entries: Vec<_> = list.iter().map(|(at, id)| ListEntry { id, created_at: Some(*at), updated_at: None }).collect();
            first.note_total(server.total());
            match first.receive(&entries) {
                WalkStep::Page(page) => met.extend(page.fresh.iter().map(|&at| entries[at].id.to_owned())),
                WalkStep::End(_) => break,
                _ => {}
            }
        }
        if let Some(position) = first.position().cloned() {
            server.users.retain(|(_, user)| !gone.iter().any(|victim| *user == format!("user_{victim:03}")));
            let mut second = Walk::resume(Range::ALL, position.clone()).by_offset();
            let (rest, judged) = walk(&mut server.clone(), &mut second, |_, _, _| {});
            prop_assert_eq!(judged[0].from, Some(position.judged_to));
            met.extend(rest);
            for (_, id) in &server.users {
                prop_assert!(met.contains(id), "{} was skipped", id);
            }
        }
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
