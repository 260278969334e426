//! Requests under `/_sim`.

use std::time::Duration;

use clerk_sim::{Endpoint, ErrorBody, Faults, Quirks, Rule, Unstorable, WrongCount};
use serde_json::{Value, json};

use crate::support::{Clerk, error};

#[tokio::test]
async fn faults_are_set_shown_and_cleared_over_http() {
    let clerk = Clerk::users(5).await;
    let url = format!("{}/_sim/faults", clerk.sim.url());
    let faults = Faults {
        quirks: Quirks {
            count: Some(WrongCount::Offset(-2)),
            ..Quirks::default()
        },
        rules: vec![
            Rule::new(error(503, Some(2), ErrorBody::Json))
                .on([Endpoint::List, Endpoint::Get])
                .next(3),
        ],
    };
    let body = json!({
        "quirks": {"count": {"offset": -2}},
        "rules": [{"on": ["list", "get"], "next": 3, "effect": {"error": {"status": 503, "retry_after": 2}}}],
    });
    let put = clerk.client.put(&url).json(&body).send().await.expect("an answer");
    assert_eq!(put.status(), 200);
    assert_eq!(clerk.sim.faults(), faults);
    assert_eq!(clerk.get("/users").await.retry_after.as_deref(), Some("2"));
    let shown: Faults = clerk
        .client
        .get(&url)
        .send()
        .await
        .expect("an answer")
        .json()
        .await
        .expect("faults");
    assert_eq!(shown.rules[0].next, Some(2));
    clerk.client.delete(&url).send().await.expect("an answer");
    assert_eq!(clerk.sim.faults(), Faults::default());
    for wrong in [
        json!({"quirk": {}}),
        json!({"rules": [{"effect": "explode"}]}),
        json!({"rules": [{"effect": "stall", "probability": 2}]}),
    ] {
        let answer = clerk.client.put(&url).json(&wrong).send().await.expect("an answer");
        assert_eq!(answer.status(), 400, "{wrong}");
    }
    assert_eq!(clerk.sim.faults(), Faults::default(), "invalid faults change nothing");
}

#[tokio::test]
async fn unstorable_users_are_made_on_demand() {
    let clerk = Clerk::users(3).await;
    for kind in Unstorable::ALL {
        let url = format!("{}/_sim/users/unstorable", clerk.sim.url());
        let made = clerk
            .client
            .post(url)
            .json(&json!({"kind": kind}))
            .send()
            .await
            .expect("an answer");
        let made: Value = made.json().await.expect("an id");
        let id = made["id"].as_str().expect("an id");
        let raw = clerk.sim.raw(id).expect("the user");
        let list = clerk.get("/users?limit=1").await;
        assert_eq!(list.bytes, [b"[", raw.as_slice(), b"]"].concat(), "{kind:?}");
        assert_eq!(clerk.get(&format!("/users/{id}")).await.bytes, raw);
        let user = clerk.sim.document(id);
        match kind {
            Unstorable::ManyKeys => assert!(user.expect("JSON").as_object().expect("an object").len() > 2_000),
            Unstorable::Huge => assert!(raw.len() > 5_000_000),
            Unstorable::CreatedAtAsWord => assert_eq!(user.expect("JSON")["created_at"], "soon"),
            Unstorable::CreatedAtTooLate => assert_eq!(user.expect("JSON")["created_at"], i64::MAX),
            Unstorable::CreatedAtMissing => assert!(user.expect("JSON").get("created_at").is_none()),
            Unstorable::CreatedAtAsList => assert!(user.expect("JSON")["created_at"].is_array()),
            Unstorable::LoneSurrogate | Unstorable::InvalidUtf8 => assert!(user.is_none()),
            Unstorable::NotAnObject => assert!(user.expect("JSON").is_string()),
        }
        assert!(clerk.sim.delete(id));
    }
}

#[tokio::test]
async fn users_change_at_random_by_churn_and_on_demand() {
    let clerk = Clerk::users(50).await;
    let post = async |path: &str, body: Value| -> Value {
        let url = format!("{}/_sim{path}", clerk.sim.url());
        clerk
            .client
            .post(url)
            .json(&body)
            .send()
            .await
            .expect("an answer")
            .json()
            .await
            .expect("JSON")
    };
    let changed = post("/users/random", json!({"create": 3, "update": 5, "delete": 2})).await;
    assert_eq!(changed["created"].as_array().map(Vec::len), Some(3));
    assert_eq!(changed["updated"].as_array().map(Vec::len), Some(5));
    assert_eq!(changed["deleted"].as_array().map(Vec::len), Some(2));
    assert_eq!(clerk.sim.count(), 51);
    let before = clerk.list("limit=500&order_by=-updated_at").await;
    post("/churn", json!({"rate": 500})).await;
    let changed = async {
        while clerk.list("limit=500&order_by=-updated_at").await == before {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), changed)
        .await
        .expect("something changes");
    post("/churn", json!({"rate": null})).await;
}
