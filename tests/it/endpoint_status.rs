//! `endpoints`, `status`, the status page and the metrics show how far events are delivered.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    delivery::Delivering,
    monitored::MonitoredDaemon,
    receiver::{Receiver, Reply, endpoint},
    summary::Exit,
    wait::eventually,
};

#[track_caller]
fn assert_contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

/// Returns the metrics of the endpoint `app`: waiting, late, dead, paused.
async fn metrics(watched: &MonitoredDaemon) -> Option<[f64; 4]> {
    let metrics = watched.metrics().await;
    let names = ["waiting_events", "late_events", "dead_events", "paused"];
    let values = names.map(|name| metrics.find(&format!("clerk2pg_endpoint_{name}{{endpoint=\"app\"}}")));
    let [Some(waiting), Some(late), Some(dead), Some(paused)] = values else {
        return None;
    };
    Some([waiting, late, dead, paused])
}

async fn wait_for_metrics(watched: &MonitoredDaemon, expected: [f64; 4]) {
    eventually(&format!("the metrics are {expected:?}"), async || {
        metrics(watched).await == Some(expected)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_is_shown_from_its_configuration_to_its_removal() {
    let receiver = Receiver::answering(|event| match event.object().as_str() {
        "user_bad" => Reply::status(500),
        _ => Reply::ok(),
    })
    .await;
    let delivering = Delivering::new(2, "").await;
    let none = delivering.run(&["endpoints"]).await;
    assert_eq!(none.stdout, "No endpoints are configured.\n");
    delivering.configure(&receiver.endpoint("app"));
    let new = delivering.endpoint("app").await;
    assert_eq!([&new["state"], &new["position"]], [&json!("new"), &json!(0)]);
    assert_eq!(new["started_at"], Value::Null);
    let text = delivering.run(&["endpoints"]).await.stdout;
    assert_eq!(text, "app: no daemon has delivered to it yet\n");
    let status = delivering.run(&["status", "--format", "json"]).await.json();
    assert_eq!(status.get("endpoints"), None);

    let daemon = delivering.start().await;
    let text = delivering.run(&["endpoints"]).await.stdout;
    assert_eq!(
        text,
        "app: events are delivered\n  at event 0; no event waits\n  nothing was sent to it yet\n"
    );
    let mut last = 0;
    for object in ["user_bad", "user_bad", "user_good"] {
        last = delivering.insert_event(object, "updated").await;
    }
    let app = delivering
        .wait_for_endpoint("app", |app| app["late"] == 2 && app["delivered_at"].is_string())
        .await;
    assert_eq!(
        [
            &app["state"],
            &app["position"],
            &app["waiting"],
            &app["is_estimate"],
            &app["dead"]
        ],
        [&json!("delivering"), &json!(last), &json!(2), &json!(false), &json!(0)]
    );
    let lag = app["lag_seconds"].as_f64().unwrap();
    assert!(lag > 0.0 && lag < 60.0, "{lag}");
    assert_eq!([&app["paused_at"], &app["removed_at"]], [&Value::Null, &Value::Null]);
    let expected = format!("\n  at event {last}; 2 events wait, 2 of them late; the oldest for ");
    assert_contains(&delivering.run(&["endpoints"]).await.stdout, &[&expected]);
    assert_contains(
        &delivering.run(&["status"]).await.stdout,
        &["\napp: events are delivered", &expected],
    );
    let of_status = delivering.run(&["status", "--format", "json"]).await.json()["endpoints"][0].clone();
    assert_eq!([&of_status["name"], &of_status["late"]], [&json!("app"), &json!(2)]);
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);

    // Another configuration: on this machine first, then in the daemon.
    delivering.configure(&endpoint("other", &format!("{}/elsewhere", receiver.url())));
    assert_eq!(delivering.endpoint("app").await["state"], "unlisted");
    assert_eq!(delivering.endpoint("other").await["state"], "new");
    let daemon = delivering.start().await;
    let app = delivering.endpoint("app").await;
    assert_eq!([&app["state"], &app["waiting"]], [&json!("removed"), &json!(0)]);
    assert!(app["removed_at"].is_string(), "{app}");
    let text = delivering.run(&["endpoints"]).await.stdout;
    assert_contains(
        &text,
        &[
            "app: not configured any more for ",
            "; events do not wait for it\n\nother: events are delivered\n",
        ],
    );
    let status = delivering.run(&["status", "--format", "json"]).await.json();
    let names: Vec<_> = status["endpoints"]
        .as_array()
        .unwrap()
        .iter()
        .map(|endpoint| &endpoint["name"])
        .collect();
    assert_eq!(names, ["other"]);
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);

    // Without its secret, an endpoint is shown as the database knows it.
    let secret = format!("secret = {:?}\n", crate::support::receiver::SECRET);
    delivering.configure(&receiver.endpoint("other").replace(&secret, ""));
    assert_eq!(delivering.endpoint("other").await["state"], "delivering");
    delivering.fixture.db.execute("DELETE FROM clerk.endpoints").await;
    delivering.run(&["endpoints"]).await.assert_exit(Exit::Usage);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_down_is_shown_as_paused_and_the_daemon_is_ready() {
    let address = Receiver::closed_address().await;
    let url = format!("http://{address}/api/webhooks/clerk");
    let delivering = Delivering::new(2, &endpoint("app", &url)).await;
    let watched = delivering.monitored().await;
    watched.wait_until_ready("in sync").await;
    delivering
        .wait_for_endpoint("app", |app| app["state"] == "delivering")
        .await;
    for object in ["user_a", "user_b"] {
        delivering.insert_event(object, "created").await;
    }
    let app = delivering
        .wait_for_endpoint("app", |app| app["state"] == "paused")
        .await;
    assert_eq!(
        [
            &app["waiting"],
            &app["late"],
            &app["dead"],
            &app["last_status"],
            &app["last_error"]
        ],
        [
            &json!(2),
            &json!(0),
            &json!(0),
            &Value::Null,
            &json!("connection refused")
        ]
    );
    assert!(
        app["next_attempt_at"].is_string() && app["delivered_at"].is_null(),
        "{app}"
    );
    assert_contains(
        &delivering.run(&["endpoints"]).await.stdout,
        &[
            "app: paused for ",
            "; tried again ",
            " ago: connection refused; nothing was delivered yet\n",
        ],
    );
    wait_for_metrics(&watched, [2.0, 0.0, 0.0, 1.0]).await;
    let shown = watched.metrics().await;
    assert!(shown.value("clerk2pg_endpoint_lag_seconds{endpoint=\"app\"}") > 0.0);
    assert!(shown.value("clerk2pg_deliveries_total{endpoint=\"app\",status=\"none\"}") >= 1.0);
    let page = watched.get("/").await.body;
    assert_contains(
        &page,
        &[
            "<h2>Endpoints</h2>",
            "<tr><th scope=\"row\">app<td class=\"bad\">paused for ",
            "run <code>clerk2pg send-test app</code>",
            "<td>–<td>2 events<td>",
            "<td>0<td>0</tr><tr><td class=\"why\" colspan=\"7\">connection refused</tr>",
        ],
    );
    assert!(!page.contains("user_a") && !page.contains("webhooks"), "{page}");
    assert_eq!(watched.probe("/readyz").await, (200, "in sync".to_owned()));

    let receiver = Receiver::at(address, |_| Reply::ok()).await;
    receiver.wait_for_accepted(2).await;
    let app = delivering
        .wait_for_endpoint("app", |app| app["state"] == "delivering" && app["waiting"] == 0)
        .await;
    assert_eq!(
        [&app["last_status"], &app["last_error"], &app["lag_seconds"]],
        [&json!(200), &Value::Null, &json!(0.0)]
    );
    wait_for_metrics(&watched, [0.0; 4]).await;
    eventually("the page shows it", async || {
        let page = watched.get("/").await.body;
        page.contains("<tr><th scope=\"row\">app<td>delivering<td>")
            && page.contains(" ago<td>0 events<td>–<td>0<td>0</tr>")
    })
    .await;
    watched.daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_asks_for_a_pause_is_shown_as_paused() {
    let receiver = Receiver::answering(|_| Reply::status(429).header("retry-after", 3600)).await;
    let delivering = Delivering::new(1, &receiver.endpoint("app")).await;
    let daemon = delivering.start().await;
    for user in ["user_a", "user_b"] {
        delivering.insert_event(user, "created").await;
    }
    let app = delivering
        .wait_for_endpoint("app", |app| app["state"] == "paused")
        .await;
    assert_eq!(
        [&app["last_status"], &app["last_error"]],
        [&json!(429), &json!("it answered 429")]
    );
    assert_contains(
        &delivering.run(&["endpoints"]).await.stdout,
        &["app: paused for ", "; tried again in 60 min\n"],
    );
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_waiting_events_are_estimated() {
    let receiver = Receiver::start().await;
    let some = format!("{}events = [\"user.deleted\"]\n", receiver.endpoint("app"));
    let delivering = Delivering::new(1, &some).await;
    let daemon = delivering.start().await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
    let insert = async |count: u32| {
        delivering
            .fixture
            .db
            .execute(&format!(
                "INSERT INTO clerk.events (resource, type, object_id, occurred_at, payload, recorded_at)
                 SELECT 'users', CASE n % 4 WHEN 0 THEN 'user.deleted' ELSE 'user.updated' END, 'user_' || n, now(), '{{}}',
                        now() - interval '90 s' + n * interval '1 ms'
                 FROM generate_series(1, {count}) AS n"
            ))
            .await;
    };
    let check = async |waiting: u32, is_estimate: bool| {
        let app = delivering.endpoint("app").await;
        assert_eq!(
            [&app["waiting"], &app["is_estimate"]],
            [&json!(waiting), &json!(is_estimate)]
        );
        let lag = app["lag_seconds"].as_f64().unwrap();
        assert!((80.0..150.0).contains(&lag), "{lag}");
    };
    insert(8_000).await;
    check(2_000, false).await;
    insert(12_000).await;
    check(5_000, true).await;
    let text = delivering.run(&["endpoints"]).await.stdout;
    assert_contains(&text, &["at event 0; about 5,000 events wait; the oldest for "]);
}
