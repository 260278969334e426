//! Rejected users are in the first line, and with `--exit-code` give exit code 5.

use clerk_sim::Unstorable;

use crate::support::{
    fixture::{Fixture, mirrored},
    program::ProgramOutput,
    summary::{Exit, changed, held, in_sync, planned},
};

fn first_line(ran: &ProgramOutput) -> &str {
    ran.stdout.lines().next().unwrap_or_default()
}

/// Returns a hundred users that can be stored, and one or two that cannot.
async fn with_rejected(rejected: usize) -> Fixture {
    let fixture = Fixture::new(100).await;
    let kinds = [Unstorable::ManyKeys, Unstorable::NotAnObject];
    for kind in &kinds[..rejected] {
        fixture.sim.insert_unstorable(*kind);
    }
    fixture
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_users_are_in_the_first_line() {
    let fixture = with_rejected(1).await;
    let ran = fixture.run(&["--once"]).await;
    let instance = fixture.sim.instance_id();
    let one = format!("In sync with {instance}, but 1 user is rejected");
    assert_eq!((ran.code, first_line(&ran)), (Some(0), &*one), "{ran:#?}");
    fixture.sim.insert_unstorable(Unstorable::CreatedAtTooLate);
    let ran = fixture.run(&["--once"]).await;
    let two = format!("In sync with {instance}, but 2 users are rejected");
    assert_eq!((ran.code, first_line(&ran)), (Some(0), &*two), "{ran:#?}");
    let ran = fixture.run(&["--dry-run"]).await;
    // After one line for each of them.
    let last_line = ran.stdout.lines().last().unwrap_or_default();
    let plan = format!(
        "No changes, but 2 users cannot be stored or deleted. All others are in sync with {instance} (100 users)."
    );
    assert_eq!((ran.code, last_line), (Some(0), &*plan), "{ran:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_exit_code_rejected_users_give_exit_code_5() {
    let fixture = with_rejected(2).await;
    let once = ["--once", "--exit-code", "--format", "json"];
    let dry_run = ["--dry-run", "--exit-code", "--format", "json"];
    fixture
        .run(&dry_run)
        .await
        .assert(Exit::Differences, planned().created(100).rejected(2));
    fixture
        .run(&once)
        .await
        .assert(Exit::Rejected, changed().created(100).rejected(2));
    fixture
        .run(&once)
        .await
        .assert(Exit::Rejected, in_sync().unchanged(100).rejected(2));
    fixture
        .run(&dry_run)
        .await
        .assert(Exit::Rejected, planned().unchanged(100).rejected(2));
    fixture
        .once()
        .await
        .assert(Exit::Ok, in_sync().unchanged(100).rejected(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_exit_code_all_other_exit_codes_stay() {
    let fixture = mirrored(60).await;
    let once = ["--once", "--exit-code", "--format", "json"];
    fixture.run(&once).await.assert(Exit::Ok, in_sync().unchanged(60));
    fixture.sim.insert_unstorable(Unstorable::ManyKeys);
    for id in fixture.sim.user_ids().iter().take(20) {
        assert!(fixture.sim.delete(id));
    }
    // A person must review the held deletions first.
    fixture
        .run(&once)
        .await
        .assert(Exit::Held, held(20).unchanged(40).rejected(1));
}
