//! Every way in which a server can page its list gives everybody, or says that it did not.

use clerk_sim::{DeletedCursor, Effect, Endpoint, Faults, Quirks, Rule};

use crate::{
    harness::{World, ended, eventually},
    trouble::{mirrored, mirrored_ids, under},
};

fn pages_of(users: usize) -> Quirks {
    Quirks {
        max_page: Some(users),
        ..Quirks::default()
    }
}

/// Deletes users in the middle of a walk: those that `victims` chooses by their positions, while the page behind position 13 is
/// under way.
async fn check_cursor(fate: DeletedCursor, more: fn(&mut Quirks), victims: &[usize]) {
    let name = format!("{fate:?}, {victims:?} deleted");
    let world = mirrored(40).await;
    let ids = world.sim.user_ids();
    let mut quirks = Quirks {
        deleted_cursor: fate,
        ..pages_of(7)
    };
    more(&mut quirks);
    let mut faults = Faults::from(quirks);
    faults
        .rules
        .push(Rule::new(Effect::LatencyMs(500)).on([Endpoint::List]).skip(2).next(1));
    world.sim.set_faults(faults);
    let before = world.sim.log().len();
    let pass = world.command(&["--once", "--format", "json"]).spawn().unwrap();
    let lists = || {
        let log = world.sim.log();
        log[before..]
            .iter()
            .filter(|request| request.path.starts_with("/v1/users?"))
            .count()
    };
    eventually("two pages are out", async || lists() >= 2).await;
    for &at in victims {
        assert!(world.sim.delete(&ids[at]));
    }
    assert_eq!(lists(), 2, "{name}: the third page is out already");
    let ran = ended(pass).await;
    world.sim.clear_faults();

    let mirror = mirrored_ids(&world).await;
    let lost: Vec<_> = world
        .sim
        .user_ids()
        .into_iter()
        .filter(|id| !mirror.contains(id))
        .collect();
    assert!(
        lost.is_empty(),
        "{name}: {lost:?} were deleted, though they exist: {ran:#?}"
    );
    assert_eq!(ran.code, Some(0), "{name}: {ran:#?}");
    // The one before the page was met before it was deleted; the next pass sees to it.
    let ran = world.once().await;
    assert_eq!(ran.code, Some(0), "{name}: {ran:#?}");
    world.assert_in_step().await;
}

async fn check_fate(fate: DeletedCursor) {
    // The cursor, the cursor and the one before it, a whole page with it, the users behind it, more than offsets overlap.
    for victims in [&[13][..], &[12, 13], &[7, 8, 9, 10, 11, 12, 13], &[13, 14, 15, 20, 39]] {
        check_cursor(fate, |_| {}, victims).await;
    }
    check_cursor(fate, |quirks| quirks.ignore_created_at = true, &[12, 13]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_cursor_that_is_not_found() {
    check_fate(DeletedCursor::NotFound).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_cursor_that_is_refused() {
    check_fate(DeletedCursor::Unprocessable).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_cursor_that_ends_the_list() {
    check_fate(DeletedCursor::EmptyPage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_cursor_that_starts_anew() {
    check_fate(DeletedCursor::Restart).await;
}

/// A first sync, and one with changes and a deletion, on a server that ignores parameters.
async fn check_ignoring(starting_after: bool, created_at: bool, offset: bool, order_by: bool) {
    let quirks = Quirks {
        ignore_starting_after: starting_after,
        ignore_created_at: created_at,
        ignore_offset: offset,
        ignore_order_by: order_by,
        ..pages_of(7)
    };
    let name = format!("{quirks:?}");
    let can_page = !(starting_after && created_at && offset) && !(order_by && offset);
    let world = World::new(40).await;
    world.sim.set_faults(quirks.clone());
    let ran = world.once().await;
    // Without its order, a list proves nothing about who is not in it.
    let whole = can_page && !order_by;
    assert_eq!(ran.code, Some(if whole { 0 } else { 1 }), "{name}: {ran:#?}");
    if can_page {
        world.assert_in_step().await;
    }
    world.sim.clear_faults();
    let ran = world.once().await;
    assert_eq!(ran.code, Some(0), "{name}: {ran:#?}");
    world.assert_in_step().await;

    let ids = world.sim.user_ids();
    assert!(world.sim.delete(&ids[20]));
    assert!(world.sim.update(&ids[30], |user| user["first_name"] = "Changed".into()));
    let new = world.sim.create_random();
    let ran = under(&world, quirks, &[]).await;
    assert_eq!(ran.code, Some(if whole { 0 } else { 1 }), "{name}: {ran:#?}");
    if whole {
        world.assert_in_step().await;
    } else if can_page {
        let mirror = world.db.documents().await;
        assert_eq!(mirror[&ids[30]]["first_name"], "Changed", "{name}");
        assert!(mirror.contains_key(&new) && mirror.contains_key(&ids[20]), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cursors_that_are_ignored() {
    for [created_at, offset] in [[false, false], [false, true], [true, false], [true, true]] {
        check_ignoring(true, created_at, offset, false).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dates_and_offsets_that_are_ignored() {
    for [created_at, offset] in [[false, true], [true, false], [true, true]] {
        check_ignoring(false, created_at, offset, false).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_ignored() {
    for [created_at, offset] in [[false, false], [false, true], [true, false], [true, true]] {
        check_ignoring(true, created_at, offset, true).await;
        check_ignoring(false, created_at, offset, true).await;
    }
}
