//! A row is deleted only after Clerk, asked for that user by id, confirmed the deletion.

use clerk_sim::{Effect, Endpoint, ErrorBody, Faults, Quirks, Rule, WrongCount};

use crate::support::{
    faults::{check, error, once_under, unreachable_after_walk},
    fixture::{World, mirrored, mirrored_ids},
    summary::{Exit, changed, held, in_sync, incomplete, planned},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_at_clerk_deletes_the_row() {
    let world = mirrored(30).await;
    let ids = world.sim.user_ids();
    // The first, the last, and some between.
    for at in [0, 7, 8, 29] {
        assert!(world.sim.delete(&ids[at]));
    }
    world.once().await.assert(Exit::Ok, changed().deleted(4).unchanged(26));
    world.assert_in_sync().await;
    world.once().await.assert(Exit::Ok, in_sync().unchanged(26));
}

#[tokio::test(flavor = "multi_thread")]
async fn mark_mode_keeps_rows_and_users_can_return() {
    let mark = [("CLERK2PG_DELETES__MODE", "mark")];
    let world = mirrored(12).await;
    let gone = world.sim.user_ids()[3].clone();
    let document = world.sim.document(&gone).unwrap();
    let deleted_at = format!("SELECT deleted_at FROM clerk.users WHERE id = '{gone}'");

    world.sim.delete(&gone);
    world
        .once_with(&mark)
        .await
        .assert(Exit::Ok, changed().deleted(1).unchanged(11));
    let marked_at = world.db.text(&deleted_at).await;
    assert!(marked_at.is_some());
    assert_eq!(world.db.number("SELECT count(*) FROM clerk.users").await, 12);
    world.assert_in_sync().await;

    let versions = world.db.versions().await;
    world.once_with(&mark).await.assert(Exit::Ok, in_sync().unchanged(11));
    assert_eq!(world.db.versions().await, versions, "a user was marked twice");
    assert_eq!(world.db.text(&deleted_at).await, marked_at);

    // The same bytes as before.
    world.sim.insert(document);
    let plan = world.run_with(&["--dry-run", "--format", "json"], &mark).await;
    plan.assert(Exit::Ok, planned().created(1).unchanged(11));
    world
        .once_with(&mark)
        .await
        .assert(Exit::Ok, changed().created(1).unchanged(11));
    assert_eq!(world.db.text(&deleted_at).await, None);
    world.assert_in_sync().await;

    // A marked row is deleted when the mode changes. Readers of events saw its deletion when it was
    // marked.
    world.age_rows().await;
    world.sim.delete(&gone);
    world
        .once_with(&mark)
        .await
        .assert(Exit::Ok, changed().deleted(1).unchanged(11));
    let events = "SELECT count(*) FROM clerk.user_events";
    let before = world.db.number(events).await;
    let plan = world.run(&["--dry-run", "--format", "json"]).await;
    plan.assert(Exit::Ok, planned().deleted(1).unchanged(11));
    world.once().await.assert(Exit::Ok, in_sync().unchanged(11));
    let rows = format!("SELECT count(*) FROM clerk.users WHERE id = '{gone}'");
    assert_eq!(world.db.number(&rows).await, 0);
    assert_eq!(world.db.number(events).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn keep_mode_sends_no_requests_about_missing_users() {
    let keep = [("CLERK2PG_DELETES__MODE", "keep")];
    let world = mirrored(12).await;
    let versions = world.db.versions().await;
    let asked = |world: &World| {
        world
            .sim
            .log()
            .iter()
            .filter(|request| is_by_ids(&request.path))
            .count()
    };
    world.sim.delete(&world.sim.user_ids()[3]);
    world.once_with(&keep).await.assert(Exit::Ok, in_sync().unchanged(11));
    assert_eq!(world.db.versions().await, versions);
    assert_eq!(asked(&world), 0);
    // The deletion was postponed, not forgotten.
    world.once().await.assert(Exit::Ok, changed().deleted(1).unchanged(11));
    assert_eq!(asked(&world), 3, "the names, a witness, and the one who is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn keep_mode_applies_to_a_resumed_sync() {
    let world = mirrored(12).await;
    world.sim.delete(&world.sim.user_ids()[3]);
    let away = unreachable_after_walk(&world).await;
    let ran = once_under(&world, away, &[]).await;
    assert_eq!(ran.json()["outcome"], "failed", "{ran:#?}");
    let ran = world.once_with(&[("CLERK2PG_DELETES__MODE", "keep")]).await;
    assert_eq!((ran.code, &ran.json()["deleted"]), (Some(0), &0.into()), "{ran:#?}");
    assert_eq!(mirrored_ids(&world).await.len(), 12);
}

/// Whether a request filters by user ids.
fn is_by_ids(path: &str) -> bool {
    path.contains("user_id=") || path.starts_with("/v1/users/user_")
}

#[tokio::test(flavor = "multi_thread")]
async fn users_hidden_from_lists_are_kept() {
    let world = mirrored(60).await;
    let hidden = vec![world.sim.user_ids()[20].clone(), world.sim.user_ids()[59].clone()];
    let hiding = Quirks {
        hidden_from_lists: hidden.clone(),
        ..Quirks::default()
    };
    check(
        "hidden from every list",
        &world,
        hiding.clone(),
        Exit::Failed,
        incomplete().unchanged(60),
    )
    .await;
    check(
        "hidden, and user_id is ignored: each is asked for by id",
        &world,
        Quirks {
            ignore_user_id: true,
            ..hiding.clone()
        },
        Exit::Failed,
        incomplete().unchanged(60),
    )
    .await;
    // The users are hidden from the walk, appear in the list by ids, and are not found by id.
    let walk = lists_of_a_walk(&world).await;
    let mut faults = Faults::from(
        Rule::new(Effect::Quirks(Box::new(hiding)))
            .on([Endpoint::List])
            .next(walk),
    );
    faults.quirks.not_found_by_id.clone_from(&hidden);
    check(
        "in the list by id",
        &world,
        faults,
        Exit::Failed,
        incomplete().unchanged(60),
    )
    .await;
    check(
        "not found by id, but in the list",
        &world,
        Quirks {
            not_found_by_id: world.sim.user_ids(),
            ..Quirks::default()
        },
        Exit::Ok,
        in_sync().unchanged(60),
    )
    .await;
}

/// Counts the list requests of a sync that deletes nobody.
async fn lists_of_a_walk(world: &World) -> u64 {
    let lists = || world.sim.requests_by_path()["GET /v1/users"];
    let before = lists();
    world.once().await;
    lists() - before
}

#[tokio::test(flavor = "multi_thread")]
async fn misleading_lists_delete_nobody() {
    let world = mirrored(60).await;
    let all_in_sync = in_sync().unchanged(60);
    let with = |change: fn(&mut Quirks)| {
        let mut quirks = Quirks::default();
        change(&mut quirks);
        quirks
    };
    check(
        "pages of 7",
        &world,
        with(|q| q.max_page = Some(7)),
        Exit::Ok,
        all_in_sync,
    )
    .await;
    check(
        "pages of 1",
        &world,
        with(|q| q.max_page = Some(1)),
        Exit::Ok,
        all_in_sync,
    )
    .await;
    check(
        "random pages",
        &world,
        with(|q| q.random_pages = true),
        Exit::Ok,
        all_in_sync,
    )
    .await;
    check(
        "user_id is ignored",
        &world,
        with(|q| q.ignore_user_id = true),
        Exit::Ok,
        all_in_sync,
    )
    .await;
    check(
        "empty lists",
        &world,
        with(|q| q.empty_lists = true),
        Exit::Failed,
        incomplete().held(60),
    )
    .await;
    check(
        "empty lists and a count to match",
        &world,
        with(|q| {
            q.empty_lists = true;
            q.count = Some(WrongCount::Fixed(0));
        }),
        Exit::Held,
        held(60),
    )
    .await;
    for offset in [-1, 1, 1000] {
        check(
            "a count that is wrong",
            &world,
            with_count(offset),
            Exit::Failed,
            incomplete().unchanged(60),
        )
        .await;
    }
    let first_page_only = Faults::from(
        Rule::new(Effect::Quirks(Box::new(Quirks {
            empty_lists: true,
            ..Quirks::default()
        })))
        .on([Endpoint::List])
        // The newest change is requested before the first page.
        .skip(2),
    );
    let mut faults = first_page_only;
    faults.quirks.max_page = Some(7);
    check(
        "all lists behind the first page are empty, those by id too",
        &world,
        faults,
        Exit::Failed,
        incomplete().unchanged(7),
    )
    .await;
    check("and then all is well", &world, Faults::default(), Exit::Ok, all_in_sync).await;
}

fn with_count(offset: i64) -> Quirks {
    Quirks {
        count: Some(WrongCount::Offset(offset)),
        ..Quirks::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn approving_an_empty_list_deletes_nobody() {
    let world = mirrored(20).await;
    let nobody = Quirks {
        empty_lists: true,
        count: Some(WrongCount::Fixed(0)),
        ..Quirks::default()
    };
    let ran = once_under(&world, nobody.clone(), &[]).await;
    ran.assert(Exit::Held, held(20));
    let plan = ran.json()["plan"].as_str().unwrap().to_owned();
    assert_eq!(world.run(&["approve", &plan]).await.code, Some(0));
    let ran = once_under(&world, nobody, &[]).await;
    assert_eq!(ran.json()["deleted"], 0, "{ran:#?}");
    world.once().await.assert(Exit::Ok, in_sync().unchanged(20));
    world.assert_in_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_lists_delete_nobody() {
    let world = mirrored(10).await;
    let created: Vec<String> = (0..3).map(|_| world.sim.create_random()).collect();
    world.once().await.assert(Exit::Ok, changed().created(3).unchanged(10));
    let gone = world.sim.user_ids()[4].clone();
    world.sim.delete(&gone);
    let stale = Quirks {
        stale_lists_ms: 60_000,
        ..Quirks::default()
    };
    // Lists and counts do not have the new users yet. By id they are found.
    check("stale lists", &world, stale, Exit::Ok, in_sync().unchanged(13)).await;
    let mirrored = mirrored_ids(&world).await;
    assert!(created.iter().all(|id| mirrored.contains(id)) && mirrored.contains(&gone));
    world.once().await.assert(Exit::Ok, changed().deleted(1).unchanged(12));
    world.assert_in_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unconfirmed_deletion_waits() {
    let world = mirrored(30).await;
    let gone = world.sim.user_ids()[11].clone();
    world.sim.delete(&gone);
    let unconfirmed = incomplete().unchanged(29);
    let html_not_found = Quirks {
        html_not_found: true,
        ..Quirks::default()
    };
    let gets = |effect| Rule::new(effect).on([Endpoint::Get]);
    check(
        "404 by a proxy in front",
        &world,
        html_not_found,
        Exit::Failed,
        unconfirmed,
    )
    .await;
    for body in [ErrorBody::Json, ErrorBody::Html, ErrorBody::Empty] {
        check(
            "404 for everybody",
            &world,
            gets(error(404, body)),
            Exit::Failed,
            unconfirmed,
        )
        .await;
    }
    for body in [ErrorBody::Html, ErrorBody::Empty] {
        check(
            "404 in other words",
            &world,
            gets(error(404, body)).about(&gone),
            Exit::Failed,
            unconfirmed,
        )
        .await;
    }
    for status in [400, 403, 410, 422] {
        check(
            "refused",
            &world,
            gets(error(status, ErrorBody::Json)).about(&gone),
            Exit::Failed,
            unconfirmed,
        )
        .await;
    }
    check(
        "HTML instead of a user",
        &world,
        gets(Effect::Html).about(&gone),
        Exit::Failed,
        unconfirmed,
    )
    .await;
    // An outage does not concern this user.
    for effect in [error(503, ErrorBody::Html), Effect::DropBefore, Effect::Truncate] {
        let name = format!("{effect:?}");
        let ran = once_under(&world, gets(effect), &[]).await;
        let outcome = ran.json()["outcome"].clone();
        assert!(outcome == "failed" || outcome == "incomplete", "{name}: {ran:#?}");
        assert_eq!(ran.code, Some(1), "{name}");
    }
    assert_eq!(mirrored_ids(&world).await.len(), 30, "a user was deleted");
    let ran = world.once().await;
    assert_eq!((ran.code, &ran.json()["deleted"]), (Some(0), &1.into()), "{ran:#?}");
    world.assert_in_sync().await;
    world.once().await.assert(Exit::Ok, in_sync().unchanged(29));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_resumed_after_the_last_user_still_deletes() {
    let world = mirrored(30).await;
    let ids = world.sim.user_ids();
    world.sim.delete(&ids[11]);
    let away = unreachable_after_walk(&world).await;
    let ran = once_under(&world, away, &[]).await;
    assert_eq!(ran.json()["outcome"], "failed", "{ran:#?}");
    // The walk resumes after the last user but one, and the list has no more users.
    world.sim.delete(&ids[29]);
    let ran = world.once().await;
    let json = ran.json();
    assert_eq!(
        (ran.code, &json["deleted"], &json["held"]),
        (Some(0), &2.into(), &0.into()),
        "{ran:#?}"
    );
    world.assert_in_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_by_ids_that_fails_half_way_confirms_nothing() {
    let world = mirrored(30).await;
    world.sim.delete(&world.sim.user_ids()[11]);
    let walk = lists_of_a_walk_without(&world).await;
    let unconfirmed = incomplete().unchanged(29);
    for effect in [error(422, ErrorBody::Json), error(404, ErrorBody::Json), Effect::Html] {
        let name = format!("{effect:?}");
        let rule = Rule::new(effect).on([Endpoint::List]).skip(walk);
        check(&name, &world, rule, Exit::Failed, unconfirmed).await;
    }
    let nobody = Effect::Quirks(Box::new(Quirks {
        empty_lists: true,
        ..Quirks::default()
    }));
    check(
        "nobody has such a name",
        &world,
        Rule::new(nobody).on([Endpoint::List]).skip(walk),
        Exit::Failed,
        unconfirmed,
    )
    .await;
    world.once().await.assert(Exit::Ok, changed().deleted(1).unchanged(29));
}

/// Counts the list requests of the walk itself while a user is missing.
async fn lists_of_a_walk_without(world: &World) -> u64 {
    let before = world.sim.log().len();
    let ran = world.once_with(&[("CLERK2PG_DELETES__MODE", "keep")]).await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    let log = world.sim.log();
    log[before..]
        .iter()
        .filter(|request| request.path.starts_with("/v1/users?"))
        .count() as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_read_by_id_fails_no_sync() {
    let world = mirrored(30).await;
    let ids = world.sim.user_ids();
    world.sim.delete(&ids[4]);
    world.sim.update(&ids[9], |user| user["first_name"] = "Changed".into());
    // The witness is found.
    let fails = Rule::new(error(500, ErrorBody::Json))
        .on([Endpoint::Get])
        .about(&ids[4]);
    let ran = once_under(&world, fails, &[]).await;
    ran.assert(Exit::Failed, incomplete().updated(1).unchanged(28));
    assert_eq!(ran.json()["error"], "1 deletions could not be confirmed");
    world.once().await.assert(Exit::Ok, changed().deleted(1).unchanged(29));
    world.assert_in_sync().await;
}
