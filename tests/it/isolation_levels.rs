//! Databases with a stricter default isolation level than clerk2pg needs.

use rustix::process::Signal;

use crate::support::{
    fixture::Fixture,
    process::{EVERY_SECOND, NEVER},
    summary::{Exit, changed, in_sync},
};

async fn check(level: &str) {
    let fixture = Fixture::new(20_000).await;
    let database = fixture.db.text("SELECT current_database()").await.unwrap();
    let set = format!("ALTER DATABASE {database} SET default_transaction_isolation = '{level}'");
    fixture.db.execute(&set).await;
    // The partitions are written concurrently.
    fixture.once().await.assert(Exit::Ok, changed().created(20000));
    let daemon = fixture.start_daemon(&[NEVER, EVERY_SECOND]);
    for id in fixture.sim.user_ids().iter().step_by(40) {
        fixture.sim.update(id, |user| user["first_name"] = "Changed".into());
    }
    fixture.sim.delete_random();
    fixture.sim.create_random();
    fixture.wait_until_mirrored().await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    assert_eq!(fixture.runs("outcome = 'failed'").await, 0, "{level}");
    let again = fixture.once().await;
    again.assert(Exit::Ok, in_sync().unchanged(20000));
}

#[tokio::test(flavor = "multi_thread")]
async fn stricter_default_isolation_levels_do_no_harm() {
    check("repeatable read").await;
    check("serializable").await;
}
