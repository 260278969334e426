//! Servers with an order of their own: nobody is counted, planned or created twice, however often a walk begins anew.

use clerk_sim::Quirks;

use crate::harness::World;

/// Sorts by `updated_at` when it reads a literal `+`, and by `created_at` when it reads none.
fn strips_only_minus() -> Quirks {
    Quirks {
        unknown_plus: true,
        missing_instance: true,
        ..Quirks::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emulator_that_does_not_know_a_plus_is_in_sync_after_one_full_sync() {
    let world = World::new(700).await;
    for id in world.sim.user_ids().iter().step_by(7) {
        world.sim.update(id, |user| user["first_name"] = "Changed".into());
    }
    world.sim.set_faults(strips_only_minus());
    world.once().await.assert(0, "changed +700 ~0 -0 =0 held 0 rejected 0");
    assert!(world.sim.delete(&world.sim.user_ids()[300]));
    world.once().await.assert(0, "changed +0 ~0 -1 =699 held 0 rejected 0");
    world.assert_in_step().await;
}
