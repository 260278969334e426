//! Faults of the simulated Clerk, and syncs under them.

use clerk_sim::{Effect, Endpoint, ErrorAnswer, ErrorBody, Faults, Quirks, Rule};

use crate::support::{
    fixture::{Fixture, mirrored_ids},
    program::ProgramOutput,
    summary::{Exit, Summary},
};

/// Runs a full sync under faults. Asserts that no user that is still at Clerk leaves the mirror.
pub async fn once_under(fixture: &Fixture, faults: impl Into<Faults>, environment: &[(&str, &str)]) -> ProgramOutput {
    fixture.sim.set_faults(faults);
    let before = mirrored_ids(fixture).await;
    let mut all = vec![("CLERK2PG_CLERK__TIMEOUT", "1s")];
    all.extend_from_slice(environment);
    let ran = fixture.once_with(&all).await;
    fixture.sim.clear_faults();
    fixture.age_held().await;
    let after = mirrored_ids(fixture).await;
    let lost: Vec<_> = before
        .difference(&after)
        .filter(|id| fixture.sim.document(id).is_some())
        .collect();
    assert!(
        lost.is_empty(),
        "{lost:?} are at Clerk, but no longer in the mirror: {ran:#?}"
    );
    ran
}

pub async fn check(name: &str, fixture: &Fixture, faults: impl Into<Faults>, exit: Exit, expected: Summary) {
    let ran = once_under(fixture, faults, &[]).await;
    ran.assert_named(name, exit, expected);
}

/// Returns faults with which the next sync loses Clerk when it looks for missing users: both counts
/// around the walk are still answered.
pub async fn unreachable_after_walk(fixture: &Fixture) -> Faults {
    let before = fixture.sim.log().len();
    fixture.run(&["--dry-run"]).await;
    let log = fixture.sim.log();
    let lists = log[before..]
        .iter()
        .filter(|request| request.path.starts_with("/v1/users?"))
        .count();
    let drop = |endpoint, skip| Rule::new(Effect::DropBefore).on([endpoint]).skip(skip);
    Faults {
        quirks: Quirks::default(),
        rules: vec![
            drop(Endpoint::Get, 0),
            drop(Endpoint::Count, 2),
            drop(Endpoint::List, lists as u64),
        ],
    }
}

pub fn error(status: u16, body: ErrorBody) -> Effect {
    Effect::Error(ErrorAnswer {
        status,
        retry_after: None,
        body,
    })
}

pub fn slow_pages(users: usize, latency_ms: u64) -> Faults {
    Faults {
        quirks: Quirks {
            max_page: Some(users),
            ..Quirks::default()
        },
        rules: vec![Rule::new(Effect::LatencyMs(latency_ms)).on([Endpoint::List])],
    }
}
