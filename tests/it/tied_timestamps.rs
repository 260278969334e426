//! Servers that order equal `created_at` and `updated_at` differently at each request.

use clerk_sim::{Options, Quirks, Shuffle};
use rustix::process::Signal;

use crate::support::{
    changes::now,
    fixture::Fixture,
    summary::{Exit, changed, in_sync},
    wait::eventually,
};

fn shuffled() -> Quirks {
    Quirks {
        shuffle: Some(Shuffle::Ties),
        ..Quirks::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_changes_in_one_moment_are_all_mirrored() {
    let fixture = Fixture::new(3_200).await;
    fixture.sim.set_faults(shuffled());
    let daemon = fixture.start_incremental(&[]).await;
    let (ids, watermark) = (fixture.sim.user_ids(), fixture.watermark().await);
    let changes = || {
        let at = now();
        for id in &ids[..3_000] {
            assert!(fixture.sim.update(id, |user| {
                user["first_name"] = "Changed".into();
                user["updated_at"] = at.into();
            }));
        }
    };
    fixture.while_frozen(&[&daemon], changes).await;
    let changed = "SELECT count(*) FROM clerk.users WHERE first_name = 'Changed'";
    eventually("all are brought", async || fixture.db.number(changed).await == 3_000).await;
    eventually("the watermark follows", async || fixture.watermark().await > watermark).await;
    fixture.assert_in_sync().await;
    let walks = fixture.runs("kind = 'full'").await;
    assert!(walks <= 3, "{walks} full syncs: {}", daemon.log());
    // No further full sync is needed.
    for _ in 0..4 {
        fixture.wait_for_incremental_sync().await;
    }
    assert_eq!(fixture.runs("kind = 'full'").await, walks, "{}", daemon.log());
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_a_page_of_users_created_in_one_moment_are_all_read() {
    // The generated users 3000 to 3619 share one millisecond.
    for seed in 1..4 {
        let fixture = Fixture::with(Options {
            users: 4_000,
            seed,
            ..Options::default()
        })
        .await;
        fixture.sim.set_faults(shuffled());
        fixture.once().await.assert(Exit::Ok, changed().created(4000));
        fixture.once().await.assert(Exit::Ok, in_sync().unchanged(4000));
        fixture.assert_in_sync().await;
    }
}
