//! Counts that differ from one request to the next.

use clerk_sim::{Effect, Endpoint, Quirks, Rule, WrongCount};

use crate::support::polling::PollingDaemon;

#[tokio::test(flavor = "multi_thread")]
async fn a_flapping_count_causes_few_searches() {
    let polling = PollingDaemon::new(60, &[]).await;
    let fixture = &polling.fixture;
    let quirks = Quirks {
        count: Some(WrongCount::Offset(-1)),
        ..Quirks::default()
    };
    let flaps = Rule::new(Effect::Quirks(Box::new(quirks)));
    fixture.sim.set_faults(flaps.on([Endpoint::Count]).probability(0.5));
    let before = fixture.runs("true").await;
    polling.sync_incrementally(45).await;
    let rows = fixture.runs("true").await - before;
    assert!(rows <= 8, "{rows} rows: {}", polling.daemon.log());
    // A deletion is still found.
    polling.delete([&fixture.sim.user_ids()[30]]).await;
    fixture.sim.clear_faults();
    polling.stop_in_sync_after_any_full_sync().await;
}
