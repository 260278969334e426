//! Lists and replicas that lag.

use std::time::{Duration, Instant};

use clerk_sim::{Quirks, Replicas};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::Clerk;

fn replicas(lag_ms: u64, share: f64) -> Quirks {
    Quirks {
        replicas: Some(Replicas { lag_ms, share }),
        ..Quirks::default()
    }
}

#[tokio::test]
async fn lists_lag_behind_single_reads() {
    let clerk = Clerk::users(30).await;
    let before = clerk.get("/users?limit=500&order_by=created_at").await.json();
    let ids = clerk.sim.user_ids();
    let new = clerk.sim.create_random();
    assert!(clerk.sim.delete(&ids[0]));
    assert!(clerk.sim.update(&ids[1], |user| user["first_name"] = "New".into()));
    assert!(clerk.sim.update(&ids[1], |user| user["first_name"] = "Newer".into()));
    clerk.sim.set_faults(Quirks {
        stale_lists_ms: 60_000,
        ..Quirks::default()
    });
    let lagging = clerk.get("/users?limit=500&order_by=created_at").await.json();
    let still = |list: Value| -> Vec<Value> {
        let locked = |user: &Value| user["lockout_expires_in_seconds"].is_number();
        list.as_array()
            .expect("a list")
            .iter()
            .filter(|user| !locked(user))
            .cloned()
            .collect()
    };
    assert_eq!(still(lagging), still(before));
    assert_eq!(clerk.count("").await, 30);
    assert_eq!(
        clerk.walk("order_by=created_at", 7).await,
        ids,
        "a deleted user still works as a cursor"
    );
    assert_eq!(clerk.list(&format!("user_id={new}")).await.len(), 0);
    assert_eq!(clerk.get(&format!("/users/{new}")).await.status, 200);
    assert_eq!(clerk.get(&format!("/users/{}", ids[0])).await.status, 404);
    assert_eq!(
        clerk.get(&format!("/users/{}", ids[1])).await.json()["first_name"],
        "Newer"
    );
    clerk.sim.clear_faults();
    assert_eq!(clerk.list("limit=500&order_by=created_at").await, clerk.sim.user_ids());
}

#[tokio::test]
async fn a_replica_shows_an_older_state_in_every_read() {
    let clerk = Clerk::users(30).await;
    let ids = clerk.sim.user_ids();
    let (deleted, changed, kept) = (&ids[0], &ids[1], &ids[2]);
    let orders = [
        "created_at",
        "-created_at",
        "updated_at",
        "-updated_at",
        "last_sign_in_at",
        "email_address",
        "-username",
    ];
    let mut before = Vec::new();
    for order in orders {
        before.push(clerk.list(&format!("limit=500&order_by={order}")).await);
    }
    let by_id = async |id: &str| clerk.get(&format!("/users/{id}")).await;
    let (was_deleted, was_changed) = (by_id(deleted).await.json(), by_id(changed).await.json());
    let new = clerk.sim.create_random();
    assert!(clerk.sim.delete(deleted));
    for name in ["New", "Newer"] {
        assert!(clerk.sim.update(changed, |user| user["first_name"] = name.into()));
    }
    clerk.sim.set_faults(replicas(60_000, 1.0));
    for (order, before) in orders.into_iter().zip(before) {
        let lagging = clerk.list(&format!("limit=500&order_by={order}")).await;
        assert_eq!(lagging, before, "{order}");
    }
    assert_eq!(clerk.walk("order_by=created_at", 7).await, ids);
    assert_eq!(clerk.count("").await, 30);
    let filter = format!("user_id={new}&user_id={deleted}&user_id={changed}&user_id={kept}");
    assert_eq!(clerk.count(&filter).await, 3);
    let listed = clerk.get(&format!("/users?order_by=created_at&{filter}")).await.json();
    assert_eq!(listed, json!([was_deleted, was_changed, clerk.sim.document(kept)]));
    assert_eq!(by_id(deleted).await.json(), was_deleted);
    assert_eq!(by_id(changed).await.json(), was_changed);
    assert_eq!(
        clerk.refused(&format!("/users/{new}")).await,
        (404, "resource_not_found".to_owned())
    );
    // The handle, writes and the instance show the state of the primary.
    assert_eq!(clerk.sim.document(changed).expect("a user")["first_name"], "Newer");
    assert!(clerk.sim.document(deleted).is_none());
    let body = json!({"last_name": "Newest"});
    let path = format!("/users/{new}");
    let written = clerk.send(Method::PATCH, &path, Some(body)).await.expect("an answer");
    assert_eq!(
        (written.status.as_u16(), &written.json()["last_name"]),
        (200, &json!("Newest"))
    );
    assert_eq!(clerk.get("/instance").await.status, 200);
}

#[tokio::test]
async fn replicas_answer_their_share_and_catch_up() {
    let clerk = Clerk::users(3).await;
    clerk.sim.set_faults(replicas(60_000, 0.5));
    let new = clerk.sim.create_random();
    for path in [
        format!("/users/{new}"),
        format!("/users?user_id={new}"),
        "/users/count".to_owned(),
    ] {
        let mut answers = [0, 0];
        for _ in 0..60 {
            let answer = clerk.get(&path).await;
            let text = String::from_utf8_lossy(&answer.bytes).into_owned();
            let knows = answer.status == 200 && (text.contains(&new) || text.contains(":4"));
            answers[usize::from(knows)] += 1;
        }
        assert!(answers.iter().all(|often| *often > 10), "{path}: {answers:?}");
    }
    clerk.sim.set_faults(replicas(500, 1.0));
    let newer = clerk.sim.create_random();
    let created = Instant::now();
    let path = format!("/users/{newer}");
    while clerk.get(&path).await.status != 200 {
        assert!(created.elapsed() < Duration::from_secs(30), "it never catches up");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The creation time is in whole milliseconds.
    assert!(
        created.elapsed() >= Duration::from_millis(498),
        "{:?}",
        created.elapsed()
    );
    clerk.sim.clear_faults();
    assert_eq!(clerk.count("").await, 5);
}

#[tokio::test]
async fn a_share_is_from_0_to_1() {
    let clerk = Clerk::users(1).await;
    let put = async |body: Value| {
        let request = clerk.client.put(format!("{}/_sim/faults", clerk.sim.url())).json(&body);
        request.send().await.expect("an answer").status().as_u16()
    };
    let wrong = json!({"replicas": {"lag_ms": 1000, "share": 2.0}});
    assert_eq!(put(json!({"quirks": wrong})).await, 400);
    assert_eq!(put(json!({"rules": [{"effect": {"quirks": wrong}}]})).await, 400);
    assert_eq!(put(json!({"quirks": {"replicas": {"lag_ms": 1000}}})).await, 200);
    assert_eq!(clerk.sim.faults().quirks, replicas(1000, 0.5));
}
