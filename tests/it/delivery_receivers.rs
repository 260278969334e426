//! Receivers that misbehave: each costs its own events a delay, and nothing is lost.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use rustix::process::Signal;

use crate::support::{
    delivery::Delivering,
    receiver::{Receiver, Reply, endpoint},
    summary::Exit,
    wait::eventually,
};

#[tokio::test(flavor = "multi_thread")]
async fn each_answer_counts_by_its_status() {
    let elsewhere = Receiver::start().await;
    let location = elsewhere.url();
    let hang = "no answer within 1 s";
    let closed = "the connection was closed without an answer";
    let cases: Vec<(&str, Reply, Option<&str>)> = vec![
        ("created", Reply::status(201), None),
        ("empty", Reply::status(204).body(""), None),
        ("large", Reply::ok().body(vec![b'x'; 10 << 20]), None),
        ("half", Reply::ok().body(vec![b'x'; 1 << 20]).half_body(), None),
        ("gone", Reply::status(410), Some("410 it answered 410")),
        (
            "moved",
            Reply::status(301).header("location", &location),
            Some("301 it answered 301"),
        ),
        (
            "other",
            Reply::status(308).header("location", &location),
            Some("308 it answered 308"),
        ),
        (
            "large-error",
            Reply::status(500).body(vec![b'x'; 10 << 20]),
            Some("500 it answered 500"),
        ),
        ("hanging", Reply::hang(), Some(hang)),
        ("slow", Reply::ok().after(Duration::from_secs(3)), Some(hang)),
        ("closing", Reply::close(), Some(closed)),
    ];
    let (mut receivers, mut entries) = (Vec::new(), String::new());
    for (name, reply, _) in &cases {
        let reply = reply.clone();
        let receiver = Receiver::answering(move |_| reply.clone()).await;
        entries += &(receiver.endpoint(name) + "timeout = \"1s\"\n");
        receivers.push(receiver);
    }
    let delivering = Delivering::new(1, &entries).await;
    let daemon = delivering.start().await;
    let id = delivering.insert_event("user_a", "updated").await;
    for ((name, _, expected), receiver) in cases.iter().zip(&receivers) {
        let noted = format!(
            "SELECT coalesce((SELECT concat_ws(' ', last_status, last_error) FROM clerk.deliveries
                              WHERE endpoint = p.name AND attempts > 0), 'delivered')
             FROM clerk.endpoints p WHERE name = '{name}' AND position >= {id}"
        );
        let expected = expected.unwrap_or("delivered");
        eventually(&format!("{name}: {expected}"), async || {
            delivering.fixture.db.text(&noted).await.as_deref() == Some(expected)
        })
        .await;
        let requests = receiver.requests();
        assert!(requests.iter().all(|request| request.number() == id), "{name}");
        if expected == "delivered" {
            assert_eq!(requests.len(), 1, "{name}");
        }
    }
    assert_eq!(elsewhere.requests().len(), 0, "a redirect was followed");
    receivers.iter().for_each(|receiver| receiver.answer(|_| Reply::ok()));
    delivering.make_due().await;
    for ((name, ..), receiver) in cases.iter().zip(&receivers) {
        delivering.wait_until_delivered(name).await;
        delivering.assert_complete(receiver, 0).await;
    }
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_receiver_gets_as_many_requests_at_once_as_it_may_and_delays_no_other() {
    let slow = Receiver::answering(|_| Reply::ok().after(Duration::from_millis(400))).await;
    let fast = Receiver::start().await;
    let entries = slow.endpoint("slow") + "concurrency = 4\n" + &fast.endpoint("fast");
    let delivering = Delivering::new(1, &entries).await;
    let daemon = delivering.start().await;
    delivering.insert_events(60, 60).await;
    // A sync's event lets both read at the same time.
    delivering.fixture.sim.create_random();
    fast.wait_for_accepted(61).await;
    let slow_so_far = slow.accepted().len();
    assert!(slow_so_far < 50, "the fast one waited for the slow one: {slow_so_far}");
    delivering.wait_until_delivered("slow").await;
    delivering.assert_complete(&slow, 0).await;
    assert_eq!((slow.requests().len(), slow.most_at_once()), (61, 4));
    let requests = slow.requests();
    let took = requests[60].at - requests[0].at;
    // 61 requests of 0.4 s, 4 at a time.
    assert!(took < Duration::from_secs(12), "{took:?}");
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

/// Asserts that an endpoint that asks for a pause gets one.
async fn check_pause(status: u16) {
    const ASKED: Duration = Duration::from_secs(3);
    let throttled = Arc::new(AtomicBool::new(true));
    let is_throttled = throttled.clone();
    let receiver = Receiver::answering(move |_| match is_throttled.load(Ordering::Relaxed) {
        true => Reply::status(status).header("retry-after", ASKED.as_secs()),
        false => Reply::ok(),
    })
    .await;
    let delivering = Delivering::new(1, &receiver.endpoint("app")).await;
    let daemon = delivering.start().await;
    delivering.insert_events(500, 100).await;
    daemon.wait_for_log("the endpoint is paused").await;
    let first = receiver.wait_for_requests(1).await[0].at;
    throttled.store(false, Ordering::Relaxed);
    let accepted = receiver.wait_for_accepted(1).await[0].at;
    // Those that were under way already, and one after the first answer: two users' events decide.
    let refused = receiver.requests().iter().filter(|event| !event.is_accepted()).count();
    assert!(
        refused <= 9,
        "{refused} requests although the endpoint asked for a pause"
    );
    let waited = accepted - first;
    assert!(waited >= ASKED, "{status}: {waited:?}");
    assert!(waited < ASKED + Duration::from_secs(3), "{status}: {waited:?}");
    delivering.wait_until_delivered("app").await;
    delivering.assert_complete(&receiver, 0).await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_is_left_alone_as_long_as_it_asks() {
    tokio::join!(check_pause(429), check_pause(503));
}

/// Runs a receiver that ends at one particular event, with all of its connections, and starts again.
async fn crash_at(poison: &'static str, address: SocketAddr, crashes: &AtomicUsize) {
    const LASTS: Duration = Duration::from_millis(300);
    loop {
        let has_crashed = Arc::new(AtomicBool::new(false));
        let crashing = has_crashed.clone();
        let receiver = Receiver::at(address, move |event| match event.object() == poison {
            true => {
                crashing.store(true, Ordering::Relaxed);
                Reply::hang()
            }
            false => Reply::ok().after(Duration::from_millis(20)),
        })
        .await;
        while !has_crashed.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        receiver.stop().await;
        crashes.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(LASTS).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_crashes_at_one_event_gets_the_others() {
    let address = Receiver::closed_address().await;
    let crashes = AtomicUsize::new(0);
    let delivering = Delivering::new(1, &endpoint("app", &format!("http://{address}/api/webhooks/clerk"))).await;
    let db = &delivering.fixture.db;
    // What was under way with it twice waits for some minutes.
    let soon = "SELECT count(*) FROM clerk.deliveries WHERE next_attempt_at < now() + interval '1 minute'";
    let unread = "SELECT (SELECT max(id) FROM clerk.events) - (SELECT position FROM clerk.endpoints)";
    let others = "SELECT count(DISTINCT object_id) FROM clerk.deliveries WHERE object_id <> 'user_7'";
    let deliver = async {
        let daemon = delivering.start().await;
        delivering.insert_events(400, 40).await;
        eventually("what can be tried soon was tried", async || {
            db.number(unread).await == 0 && db.number(soon).await == 0
        })
        .await;
        let others_late = db.number(others).await;
        assert!(others_late <= 10, "{others_late} other objects wait");
        let due = "UPDATE clerk.deliveries SET next_attempt_at = now()
            WHERE next_attempt_at IS NOT NULL AND object_id <> 'user_7'";
        db.execute(due).await;
        eventually("all others are delivered", async || db.number(others).await == 0).await;
        daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    };
    tokio::select! {
        () = crash_at("user_7", address, &crashes) => {}
        () = deliver => {}
    }
    let late = "SELECT count(*) FROM clerk.deliveries WHERE object_id = 'user_7' AND dead_at IS NULL";
    assert_eq!(db.number(late).await, 10);
    // It is not sent again and again.
    assert!(crashes.load(Ordering::Relaxed) <= 5, "{crashes:?} crashes");
}
