//! Databases with a stricter default isolation level than clerk2pg needs.

use rustix::process::Signal;

use crate::support::{
    fixture::World,
    process::{EVERY_SECOND, NEVER},
    summary::{Exit, changed, in_sync},
};

async fn check(level: &str) {
    let world = World::new(20_000).await;
    let database = world.db.text("SELECT current_database()").await.unwrap();
    let set = format!("ALTER DATABASE {database} SET default_transaction_isolation = '{level}'");
    world.db.execute(&set).await;
    // The partitions are written concurrently.
    world.once().await.assert(Exit::Ok, changed().created(20000));
    let daemon = world.start_daemon(&[NEVER, EVERY_SECOND]);
    for id in world.sim.user_ids().iter().step_by(40) {
        world.sim.update(id, |user| user["first_name"] = "Changed".into());
    }
    world.sim.delete_random();
    world.sim.create_random();
    world.wait_until_mirrored().await;
    assert_eq!(daemon.stop(Signal::TERM).await.code, Some(0));
    assert_eq!(world.runs("outcome = 'failed'").await, 0, "{level}");
    let again = world.once().await;
    again.assert(Exit::Ok, in_sync().unchanged(20000));
}

#[tokio::test(flavor = "multi_thread")]
async fn stricter_default_isolation_levels_do_no_harm() {
    check("repeatable read").await;
    check("serializable").await;
}
