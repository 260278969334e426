//! What does not work delays nothing else: neither other objects nor other endpoints.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{
    delivery::Delivering,
    receiver::{ReceivedEvent, Receiver, Reply, endpoint},
    summary::Exit,
    wait::eventually,
};

/// Whether an event is about an object that never works in these tests.
fn is_bad(event: &ReceivedEvent) -> bool {
    event.object().starts_with("bad_")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_with_many_events_that_hangs_delays_no_other() {
    let receiver = Receiver::answering(|event| match event.object().as_str() {
        "user_bad" => Reply::hang(),
        _ => Reply::ok(),
    })
    .await;
    let delivering = Delivering::new(1, &(receiver.endpoint("app") + "timeout = \"30s\"\n")).await;
    let daemon = delivering.start().await;
    let sql = "INSERT INTO clerk.events (resource, type, object_id, occurred_at, payload)
        SELECT 'users', 'user.updated', object, now(),
               jsonb_build_object('object', 'event', 'type', 'user.updated', 'data', jsonb_build_object('id', object))
        FROM generate_series(1, 3000) AS n, LATERAL (SELECT CASE WHEN n <= 500 OR n % 5 = 0 THEN 'user_bad' ELSE 'user_' || n % 100 END AS object) AS o
        ORDER BY n";
    delivering.fixture.db.execute(sql).await;
    let first = receiver.wait_for_requests(1).await[0].at;
    receiver.wait_for_accepted(2000).await;
    let took = first.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?} while one object hung");
    let bad = receiver.requests().iter().filter(|event| !event.is_accepted()).count();
    assert!(bad <= 1, "{bad} events of the object that hangs");
    receiver.answer(|_| Reply::ok());
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    let daemon = delivering.start().await;
    delivering.make_due().await;
    delivering.wait_until_delivered("app").await;
    delivering.assert_complete(&receiver, 0).await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_objects_that_are_refused_delay_no_other() {
    let receiver = Receiver::answering(|event| match is_bad(event) {
        true => Reply::status(400),
        false => Reply::ok(),
    })
    .await;
    let delivering = Delivering::new(1, &receiver.endpoint("app")).await;
    let daemon = delivering.start().await;
    let sql = "INSERT INTO clerk.events (resource, type, object_id, occurred_at, payload)
        SELECT 'users', 'user.updated', object, now(),
               jsonb_build_object('object', 'event', 'type', 'user.updated', 'data', jsonb_build_object('id', object))
        FROM generate_series(1, 150) AS n, LATERAL (SELECT CASE WHEN n <= 50 THEN 'bad_' ELSE 'user_' END || n AS object) AS o
        ORDER BY n";
    delivering.fixture.db.execute(sql).await;
    receiver.wait_for_requests(1).await;
    let began = Instant::now();
    receiver.wait_for_accepted(100).await;
    let took = began.elapsed();
    assert!(
        took < Duration::from_secs(45),
        "{took:?} until the others were accepted"
    );
    // Each success ends a pause, and not the time that the refused ones have to wait.
    for number in 0..5 {
        let id = delivering.insert_event(&format!("later_{number}"), "updated").await;
        eventually("an event is accepted", async || {
            receiver.accepted().iter().any(|event| event.number() == id)
        })
        .await;
    }
    let most = "SELECT coalesce(max(attempts), 0) FROM clerk.deliveries";
    let attempts = delivering.fixture.db.number(most).await;
    assert!(attempts <= 2, "{attempts} attempts within {:?}", began.elapsed());
    receiver.answer(|_| Reply::ok());
    delivering.make_due().await;
    delivering.wait_until_delivered("app").await;
    delivering.assert_complete(&receiver, 0).await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_with_one_place_gets_past_what_it_refuses() {
    let receiver = Receiver::answering(|event| match is_bad(event) {
        true => Reply::status(400),
        false => Reply::ok(),
    })
    .await;
    let delivering = Delivering::new(1, &(receiver.endpoint("app") + "concurrency = 1\n")).await;
    let daemon = delivering.start().await;
    for object in ["bad_1", "bad_2", "bad_3", "bad_4", "bad_5", "bad_6", "user_1", "user_2"] {
        delivering.insert_event(object, "updated").await;
    }
    receiver.wait_for_accepted(2).await;
    assert_eq!(receiver.most_at_once(), 1);
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn late_events_leave_room_for_new_ones_where_there_is_one_place() {
    let receiver = Receiver::answering(|_| Reply::ok().after(Duration::from_millis(20))).await;
    let entry = receiver.endpoint("app") + "concurrency = 1\nstart = \"everything\"\n";
    let delivering = Delivering::new(600, &entry).await;
    let daemon = delivering.start().await;
    receiver.wait_for_accepted(1).await;
    let id = delivering.insert_event("user_new", "created").await;
    eventually("the new event is accepted", async || {
        receiver.accepted().iter().any(|event| event.object() == "user_new")
    })
    .await;
    let waiting = "SELECT count(*) FROM clerk.deliveries WHERE dead_at IS NULL";
    let waiting = delivering.fixture.db.number(waiting).await;
    assert!(waiting > 200, "{id} came after the others: {waiting} are left");
    daemon.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_does_not_work_delays_no_other() {
    let works = Receiver::start().await;
    let hangs = Receiver::answering(|_| Reply::hang()).await;
    let fails = Receiver::answering(|_| Reply::status(500)).await;
    let closed = Receiver::closed_address().await;
    let entries = [
        endpoint("closed", &format!("http://{closed}/")),
        hangs.endpoint("hangs") + "concurrency = 64\n",
        fails.endpoint("fails"),
        works.endpoint("works"),
    ];
    let delivering = Delivering::new(1, &entries.concat()).await;
    let daemon = delivering.start().await;
    delivering.insert_events(2000, 500).await;
    let first = works.wait_for_accepted(1).await[0].at;
    let events = works.wait_for_accepted(2000).await;
    let took = events[1999].at - first;
    assert!(took < Duration::from_secs(10), "{took:?} for 2000 events");
    delivering.wait_until_delivered("works").await;
    delivering.assert_complete(&works, 0).await;
    // A change at Clerk arrives as soon as ever.
    let id = delivering.fixture.sim.create_random();
    let created = Instant::now();
    eventually("the change arrives", async || {
        works.accepted().iter().any(|event| event.object() == id)
    })
    .await;
    assert!(created.elapsed() < Duration::from_secs(5), "{:?}", created.elapsed());
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}
