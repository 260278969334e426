//! Counts that differ from one request to the next.

use clerk_sim::{Effect, Endpoint, Quirks, Rule, WrongCount};

use crate::support::following::Following;

#[tokio::test(flavor = "multi_thread")]
async fn a_count_that_flaps_by_one_is_looked_into_a_few_times_only() {
    let following = Following::new(60, &[]).await;
    let world = &following.world;
    let quirks = Quirks {
        count: Some(WrongCount::Offset(-1)),
        ..Quirks::default()
    };
    let flaps = Rule::new(Effect::Quirks(Box::new(quirks)));
    world.sim.set_faults(flaps.on([Endpoint::Count]).probability(0.5));
    let before = world.runs("true").await;
    following.looks(45).await;
    let rows = world.runs("true").await - before;
    assert!(rows <= 8, "{rows} rows: {}", following.daemon.log());
    // A deletion is found all the same.
    following.delete([&world.sim.user_ids()[30]]).await;
    world.sim.clear_faults();
    following.ends_in_step_after_any_walk().await;
}
