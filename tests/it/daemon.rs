//! The daemon: scheduled syncs, one at a time, and a reload at SIGHUP.

use std::{path::Path, time::Duration};

use clerk_sim::{Effect, Quirks, Rule};
use rustix::process::Signal;

use crate::support::{
    fixture::Fixture,
    process::{NEVER, Process},
    summary::Exit,
    wait::eventually,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_full_sync_runs_at_start_and_later_ones_need_a_schedule() {
    let fixture = Fixture::new(30).await;
    let daemon = fixture.start_daemon(&[NEVER]);
    fixture.syncs(1).await;
    fixture.assert_in_sync().await;

    fixture.sim.create_random();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!((fixture.users().await, fixture.runs("true").await), (30, 1));
    let ran = daemon.stop(Signal::TERM).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), ""), "{ran:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn scheduled_syncs_mirror_changes() {
    let fixture = Fixture::new(40).await;
    let daemon = fixture.start_daemon(&[]);
    fixture.syncs(1).await;
    for _ in 0..2 {
        for _ in 0..3 {
            fixture.sim.create_random();
            fixture.sim.update_random();
            fixture.sim.delete_random();
        }
        // Users created a moment ago are deleted ten seconds later.
        fixture.wait_until_mirrored().await;
    }
    let ran = daemon.stop(Signal::TERM).await;
    ran.assert_exit(Exit::Ok);
    fixture.assert_one_at_a_time().await;
    assert_eq!(fixture.lease_holder().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn syncs_slower_than_the_schedule_neither_overlap_nor_pile_up() {
    let fixture = Fixture::new(10).await;
    // Five requests of 0.6 s make a sync of three seconds, with a schedule of every second.
    fixture.sim.set_faults(Rule::new(Effect::LatencyMs(600)));
    let daemon = fixture.start_daemon(&[]);
    fixture.syncs(2).await;
    fixture.sim.clear_faults();
    let slow = fixture.db.number("SELECT max(id) FROM clerk.sync_runs").await;
    fixture.syncs(slow + 5).await;
    let ran = daemon.stop(Signal::TERM).await;
    ran.assert_exit(Exit::Ok);

    fixture.assert_one_at_a_time().await;
    // One tick may have been pending. After it, each sync has its own tick.
    let five = format!(
        "SELECT extract(epoch FROM max(started_at) - min(started_at)) FROM clerk.sync_runs WHERE id BETWEEN {slow} + 1 AND {slow} + 5"
    );
    let took: f64 = fixture.db.text(&five).await.unwrap().parse().unwrap();
    assert!(took > 2.0, "five syncs within {took} s: ticks had piled up");
}

/// Starts a daemon with a configuration file that no environment variable overrides.
fn on_file(fixture: &Fixture, file: &Path, text: &str) -> Process {
    std::fs::write(file, text).unwrap();
    Process::spawn(fixture.command(&["--config", file.to_str().unwrap()]))
}

async fn reload(daemon: &Process, file: &Path, text: &str, says: &str) {
    std::fs::write(file, text).unwrap();
    let before = daemon.count_in_log(says);
    daemon.signal(Signal::HUP);
    eventually(&format!("{says}, after {text:?}"), async || {
        daemon.count_in_log(says) > before
    })
    .await;
}

const RELOADED: &str = "configuration reloaded";
const KEPT: &str = "the old one stays";

#[tokio::test(flavor = "multi_thread")]
async fn sighup_applies_a_new_schedule() {
    let fixture = Fixture::new(10).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    let daemon = on_file(&fixture, &file, "[schedule]\nfull = \"\"\n");
    fixture.syncs(1).await;

    reload(&daemon, &file, "[schedule]\nfull = \"* * * * * *\"\n", RELOADED).await;
    fixture.syncs(4).await;

    reload(&daemon, &file, "[schedule]\nfull = \"\"\n", RELOADED).await;
    let syncs = fixture.runs("true").await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let more = fixture.runs("true").await - syncs;
    // One for the reload itself, and one that was due before.
    assert!(more <= 2, "{more} syncs: the old schedule goes on");
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_applies_a_new_log_level() {
    let fixture = Fixture::new(10).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    let quiet = "[schedule]\nfull = \"\"\n[log]\nlevel = \"warn\"\n";
    let daemon = on_file(&fixture, &file, quiet);
    fixture.syncs(1).await;
    assert_eq!(daemon.log(), "");

    reload(
        &daemon,
        &file,
        "[schedule]\nfull = \"\"\n[log]\nlevel = \"info\"\n",
        "full sync",
    )
    .await;
    std::fs::write(&file, quiet).unwrap();
    daemon.signal(Signal::HUP);
    fixture.syncs(3).await;
    let ran = daemon.stop(Signal::TERM).await;
    assert_eq!(ran.stderr.matches("full sync").count(), 1, "{ran:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_applies_a_new_delete_mode() {
    let fixture = Fixture::new(20).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    let mode = |mode| format!("[schedule]\nfull = \"* * * * * *\"\n[deletes]\nmode = \"{mode}\"\n");
    let daemon = on_file(&fixture, &file, &mode("keep"));
    fixture.syncs(1).await;
    let gone = fixture.sim.delete_random().unwrap();
    let before = fixture.runs("true").await;
    fixture.syncs(before + 2).await;
    assert_eq!(fixture.users().await, 20, "kept rows are not deleted");

    reload(&daemon, &file, &mode("mark"), RELOADED).await;
    let marked = format!("SELECT count(*) FROM clerk.users WHERE id = '{gone}' AND deleted_at IS NOT NULL");
    eventually("the user is marked", async || fixture.db.number(&marked).await == 1).await;

    let another = fixture.sim.delete_random().unwrap();
    reload(&daemon, &file, &mode("delete"), RELOADED).await;
    let left = format!("SELECT count(*) FROM clerk.users WHERE id = '{another}'");
    eventually("the row goes", async || fixture.db.number(&left).await == 0).await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_file_is_reported_and_the_old_configuration_stays() {
    let fixture = Fixture::new(10).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    let good = "[schedule]\nfull = \"* * * * * *\"\n";
    let daemon = on_file(&fixture, &file, good);
    fixture.syncs(1).await;
    for (broken, said) in [
        ("[schedule\n", "TOML"),
        ("[schedule]\nful = \"\"\n", "schedule.full"),
        ("[schedule]\nfull = \"every second\"\n", "every second"),
        ("[log]\nlevel = \"clerk2pg=loud\"\n", "log.level"),
        ("[deletes]\nmax_percent = 120\n", "max_percent"),
    ] {
        let reported = daemon.count_in_log(KEPT);
        reload(&daemon, &file, broken, KEPT).await;
        assert_eq!(daemon.count_in_log(KEPT), reported + 1);
        let log = daemon.log();
        let line = log.lines().rfind(|line| line.contains(KEPT)).unwrap();
        assert!(line.contains("ERROR") && line.contains(said), "{broken:?}: {line}");
    }
    std::fs::remove_file(&file).unwrap();
    let reported = daemon.count_in_log(KEPT);
    daemon.signal(Signal::HUP);
    eventually("a missing file is reported", async || {
        daemon.count_in_log(KEPT) > reported
    })
    .await;

    fixture.sim.update_random();
    fixture.wait_for_next_sync().await;
    reload(&daemon, &file, good, RELOADED).await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_refused_at_start_ends_the_daemon() {
    let fixture = Fixture::new(10).await;
    fixture.sim.set_faults(Quirks {
        unauthorized: true,
        ..Quirks::default()
    });
    let ran = fixture.start_daemon(&[]).wait_for_exit().await;
    ran.assert_exit(Exit::Failed);
    assert!(ran.stderr.contains("error: Clerk refused the secret key"), "{ran:#?}");
    assert!(ran.stderr.contains("hint: "), "{ran:#?}");
    assert!(!ran.stderr.contains(fixture.sim.secret_key()), "{ran:#?}");
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname = 'clerk'";
    assert_eq!(fixture.db.number(schemas).await, 0, "something was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_refused_later_is_reported_once_and_retried() {
    let fixture = Fixture::new(10).await;
    let daemon = fixture.start_daemon(&[]);
    fixture.syncs(1).await;
    fixture.sim.set_faults(Quirks {
        unauthorized: true,
        ..Quirks::default()
    });
    eventually("three failed syncs", async || {
        fixture.runs("outcome = 'failed'").await >= 3
    })
    .await;
    assert_eq!(
        daemon.count_in_log("Clerk refused the secret key"),
        1,
        "{}",
        daemon.log()
    );
    fixture.sim.clear_faults();
    fixture.sim.create_random();
    fixture.wait_for_next_sync().await;
    let ran = daemon.stop(Signal::TERM).await;
    ran.assert_exit(Exit::Ok);
    assert_eq!(ran.stderr.matches("back to normal").count(), 1, "{ran:#?}");
}
