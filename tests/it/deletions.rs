//! A row is deleted only after Clerk, asked for that user by id, confirmed the deletion.

use clerk_sim::{Effect, Endpoint, ErrorBody, Faults, Quirks, Rule, WrongCount};

use crate::support::{
    faults::{check, error, once_under, unreachable_after_walk},
    fixture::{Fixture, mirrored, mirrored_ids},
    summary::{Exit, changed, held, in_sync, incomplete, planned},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_at_clerk_deletes_the_row() {
    let fixture = mirrored(30).await;
    let ids = fixture.sim.user_ids();
    // The first, the last, and some between.
    for at in [0, 7, 8, 29] {
        assert!(fixture.sim.delete(&ids[at]));
    }
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().deleted(4).unchanged(26));
    fixture.assert_in_sync().await;
    fixture.once().await.assert(Exit::Ok, in_sync().unchanged(26));
}

#[tokio::test(flavor = "multi_thread")]
async fn mark_mode_keeps_rows_and_users_can_return() {
    let mark = [("CLERK2PG_DELETES__MODE", "mark")];
    let fixture = mirrored(12).await;
    let gone = fixture.sim.user_ids()[3].clone();
    let document = fixture.sim.document(&gone).unwrap();
    let deleted_at = format!("SELECT deleted_at FROM clerk.users WHERE id = '{gone}'");

    fixture.sim.delete(&gone);
    fixture
        .once_with(&mark)
        .await
        .assert(Exit::Ok, changed().deleted(1).unchanged(11));
    let marked_at = fixture.db.text(&deleted_at).await;
    assert!(marked_at.is_some());
    assert_eq!(fixture.db.number("SELECT count(*) FROM clerk.users").await, 12);
    fixture.assert_in_sync().await;

    let versions = fixture.db.versions().await;
    fixture.once_with(&mark).await.assert(Exit::Ok, in_sync().unchanged(11));
    assert_eq!(fixture.db.versions().await, versions, "a user was marked twice");
    assert_eq!(fixture.db.text(&deleted_at).await, marked_at);

    // The same bytes as before.
    fixture.sim.insert(document);
    let plan = fixture.run_with(&["--dry-run", "--format", "json"], &mark).await;
    plan.assert(Exit::Ok, planned().created(1).unchanged(11));
    fixture
        .once_with(&mark)
        .await
        .assert(Exit::Ok, changed().created(1).unchanged(11));
    assert_eq!(fixture.db.text(&deleted_at).await, None);
    fixture.assert_in_sync().await;

    // A marked row is deleted when the mode changes. Readers of events saw its deletion when it was
    // marked.
    fixture.age_rows().await;
    fixture.sim.delete(&gone);
    fixture
        .once_with(&mark)
        .await
        .assert(Exit::Ok, changed().deleted(1).unchanged(11));
    let events = "SELECT count(*) FROM clerk.user_events";
    let before = fixture.db.number(events).await;
    let plan = fixture.run(&["--dry-run", "--format", "json"]).await;
    plan.assert(Exit::Ok, planned().deleted(1).unchanged(11));
    fixture.once().await.assert(Exit::Ok, in_sync().unchanged(11));
    let rows = format!("SELECT count(*) FROM clerk.users WHERE id = '{gone}'");
    assert_eq!(fixture.db.number(&rows).await, 0);
    assert_eq!(fixture.db.number(events).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn keep_mode_sends_no_requests_about_missing_users() {
    let keep = [("CLERK2PG_DELETES__MODE", "keep")];
    let fixture = mirrored(12).await;
    let versions = fixture.db.versions().await;
    let asked = |fixture: &Fixture| {
        fixture
            .sim
            .log()
            .iter()
            .filter(|request| is_by_ids(&request.path))
            .count()
    };
    fixture.sim.delete(&fixture.sim.user_ids()[3]);
    fixture.once_with(&keep).await.assert(Exit::Ok, in_sync().unchanged(11));
    assert_eq!(fixture.db.versions().await, versions);
    assert_eq!(asked(&fixture), 0);
    // The deletion was postponed, not forgotten.
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().deleted(1).unchanged(11));
    assert_eq!(asked(&fixture), 3, "the names, a witness, and the one who is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn keep_mode_applies_to_a_resumed_sync() {
    let fixture = mirrored(12).await;
    fixture.sim.delete(&fixture.sim.user_ids()[3]);
    let away = unreachable_after_walk(&fixture).await;
    let ran = once_under(&fixture, away, &[]).await;
    assert_eq!(ran.json()["outcome"], "failed", "{ran:#?}");
    let ran = fixture.once_with(&[("CLERK2PG_DELETES__MODE", "keep")]).await;
    assert_eq!((ran.code, &ran.json()["deleted"]), (Some(0), &0.into()), "{ran:#?}");
    assert_eq!(mirrored_ids(&fixture).await.len(), 12);
}

/// Whether a request filters by user ids.
fn is_by_ids(path: &str) -> bool {
    path.contains("user_id=") || path.starts_with("/v1/users/user_")
}

#[tokio::test(flavor = "multi_thread")]
async fn users_hidden_from_lists_are_kept() {
    let fixture = mirrored(60).await;
    let hidden = vec![fixture.sim.user_ids()[20].clone(), fixture.sim.user_ids()[59].clone()];
    let hiding = Quirks {
        hidden_from_lists: hidden.clone(),
        ..Quirks::default()
    };
    check(
        "hidden from every list",
        &fixture,
        hiding.clone(),
        Exit::Failed,
        incomplete().unchanged(60),
    )
    .await;
    check(
        "hidden, and user_id is ignored: each is asked for by id",
        &fixture,
        Quirks {
            ignore_user_id: true,
            ..hiding.clone()
        },
        Exit::Failed,
        incomplete().unchanged(60),
    )
    .await;
    // The users are hidden from the walk, appear in the list by ids, and are not found by id.
    let walk = lists_of_a_walk(&fixture).await;
    let mut faults = Faults::from(
        Rule::new(Effect::Quirks(Box::new(hiding)))
            .on([Endpoint::List])
            .next(walk),
    );
    faults.quirks.not_found_by_id.clone_from(&hidden);
    check(
        "in the list by id",
        &fixture,
        faults,
        Exit::Failed,
        incomplete().unchanged(60),
    )
    .await;
    check(
        "not found by id, but in the list",
        &fixture,
        Quirks {
            not_found_by_id: fixture.sim.user_ids(),
            ..Quirks::default()
        },
        Exit::Ok,
        in_sync().unchanged(60),
    )
    .await;
}

/// Counts the list requests of a sync that deletes nobody.
async fn lists_of_a_walk(fixture: &Fixture) -> u64 {
    let lists = || fixture.sim.requests_by_path()["GET /v1/users"];
    let before = lists();
    fixture.once().await;
    lists() - before
}

#[tokio::test(flavor = "multi_thread")]
async fn misleading_lists_delete_nobody() {
    let fixture = mirrored(60).await;
    let all_in_sync = in_sync().unchanged(60);
    let with = |change: fn(&mut Quirks)| {
        let mut quirks = Quirks::default();
        change(&mut quirks);
        quirks
    };
    check(
        "pages of 7",
        &fixture,
        with(|q| q.max_page = Some(7)),
        Exit::Ok,
        all_in_sync,
    )
    .await;
    check(
        "pages of 1",
        &fixture,
        with(|q| q.max_page = Some(1)),
        Exit::Ok,
        all_in_sync,
    )
    .await;
    check(
        "random pages",
        &fixture,
        with(|q| q.random_pages = true),
        Exit::Ok,
        all_in_sync,
    )
    .await;
    check(
        "user_id is ignored",
        &fixture,
        with(|q| q.ignore_user_id = true),
        Exit::Ok,
        all_in_sync,
    )
    .await;
    check(
        "empty lists",
        &fixture,
        with(|q| q.empty_lists = true),
        Exit::Failed,
        incomplete().held(60),
    )
    .await;
    check(
        "empty lists and a count to match",
        &fixture,
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
            &fixture,
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
        "all lists after the first page are empty, those by id too",
        &fixture,
        faults,
        Exit::Failed,
        incomplete().unchanged(7),
    )
    .await;
    check(
        "and then all is well",
        &fixture,
        Faults::default(),
        Exit::Ok,
        all_in_sync,
    )
    .await;
}

fn with_count(offset: i64) -> Quirks {
    Quirks {
        count: Some(WrongCount::Offset(offset)),
        ..Quirks::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn approving_an_empty_list_deletes_nobody() {
    let fixture = mirrored(20).await;
    let nobody = Quirks {
        empty_lists: true,
        count: Some(WrongCount::Fixed(0)),
        ..Quirks::default()
    };
    let ran = once_under(&fixture, nobody.clone(), &[]).await;
    ran.assert(Exit::Held, held(20));
    let plan = ran.json()["plan"].as_str().unwrap().to_owned();
    fixture.run(&["approve", &plan]).await.assert_exit(Exit::Ok);
    let ran = once_under(&fixture, nobody, &[]).await;
    assert_eq!(ran.json()["deleted"], 0, "{ran:#?}");
    fixture.once().await.assert(Exit::Ok, in_sync().unchanged(20));
    fixture.assert_in_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_lists_delete_nobody() {
    let fixture = mirrored(10).await;
    let created: Vec<String> = (0..3).map(|_| fixture.sim.create_random()).collect();
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().created(3).unchanged(10));
    let gone = fixture.sim.user_ids()[4].clone();
    fixture.sim.delete(&gone);
    let stale = Quirks {
        stale_lists_ms: 60_000,
        ..Quirks::default()
    };
    // Lists and counts do not have the new users yet. By id they are found.
    check("stale lists", &fixture, stale, Exit::Ok, in_sync().unchanged(13)).await;
    let mirrored = mirrored_ids(&fixture).await;
    assert!(created.iter().all(|id| mirrored.contains(id)) && mirrored.contains(&gone));
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().deleted(1).unchanged(12));
    fixture.assert_in_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unconfirmed_deletion_waits() {
    let fixture = mirrored(30).await;
    let gone = fixture.sim.user_ids()[11].clone();
    fixture.sim.delete(&gone);
    let unconfirmed = incomplete().unchanged(29);
    let html_not_found = Quirks {
        html_not_found: true,
        ..Quirks::default()
    };
    let gets = |effect| Rule::new(effect).on([Endpoint::Get]);
    check(
        "404 by a proxy in front",
        &fixture,
        html_not_found,
        Exit::Failed,
        unconfirmed,
    )
    .await;
    for body in [ErrorBody::Json, ErrorBody::Html, ErrorBody::Empty] {
        check(
            "404 for everybody",
            &fixture,
            gets(error(404, body)),
            Exit::Failed,
            unconfirmed,
        )
        .await;
    }
    for body in [ErrorBody::Html, ErrorBody::Empty] {
        check(
            "404 in other words",
            &fixture,
            gets(error(404, body)).about(&gone),
            Exit::Failed,
            unconfirmed,
        )
        .await;
    }
    for status in [400, 403, 410, 422] {
        check(
            "refused",
            &fixture,
            gets(error(status, ErrorBody::Json)).about(&gone),
            Exit::Failed,
            unconfirmed,
        )
        .await;
    }
    check(
        "HTML instead of a user",
        &fixture,
        gets(Effect::Html).about(&gone),
        Exit::Failed,
        unconfirmed,
    )
    .await;
    // An outage does not concern this user.
    for effect in [error(503, ErrorBody::Html), Effect::DropBefore, Effect::Truncate] {
        let name = format!("{effect:?}");
        let ran = once_under(&fixture, gets(effect), &[]).await;
        let outcome = ran.json()["outcome"].clone();
        assert!(outcome == "failed" || outcome == "incomplete", "{name}: {ran:#?}");
        assert_eq!(ran.code, Some(1), "{name}");
    }
    assert_eq!(mirrored_ids(&fixture).await.len(), 30, "a user was deleted");
    let ran = fixture.once().await;
    assert_eq!((ran.code, &ran.json()["deleted"]), (Some(0), &1.into()), "{ran:#?}");
    fixture.assert_in_sync().await;
    fixture.once().await.assert(Exit::Ok, in_sync().unchanged(29));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_resumed_after_the_last_user_still_deletes() {
    let fixture = mirrored(30).await;
    let ids = fixture.sim.user_ids();
    fixture.sim.delete(&ids[11]);
    let away = unreachable_after_walk(&fixture).await;
    let ran = once_under(&fixture, away, &[]).await;
    assert_eq!(ran.json()["outcome"], "failed", "{ran:#?}");
    // The walk resumes after the last user but one, and the list has no more users.
    fixture.sim.delete(&ids[29]);
    let ran = fixture.once().await;
    let json = ran.json();
    assert_eq!(
        (ran.code, &json["deleted"], &json["held"]),
        (Some(0), &2.into(), &0.into()),
        "{ran:#?}"
    );
    fixture.assert_in_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_by_ids_that_fails_half_way_confirms_nothing() {
    let fixture = mirrored(30).await;
    fixture.sim.delete(&fixture.sim.user_ids()[11]);
    let walk = lists_of_a_walk_without(&fixture).await;
    let unconfirmed = incomplete().unchanged(29);
    for effect in [error(422, ErrorBody::Json), error(404, ErrorBody::Json), Effect::Html] {
        let name = format!("{effect:?}");
        let rule = Rule::new(effect).on([Endpoint::List]).skip(walk);
        check(&name, &fixture, rule, Exit::Failed, unconfirmed).await;
    }
    let nobody = Effect::Quirks(Box::new(Quirks {
        empty_lists: true,
        ..Quirks::default()
    }));
    check(
        "nobody has such a name",
        &fixture,
        Rule::new(nobody).on([Endpoint::List]).skip(walk),
        Exit::Failed,
        unconfirmed,
    )
    .await;
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().deleted(1).unchanged(29));
}

/// Counts the list requests of the walk itself while a user is missing.
async fn lists_of_a_walk_without(fixture: &Fixture) -> u64 {
    let before = fixture.sim.log().len();
    let ran = fixture.once_with(&[("CLERK2PG_DELETES__MODE", "keep")]).await;
    ran.assert_exit(Exit::Ok);
    let log = fixture.sim.log();
    log[before..]
        .iter()
        .filter(|request| request.path.starts_with("/v1/users?"))
        .count() as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_read_by_id_fails_no_sync() {
    let fixture = mirrored(30).await;
    let ids = fixture.sim.user_ids();
    fixture.sim.delete(&ids[4]);
    fixture
        .sim
        .update(&ids[9], |user| user["first_name"] = "Changed".into());
    // The witness is found.
    let fails = Rule::new(error(500, ErrorBody::Json))
        .on([Endpoint::Get])
        .about(&ids[4]);
    let ran = once_under(&fixture, fails, &[]).await;
    ran.assert(Exit::Failed, incomplete().updated(1).unchanged(28));
    assert_eq!(ran.json()["error"], "1 deletion could not be confirmed");
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().deleted(1).unchanged(29));
    fixture.assert_in_sync().await;
}
