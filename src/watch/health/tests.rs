use super::*;

fn wall(time: &str) -> DateTime<Utc> {
    format!("2026-01-02T{time}Z").parse().unwrap()
}

/// Returns a health that starts at midnight, and a function that returns moments of that day.
fn new_health() -> (Health, impl Fn(&str) -> Moment) {
    let start = Instant::now();
    let at = move |time: &str| Moment {
        wall: wall(time),
        steady: start + (wall(time) - wall("00:00:00")).to_std().unwrap(),
    };
    let mut health = Health::new(start);
    health.set_timetable(Timetable::new("0 0 * * * *", "*/5 * * * * *"), at("00:00:00"));
    (health, at)
}

fn full(incomplete: Option<&str>, holds: Option<HeldKind>) -> CompletedSync {
    CompletedSync {
        outcome: Outcome::Changed,
        took: Duration::ZERO,
        incomplete: incomplete.map(str::to_owned),
        holds,
    }
}

#[test]
fn a_loop_is_alive_while_it_beats() {
    let now = Instant::now();
    let health = Health::new(now);
    assert!(health.alive(now + Duration::from_secs(59)).is_ok);
    let result = health.alive(now + Duration::from_secs(75));
    assert_eq!(result, ProbeResult::failed("no heartbeat of the sync loop for 75 s"));
}

#[test]
fn readiness_and_its_reasons() {
    let (mut health, at) = new_health();
    let check = |health: &Health, time, is_ok, says: &str| {
        let result = health.ready(at(time).steady);
        assert_eq!((result.is_ok, result.message.as_str()), (is_ok, says));
    };
    let first = "first full sync still running";
    check(&health, "10:00:00", false, first);

    health.failed(Some(SyncKind::Full), "Clerk is away", wall("10:00:01"));
    health.failed(Some(SyncKind::Full), "Clerk refused the key", wall("10:00:05"));
    let refused = "Clerk refused the key; failing since 2026-01-02 10:00:01 UTC";
    check(&health, "10:00:06", false, refused);

    health.set_standing_by("other:1 leads".to_owned());
    let standby = "standing by: other:1 leads";
    check(&health, "23:00:00", true, standby);

    health.done(SyncKind::Full, &full(None, None), at("10:01:00"));
    check(&health, "10:01:00", true, "in sync");

    health.done(SyncKind::Full, &full(Some("two pages are gone"), None), at("11:00:00"));
    let incomplete = "the last full sync was incomplete: two pages are gone";
    check(&health, "11:00:00", false, incomplete);
    health.idle(SyncKind::Incremental, at("11:00:05"));
    check(&health, "11:00:05", false, incomplete);

    health.done(SyncKind::Full, &full(None, Some(HeldKind::Deletions)), at("12:00:00"));
    let held = "in sync, but deletions are held: see `clerk2pg status`";
    check(&health, "12:00:00", true, held);
    health.done(SyncKind::Incremental, &full(Some("void"), None), at("12:00:05"));
    check(
        &health,
        "12:00:05",
        false,
        "void; failing since 2026-01-02 12:00:05 UTC",
    );
    health.idle(SyncKind::Incremental, at("12:00:10"));
    check(&health, "12:00:10", true, held);

    // Deletions are named before rows, in whatever order they were held.
    health.done(SyncKind::Incremental, &full(None, Some(HeldKind::Rows)), at("12:00:15"));
    check(&health, "12:00:15", true, held);
    health.done(SyncKind::Full, &full(None, Some(HeldKind::Rows)), at("13:00:00"));
    check(
        &health,
        "13:00:00",
        true,
        "in sync, but rows of tables are held: see `clerk2pg status`",
    );
    health.done(
        SyncKind::OnDemand,
        &full(None, Some(HeldKind::Deletions)),
        at("13:00:05"),
    );
    check(&health, "13:00:05", true, held);
}

#[test]
fn each_kind_is_late_by_its_own_schedule() {
    let (mut health, at) = new_health();
    let says = |health: &Health, time: &str| health.ready(at(time).steady).message;
    health.done(SyncKind::Full, &full(None, None), at("10:01:00"));
    assert_eq!(says(&health, "10:03:05"), "in sync");
    let late = "no incremental sync has succeeded for 2 min, longer than the schedule allows";
    assert_eq!(says(&health, "10:03:06"), late);
    // A sync on demand brings only the users that were asked for.
    health.idle(SyncKind::OnDemand, at("10:03:06"));
    assert_eq!(says(&health, "10:03:06"), late);
    for minute in 3..75 {
        let time = format!("{}:{:02}:07", 10 + minute / 60, minute % 60);
        health.idle(SyncKind::Incremental, at(&time));
        assert_eq!(says(&health, &time), "in sync");
    }
    health.idle(SyncKind::Incremental, at("11:15:01"));
    assert_eq!(
        says(&health, "11:15:01"),
        "no full sync has succeeded for 74 min, longer than the schedule allows"
    );
    // A full sync that takes long may be late for longer.
    let slow = CompletedSync {
        took: Duration::from_secs(20 * 60),
        ..full(None, None)
    };
    health.done(SyncKind::Full, &slow, at("11:20:00"));
    health.idle(SyncKind::Incremental, at("12:35:00"));
    assert_eq!(says(&health, "12:35:00"), "in sync");
}

#[test]
fn a_clock_that_jumps_neither_causes_nor_hides_a_delay() {
    let (mut health, at) = new_health();
    health.done(SyncKind::Full, &full(None, None), at("10:01:00"));
    let back = |time: &str| Moment {
        wall: at(time).wall - chrono::TimeDelta::hours(5),
        ..at(time)
    };
    health.idle(SyncKind::Incremental, back("10:01:05"));
    assert!(health.ready(at("10:01:10").steady).is_ok);
    assert!(!health.ready(at("10:03:20").steady).is_ok);
    health.idle(SyncKind::Incremental, at("10:03:25"));
    assert!(health.ready(at("10:03:30").steady).is_ok);
}

#[test]
fn a_failure_of_one_kind_outlasts_the_success_of_another() {
    let (mut health, at) = new_health();
    health.done(SyncKind::Full, &full(None, None), at("10:01:00"));
    health.failed(Some(SyncKind::Full), "no page can be read", wall("11:00:00"));
    health.failed(Some(SyncKind::OnDemand), "no user", wall("11:00:01"));
    health.idle(SyncKind::Incremental, at("11:00:05"));
    let result = health.ready(at("11:00:05").steady);
    assert_eq!(
        result.message,
        "no page can be read; failing since 2026-01-02 11:00:00 UTC"
    );
    health.done(SyncKind::Full, &full(None, None), at("11:01:00"));
    assert!(health.ready(at("11:01:00").steady).is_ok);
}

#[test]
fn a_new_leader_is_not_late_before_its_first_syncs_are_due() {
    let (mut health, at) = new_health();
    health.done(SyncKind::Full, &full(None, None), at("10:01:00"));
    health.set_standing_by("other:1 leads".to_owned());
    health.restart_deadlines(at("15:00:01"));
    health.idle(SyncKind::Incremental, at("15:00:05"));
    assert!(health.ready(at("15:00:05").steady).is_ok);
}

#[test]
fn only_full_syncs_are_late_if_the_server_does_not_show_changes() {
    let (mut health, at) = new_health();
    health.done(SyncKind::Full, &full(None, None), at("10:00:10"));
    health.blind();
    assert!(health.ready(at("11:14:00").steady).is_ok);
    assert!(!health.ready(at("11:16:00").steady).is_ok);
}
