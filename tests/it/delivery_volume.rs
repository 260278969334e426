//! Many events, and large ones: memory stays bounded, and nothing takes long that has to be short.

use std::{
    fs,
    time::{Duration, Instant},
};

use clerk2pg::deliver::body;
use rustix::process::Signal;

use crate::support::{
    delivery::Delivering,
    process::Process,
    receiver::{Receiver, Reply, endpoint},
    summary::Exit,
    wait::eventually,
};

const MIB: u64 = 1 << 20;

/// Returns the peak memory of a process in bytes.
fn peak(daemon: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kilobytes << 10
}

/// Writes events of a kilobyte, each about an object of its own.
async fn insert_kilobytes(delivering: &Delivering, events: usize) {
    let sql = format!(
        "INSERT INTO clerk.events (resource, type, object_id, occurred_at, payload)
         SELECT 'users', 'user.updated', 'user_' || n, now(),
                jsonb_build_object('object', 'event', 'type', 'user.updated',
                    'data', jsonb_build_object('id', 'user_' || n, 'first_name', repeat(md5(n::text), 30)))
         FROM generate_series(1, {events}) AS n ORDER BY n"
    );
    delivering.fixture.db.execute(&sql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_wait_for_a_dead_endpoint_take_no_memory() {
    const EVENTS: usize = 100_000;
    let receiver = Receiver::answering(|_| Reply::status(500)).await;
    let closed = Receiver::closed_address().await;
    let entries = receiver.endpoint("fails") + &endpoint("closed", &format!("http://{closed}/"));
    let delivering = Delivering::new(1, &entries).await;
    // Both endpoints are tried once.
    let daemon = delivering.start().await;
    delivering.insert_events(16, 16).await;
    daemon.wait_for_log("the endpoint is paused").await;
    receiver.wait_for_requests(8).await;
    let without = peak(&daemon);
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    insert_kilobytes(&delivering, EVENTS).await;
    let began = Instant::now();
    let daemon = delivering.start().await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?} until the daemon works");
    let before = receiver.requests().len();
    receiver.wait_for_requests(before + 32).await;
    let with = peak(&daemon);
    assert!(
        with < without + 10 * MIB,
        "{} MiB instead of {}",
        with / MIB,
        without / MIB
    );
    receiver.answer(|_| Reply::ok());
    receiver.wait_for_accepted(2000).await;
    let with = peak(&daemon);
    assert!(
        with < without + 16 * MIB,
        "{} MiB instead of {}",
        with / MIB,
        without / MIB
    );
    daemon.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_users_are_read_one_by_one() {
    const USERS: usize = 60;
    let receiver = Receiver::start().await;
    let delivering = Delivering::new(USERS, &receiver.endpoint("app")).await;
    let daemon = delivering.start().await;
    let without = peak(&daemon);
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    // They take little space in the table, because they are compressed there.
    let large = "UPDATE clerk.users SET private_metadata = jsonb_build_object('large', repeat('x', 950000))";
    delivering.fixture.db.execute(large).await;
    delivering.configure(
        &(receiver
            .endpoint("app")
            .replace("\"app\"", "\"all\"")
            .replace("clerk\"", "other\"")
            + "start = \"everything\"\n"),
    );
    let daemon = delivering.spawn(&[("CLERK2PG_SCHEDULE__INCREMENTAL", "")]);
    let events = receiver.wait_for_accepted(USERS).await;
    let with = peak(&daemon);
    println!("{} MiB, {} MiB without", with / MIB, without / MIB);
    assert!(events.iter().all(|event| event.body.len() > 900_000));
    assert!(
        with < without + 48 * MIB,
        "{} MiB instead of {}",
        with / MIB,
        without / MIB
    );
    daemon.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_may_be_as_deep_as_the_database_allows() {
    let receiver = Receiver::start().await;
    let delivering = Delivering::new(1, &receiver.endpoint("app")).await;
    let daemon = delivering.start().await;
    let sql = "INSERT INTO clerk.events (resource, type, object_id, occurred_at, payload)
        SELECT 'users', 'user.updated', 'user_' || depth, now(),
               ('{\"data\":{\"id\":\"user_deep\",\"public_metadata\":' || repeat('{\"a\":[', depth) || repeat(']}', depth) || '}}')::jsonb
        FROM unnest(ARRAY[100, 1000, 2500]) AS depth";
    delivering.fixture.db.execute(sql).await;
    let events = receiver.wait_for_accepted(3).await;
    for event in events {
        let stored = format!("SELECT payload::text FROM clerk.events WHERE id = {}", event.number());
        let stored = delivering.fixture.db.text(&stored).await.unwrap();
        assert_eq!(event.body, body(&stored).unwrap());
    }
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_events_are_redelivered_within_seconds() {
    const EVENTS: usize = 30_000;
    let receiver = Receiver::answering(|_| Reply::hang()).await;
    let delivering = Delivering::new(1, &receiver.endpoint("app")).await;
    delivering.start().await.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    delivering.insert_events(EVENTS, EVENTS).await;
    let db = &delivering.fixture.db;
    // Statistics from before, as in a large table shortly after a redelivery.
    db.execute("ANALYZE clerk.deliveries; UPDATE clerk.endpoints SET position = (SELECT max(id) FROM clerk.events)")
        .await;
    let began = Instant::now();
    let ran = delivering.run(&["redeliver", "app", "--since", "1h"]).await;
    ran.assert_exit(Exit::Ok);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?} for {EVENTS} events");
    let heads = "SELECT count(*) FROM clerk.deliveries WHERE next_attempt_at <= now()";
    assert_eq!(db.number(heads).await, EVENTS as i64);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_redelivered_while_others_of_their_objects_are_under_way() {
    let receiver = Receiver::answering(|event| match event.number() % 13 {
        0 => Reply::status(500),
        _ => Reply::ok().after(Duration::from_millis(5)),
    })
    .await;
    let delivering = Delivering::new(1, &receiver.endpoint("app")).await;
    let daemon = delivering.start().await;
    for _ in 0..5 {
        delivering.insert_events(200, 20).await;
        for choice in [&["--since", "1h"][..], &[], &["--everything"]] {
            let ran = delivering.run(&[&["redeliver", "app"], choice].concat()).await;
            ran.assert_exit(Exit::Ok);
        }
        let before = receiver.requests().len();
        receiver.wait_for_requests(before + 50).await;
    }
    receiver.answer(|_| Reply::ok());
    eventually("everything is delivered", async || {
        delivering.make_due().await;
        let left = "SELECT (SELECT count(*) FROM clerk.deliveries WHERE dead_at IS NULL)
            + (SELECT max(id) FROM clerk.events) - (SELECT position FROM clerk.endpoints)";
        delivering.fixture.db.number(left).await == 0
    })
    .await;
    let accepted = receiver.accepted();
    let numbers: std::collections::BTreeSet<i64> = accepted.iter().map(|event| event.number()).collect();
    for id in 1..=1000 {
        assert!(numbers.contains(&id), "the event {id} is lost");
    }
    assert_eq!(daemon.count_in_log("WARN nothing is delivered"), 0, "{}", daemon.log());
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}
