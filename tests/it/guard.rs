//! A mass deletion is held until a person approves exactly that plan, once.

use std::collections::BTreeSet;

use clerk_sim::{Effect, Endpoint, Faults, Quirks, Rule};

use crate::support::{
    faults::{once_under, unreachable_after_walk},
    fixture::{World, mirrored, mirrored_ids},
    program::ProgramOutput,
    summary::{Exit, changed, held, in_sync, incomplete},
};

/// Deletes Clerk's oldest users.
fn delete(world: &World, users: usize) -> BTreeSet<String> {
    let ids: BTreeSet<String> = world.sim.user_ids().into_iter().take(users).collect();
    assert_eq!(ids.len(), users);
    assert!(ids.iter().all(|id| world.sim.delete(id)));
    ids
}

fn plan(ran: &ProgramOutput) -> String {
    ran.json()["plan"]
        .as_str()
        .unwrap_or_else(|| panic!("no plan: {ran:#?}"))
        .to_owned()
}

async fn approve(world: &World, sum: &str) {
    let ran = world.run(&["approve", sum]).await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
}

async fn refused(world: &World, sum: &str, why: &str) {
    let ran = world.run(&["approve", sum]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{ran:#?}");
    assert!(ran.stderr.contains(why), "{ran:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn held_deletions_block_nothing_else() {
    let world = mirrored(60).await;
    world.sim.set_faults(Quirks {
        max_page: Some(7),
        ..Quirks::default()
    });
    let gone = delete(&world, 15);
    let new: Vec<_> = (0..2).map(|_| world.sim.create_random()).collect();
    let changed = world.sim.user_ids()[3].clone();
    world.sim.update(&changed, |user| user["first_name"] = "Changed".into());

    let planned = world.run(&["--dry-run"]).await;
    let ran = world.once().await;
    ran.assert(Exit::Held, held(15).created(2).updated(1).unchanged(44));
    let sum = plan(&ran);
    let mirror = world.db.documents().await;
    assert_eq!(mirror[&changed]["first_name"], "Changed");
    assert!(new.iter().chain(&gone).all(|id| mirror.contains_key(id)));
    let row = "SELECT concat_ws(' ', outcome, held, deleted, plan) FROM clerk.sync_runs ORDER BY id DESC LIMIT 1";
    assert_eq!(world.db.text(row).await.unwrap(), format!("held 15 0 {sum}"));

    // A dry run before the sync and one after it print the same plan.
    for dry_run in [planned, world.run(&["--dry-run"]).await] {
        assert_eq!(dry_run.code, Some(0), "{dry_run:#?}");
        let held: BTreeSet<String> = dry_run
            .stdout
            .lines()
            .filter_map(|line| Some(line.strip_prefix("- ")?.strip_suffix(" (held)")?.to_owned()))
            .collect();
        assert_eq!(held, gone);
        assert!(dry_run.stdout.contains(&sum), "{dry_run:#?}");
        assert!(dry_run.stdout.contains("15 to delete"), "{dry_run:#?}");
    }
    for arguments in [&["status"][..], &["--once"]] {
        let ran = world.run(arguments).await;
        assert!(ran.stdout.contains(&format!("clerk2pg approve {sum}")), "{ran:#?}");
    }
    // Held again with the same checksum.
    let again = world.once().await;
    again.assert(Exit::Held, held(15).unchanged(47));
    assert_eq!(plan(&again), sum);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_is_for_one_plan_and_one_time() {
    let world = mirrored(60).await;
    refused(&world, "0123456789ab", "no deletions are held").await;
    let gone = delete(&world, 15);
    let sum = plan(&world.once().await);
    refused(&world, "0123456789ab", &sum).await;
    refused(&world, &sum[..11], &sum).await;
    world.once().await.assert(Exit::Held, held(15).unchanged(45));
    approve(&world, &sum).await;
    refused(&world, &sum, "no deletions are held").await;

    // Deleted after the approval, so not part of what was reviewed.
    let more = delete(&world, 14);
    let ran = world.once().await;
    ran.assert(Exit::Held, held(14).deleted(15).unchanged(31));
    let mirror = mirrored_ids(&world).await;
    assert!(gone.is_disjoint(&mirror) && more.is_subset(&mirror));
    assert_ne!(plan(&ran), sum);
    refused(&world, &sum, &plan(&ran)).await;
    approve(&world, &plan(&ran)).await;
    world.once().await.assert(Exit::Ok, changed().deleted(14).unchanged(31));
    world.once().await.assert(Exit::Ok, in_sync().unchanged(31));
    world.assert_in_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_returned_is_not_deleted() {
    let world = mirrored(40).await;
    let back = world.sim.user_ids()[2].clone();
    let document = world.sim.document(&back).unwrap();
    let gone = delete(&world, 12);
    assert!(gone.contains(&back));
    let sum = plan(&world.once().await);
    approve(&world, &sum).await;
    world.age_rows().await;
    world.sim.insert(document);
    world.once().await.assert(Exit::Ok, changed().deleted(11).unchanged(29));
    world.assert_in_sync().await;
    // The approval was for that deletion, not for the user's next one.
    world.sim.delete(&back);
    let hold_all = [
        ("CLERK2PG_DELETES__MIN_COUNT", "0"),
        ("CLERK2PG_DELETES__MAX_COUNT", "0"),
    ];
    world
        .once_with(&hold_all)
        .await
        .assert(Exit::Held, held(1).unchanged(28));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_plan_needs_another_approval() {
    let world = mirrored(40).await;
    let back = world.sim.user_ids()[2].clone();
    let document = world.sim.document(&back).unwrap();
    delete(&world, 13);
    let sum = plan(&world.once().await);
    world.age_rows().await;
    world.sim.insert(document);
    let ran = world.once().await;
    ran.assert(Exit::Held, held(12).unchanged(28));
    refused(&world, &sum, &plan(&ran)).await;
    // So few would not be held. These are, until a person approves.
    let relaxed = [("CLERK2PG_DELETES__MIN_COUNT", "12")];
    world
        .once_with(&relaxed)
        .await
        .assert(Exit::Held, held(12).unchanged(28));
    approve(&world, &plan(&ran)).await;
    world.once().await.assert(Exit::Ok, changed().deleted(12).unchanged(28));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_outlasts_a_failed_sync() {
    let world = mirrored(40).await;
    delete(&world, 12);
    let sum = plan(&world.once().await);
    approve(&world, &sum).await;
    let away = Faults::from(Rule::new(Effect::DropBefore).on([Endpoint::List]));
    for faults in [away, unreachable_after_walk(&world).await] {
        let ran = once_under(&world, faults, &[]).await;
        assert_eq!(
            (ran.code, &ran.json()["outcome"]),
            (Some(1), &"failed".into()),
            "{ran:#?}"
        );
    }
    let status = world.run(&["status", "--format", "json"]).await.json();
    assert_eq!((&status["approved"], &status["held"]), (&12.into(), &0.into()));
    let ran = world.once().await;
    assert_eq!((ran.code, &ran.json()["deleted"]), (Some(0), &12.into()), "{ran:#?}");
    world.assert_in_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approved_deletion_is_still_confirmed() {
    let world = mirrored(40).await;
    delete(&world, 12);
    approve(&world, &plan(&world.once().await)).await;
    let html_not_found = Quirks {
        html_not_found: true,
        ..Quirks::default()
    };
    let ran = once_under(&world, html_not_found, &[]).await;
    ran.assert(Exit::Failed, incomplete().unchanged(28));
    world.once().await.assert(Exit::Ok, changed().deleted(12).unchanged(28));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_clerk_is_held_under_any_limits() {
    let no_limits = [
        ("CLERK2PG_DELETES__MIN_COUNT", "1000"),
        ("CLERK2PG_DELETES__MAX_PERCENT", "100"),
    ];
    let world = mirrored(3).await;
    let gone = delete(&world, 3);
    let ran = world.once_with(&no_limits).await;
    ran.assert(Exit::Held, held(3));
    assert_eq!(mirrored_ids(&world).await, gone);
    approve(&world, &plan(&ran)).await;
    world.once_with(&no_limits).await.assert(Exit::Ok, changed().deleted(3));
    world.once().await.assert(Exit::Ok, in_sync());
    // An empty mirror of an empty Clerk is in sync, and fills again.
    world.sim.create_random();
    world.once().await.assert(Exit::Ok, changed().created(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn deletions_of_several_batches_are_one_plan() {
    let world = mirrored(300).await;
    delete(&world, 250);
    let ran = world.once().await;
    ran.assert(Exit::Held, held(250).unchanged(50));
    assert_eq!(
        world.run(&["--dry-run", "--format", "json"]).await.json()["plan"],
        ran.json()["plan"]
    );
    approve(&world, &plan(&ran)).await;
    let approved = world.run(&["--dry-run", "--format", "json"]).await.json();
    assert_eq!((&approved["deleted"], &approved["held"]), (&250.into(), &0.into()));
    world
        .once()
        .await
        .assert(Exit::Ok, changed().deleted(250).unchanged(50));
    world.assert_in_sync().await;
}

/// Deletes some users under these limits, and asserts whether the deletions are held.
async fn check(users: usize, deletions: usize, limits: &[(&str, &str)], is_held: bool) {
    let world = mirrored(users).await;
    delete(&world, deletions);
    let ran = world.once_with(limits).await;
    let left = users - deletions;
    let (exit, expected) = match is_held {
        true => (Exit::Held, held(deletions).unchanged(left)),
        false => (Exit::Ok, changed().deleted(deletions).unchanged(left)),
    };
    ran.assert_named(&format!("{deletions} of {users} with {limits:?}"), exit, expected);
}

const MIN_COUNT: &str = "CLERK2PG_DELETES__MIN_COUNT";
const MAX_COUNT: &str = "CLERK2PG_DELETES__MAX_COUNT";
const MAX_PERCENT: &str = "CLERK2PG_DELETES__MAX_PERCENT";

#[tokio::test(flavor = "multi_thread")]
async fn default_limits() {
    check(20, 10, &[], false).await;
    check(20, 11, &[], true).await;
    check(100, 20, &[], false).await;
    check(100, 21, &[], true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn percent_and_count_limits() {
    check(30, 15, &[(MAX_PERCENT, "50")], false).await;
    check(30, 16, &[(MAX_PERCENT, "50")], true).await;
    check(30, 1, &[(MIN_COUNT, "0"), (MAX_PERCENT, "0")], true).await;
    check(
        30,
        5,
        &[(MIN_COUNT, "0"), (MAX_COUNT, "5"), (MAX_PERCENT, "100")],
        false,
    )
    .await;
    check(30, 6, &[(MIN_COUNT, "0"), (MAX_COUNT, "5"), (MAX_PERCENT, "100")], true).await;
    check(30, 6, &[(MIN_COUNT, "6"), (MAX_COUNT, "0"), (MAX_PERCENT, "0")], false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_from_the_file() {
    let world = mirrored(20).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    std::fs::write(&file, "[deletes]\nmin_count = 0\nmax_percent = 4.5\nmode = \"mark\"\n").unwrap();
    delete(&world, 1);
    let arguments = ["--once", "--format", "json", "--config", file.to_str().unwrap()];
    let ran = world.run(&arguments).await;
    ran.assert(Exit::Held, held(1).unchanged(19));
    approve(&world, &plan(&ran)).await;
    world
        .run(&arguments)
        .await
        .assert(Exit::Ok, changed().deleted(1).unchanged(19));
    assert_eq!(world.db.number("SELECT count(deleted_at) FROM clerk.users").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_rows_do_not_block_other_deletions() {
    let world = mirrored(60).await;
    let ids = world.sim.user_ids();
    world
        .db
        .execute("CREATE TABLE orders (user_id text REFERENCES clerk.users)")
        .await;
    for id in &ids[..12] {
        world.db.execute(&format!("INSERT INTO orders VALUES ('{id}')")).await;
        world.sim.delete(id);
    }
    let relaxed = [("CLERK2PG_DELETES__MIN_COUNT", "12")];
    world
        .once_with(&relaxed)
        .await
        .assert(Exit::Ok, in_sync().unchanged(48).rejected(12));
    // A quarter of the mirror is missing, but only three of these are new.
    for id in &ids[20..23] {
        world.sim.delete(id);
    }
    world
        .once()
        .await
        .assert(Exit::Ok, changed().deleted(3).unchanged(45).rejected(12));
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_rows_released_together_are_held_as_a_mass_deletion() {
    let world = mirrored(60).await;
    let ids = world.sim.user_ids();
    world
        .db
        .execute("CREATE TABLE orders (user_id text REFERENCES clerk.users)")
        .await;
    for part in ids[..25].chunks(5) {
        for id in part {
            world.db.execute(&format!("INSERT INTO orders VALUES ('{id}')")).await;
            world.sim.delete(id);
        }
        let ran = world.once().await;
        assert_eq!(ran.json()["held"], 0, "{ran:#?}");
    }
    assert_eq!(world.users().await, 60);
    world.db.execute("DROP TABLE orders").await;
    world.sim.delete(&ids[30]);
    // As many as the guard allows within an hour.
    let ran = world.once().await;
    ran.assert(Exit::Held, held(14).deleted(12).unchanged(34));
    approve(&world, &plan(&ran)).await;
    let ran = world.once().await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    world.assert_in_sync().await;
}
