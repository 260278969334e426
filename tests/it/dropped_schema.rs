//! The schema is dropped while a daemon runs.

use rustix::process::Signal;

use crate::support::{
    fixture::Fixture,
    process::{EVERY_SECOND, NEVER, Process},
    summary::Exit,
    wait::eventually,
};

async fn dropped(fixture: &Fixture, environment: &[(&str, &str)]) -> Process {
    fixture.once_with(environment).await.assert_exit(Exit::Ok);
    let daemon = fixture.start_daemon(&[&[NEVER, EVERY_SECOND], environment].concat());
    // The first full sync is over: from here on only incremental syncs are due.
    fixture.syncs(2).await;
    fixture.db.execute("DROP SCHEMA clerk CASCADE").await;
    daemon.wait_for_log("no longer exists").await;
    daemon
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_schema_is_created_again() {
    let fixture = Fixture::new(30).await;
    let daemon = dropped(&fixture, &[]).await;
    let exists = "SELECT count(*) FROM pg_tables WHERE schemaname = 'clerk' AND tablename = 'users'";
    eventually("the schema is there", async || fixture.db.number(exists).await == 1).await;
    fixture.sim.create_random();
    fixture.wait_until_mirrored().await;
    fixture.assert_in_sync().await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_may_not_migrate_reports_the_missing_schema() {
    let fixture = Fixture::new(30).await;
    fixture.run(&["migrate"]).await.assert_exit(Exit::Ok);
    let daemon = dropped(&fixture, &[("CLERK2PG_DATABASE__MIGRATE", "false")]).await;
    daemon.wait_for_log("run `clerk2pg migrate`").await;
    fixture.run(&["migrate"]).await.assert_exit(Exit::Ok);
    fixture.wait_until_mirrored().await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn absurd_connection_limits_are_configuration_errors() {
    let fixture = Fixture::new(1).await;
    for number in [
        "0",
        "1",
        "1001",
        "1000000000",
        "18446744073709551615",
        "99999999999999999999",
        "-1",
    ] {
        let ran = fixture
            .once_with(&[("CLERK2PG_DATABASE__MAX_CONNECTIONS", number)])
            .await;
        assert_eq!(ran.code, Some(2), "{number}: {ran:#?}");
        assert!(ran.stderr.contains("max_connections"), "{number}: {ran:#?}");
    }
    for number in ["2", "1000"] {
        let ran = fixture
            .once_with(&[("CLERK2PG_DATABASE__MAX_CONNECTIONS", number)])
            .await;
        assert_eq!(ran.code, Some(0), "{number}: {ran:#?}");
    }
}
