//! A mass deletion is held until a person approves exactly that plan, once.

use std::collections::BTreeSet;

use clerk_sim::{Effect, Endpoint, Faults, Quirks, Rule};

use crate::support::{
    faults::{once_under, unreachable_after_walk},
    fixture::{Fixture, mirrored, mirrored_ids},
    program::ProgramOutput,
    summary::{Exit, changed, held, in_sync, incomplete},
};

/// Deletes Clerk's oldest users.
fn delete(fixture: &Fixture, users: usize) -> BTreeSet<String> {
    let ids: BTreeSet<String> = fixture.sim.user_ids().into_iter().take(users).collect();
    assert_eq!(ids.len(), users);
    assert!(ids.iter().all(|id| fixture.sim.delete(id)));
    ids
}

fn plan(ran: &ProgramOutput) -> String {
    ran.json()["plan"]
        .as_str()
        .unwrap_or_else(|| panic!("no plan: {ran:#?}"))
        .to_owned()
}

async fn approve(fixture: &Fixture, sum: &str) {
    let ran = fixture.run(&["approve", sum]).await;
    ran.assert_exit(Exit::Ok);
}

async fn refused(fixture: &Fixture, sum: &str, why: &str) {
    let ran = fixture.run(&["approve", sum]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{ran:#?}");
    assert!(ran.stderr.contains(why), "{ran:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn held_deletions_block_nothing_else() {
    let fixture = mirrored(60).await;
    fixture.sim.set_faults(Quirks {
        max_page: Some(7),
        ..Quirks::default()
    });
    let gone = delete(&fixture, 15);
    let new: Vec<_> = (0..2).map(|_| fixture.sim.create_random()).collect();
    let changed = fixture.sim.user_ids()[3].clone();
    fixture
        .sim
        .update(&changed, |user| user["first_name"] = "Changed".into());

    let planned = fixture.run(&["--dry-run"]).await;
    let ran = fixture.once().await;
    ran.assert(Exit::Held, held(15).created(2).updated(1).unchanged(44));
    let sum = plan(&ran);
    let mirror = fixture.db.documents().await;
    assert_eq!(mirror[&changed]["first_name"], "Changed");
    assert!(new.iter().chain(&gone).all(|id| mirror.contains_key(id)));
    let row = "SELECT concat_ws(' ', outcome, held, deleted, plan) FROM clerk.sync_runs ORDER BY id DESC LIMIT 1";
    assert_eq!(fixture.db.text(row).await.unwrap(), format!("held 15 0 {sum}"));

    // A dry run before the sync and one after it print the same plan.
    for dry_run in [planned, fixture.run(&["--dry-run"]).await] {
        dry_run.assert_exit(Exit::Ok);
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
        let ran = fixture.run(arguments).await;
        assert!(ran.stdout.contains(&format!("clerk2pg approve {sum}")), "{ran:#?}");
    }
    // Held again with the same checksum.
    let again = fixture.once().await;
    again.assert(Exit::Held, held(15).unchanged(47));
    assert_eq!(plan(&again), sum);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_is_for_one_plan_and_one_time() {
    let fixture = mirrored(60).await;
    refused(&fixture, "0123456789ab", "no deletions are held").await;
    let gone = delete(&fixture, 15);
    let sum = plan(&fixture.once().await);
    refused(&fixture, "0123456789ab", &sum).await;
    refused(&fixture, &sum[..11], &sum).await;
    fixture.once().await.assert(Exit::Held, held(15).unchanged(45));
    approve(&fixture, &sum).await;
    refused(&fixture, &sum, "no deletions are held").await;

    // Deleted after the approval, so not part of what was reviewed.
    let more = delete(&fixture, 14);
    let ran = fixture.once().await;
    ran.assert(Exit::Held, held(14).deleted(15).unchanged(31));
    let mirror = mirrored_ids(&fixture).await;
    assert!(gone.is_disjoint(&mirror) && more.is_subset(&mirror));
    assert_ne!(plan(&ran), sum);
    refused(&fixture, &sum, &plan(&ran)).await;
    approve(&fixture, &plan(&ran)).await;
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().deleted(14).unchanged(31));
    fixture.once().await.assert(Exit::Ok, in_sync().unchanged(31));
    fixture.assert_in_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_returned_is_not_deleted() {
    let fixture = mirrored(40).await;
    let back = fixture.sim.user_ids()[2].clone();
    let document = fixture.sim.document(&back).unwrap();
    let gone = delete(&fixture, 12);
    assert!(gone.contains(&back));
    let sum = plan(&fixture.once().await);
    approve(&fixture, &sum).await;
    fixture.age_rows().await;
    fixture.sim.insert(document);
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().deleted(11).unchanged(29));
    fixture.assert_in_sync().await;
    // The approval was for that deletion, not for the user's next one.
    fixture.sim.delete(&back);
    let hold_all = [
        ("CLERK2PG_DELETES__MIN_COUNT", "0"),
        ("CLERK2PG_DELETES__MAX_COUNT", "0"),
    ];
    fixture
        .once_with(&hold_all)
        .await
        .assert(Exit::Held, held(1).unchanged(28));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_plan_needs_another_approval() {
    let fixture = mirrored(40).await;
    let back = fixture.sim.user_ids()[2].clone();
    let document = fixture.sim.document(&back).unwrap();
    delete(&fixture, 13);
    let sum = plan(&fixture.once().await);
    fixture.age_rows().await;
    fixture.sim.insert(document);
    let ran = fixture.once().await;
    ran.assert(Exit::Held, held(12).unchanged(28));
    refused(&fixture, &sum, &plan(&ran)).await;
    // So few would not be held. These are, until a person approves.
    let relaxed = [("CLERK2PG_DELETES__MIN_COUNT", "12")];
    fixture
        .once_with(&relaxed)
        .await
        .assert(Exit::Held, held(12).unchanged(28));
    approve(&fixture, &plan(&ran)).await;
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().deleted(12).unchanged(28));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_outlasts_a_failed_sync() {
    let fixture = mirrored(40).await;
    delete(&fixture, 12);
    let sum = plan(&fixture.once().await);
    approve(&fixture, &sum).await;
    let away = Faults::from(Rule::new(Effect::DropBefore).on([Endpoint::List]));
    for faults in [away, unreachable_after_walk(&fixture).await] {
        let ran = once_under(&fixture, faults, &[]).await;
        assert_eq!(
            (ran.code, &ran.json()["outcome"]),
            (Some(1), &"failed".into()),
            "{ran:#?}"
        );
    }
    let status = fixture.run(&["status", "--format", "json"]).await.json();
    assert_eq!((&status["approved"], &status["held"]), (&12.into(), &0.into()));
    let ran = fixture.once().await;
    assert_eq!((ran.code, &ran.json()["deleted"]), (Some(0), &12.into()), "{ran:#?}");
    fixture.assert_in_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approved_deletion_is_still_confirmed() {
    let fixture = mirrored(40).await;
    delete(&fixture, 12);
    approve(&fixture, &plan(&fixture.once().await)).await;
    let html_not_found = Quirks {
        html_not_found: true,
        ..Quirks::default()
    };
    let ran = once_under(&fixture, html_not_found, &[]).await;
    ran.assert(Exit::Failed, incomplete().unchanged(28));
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().deleted(12).unchanged(28));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_clerk_is_held_under_any_limits() {
    let no_limits = [
        ("CLERK2PG_DELETES__MIN_COUNT", "1000"),
        ("CLERK2PG_DELETES__MAX_PERCENT", "100"),
    ];
    let fixture = mirrored(3).await;
    let gone = delete(&fixture, 3);
    let ran = fixture.once_with(&no_limits).await;
    ran.assert(Exit::Held, held(3));
    assert_eq!(mirrored_ids(&fixture).await, gone);
    approve(&fixture, &plan(&ran)).await;
    fixture
        .once_with(&no_limits)
        .await
        .assert(Exit::Ok, changed().deleted(3));
    fixture.once().await.assert(Exit::Ok, in_sync());
    // An empty mirror of an empty Clerk is in sync, and fills again.
    fixture.sim.create_random();
    fixture.once().await.assert(Exit::Ok, changed().created(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn deletions_of_several_batches_are_one_plan() {
    let fixture = mirrored(300).await;
    delete(&fixture, 250);
    let ran = fixture.once().await;
    ran.assert(Exit::Held, held(250).unchanged(50));
    assert_eq!(
        fixture.run(&["--dry-run", "--format", "json"]).await.json()["plan"],
        ran.json()["plan"]
    );
    approve(&fixture, &plan(&ran)).await;
    let approved = fixture.run(&["--dry-run", "--format", "json"]).await.json();
    assert_eq!((&approved["deleted"], &approved["held"]), (&250.into(), &0.into()));
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().deleted(250).unchanged(50));
    fixture.assert_in_sync().await;
}

/// Deletes some users under these limits, and asserts whether the deletions are held.
async fn check(users: usize, deletions: usize, limits: &[(&str, &str)], is_held: bool) {
    let fixture = mirrored(users).await;
    delete(&fixture, deletions);
    let ran = fixture.once_with(limits).await;
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
    let fixture = mirrored(20).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    std::fs::write(&file, "[deletes]\nmin_count = 0\nmax_percent = 4.5\nmode = \"mark\"\n").unwrap();
    delete(&fixture, 1);
    let arguments = ["--once", "--format", "json", "--config", file.to_str().unwrap()];
    let ran = fixture.run(&arguments).await;
    ran.assert(Exit::Held, held(1).unchanged(19));
    approve(&fixture, &plan(&ran)).await;
    fixture
        .run(&arguments)
        .await
        .assert(Exit::Ok, changed().deleted(1).unchanged(19));
    assert_eq!(fixture.db.number("SELECT count(deleted_at) FROM clerk.users").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_rows_do_not_block_other_deletions() {
    let fixture = mirrored(60).await;
    let ids = fixture.sim.user_ids();
    fixture
        .db
        .execute("CREATE TABLE orders (user_id text REFERENCES clerk.users)")
        .await;
    for id in &ids[..12] {
        fixture.db.execute(&format!("INSERT INTO orders VALUES ('{id}')")).await;
        fixture.sim.delete(id);
    }
    let relaxed = [("CLERK2PG_DELETES__MIN_COUNT", "12")];
    fixture
        .once_with(&relaxed)
        .await
        .assert(Exit::Ok, in_sync().unchanged(48).rejected(12));
    // A quarter of the mirror is missing, but only three of these are new.
    for id in &ids[20..23] {
        fixture.sim.delete(id);
    }
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().deleted(3).unchanged(45).rejected(12));
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_rows_released_together_are_held_as_a_mass_deletion() {
    let fixture = mirrored(60).await;
    let ids = fixture.sim.user_ids();
    fixture
        .db
        .execute("CREATE TABLE orders (user_id text REFERENCES clerk.users)")
        .await;
    for part in ids[..25].chunks(5) {
        for id in part {
            fixture.db.execute(&format!("INSERT INTO orders VALUES ('{id}')")).await;
            fixture.sim.delete(id);
        }
        let ran = fixture.once().await;
        assert_eq!(ran.json()["held"], 0, "{ran:#?}");
    }
    assert_eq!(fixture.users().await, 60);
    fixture.db.execute("DROP TABLE orders").await;
    fixture.sim.delete(&ids[30]);
    // As many as the guard allows within an hour.
    let ran = fixture.once().await;
    ran.assert(Exit::Held, held(14).deleted(12).unchanged(34));
    approve(&fixture, &plan(&ran)).await;
    let ran = fixture.once().await;
    ran.assert_exit(Exit::Ok);
    fixture.assert_in_sync().await;
}
