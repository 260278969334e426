//! A daemon that syncs only on demand, and the notifications that ask for it.

use rustix::process::Signal;

use crate::support::{
    fixture::Fixture,
    process::{NEVER, Process},
    summary::Exit,
    wait::eventually,
};

/// Logs when the daemon listens for notifications.
pub const DEBUG: (&str, &str) = ("CLERK2PG_LOG__LEVEL", "debug");

pub const LISTENING: &str = "listening";

/// Starts a daemon that has mirrored all users, listens, and syncs only on request.
pub async fn start_on_demand(users: usize) -> (Fixture, Process) {
    let fixture = Fixture::migrated_with(users).await;
    let daemon = fixture.start_on_demand().await;
    (fixture, daemon)
}

impl Fixture {
    pub async fn start_on_demand(&self) -> Process {
        self.start_on_demand_with(&[]).await
    }

    pub async fn start_on_demand_with(&self, environment: &[(&str, &str)]) -> Process {
        let daemon = self.start_daemon(&[&[NEVER, DEBUG], environment].concat());
        daemon.wait_for_log(LISTENING).await;
        eventually("the first full sync is over", async || {
            daemon.count_in_log("full sync outcome") > 0
        })
        .await;
        self.age_rows().await;
        daemon
    }

    pub async fn notify(&self, payload: &str) {
        let sql = "SELECT pg_notify('clerk2pg', $1)";
        self.db.client.execute(sql, &[&payload]).await.unwrap();
    }

    /// Creates a user, requests it, and waits until it is mirrored. Earlier requests are done by
    /// then.
    pub async fn sync_new_user(&self) -> String {
        let id = self.sim.create_random();
        self.notify(&id).await;
        eventually("the user's row", async || self.has_user(&id).await).await;
        eventually("the sync is over", async || self.runs("ended_at IS NULL").await == 0).await;
        id
    }
}

/// Stops a daemon, and asserts that it logged no warning and no error.
pub async fn assert_clean_stop(daemon: Process) {
    let ran = daemon.stop(Signal::TERM).await;
    ran.assert_exit(Exit::Ok);
    assert!(
        !ran.stderr.contains("WARN") && !ran.stderr.contains("ERROR"),
        "{ran:#?}"
    );
}
