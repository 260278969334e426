//! Deliveries that are interrupted: by the end of the process, a reload, or the database.

use std::time::Duration;

use rustix::process::Signal;

use crate::support::{
    database::connect,
    delivery::Delivering,
    fixture::mirrored,
    process::Process,
    proxy::{Proxy, upstream},
    receiver::{Receiver, Reply},
    summary::Exit,
    wait::eventually,
};

/// A daemon whose receiver is slow enough to be interrupted.
async fn slow(entry: &str) -> (Receiver, Delivering, Process) {
    let receiver = Receiver::answering(|_| Reply::ok().after(Duration::from_millis(30))).await;
    let delivering = Delivering::new(1, &(receiver.endpoint("app") + entry)).await;
    let daemon = delivering.start().await;
    (receiver, delivering, daemon)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_but_not_noted_is_sent_again_under_the_same_id() {
    let receiver = Receiver::answering(|_| Reply::hang()).await;
    let delivering = Delivering::new(1, &receiver.endpoint("app")).await;
    let daemon = delivering.start().await;
    delivering.insert_events(12, 3).await;
    let sent = receiver.wait_for_requests(3).await;
    daemon.kill().await;
    receiver.answer(|_| Reply::ok());
    let daemon = delivering.start().await;
    delivering.wait_until_delivered("app").await;
    delivering.assert_complete(&receiver, 0).await;
    let accepted = receiver.accepted();
    assert_eq!(accepted.len(), 12);
    for event in &sent {
        let again = accepted.iter().find(|again| again.number() == event.number()).unwrap();
        assert_eq!((again.id(), &again.body), (event.id(), &event.body));
    }
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_notes_what_was_delivered() {
    let (receiver, delivering, daemon) = slow("").await;
    delivering.insert_events(400, 40).await;
    receiver.wait_for_accepted(50).await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    let daemon = delivering.start().await;
    delivering.wait_until_delivered("app").await;
    delivering.assert_complete(&receiver, 0).await;
    assert_eq!(receiver.requests().len(), 400, "an event was sent twice");
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_a_receiver_that_hangs() {
    let receiver = Receiver::answering(|_| Reply::hang()).await;
    let delivering = Delivering::new(1, &receiver.endpoint("app")).await;
    let daemon = delivering.start().await;
    delivering.insert_events(20, 20).await;
    receiver.wait_for_requests(8).await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    receiver.answer(|_| Reply::ok());
    let daemon = delivering.start().await;
    delivering.wait_until_delivered("app").await;
    delivering.assert_complete(&receiver, 0).await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_does_not_grow_when_the_clock_of_the_database_is_set_back() {
    let receiver = Receiver::start().await;
    let delivering = Delivering::new(1, &receiver.endpoint("app")).await;
    let daemon = delivering.start().await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    let paused_before = "UPDATE clerk.endpoints SET paused_at = now() + interval '1 hour',
                         next_attempt_at = now() + interval '1 hour 5 seconds'";
    delivering.fixture.db.execute(paused_before).await;
    delivering.insert_events(12, 3).await;
    let daemon = delivering.start().await;
    delivering.wait_until_delivered("app").await;
    delivering.assert_complete(&receiver, 0).await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_a_locked_table() {
    let (receiver, delivering, daemon) = slow("").await;
    delivering.insert_events(2000, 20).await;
    receiver.wait_for_accepted(20).await;
    let mut other = connect(&delivering.fixture.db.url).await;
    let lock = other.transaction().await.unwrap();
    lock.batch_execute("LOCK TABLE clerk.endpoints").await.unwrap();
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    lock.rollback().await.unwrap();
    let daemon = delivering.start().await;
    delivering.wait_until_delivered("app").await;
    delivering.assert_complete(&receiver, 0).await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_a_registration() {
    let receiver = Receiver::start().await;
    let delivering = Delivering::new(1, &receiver.endpoint("app")).await;
    delivering.start().await.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    let mut other = connect(&delivering.fixture.db.url).await;
    let lock = other.transaction().await.unwrap();
    lock.batch_execute("LOCK TABLE clerk.endpoints").await.unwrap();
    let daemon = delivering.spawn(&[]);
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
        AND application_name = 'clerk2pg delivery' AND wait_event_type = 'Lock'";
    eventually("the daemon registers its endpoints", async || {
        delivering.fixture.db.number(waits).await == 1
    })
    .await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    drop(lock);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_sends_nothing_twice() {
    let (receiver, delivering, daemon) = slow("").await;
    delivering.insert_events(600, 40).await;
    for reloads in 1..=3 {
        receiver.wait_for_accepted(100 * reloads).await;
        daemon.signal(Signal::HUP);
        eventually("the configuration is reloaded", async || {
            daemon.count_in_log("configuration reloaded") == reloads
        })
        .await;
    }
    delivering.wait_until_delivered("app").await;
    delivering.assert_complete(&receiver, 0).await;
    assert_eq!(receiver.requests().len(), 600, "an event was sent twice");
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

/// A daemon whose connections to the database lead through a proxy.
async fn behind_proxy(environment: &[(&str, &str)]) -> (Receiver, Delivering, Proxy, Process) {
    let receiver = Receiver::answering(|_| Reply::ok().after(Duration::from_millis(10))).await;
    let fixture = mirrored(1).await;
    let proxy = Proxy::open(upstream(&fixture.db.url));
    let url = proxy.url(&fixture.db.url);
    let delivering = Delivering::with(fixture, &receiver.endpoint("app"));
    let daemon = delivering.spawn(&[&[("DATABASE_URL", url.as_str())], environment].concat());
    daemon.wait_for_log("delivering events").await;
    daemon.wait_for_log("full sync").await;
    (receiver, delivering, proxy, daemon)
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_connections_lose_nothing() {
    let (receiver, delivering, proxy, daemon) = behind_proxy(&[]).await;
    // In the middle of each statement of a note, and when its transaction ends.
    let places = [
        "UPDATE clerk.endpoints",
        "INSERT INTO clerk.deliveries",
        "unnest($2, $3, $4, $5",
        "DELETE FROM clerk.deliveries",
        "AS head",
        "COMMIT",
        "FROM clerk.events",
    ];
    let fails_first = |event: &crate::support::receiver::ReceivedEvent| event.number() % 7 == 0;
    let tried = std::sync::Mutex::new(std::collections::HashSet::new());
    receiver.answer(move |event| {
        let is_first = tried.lock().unwrap().insert(event.number());
        match fails_first(event) && is_first {
            true => Reply::status(500),
            false => Reply::ok().after(Duration::from_millis(10)),
        }
    });
    for (number, place) in places.into_iter().enumerate() {
        proxy.cut_at(0, place);
        delivering.insert_events(60, 20).await;
        eventually(&format!("the connection is cut at {place}"), async || {
            !proxy.has_cut_pending()
        })
        .await;
        receiver.wait_for_accepted(30 * (number + 1)).await;
        delivering.make_due().await;
    }
    eventually("everything is delivered", async || {
        delivering.make_due().await;
        let waits = "SELECT count(*) FROM clerk.deliveries WHERE dead_at IS NULL";
        let position = "SELECT count(*) FROM clerk.endpoints WHERE position >= (SELECT max(id) FROM clerk.events)";
        delivering.fixture.db.number(waits).await == 0 && delivering.fixture.db.number(position).await == 1
    })
    .await;
    delivering.assert_complete(&receiver, 0).await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_more_is_sent_while_the_database_is_gone() {
    let (receiver, delivering, mut proxy, daemon) = behind_proxy(&[]).await;
    delivering.insert_events(2000, 200).await;
    receiver.wait_for_accepted(50).await;
    proxy.refuse().await;
    daemon.wait_for_log("nothing is delivered until Postgres works").await;
    eventually("nothing is sent any more", async || {
        let before = receiver.requests().len();
        tokio::time::sleep(Duration::from_millis(500)).await;
        receiver.requests().len() == before
    })
    .await;
    proxy.open_again();
    delivering.wait_until_delivered("app").await;
    delivering.assert_complete(&receiver, 0).await;
    assert_eq!(receiver.requests().len(), 2000, "an event was sent twice");
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_a_database_that_is_silent() {
    // Without syncs, which have a time limit of their own.
    let (receiver, delivering, mut proxy, daemon) = behind_proxy(&[("CLERK2PG_SCHEDULE__INCREMENTAL", "")]).await;
    delivering.insert_events(2000, 200).await;
    receiver.wait_for_accepted(50).await;
    proxy.go_silent();
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    let daemon = delivering.start().await;
    delivering.wait_until_delivered("app").await;
    delivering.assert_complete(&receiver, 0).await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}
