//! However a server pages its list, a walk reads every user or reports that it did not.

use clerk_sim::{DeletedCursor, Effect, Endpoint, Faults, Quirks, Rule};

use crate::support::{
    faults::once_under,
    fixture::{Fixture, mirrored, mirrored_ids},
    program::wait_for_exit,
    summary::{Exit, changed, in_sync},
    wait::eventually,
};

fn pages_of(users: usize) -> Quirks {
    Quirks {
        max_page: Some(users),
        ..Quirks::default()
    }
}

/// Deletes users in the middle of a walk: those that `victims` selects by position, while the page
/// after position 13 is in flight.
async fn check_cursor(fate: DeletedCursor, more: fn(&mut Quirks), victims: &[usize]) {
    let name = format!("{fate:?}, {victims:?} deleted");
    let fixture = mirrored(40).await;
    let ids = fixture.sim.user_ids();
    let mut quirks = Quirks {
        deleted_cursor: fate,
        ..pages_of(7)
    };
    more(&mut quirks);
    let mut faults = Faults::from(quirks);
    faults
        .rules
        .push(Rule::new(Effect::LatencyMs(500)).on([Endpoint::List]).skip(3).next(1));
    fixture.sim.set_faults(faults);
    let before = fixture.sim.log().len();
    let sync = fixture.command(&["--once", "--format", "json"]).spawn().unwrap();
    let lists = || {
        let log = fixture.sim.log();
        log[before..]
            .iter()
            .filter(|request| request.path.starts_with("/v1/users?order_by=created_at"))
            .count()
    };
    eventually("two pages are out", async || lists() >= 2).await;
    for &at in victims {
        assert!(fixture.sim.delete(&ids[at]));
    }
    assert_eq!(lists(), 2, "{name}: the third page is out already");
    let ran = wait_for_exit(sync).await;
    fixture.sim.clear_faults();

    let mirror = mirrored_ids(&fixture).await;
    let lost: Vec<_> = fixture
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
    // A cursor that Clerk does not know is a deleted user.
    let is_refused = matches!(fate, DeletedCursor::NotFound | DeletedCursor::Unprocessable);
    if is_refused && victims.contains(&13) {
        assert!(
            !mirror.contains(&ids[13]),
            "{name}: the cursor's user is still there: {ran:#?}"
        );
    }
    // Users before this page were read before their deletion. The next sync removes them.
    let ran = fixture.once().await;
    assert_eq!(ran.code, Some(0), "{name}: {ran:#?}");
    fixture.assert_in_sync().await;
}

async fn check_fate(fate: DeletedCursor) {
    // The cursor; the cursor and the one before; a whole page with it; the users after it; more
    // than offsets overlap.
    for victims in [&[13][..], &[12, 13], &[7, 8, 9, 10, 11, 12, 13], &[13, 14, 15, 20, 39]] {
        check_cursor(fate, |_| {}, victims).await;
    }
    check_cursor(fate, |quirks| quirks.ignore_created_at = true, &[12, 13]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_of_a_deleted_user_may_be_not_found() {
    check_fate(DeletedCursor::NotFound).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_of_a_deleted_user_may_be_refused() {
    check_fate(DeletedCursor::Unprocessable).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_of_a_deleted_user_may_end_the_list() {
    check_fate(DeletedCursor::EmptyPage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_of_a_deleted_user_may_restart_the_list() {
    check_fate(DeletedCursor::Restart).await;
}

/// Runs a first sync, and one with changes and a deletion, on a server that ignores parameters.
async fn check_ignoring(starting_after: bool, created_at: bool, offset: bool, order_by: bool) {
    let quirks = Quirks {
        ignore_starting_after: starting_after,
        ignore_created_at: created_at,
        ignore_offset: offset,
        ignore_order_by: order_by,
        ..pages_of(7)
    };
    let name = format!("{quirks:?}");
    let cannot_page = offset && (order_by || (starting_after && created_at));
    let can_page = !cannot_page;
    let fixture = Fixture::new(40).await;
    fixture.sim.set_faults(quirks.clone());
    let ran = fixture.once().await;
    // Without its order, a list does not prove that a user is missing.
    let whole = can_page && !order_by;
    assert_eq!(ran.code, Some(if whole { 0 } else { 1 }), "{name}: {ran:#?}");
    if can_page {
        fixture.assert_in_sync().await;
    }
    fixture.sim.clear_faults();
    let ran = fixture.once().await;
    assert_eq!(ran.code, Some(0), "{name}: {ran:#?}");
    fixture.assert_in_sync().await;

    let ids = fixture.sim.user_ids();
    assert!(fixture.sim.delete(&ids[20]));
    assert!(
        fixture
            .sim
            .update(&ids[30], |user| user["first_name"] = "Changed".into())
    );
    let new = fixture.sim.create_random();
    let ran = once_under(&fixture, quirks, &[]).await;
    assert_eq!(ran.code, Some(if whole { 0 } else { 1 }), "{name}: {ran:#?}");
    if whole {
        fixture.assert_in_sync().await;
    } else if can_page {
        let mirror = fixture.db.documents().await;
        assert_eq!(mirror[&ids[30]]["first_name"], "Changed", "{name}");
        assert!(mirror.contains_key(&new) && mirror.contains_key(&ids[20]), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ignored_cursors_lose_nobody() {
    for [created_at, offset] in [[false, false], [false, true], [true, false], [true, true]] {
        check_ignoring(true, created_at, offset, false).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ignored_dates_and_offsets_lose_nobody() {
    for [created_at, offset] in [[false, true], [true, false], [true, true]] {
        check_ignoring(false, created_at, offset, false).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ignored_order_loses_nobody() {
    for [created_at, offset] in [[false, false], [false, true], [true, false], [true, true]] {
        check_ignoring(true, created_at, offset, true).await;
        check_ignoring(false, created_at, offset, true).await;
    }
}

/// Runs a first sync, then one with changes, on an emulator.
async fn check_emulator(quirks: Quirks) {
    let name = format!("{quirks:?}");
    let fixture = Fixture::new(25).await;
    fixture.sim.set_faults(quirks);
    let ran = fixture.once().await;
    ran.assert_named(&name, Exit::Ok, changed().created(25));
    fixture.assert_in_sync().await;
    let ids = fixture.sim.user_ids();
    fixture.sim.delete(&ids[20]);
    fixture
        .sim
        .update(&ids[3], |user| user["username"] = "somebody_else".into());
    fixture.sim.create_random();
    let ran = fixture.once().await;
    ran.assert_named(
        &name,
        Exit::Ok,
        changed().created(1).updated(1).deleted(1).unchanged(23),
    );
    fixture.assert_in_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn emulators_are_mirrored_as_far_as_they_allow() {
    let all = Quirks {
        wrapped_lists: true,
        missing_instance: true,
        missing_count: true,
        upper_case_codes: true,
        ignore_starting_after: true,
        ..pages_of(12)
    };
    check_emulator(all.clone()).await;
    check_emulator(Quirks {
        wrapped_lists: true,
        ..Quirks::default()
    })
    .await;
    check_emulator(Quirks {
        missing_instance: true,
        ..Quirks::default()
    })
    .await;
    check_emulator(Quirks {
        missing_count: true,
        ..Quirks::default()
    })
    .await;
    check_emulator(Quirks {
        upper_case_codes: true,
        ..Quirks::default()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn times_in_seconds_are_understood() {
    let fixture = Fixture::new(25).await;
    let quirks = Quirks {
        times_in_seconds: true,
        ..pages_of(7)
    };
    fixture.sim.set_faults(quirks.clone());
    fixture.once().await.assert(Exit::Ok, changed().created(25));
    fixture.once().await.assert(Exit::Ok, in_sync().unchanged(25));
    for id in fixture.sim.user_ids() {
        let sql = format!("SELECT extract(epoch FROM created_at)::bigint FROM clerk.users WHERE id = '{id}'");
        let created_at = fixture.sim.document(&id).unwrap()["created_at"].as_i64().unwrap();
        assert_eq!(fixture.db.number(&sql).await, created_at / 1000, "{id}");
    }
    fixture.sim.delete(&fixture.sim.user_ids()[20]);
    let ran = once_under(&fixture, quirks, &[]).await;
    ran.assert(Exit::Ok, changed().deleted(1).unchanged(24));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emulator_is_identified_by_its_address() {
    let fixture = Fixture::new(3).await;
    let missing_instance = Quirks {
        missing_instance: true,
        ..Quirks::default()
    };
    fixture.sim.set_faults(missing_instance);
    fixture.once().await.assert_exit(Exit::Ok);
    fixture.sim.clear_faults();
    // Now it names its instance, which may be another one.
    let ran = fixture.once().await;
    ran.assert_exit(Exit::Failed);
    assert!(
        ran.stderr.contains(&fixture.sim.url()) && ran.stderr.contains(fixture.sim.instance_id()),
        "{ran:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_clerk_loses_nobody() {
    let fixture = mirrored(200).await;
    let old = fixture.sim.user_ids();
    for quirks in [
        pages_of(23),
        Quirks {
            random_pages: true,
            ..Quirks::default()
        },
    ] {
        let mut faults = Faults::from(quirks);
        faults.rules.push(Rule::new(Effect::LatencyMs(20)).on([Endpoint::List]));
        fixture.sim.set_faults(faults);
        fixture.sim.set_churn(Some(100.0));
        // The changes may delete more than the limits allow.
        let ran = fixture.once_with(&[("CLERK2PG_DELETES__MAX_PERCENT", "100")]).await;
        fixture.sim.set_churn(None);
        let mirror = mirrored_ids(&fixture).await;
        let lost: Vec<_> = old
            .iter()
            .filter(|id| fixture.sim.document(id).is_some() && !mirror.contains(*id))
            .collect();
        assert!(lost.is_empty(), "{lost:?}: {ran:#?}");
        assert_ne!(ran.json()["outcome"], "failed", "{ran:#?}");
    }
    fixture.sim.clear_faults();
    let ran = fixture.once_with(&[("CLERK2PG_DELETES__MAX_PERCENT", "100")]).await;
    ran.assert_exit(Exit::Ok);
    fixture.assert_in_sync().await;
}
