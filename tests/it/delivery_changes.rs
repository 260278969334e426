//! The configuration of endpoints changes while there are events that they have not got.

use std::collections::BTreeSet;

use rustix::process::Signal;

use crate::support::{
    delivery::Delivering,
    process::Process,
    receiver::{Receiver, Reply, SECRET, endpoint},
    summary::Exit,
    wait::eventually,
};

/// Another secret.
const OTHER: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

async fn reload(delivering: &Delivering, daemon: &Process, endpoints: &str) {
    let before = daemon.count_in_log("configuration reloaded");
    delivering.configure(endpoints);
    daemon.signal(Signal::HUP);
    eventually("the configuration is reloaded", async || {
        daemon.count_in_log("configuration reloaded") > before
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_endpoint_continues_where_it_was() {
    let receiver = Receiver::answering(|event| match event.object().as_str() {
        "user_1" => Reply::status(500),
        _ => Reply::ok(),
    })
    .await;
    let delivering = Delivering::new(1, &receiver.endpoint("app")).await;
    let daemon = delivering.start().await;
    delivering.insert_events(9, 3).await;
    receiver.wait_for_accepted(6).await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    delivering.insert_events(9, 3).await;
    receiver.answer(|_| Reply::ok());
    delivering.configure(&receiver.endpoint("renamed"));
    let daemon = delivering.start().await;
    delivering.make_due().await;
    delivering.wait_until_delivered("renamed").await;
    delivering.assert_complete(&receiver, 0).await;
    assert_eq!(receiver.accepted().len(), 18);
    let names = "SELECT string_agg(name, ',') FROM clerk.endpoints";
    assert_eq!(delivering.fixture.db.text(names).await.as_deref(), Some("renamed"));
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_removed_and_added_again_gets_what_is_kept() {
    let receiver = Receiver::start().await;
    let other = Receiver::start().await;
    let both = receiver.endpoint("app") + &other.endpoint("other");
    let delivering = Delivering::new(1, &both).await;
    let daemon = delivering.start().await;
    delivering.insert_events(10, 5).await;
    receiver.wait_for_accepted(10).await;
    delivering.wait_until_delivered("app").await;
    reload(&delivering, &daemon, &other.endpoint("other")).await;
    let removed = "SELECT count(*) FROM clerk.endpoints WHERE name = 'app' AND removed_at IS NOT NULL";
    eventually("the endpoint is removed", async || {
        delivering.fixture.db.number(removed).await == 1
    })
    .await;
    delivering.insert_events(10, 5).await;
    other.wait_for_accepted(20).await;
    assert_eq!(receiver.requests().len(), 10);
    reload(&delivering, &daemon, &both).await;
    receiver.wait_for_accepted(20).await;
    delivering.wait_until_delivered("app").await;
    for receiver in [&receiver, &other] {
        delivering.assert_complete(receiver, 0).await;
        assert_eq!(receiver.requests().len(), 20);
    }
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_rolled_without_a_gap() {
    let receiver = Receiver::start().await;
    let delivering = Delivering::new(1, &receiver.endpoint("app")).await;
    let daemon = delivering.start().await;
    let old = receiver.endpoint("app");
    let both = old.replace(&format!("{SECRET:?}"), &format!("[{OTHER:?}, {SECRET:?}]"));
    let new = old.replace(SECRET, OTHER);
    let expected = [(true, false, 1), (true, true, 2), (false, true, 1)];
    for (number, (entry, (is_old, is_new, signatures))) in [&old, &both, &new].into_iter().zip(expected).enumerate() {
        reload(&delivering, &daemon, entry).await;
        delivering.insert_events(3, 3).await;
        let events = receiver.wait_for_accepted(3 * (number + 1)).await;
        for event in &events[3 * number..] {
            assert_eq!(
                (event.is_signed_with(SECRET), event.is_signed_with(OTHER)),
                (is_old, is_new)
            );
            let header = event.header("svix-signature").unwrap();
            assert_eq!(
                header.split(' ').filter(|part| part.starts_with("v1,")).count(),
                signatures
            );
        }
        delivering.wait_until_delivered("app").await;
    }
    assert_eq!(receiver.requests().len(), 9);
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_types_of_events_can_change() {
    let receiver = Receiver::answering(|event| match event.object().as_str() {
        "user_bad" => Reply::status(500),
        _ => Reply::ok(),
    })
    .await;
    let entry = |types: &str| format!("{}events = [{types}]\n", receiver.endpoint("app"));
    let delivering = Delivering::new(1, &entry("\"user.created\", \"user.updated\"")).await;
    let daemon = delivering.start().await;
    for (object, kind) in [
        ("user_bad", "updated"),
        ("user_bad", "created"),
        ("user_bad", "deleted"),
        ("user_a", "created"),
        ("user_a", "deleted"),
    ] {
        delivering.insert_event(object, kind).await;
    }
    receiver.wait_for_accepted(1).await;
    let late = "SELECT count(*) FROM clerk.deliveries";
    eventually("two events are late", async || {
        delivering.fixture.db.number(late).await == 2
    })
    .await;
    // What is not wanted any more is not delivered, and holds nothing back.
    receiver.answer(|_| Reply::ok());
    reload(&delivering, &daemon, &entry("\"user.created\", \"user.deleted\"")).await;
    delivering.make_due().await;
    delivering.wait_until_delivered("app").await;
    delivering.insert_event("user_b", "deleted").await;
    let events = receiver.wait_for_accepted(3).await;
    let accepted: Vec<_> = events
        .iter()
        .map(|event| format!("{} {}", event.object(), event.kind()))
        .collect();
    assert_eq!(
        accepted,
        ["user_a user.created", "user_bad user.created", "user_b user.deleted"]
    );
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn users_may_change_while_a_new_endpoint_gets_all_of_them() {
    let receiver = Receiver::answering(|_| Reply::ok().after(std::time::Duration::from_millis(20))).await;
    let delivering = Delivering::new(300, &(receiver.endpoint("app") + "start = \"everything\"\n")).await;
    let sim = &delivering.fixture.sim;
    let ids = sim.user_ids();
    let daemon = delivering.start().await;
    receiver.wait_for_accepted(20).await;
    let (mut changed, mut deleted) = (BTreeSet::new(), BTreeSet::new());
    for id in ids.iter().step_by(10) {
        assert!(sim.update(id, |user| user["first_name"] = "Changed".into()));
        changed.insert(id.clone());
    }
    for id in ids.iter().skip(5).step_by(30) {
        assert!(sim.delete(id));
        deleted.insert(id.clone());
    }
    let created: Vec<String> = (0..5).map(|_| sim.create_random()).collect();
    eventually("the mirror has all of that", async || {
        let events = "SELECT count(DISTINCT object_id) FROM clerk.events";
        delivering.fixture.db.number(events).await as usize == changed.len() + deleted.len() + created.len()
    })
    .await;
    delivering.wait_until_delivered("app").await;
    let events = receiver.accepted();
    for id in ids.iter().chain(&created) {
        let of_user: Vec<_> = events.iter().filter(|event| event.object() == *id).collect();
        let kinds: Vec<_> = of_user.iter().map(|event| event.kind()).collect();
        let kinds: Vec<&str> = kinds.iter().map(|kind| kind.trim_start_matches("user.")).collect();
        let expected: &[&[&str]] = match (changed.contains(id), deleted.contains(id)) {
            (false, false) => &[&["created"]],
            (true, _) => &[&["created", "updated"]],
            (false, true) => &[&["created", "deleted"], &["deleted"]],
        };
        assert!(expected.contains(&kinds.as_slice()), "{id}: {kinds:?}");
        if changed.contains(id) {
            assert_eq!(of_user[1].event()["data"]["first_name"], "Changed");
        }
    }
    let messages: BTreeSet<&str> = events.iter().map(|event| event.id()).collect();
    assert_eq!(messages.len(), events.len(), "a message came twice");
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_endpoint_waits_for_is_not_pruned() {
    const KEEP: (&str, &str) = ("CLERK2PG_EVENTS__KEEP", "1s");
    let bad = Receiver::answering(|event| match event.object().as_str() {
        "user_0" => Reply::status(500),
        _ => Reply::ok(),
    })
    .await;
    let closed = Receiver::closed_address().await;
    let waiting = endpoint("waiting", &format!("http://{closed}/api/webhooks/clerk"));
    let both = bad.endpoint("bad") + &waiting;
    let delivering = Delivering::new(1, &both).await;
    let db = &delivering.fixture.db;
    let daemon = delivering.spawn(&[KEEP]);
    daemon.wait_for_log("delivering events").await;
    delivering.insert_events(40, 4).await;
    bad.wait_for_accepted(30).await;
    db.execute("UPDATE clerk.events SET recorded_at = recorded_at - interval '1 day'")
        .await;
    let prune = async || {
        let ran = delivering.fixture.once_with(&[KEEP]).await;
        assert!(ran.code == Some(0), "{ran:#?}");
        db.number("SELECT count(*) FROM clerk.events").await
    };
    assert_eq!(prune().await, 40, "an endpoint waits for all of them");
    reload(&delivering, &daemon, &bad.endpoint("bad")).await;
    let removed = "SELECT count(*) FROM clerk.endpoints WHERE removed_at IS NOT NULL";
    eventually("one is removed", async || db.number(removed).await == 1).await;
    // The late events of the other one stay, also if they are dead, until `keep` has passed.
    assert_eq!(prune().await, 10);
    db.execute(
        "UPDATE clerk.deliveries SET dead_at = now() + interval '1 minute', next_attempt_at = NULL
         WHERE event_id % 8 = 1",
    )
    .await;
    assert_eq!(prune().await, 10);
    db.execute("UPDATE clerk.deliveries SET dead_at = now() - interval '1 hour' WHERE dead_at IS NOT NULL")
        .await;
    let dead = db
        .number("SELECT count(*) FROM clerk.deliveries WHERE dead_at IS NOT NULL")
        .await;
    assert_eq!(prune().await, 10 - dead);
    let left = "SELECT count(*) FROM clerk.deliveries WHERE dead_at IS NOT NULL";
    assert_eq!(db.number(left).await, 0);
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}
