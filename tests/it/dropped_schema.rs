//! The schema is dropped while a daemon runs.

use rustix::process::Signal;

use crate::support::{
    fixture::World,
    process::{EVERY_SECOND, NEVER, Process},
    wait::eventually,
};

async fn dropped(world: &World, environment: &[(&str, &str)]) -> Process {
    assert_eq!(world.once_with(environment).await.code, Some(0));
    let daemon = world.start_daemon(&[&[NEVER, EVERY_SECOND], environment].concat());
    // The first full sync is over: from here on only incremental syncs are due.
    world.syncs(2).await;
    world.db.execute("DROP SCHEMA clerk CASCADE").await;
    daemon.wait_for_log("no longer exists").await;
    daemon
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_schema_is_created_again() {
    let world = World::new(30).await;
    let daemon = dropped(&world, &[]).await;
    let exists = "SELECT count(*) FROM pg_tables WHERE schemaname = 'clerk' AND tablename = 'users'";
    eventually("the schema is there", async || world.db.number(exists).await == 1).await;
    world.sim.create_random();
    world.wait_until_mirrored().await;
    world.assert_in_sync().await;
    assert_eq!(daemon.stop(Signal::TERM).await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_may_not_migrate_reports_the_missing_schema() {
    let world = World::new(30).await;
    assert_eq!(world.run(&["migrate"]).await.code, Some(0));
    let daemon = dropped(&world, &[("CLERK2PG_DATABASE__MIGRATE", "false")]).await;
    daemon.wait_for_log("run `clerk2pg migrate`").await;
    assert_eq!(world.run(&["migrate"]).await.code, Some(0));
    world.wait_until_mirrored().await;
    assert_eq!(daemon.stop(Signal::TERM).await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn absurd_connection_limits_are_configuration_errors() {
    let world = World::new(1).await;
    for number in [
        "0",
        "1",
        "1001",
        "1000000000",
        "18446744073709551615",
        "99999999999999999999",
        "-1",
    ] {
        let ran = world.once_with(&[("CLERK2PG_DATABASE__MAX_CONNECTIONS", number)]).await;
        assert_eq!(ran.code, Some(2), "{number}: {ran:#?}");
        assert!(ran.stderr.contains("max_connections"), "{number}: {ran:#?}");
    }
    for number in ["2", "1000"] {
        let ran = world.once_with(&[("CLERK2PG_DATABASE__MAX_CONNECTIONS", number)]).await;
        assert_eq!(ran.code, Some(0), "{number}: {ran:#?}");
    }
}
