//! Events reach an endpoint: signed, in order per object, again after a failure, and never lost.

use std::time::Duration;

use clerk2pg::deliver::body;
use rustix::process::Signal;

use crate::support::{
    delivery::Delivering,
    receiver::{Receiver, Reply, SECRET, endpoint},
    summary::Exit,
    wait::eventually,
};

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_to_a_user_arrives_in_order_and_signed() {
    let receiver = Receiver::start().await;
    let delivering = Delivering::new(5, &receiver.endpoint("app")).await;
    let daemon = delivering.start().await;
    let sim = &delivering.fixture.sim;
    let id = sim.create_random();
    receiver.wait_for_accepted(1).await;
    assert!(sim.update(&id, |user| user["first_name"] = "Ann".into()));
    receiver.wait_for_accepted(2).await;
    delivering.fixture.age_rows().await;
    assert!(sim.delete(&id));
    let events = receiver.wait_for_accepted(3).await;
    let kinds: Vec<_> = events.iter().map(|event| event.kind()).collect();
    assert_eq!(kinds, ["user.created", "user.updated", "user.deleted"]);
    for event in &events {
        assert_eq!(event.object(), id);
        assert_eq!(event.path, "/api/webhooks/clerk");
        assert_eq!(event.header("content-type"), Some("application/json"));
        assert!(event.is_signed_with(SECRET), "{event:?}");
        let stored = format!("SELECT payload::text FROM clerk.events WHERE id = {}", event.number());
        assert_eq!(
            event.body,
            body(&delivering.fixture.db.text(&stored).await.unwrap()).unwrap()
        );
    }
    delivering.wait_until_delivered("app").await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    assert_eq!(receiver.requests().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_object_that_fails_holds_back_only_itself() {
    let receiver = Receiver::answering(|event| match event.object().as_str() {
        "user_bad" => Reply::status(500),
        _ => Reply::ok(),
    })
    .await;
    let delivering = Delivering::new(1, &receiver.endpoint("app")).await;
    let daemon = delivering.start().await;
    for object in ["user_bad", "user_good", "user_bad", "user_good"] {
        delivering.insert_event(object, "updated").await;
    }
    let events = receiver.wait_for_accepted(2).await;
    assert!(events.iter().all(|event| event.object() == "user_good"));
    let late =
        "SELECT string_agg(concat_ws(' ', attempts, last_status, next_attempt_at IS NOT NULL), ', ' ORDER BY event_id)
        FROM clerk.deliveries";
    eventually("both events of the object are late", async || {
        delivering.fixture.db.text(late).await.as_deref() == Some("1 500 t, 0 f")
    })
    .await;
    receiver.answer(|_| Reply::ok());
    delivering.make_due().await;
    delivering.wait_until_delivered("app").await;
    delivering.assert_complete(&receiver, 0).await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_tried_eight_times_and_then_dead() {
    let receiver = Receiver::answering(|event| match event.kind().as_str() {
        "user.created" => Reply::status(400),
        _ => Reply::ok(),
    })
    .await;
    let delivering = Delivering::new(1, &receiver.endpoint("app")).await;
    let daemon = delivering.start().await;
    delivering.insert_event("user_a", "created").await;
    delivering.insert_event("user_a", "updated").await;
    let pause = "SELECT extract(epoch FROM next_attempt_at - last_attempt_at)::bigint FROM clerk.deliveries
        WHERE attempts = ";
    for (attempts, seconds) in [
        (1, 5),
        (2, 300),
        (3, 1800),
        (4, 7200),
        (5, 18_000),
        (6, 36_000),
        (7, 36_000),
    ] {
        receiver.wait_for_requests(attempts).await;
        let count = format!("SELECT count(*) FROM clerk.deliveries WHERE attempts = {attempts}");
        eventually("the attempt is noted", async || {
            delivering.fixture.db.number(&count).await == 1
        })
        .await;
        let pause = delivering.fixture.db.number(&format!("{pause}{attempts}")).await;
        assert!(
            (seconds..=seconds + seconds / 10 + 1).contains(&pause),
            "{attempts}: {pause}"
        );
        delivering.make_due().await;
    }
    let events = receiver.wait_for_accepted(1).await;
    assert_eq!(events[0].kind(), "user.updated");
    assert_eq!(receiver.requests().len(), 9);
    let dead = "SELECT attempts FROM clerk.deliveries WHERE dead_at IS NOT NULL";
    assert_eq!(delivering.fixture.db.number(dead).await, 8);
    daemon.wait_for_log("an event is dead").await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_wait_for_an_endpoint_that_is_down() {
    let address = Receiver::closed_address().await;
    let url = format!("http://{address}/api/webhooks/clerk");
    let delivering = Delivering::new(1, &endpoint("app", &url)).await;
    let daemon = delivering.start().await;
    for number in 0..30 {
        delivering
            .insert_event(&format!("user_{}", number % 10), "updated")
            .await;
    }
    let paused = "SELECT count(*) FROM clerk.endpoints WHERE paused_at IS NOT NULL AND last_error IS NOT NULL";
    eventually("the endpoint is paused", async || {
        delivering.fixture.db.number(paused).await == 1
    })
    .await;
    assert_eq!(
        delivering
            .fixture
            .db
            .number("SELECT count(*) FROM clerk.deliveries")
            .await,
        0
    );
    let receiver = Receiver::at(address, |_| Reply::ok()).await;
    delivering.wait_until_delivered("app").await;
    delivering.assert_complete(&receiver, 0).await;
    assert_eq!(receiver.requests().len(), 30);
    let working = "SELECT count(*) FROM clerk.endpoints WHERE paused_at IS NULL AND last_status = 200";
    eventually("the endpoint works", async || {
        delivering.fixture.db.number(working).await == 1
    })
    .await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_accepts_nothing_uses_up_no_attempts() {
    let receiver = Receiver::answering(|_| Reply::status(500)).await;
    let delivering = Delivering::new(1, &receiver.endpoint("app")).await;
    let daemon = delivering.start().await;
    for number in 0..100 {
        delivering.insert_event(&format!("user_{number}"), "updated").await;
    }
    daemon.wait_for_log("the endpoint is paused").await;
    // Two rounds of attempts.
    let before = receiver.requests().len();
    receiver.wait_for_requests(before + 16).await;
    let most = delivering
        .fixture
        .db
        .number("SELECT coalesce(max(attempts), 0) FROM clerk.deliveries")
        .await;
    assert!(most <= 2, "{most} attempts");
    receiver.answer(|_| Reply::ok());
    delivering.wait_until_delivered("app").await;
    delivering.assert_complete(&receiver, 0).await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_endpoint_gets_all_objects_first_if_it_asks_for_them() {
    let receiver = Receiver::start().await;
    let entry = receiver.endpoint("app") + "start = \"everything\"\n";
    let delivering = Delivering::new(40, &entry).await;
    let daemon = delivering.start().await;
    let events = receiver.wait_for_accepted(40).await;
    let mut objects: Vec<_> = events.iter().map(|event| event.object()).collect();
    objects.sort();
    let mut expected = delivering.fixture.sim.user_ids();
    expected.sort();
    assert_eq!(objects, expected);
    for event in &events {
        assert_eq!(event.kind(), "user.created");
        assert_eq!(event.event()["data"]["object"], "user");
        assert!(event.is_signed_with(SECRET));
    }
    // Only once, also after a restart.
    delivering.wait_until_delivered("app").await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    let daemon = delivering.start().await;
    let id = delivering.fixture.sim.create_random();
    let events = receiver.wait_for_accepted(41).await;
    assert_eq!(events[40].object(), id);
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_the_mirror_keeps_its_id_although_the_user_changes() {
    let receiver = Receiver::answering(|_| Reply::hang()).await;
    let entry = receiver.endpoint("app") + "start = \"everything\"\ntimeout = \"1s\"\n";
    let delivering = Delivering::new(1, &entry).await;
    let daemon = delivering.start().await;
    let first = receiver.wait_for_requests(1).await.remove(0);
    let fixture = &delivering.fixture;
    let id = fixture.sim.user_ids().remove(0);
    assert!(fixture.sim.update(&id, |user| user["first_name"] = "Ann".into()));
    eventually("the mirror has the change", async || {
        fixture.first_name(&id).await == "Ann"
    })
    .await;
    let late = "SELECT count(*) FROM clerk.deliveries WHERE attempts = 1";
    eventually("the attempt has failed", async || fixture.db.number(late).await == 1).await;
    receiver.answer(|_| Reply::ok());
    delivering.make_due().await;
    let events = receiver.wait_for_accepted(2).await;
    let kinds: Vec<_> = events.iter().map(|event| event.kind()).collect();
    assert_eq!(kinds, ["user.created", "user.updated"]);
    assert_eq!(events[0].id(), first.id());
    assert_eq!(events[0].event()["data"]["first_name"], "Ann");
    assert_ne!(events[0].body, first.body);
    delivering.wait_until_delivered("app").await;

    // If it is asked for again, it is another event.
    delivering
        .run(&["redeliver", "app", "--everything"])
        .await
        .assert_exit(Exit::Ok);
    let again = receiver.wait_for_accepted(3).await.remove(2);
    assert_eq!((again.kind().as_str(), again.object()), ("user.created", id));
    assert_ne!(again.id(), first.id());
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_killed_sends_again_under_the_same_id() {
    let receiver = Receiver::answering(|_| Reply::ok().after(Duration::from_millis(50))).await;
    let delivering = Delivering::new(1, &receiver.endpoint("app")).await;
    let daemon = delivering.start().await;
    for number in 0..200 {
        delivering
            .insert_event(&format!("user_{}", number % 20), "updated")
            .await;
    }
    receiver.wait_for_requests(30).await;
    daemon.kill().await;
    let daemon = delivering.start().await;
    delivering.wait_until_delivered("app").await;
    delivering.assert_complete(&receiver, 0).await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}
