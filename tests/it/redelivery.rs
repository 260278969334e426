//! `clerk2pg redeliver` lets the daemon deliver events again, with the ids that they had.

use std::collections::BTreeMap;

use rustix::process::Signal;

use crate::support::{
    delivery::Delivering,
    receiver::{Receiver, Reply},
    summary::Exit,
};

/// Runs `redeliver` and returns how many events it has queued.
async fn redeliver(delivering: &Delivering, options: &[&str]) -> u64 {
    let arguments = [&["redeliver", "app", "--format", "json"], options].concat();
    let ran = delivering.run(&arguments).await;
    ran.assert_exit(Exit::Ok);
    let json = ran.json();
    assert_eq!(json["endpoint"], "app", "{ran:#?}");
    json["queued"].as_u64().unwrap()
}

/// Returns how often each event was accepted, by the id of its message.
fn accepted(receiver: &Receiver) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for event in receiver.accepted() {
        *counts.entry(event.id().to_owned()).or_default() += 1;
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_delivered_again_by_number_message_and_time() {
    let receiver = Receiver::start().await;
    let endpoint = format!("{}events = [\"user.updated\"]\n", receiver.endpoint("app"));
    let delivering = Delivering::new(1, &endpoint).await;
    let daemon = delivering.start().await;
    let mut ids = Vec::new();
    for object in ["user_a", "user_b", "user_a"] {
        ids.push(delivering.insert_event(object, "updated").await);
    }
    let unwanted = delivering.insert_event("user_a", "created").await;
    receiver.wait_for_accepted(3).await;
    delivering.wait_until_delivered("app").await;
    let messages = accepted(&receiver);
    assert_eq!(messages.len(), 3);
    let second = receiver.accepted().into_iter().find(|event| event.number() == ids[1]);
    let message = second.unwrap().id().to_owned();

    assert_eq!(redeliver(&delivering, &[]).await, 0, "none is dead");
    let (number, unwanted) = (ids[0].to_string(), unwanted.to_string());
    let options = ["--id", &number, &message, &unwanted, "1000000"];
    assert_eq!(redeliver(&delivering, &options).await, 2);
    receiver.wait_for_accepted(5).await;
    delivering.wait_until_delivered("app").await;
    assert_eq!(redeliver(&delivering, &["--since", "1h"]).await, 3);
    receiver.wait_for_accepted(8).await;
    delivering.wait_until_delivered("app").await;
    assert_eq!(accepted(&receiver).values().sum::<usize>(), 8);
    assert_eq!(
        accepted(&receiver).into_keys().collect::<Vec<_>>(),
        messages.into_keys().collect::<Vec<_>>()
    );
    let again: Vec<i64> = receiver.accepted()[5..]
        .iter()
        .filter(|event| event.object() == "user_a")
        .map(|event| event.number())
        .collect();
    assert_eq!(again, [ids[0], ids[2]], "in their order");

    // Times of the calendar are compared with the database's clock, too.
    let age = format!(
        "UPDATE clerk.events SET recorded_at = '2026-01-01T12:00:00Z' WHERE id = {}",
        ids[1]
    );
    delivering.fixture.db.execute(&age).await;
    for (since, queued) in [
        ("2026-01-01T12:00:00Z", 3),
        ("2026-01-01T13:00:00+01:00", 3),
        ("2026-01-01T12:00:01Z", 2),
        ("2999-01-01T00:00:00Z", 0),
        ("0s", 0),
    ] {
        assert_eq!(redeliver(&delivering, &["--since", since]).await, queued, "{since}");
        delivering.wait_until_delivered("app").await;
    }
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_events_are_delivered_again() {
    let receiver = Receiver::answering(|_| Reply::status(400)).await;
    let delivering = Delivering::new(1, &receiver.endpoint("app")).await;
    let daemon = delivering.start().await;
    let id = delivering.insert_event("user_a", "created").await;
    receiver.wait_for_requests(1).await;
    delivering.wait_for_endpoint("app", |app| app["late"] == 1).await;
    let seventh = "UPDATE clerk.deliveries SET attempts = 7, next_attempt_at = now()";
    delivering.fixture.db.execute(seventh).await;
    let app = delivering.wait_for_endpoint("app", |app| app["dead"] == 1).await;
    assert_eq!([&app["waiting"], &app["late"]], [0, 0]);
    assert_eq!(app["lag_seconds"].as_f64(), Some(0.0));
    let dead = &app["dead_events"][0];
    assert_eq!(dead["event_id"], id);
    assert_eq!([&dead["object_id"], &dead["last_error"]], ["user_a", "it answered 400"]);
    let text = delivering.run(&["endpoints"]).await.stdout;
    assert!(
        text.contains("\n  1 event is dead; to deliver it again, run: clerk2pg redeliver app\n"),
        "{text}"
    );
    assert!(
        text.contains(&format!("\n    {id}  user_a  ")) && text.contains(" ago: it answered 400\n"),
        "{text}"
    );

    receiver.answer(|_| Reply::ok());
    let ran = delivering.run(&["redeliver", "app"]).await;
    ran.assert_exit(Exit::Ok);
    assert!(
        ran.stdout
            .starts_with("1 event is queued for app. The daemon that leads sends it within"),
        "{ran:#?}"
    );
    let again = receiver.wait_for_accepted(1).await;
    assert_eq!(again[0].number(), id);
    let app = delivering.wait_for_endpoint("app", |app| app["waiting"] == 0).await;
    assert_eq!(app["dead"], 0);
    let ran = delivering.run(&["redeliver", "app"]).await;
    assert_eq!(
        ran.stdout,
        "No event is queued for app.\nIt has no dead events. Events that are late are tried now.\n"
    );
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_a_created_event_for_each_user() {
    let receiver = Receiver::start().await;
    let delivering = Delivering::new(7, &receiver.endpoint("app")).await;
    let daemon = delivering.start().await;
    assert_eq!(redeliver(&delivering, &["--everything"]).await, 7);
    let events = receiver.wait_for_accepted(7).await;
    delivering.wait_until_delivered("app").await;
    let mut users: Vec<String> = events.iter().map(|event| event.object()).collect();
    users.sort();
    let mut expected = delivering.fixture.sim.user_ids();
    expected.sort();
    assert_eq!(users, expected);
    assert!(events.iter().all(|event| event.kind() == "user.created"));
    // A receiver that remembers ids does not take them for the ones before.
    assert_eq!(redeliver(&delivering, &["--everything"]).await, 7);
    receiver.wait_for_accepted(14).await;
    assert_eq!(accepted(&receiver).len(), 14);
    delivering.wait_until_delivered("app").await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);

    // An endpoint that gets no such events.
    delivering.configure(&format!("{}events = [\"user.deleted\"]\n", receiver.endpoint("app")));
    let daemon = delivering.start().await;
    assert_eq!(redeliver(&delivering, &["--everything"]).await, 0);
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_still_to_be_delivered_is_not_queued() {
    let receiver = Receiver::start().await;
    let delivering = Delivering::new(1, &receiver.endpoint("app")).await;
    let daemon = delivering.start().await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    let id = delivering.insert_event("user_a", "created").await.to_string();
    let ran = delivering.run(&["redeliver", "app", "--id", &id]).await;
    ran.assert_exit(Exit::Ok);
    assert!(ran.stdout.ends_with(" or are still to be delivered.\n"), "{ran:#?}");
    assert_eq!(redeliver(&delivering, &["--since", "1h"]).await, 0);
    let daemon = delivering.start().await;
    receiver.wait_for_accepted(1).await;
    delivering.wait_until_delivered("app").await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    assert_eq!(receiver.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_options_that_cannot_be_used_are_errors() {
    let receiver = Receiver::start().await;
    let delivering = Delivering::new(1, &receiver.endpoint("app")).await;
    let ran = delivering.run(&["redeliver", "app"]).await;
    ran.assert_error(Exit::Failed, "no daemon has delivered to app yet", "start the daemon");
    let daemon = delivering.start().await;
    let ran = delivering.run(&["redeliver", "ap"]).await;
    ran.assert_error(Exit::Failed, "there is no endpoint ap", "choose one of these: app");
    for (option, value) in [
        ("--since", "yesterday"),
        ("--since", "2026-11-28"),
        ("--id", "0"),
        ("--id", "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk"),
        ("--id", "user_a"),
    ] {
        let ran = delivering.run(&["redeliver", "app", option, value]).await;
        ran.assert_exit(Exit::Usage);
        assert!(ran.stderr.contains("it is neither"), "{ran:#?}");
    }
    let both = delivering
        .run(&["redeliver", "app", "--everything", "--since", "1h"])
        .await;
    both.assert_exit(Exit::Usage);
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    // Once it is removed, nothing is queued for it.
    delivering.configure("");
    let daemon = delivering.spawn(&[]);
    let removed = "SELECT count(*) FROM clerk.endpoints WHERE removed_at IS NOT NULL";
    crate::support::wait::eventually("the endpoint is removed", async || {
        delivering.fixture.db.number(removed).await == 1
    })
    .await;
    let ran = delivering.run(&["redeliver", "app", "--everything"]).await;
    ran.assert_error(Exit::Failed, "there is no endpoint app", "[[endpoints]]");
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn late_events_are_tried_at_once_if_dead_ones_are_redelivered() {
    let receiver = Receiver::answering(|_| Reply::status(400)).await;
    let delivering = Delivering::new(1, &receiver.endpoint("app")).await;
    let daemon = delivering.start().await;
    let id = delivering.insert_event("user_a", "created").await;
    delivering.wait_for_endpoint("app", |app| app["late"] == 1).await;
    let db = &delivering.fixture.db;
    db.execute("UPDATE clerk.deliveries SET next_attempt_at = now() + interval '1 hour'")
        .await;
    receiver.answer(|_| Reply::ok());
    let waits = "SELECT count(*) FROM clerk.deliveries WHERE next_attempt_at > now()";
    assert_eq!(redeliver(&delivering, &["--id", "1000000"]).await, 0);
    assert_eq!(db.number(waits).await, 1, "another redelivery leaves it alone");
    assert_eq!(redeliver(&delivering, &[]).await, 0);
    assert_eq!(receiver.wait_for_accepted(1).await[0].number(), id);
    delivering.wait_until_delivered("app").await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn late_events_are_tried_if_the_clock_has_gone_back() {
    let receiver = Receiver::answering(|_| Reply::status(400)).await;
    let delivering = Delivering::new(1, &receiver.endpoint("app")).await;
    let daemon = delivering.start().await;
    for object in ["user_a", "user_b"] {
        delivering.insert_event(object, "created").await;
    }
    delivering.wait_for_endpoint("app", |app| app["late"] == 2).await;
    receiver.answer(|_| Reply::ok());
    let back = "UPDATE clerk.endpoints SET last_attempt_at = now() + interval '1 hour';
        UPDATE clerk.deliveries SET last_attempt_at = now() + interval '1 hour', next_attempt_at = now() + interval '61 minutes'";
    delivering.fixture.db.execute(back).await;
    receiver.wait_for_accepted(2).await;
    delivering.wait_until_delivered("app").await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_unwanted_types_are_not_queued() {
    let receiver = Receiver::start().await;
    let endpoint = format!(
        "{}events = [\"user.updated\"]\nstart = \"everything\"\n",
        receiver.endpoint("app")
    );
    let delivering = Delivering::new(3, &endpoint).await;
    let daemon = delivering.start().await;
    delivering.wait_until_delivered("app").await;
    assert_eq!(redeliver(&delivering, &["--everything"]).await, 0);
    let unwanted = delivering.insert_event("user_a", "created").await;
    let wanted = delivering.insert_event("user_b", "updated").await;
    receiver.wait_for_accepted(1).await;
    delivering.wait_until_delivered("app").await;
    let dead = format!(
        "INSERT INTO clerk.deliveries (endpoint, resource, object_id, event_id, dead_at)
         VALUES ('app', 'users', 'user_a', {unwanted}, now()), ('app', 'users', 'user_b', {wanted}, now()),
                ('app', 'users', 'user_c', 0, now())"
    );
    delivering.fixture.db.execute(&dead).await;
    assert_eq!(redeliver(&delivering, &[]).await, 1);
    let again = receiver.wait_for_accepted(2).await;
    assert_eq!(again[1].number(), wanted);
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}
