//! Servers that order equal `created_at` and `updated_at` differently at each request.

use clerk_sim::{Options, Quirks, Shuffle};
use rustix::process::Signal;

use crate::support::{
    changes::now,
    fixture::World,
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
    let world = World::new(3_200).await;
    world.sim.set_faults(shuffled());
    let daemon = world.start_incremental(&[]).await;
    let (ids, watermark) = (world.sim.user_ids(), world.watermark().await);
    let changes = || {
        let at = now();
        for id in &ids[..3_000] {
            assert!(world.sim.update(id, |user| {
                user["first_name"] = "Changed".into();
                user["updated_at"] = at.into();
            }));
        }
    };
    world.while_frozen(&[&daemon], changes).await;
    let changed = "SELECT count(*) FROM clerk.users WHERE first_name = 'Changed'";
    eventually("all are brought", async || world.db.number(changed).await == 3_000).await;
    eventually("the watermark follows", async || world.watermark().await > watermark).await;
    world.assert_in_sync().await;
    let walks = world.runs("kind = 'full'").await;
    assert!(walks <= 3, "{walks} full syncs: {}", daemon.log());
    // No further full sync is needed.
    for _ in 0..4 {
        world.wait_for_incremental_sync().await;
    }
    assert_eq!(world.runs("kind = 'full'").await, walks, "{}", daemon.log());
    assert_eq!(daemon.stop(Signal::TERM).await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_a_page_of_users_created_in_one_moment_are_all_read() {
    // The generated users 3000 to 3619 share one millisecond.
    for seed in 1..4 {
        let world = World::with(Options {
            users: 4_000,
            seed,
            ..Options::default()
        })
        .await;
        world.sim.set_faults(shuffled());
        world.once().await.assert(Exit::Ok, changed().created(4000));
        world.once().await.assert(Exit::Ok, in_sync().unchanged(4000));
        world.assert_in_sync().await;
    }
}
