//! Another daemon takes over while events are being sent: some are sent twice, under the same ids,
//! and nothing is lost or moved backwards.

use std::{collections::HashMap, time::Duration};

use rustix::process::Signal;
use tokio_util::sync::CancellationToken;

use crate::support::{
    delivery::Delivering,
    fixture::mirrored,
    process::Process,
    proxy::{Proxy, upstream},
    receiver::{Receiver, Reply},
    summary::Exit,
    wait::{eventually, within},
};

/// How many requests a daemon sends at a time by default.
const CONCURRENCY: usize = 8;

async fn slow_receiver() -> Receiver {
    Receiver::answering(|_| Reply::ok().after(Duration::from_millis(20))).await
}

/// Starts a second daemon, and waits until one of them leads and the other one stands by. A leader
/// that is alone does not renew its role, so a new daemon may lead at once. Returns the leader first.
async fn two(delivering: &Delivering, first: Process) -> (Process, Process) {
    let second = delivering.spawn(&[]);
    by_role(delivering, first, second).await
}

/// Waits until one of two daemons leads and the other one stands by. Returns the leader first.
async fn by_role(delivering: &Delivering, first: Process, second: Process) -> (Process, Process) {
    let db = &delivering.fixture.db;
    let leader =
        "SELECT holder FROM clerk.leader WHERE EXISTS (SELECT FROM clerk.standbys) AND expires_at > clock_timestamp()";
    let is_leader = async |daemon: &Process| {
        let holder = db.text(leader).await.unwrap_or_default();
        holder.contains(&format!(":{}:", daemon.pid()))
    };
    let mut is_second = false;
    eventually("one leads and one stands by", async || {
        is_second = is_leader(&second).await;
        is_second || is_leader(&first).await
    })
    .await;
    let (leader, standby) = if is_second { (second, first) } else { (first, second) };
    leader.wait_for_log("delivering events").await;
    standby.wait_for_log("standing by").await;
    (leader, standby)
}

/// Asserts that the last event that a receiver accepted of each object is the object's last one, so
/// that an older state never replaces a newer one for good.
async fn assert_ends_with_newest(delivering: &Delivering, receiver: &Receiver) {
    let accepted = receiver.accepted();
    let last: HashMap<String, i64> = accepted.iter().map(|event| (event.object(), event.number())).collect();
    let sql = "SELECT object_id, max(id) FROM clerk.events GROUP BY 1";
    for row in delivering.fixture.db.client.query(sql, &[]).await.unwrap() {
        let (object, newest): (String, i64) = (row.get(0), row.get(1));
        assert_eq!(last[&object], newest, "{object} ends with an older event");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_suspended_sends_nothing_old() {
    // The leader is suspended while all that it may send at a time waits for answers, so that no
    // request is half sent. The answers come while it is suspended.
    let answers = CancellationToken::new();
    let receiver = {
        let answers = answers.clone();
        Receiver::answering(move |_| Reply::ok().behind(&answers)).await
    };
    let delivering = Delivering::new(1, &receiver.endpoint("app")).await;
    let daemon = delivering.start().await;
    let (first, second) = two(&delivering, daemon).await;
    let before = second.count_in_log("delivering events");
    delivering.insert_events(1000, 40).await;
    receiver.wait_for_requests(CONCURRENCY).await;
    first.signal(Signal::STOP);
    answers.cancel();
    eventually("the other one delivers", async || {
        second.count_in_log("delivering events") > before
    })
    .await;
    delivering.wait_until_delivered("app").await;
    let before = receiver.requests().len();
    first.signal(Signal::CONT);
    first.wait_for_log("standing by").await;
    delivering.insert_events(40, 40).await;
    delivering.wait_until_delivered("app").await;
    delivering.assert_complete(&receiver, 0).await;
    let old = receiver.requests().len() - before - 40;
    assert_eq!(old, 0, "old events were sent");
    assert_ends_with_newest(&delivering, &receiver).await;
    for daemon in [first, second] {
        daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_while_it_notes_does_not_hold_back_the_next_one() {
    let receiver = slow_receiver().await;
    let fixture = mirrored(1).await;
    let mut proxies = [(); 2].map(|()| Proxy::open(upstream(&fixture.db.url)));
    let urls = [0, 1].map(|number: usize| proxies[number].url(&fixture.db.url));
    let delivering = Delivering::with(fixture, &receiver.endpoint("app"));
    let [a, b] = urls.each_ref().map(|url| delivering.spawn(&[("DATABASE_URL", url)]));
    let pid = a.pid();
    let (first, second) = by_role(&delivering, a, b).await;
    let proxy = &mut proxies[usize::from(first.pid() != pid)];
    let before = second.count_in_log("delivering events");
    receiver.answer(|event| match event.number() % 10 {
        0 => Reply::status(500),
        _ => Reply::ok().after(Duration::from_millis(20)),
    });
    // The endpoint's row is locked then.
    proxy.hold_after("INSERT INTO clerk.deliveries");
    delivering.insert_events(400, 40).await;
    eventually("the leader is cut off", async || proxy.is_holding()).await;
    within(Duration::from_secs(25), "the other one delivers", async || {
        second.count_in_log("delivering events") > before
    })
    .await;
    receiver.answer(|_| Reply::ok());
    delivering.make_due().await;
    delivering.wait_until_delivered("app").await;
    proxy.open_again();
    first.wait_for_log("standing by").await;
    delivering.wait_until_delivered("app").await;
    delivering.assert_complete(&receiver, 0).await;
    assert_ends_with_newest(&delivering, &receiver).await;
    for daemon in [first, second] {
        daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_that_change_again_and_again_lose_nothing() {
    let receiver = slow_receiver().await;
    let delivering = Delivering::new(1, &receiver.endpoint("app")).await;
    let mut daemon = delivering.start().await;
    for _ in 0..4 {
        let (leader, standby) = two(&delivering, daemon).await;
        let started = standby.count_in_log("delivering events");
        delivering.insert_events(200, 20).await;
        let before = receiver.requests().len();
        receiver.wait_for_requests(before + 50).await;
        leader.kill().await;
        eventually("the other one delivers", async || {
            standby.count_in_log("delivering events") > started
        })
        .await;
        daemon = standby;
    }
    delivering.wait_until_delivered("app").await;
    delivering.assert_complete(&receiver, 0).await;
    assert_ends_with_newest(&delivering, &receiver).await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}
