//! Clocks that jump: the program's wall clock, and the database's as far as stored times show it.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use fastrand::Rng;
use tempfile::TempDir;

use crate::support::{fixture::Fixture, wait::eventually};

/// Builds the library that shifts the program's wall clock, with the compiler that links Rust's
/// programs.
fn library() -> &'static Path {
    static BUILT: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, library) = BUILT.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("clock.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/history/clock.c");
        let status = Command::new("cc")
            .args(["-shared", "-fPIC", "-O2", "-Wall", "-o"])
            .arg(&library)
            .arg(source)
            .status();
        assert!(status.unwrap().success(), "cc cannot build {source}");
        (folder, library)
    });
    library
}

/// The wall clock of a process.
pub struct Clock {
    file: File,
    path: PathBuf,
    _folder: TempDir,
}

impl Clock {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ahead");
        fs::write(&path, 0i64.to_ne_bytes()).unwrap();
        Self {
            file: File::options().write(true).open(&path).unwrap(),
            path,
            _folder: folder,
        }
    }

    /// Returns environment variables for the process.
    pub fn environment(&self) -> [(&'static str, &Path); 2] {
        [("LD_PRELOAD", library()), ("CLOCK_JUMPS", &self.path)]
    }

    /// Sets the clock ahead by some seconds from now on.
    pub fn jumps_to(&self, ahead_seconds: i64) {
        self.file
            .write_all_at(&(1000 * ahead_seconds).to_ne_bytes(), 0)
            .unwrap();
    }
}

/// Returns some minutes ahead or back, in seconds.
pub fn some_minutes(dice: &mut Rng) -> i64 {
    let seconds = dice.i64(30..3_600);
    if dice.bool() { seconds } else { -seconds }
}

/// Moves the database's clock by some seconds. Many histories share the server, so the stored times
/// move instead.
pub async fn of_the_database_jumps(fixture: &Fixture, seconds: i64) {
    let by = format!("interval '{seconds} seconds'");
    let mut sql = format!(
        "UPDATE clerk.sync_state SET lease_expires_at = lease_expires_at - {by};
         UPDATE clerk.leader SET expires_at = expires_at - {by};
         UPDATE clerk.standbys SET expires_at = expires_at - {by}, since = since - {by};
         UPDATE clerk.missing SET found_at = found_at - {by};
         UPDATE clerk.endpoints SET paused_at = paused_at - {by}, next_attempt_at = next_attempt_at - {by};
         UPDATE clerk.deliveries SET next_attempt_at = next_attempt_at - {by}, last_attempt_at = last_attempt_at - {by};"
    );
    // Only backwards: for rows that a jump makes older, answers of lagging replicas would count
    // that do not know them yet.
    if seconds < 0 {
        sql += &format!(
            "UPDATE clerk.users SET first_seen_at = first_seen_at - {by}, changed_at = changed_at - {by}
             WHERE changed_at > now() - interval '1 minute';"
        );
    }
    // The audit triggers need not see this.
    let sql =
        format!("BEGIN; SET LOCAL session_replication_role = replica; SET LOCAL lock_timeout = '2s'; {sql} COMMIT");
    if fixture.db.client.batch_execute(&sql).await.is_err() {
        // Another transaction has locked these rows.
        let _ = fixture.db.client.batch_execute("ROLLBACK").await;
    }
}

/// Makes all rows of users an hour older. All of them must have been at Clerk for longer than a replica
/// lags.
pub async fn rows_grow_old(fixture: &Fixture) {
    let sql = "BEGIN; SET LOCAL session_replication_role = replica;
        UPDATE clerk.users SET first_seen_at = first_seen_at - interval '1 hour', changed_at = changed_at - interval '1 hour';
        COMMIT";
    eventually("no other transaction locks the rows", async || {
        let is_done = fixture.db.client.batch_execute(sql).await.is_ok();
        if !is_done {
            let _ = fixture.db.client.batch_execute("ROLLBACK").await;
        }
        is_done
    })
    .await;
}
