//! `clerk2pg send-test` sends one event, and says what is wrong if it is not accepted.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    delivery::Delivering,
    fixture::Fixture,
    program::ProgramOutput,
    receiver::{Receiver, Reply, SECRET, endpoint},
    summary::Exit,
};

async fn send(delivering: &Delivering) -> ProgramOutput {
    let ran = delivering.run(&["send-test", "app"]).await;
    let printed = format!("{}{}", ran.stdout, ran.stderr);
    assert!(!printed.contains(SECRET) && !printed.contains("webhooks"), "{ran:#?}");
    ran
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_test_is_an_event_like_any_other() {
    let receiver = Receiver::start().await;
    let delivering = Delivering::new(1, &receiver.endpoint("app")).await;
    let ran = send(&delivering).await;
    ran.assert_exit(Exit::Ok);
    assert!(
        ran.stdout.starts_with("app answered 200 after ") && ran.stdout.ends_with("s.\n"),
        "{ran:#?}"
    );
    let json = delivering.run(&["send-test", "app", "--format", "json"]).await;
    json.assert_exit(Exit::Ok);
    let json = json.json();
    let [first, second] = receiver.requests().try_into().unwrap();
    for event in [&first, &second] {
        assert!(event.is_signed_with(SECRET), "{event:?}");
        assert_eq!(event.header("content-type"), Some("application/json"));
        let body = event.event();
        let at = body["timestamp"].as_i64().unwrap();
        let now = chrono::Utc::now().timestamp_millis();
        assert!((now - 60_000..=now).contains(&at), "{at}");
        let instance = delivering.fixture.sim.instance_id();
        assert_eq!(
            body,
            json!({"data": {}, "object": "event", "type": "clerk2pg.test", "timestamp": at, "instance_id": instance})
        );
    }
    assert_ne!(first.id(), second.id());
    assert_eq!(json["id"], second.id());
    assert_eq!(
        [&json["endpoint"], &json["status"], &json["error"]],
        [&json!("app"), &json!(200), &Value::Null]
    );
    // The database knows nothing of it.
    let stored = "SELECT (SELECT count(*) FROM clerk.events) + (SELECT count(*) FROM clerk.endpoints)";
    assert_eq!(delivering.fixture.db.number(stored).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_needs_no_database() {
    let receiver = Receiver::start().await;
    let fixture = Fixture::new(0).await;
    let delivering = Delivering::with(fixture, &receiver.endpoint("app"));
    let config = delivering.config();
    let arguments = ["send-test", "app", "--config", config.to_str().unwrap()];
    // Without a mirror, without a server, and without an address.
    let nowhere = format!("postgres://nobody@{}/app", Receiver::closed_address().await);
    for url in [delivering.fixture.db.url.as_str(), &nowhere, ""] {
        let ran = delivering
            .fixture
            .run_with(&arguments, &[("DATABASE_URL", url), ("CLERK_SECRET_KEY", "")])
            .await;
        ran.assert_exit(Exit::Ok);
    }
    let events = receiver.requests();
    assert_eq!(events.len(), 3);
    assert!(events.iter().all(|event| event.event().get("instance_id").is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_has_its_hint() {
    let receiver = Receiver::start().await;
    let delivering = Delivering::new(1, &receiver.endpoint("app")).await;
    for (status, hint) in [
        (400, "same signing secret"),
        (401, "same signing secret"),
        (307, "redirects it, for example to the sign-in page"),
        (404, "check the path"),
        (405, "takes no POST"),
        (429, "try again later"),
        (500, "see the log of the handler"),
    ] {
        receiver.answer(move |_| Reply::status(status).header("location", "/sign-in"));
        let ran = send(&delivering).await;
        let error = format!("app did not accept the event: it answered {status}");
        ran.assert_error(Exit::Failed, &error, hint);
        assert_eq!(ran.stdout, "");
    }
    // It is sent once, and redirects are not followed.
    assert_eq!(receiver.requests().len(), 7);
    let json = delivering.run(&["send-test", "app", "--format", "json"]).await;
    json.assert_exit(Exit::Failed);
    assert_eq!(
        [&json.json()["status"], &json.json()["error"]],
        [&json!(500), &json!("it answered 500")]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_does_not_answer_is_explained() {
    let receiver = Receiver::answering(|_| Reply::hang()).await;
    let hanging = format!("{}timeout = \"1s\"\n", receiver.endpoint("app"));
    let delivering = Delivering::new(1, &hanging).await;
    let begun = std::time::Instant::now();
    send(&delivering)
        .await
        .assert_error(Exit::Failed, "no answer within 1 s", "see the log of the handler");
    assert!(begun.elapsed() >= Duration::from_secs(1));
    receiver.answer(|_| Reply::close());
    send(&delivering)
        .await
        .assert_error(Exit::Failed, "closed without an answer", "see the log of the handler");

    let closed = receiver.stop().await;
    send(&delivering)
        .await
        .assert_error(Exit::Failed, "connection refused", "that the handler runs");
    let json = delivering.run(&["send-test", "app", "--format", "json"]).await;
    assert_eq!(
        [&json.json()["status"], &json.json()["error"]],
        [&Value::Null, &json!("connection refused")]
    );
    delivering.configure(&endpoint("app", &format!("https://{closed}/api/webhooks/clerk")));
    send(&delivering)
        .await
        .assert_error(Exit::Failed, "connection refused", "");
    delivering.configure(&endpoint("app", "http://clerk2pg.invalid/"));
    send(&delivering).await.assert_error(
        Exit::Failed,
        "clerk2pg.invalid does not resolve",
        "this machine can reach it",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_name_lists_the_known_ones() {
    let receiver = Receiver::start().await;
    let both = format!("{}{}", receiver.endpoint("shop"), receiver.endpoint("app"));
    let delivering = Delivering::with(Fixture::new(0).await, &both);
    let ran = delivering.run(&["send-test", "apps"]).await;
    ran.assert_error(
        Exit::Failed,
        "there is no endpoint apps",
        "choose one of these: app, shop",
    );
    delivering.configure("");
    let ran = delivering.run(&["send-test", "app"]).await;
    ran.assert_error(Exit::Failed, "there is no endpoint app", "[[endpoints]]");
    delivering.configure(&both.replace(&format!("secret = {SECRET:?}\n"), ""));
    let ran = delivering.run(&["send-test", "app"]).await;
    ran.assert_exit(Exit::Usage);
    assert_eq!(receiver.requests().len(), 0);
}
