//! Servers with another list order: each user is counted, planned and created once, however often a
//! walk restarts.

use std::collections::BTreeSet;

use clerk_sim::{Quirks, Shuffle};

use crate::support::{
    fixture::{Fixture, mirrored_ids},
    program::ProgramOutput,
    summary::{Exit, changed, incomplete},
};

/// Sorts by `updated_at` for a literal `+`, and by `created_at` without a sign.
fn strips_only_minus() -> Quirks {
    Quirks {
        unknown_plus: true,
        missing_instance: true,
        ..Quirks::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emulator_that_does_not_know_a_plus_is_in_sync_after_one_full_sync() {
    let fixture = Fixture::new(700).await;
    for id in fixture.sim.user_ids().iter().step_by(7) {
        fixture.sim.update(id, |user| user["first_name"] = "Changed".into());
    }
    fixture.sim.set_faults(strips_only_minus());
    fixture.once().await.assert(Exit::Ok, changed().created(700));
    assert!(fixture.sim.delete(&fixture.sim.user_ids()[300]));
    fixture
        .once()
        .await
        .assert(Exit::Ok, changed().deleted(1).unchanged(699));
    fixture.assert_in_sync().await;
}

/// A list in another order at each request. With pages of one or two users it looks ordered for a
/// while.
fn shuffled(max_page: Option<usize>) -> Quirks {
    Quirks {
        ignore_order_by: true,
        shuffle: Some(Shuffle::All),
        max_page,
        ..Quirks::default()
    }
}

/// Returns the ids that a dry run would create, one on each line.
fn planned(ran: &ProgramOutput) -> Vec<String> {
    let lines = ran.stdout.lines().chain(ran.stderr.lines());
    let ids = lines.filter_map(|line| line.split_whitespace().find(|word| word.starts_with("user_")));
    ids.map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn users_of_a_shuffled_list_are_each_counted_once() {
    let fixture = Fixture::new(701).await;
    fixture.sim.set_faults(shuffled(None));
    let plan = fixture.run(&["--dry-run"]).await;
    plan.assert_exit(Exit::Failed);
    let ids = planned(&plan);
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "planned twice");
    fixture.once().await.assert(Exit::Failed, incomplete().created(701));
    fixture.assert_in_sync().await;
    fixture.once().await.assert(Exit::Failed, incomplete().unchanged(701));
    let plan = fixture.run(&["--dry-run", "--format", "json"]).await;
    plan.assert(Exit::Failed, incomplete().unchanged(701));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_walk_counts_nobody_twice() {
    for users in [12, 30] {
        let fixture = Fixture::new(users).await;
        fixture.sim.set_faults(shuffled(Some(2)));
        let plan = fixture.run(&["--dry-run"]).await;
        let ids = planned(&plan);
        assert_eq!(
            ids.iter().collect::<BTreeSet<_>>().len(),
            ids.len(),
            "planned twice: {plan:#?}"
        );
        let first = fixture.once().await.json();
        let stored = mirrored_ids(&fixture).await.len();
        assert_eq!(
            (&first["created"], &first["unchanged"]),
            (&stored.into(), &0.into()),
            "{first}"
        );
        let second = fixture.once().await.json();
        let all = second["created"].as_u64().unwrap() + second["unchanged"].as_u64().unwrap();
        assert!(all <= users as u64, "{second}");
    }
}
