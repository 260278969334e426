//! Every fault, by the library and by `/_sim`.

mod common;

use std::time::{Duration, Instant};

use clerk_sim::{
    DeletedCursor, Effect, Endpoint, ErrorAnswer, ErrorBody, Faults, Options, Quirks, RateLimit, Replicas, Rule,
    Shuffle, Unstorable, WrongCount,
};
use common::Clerk;
use reqwest::Method;
use serde_json::{Value, json};

fn error(status: u16, retry_after: Option<u64>, body: ErrorBody) -> Effect {
    Effect::Error(ErrorAnswer {
        status,
        retry_after,
        body,
    })
}

#[tokio::test]
async fn errors_come_in_bursts_that_end_by_themselves() {
    let clerk = Clerk::users(20).await;
    for status in [429, 500, 502, 503, 504, 521, 522, 524] {
        clerk.sim.set_faults(
            Rule::new(error(status, Some(0), ErrorBody::Json))
                .on([Endpoint::List])
                .skip(1)
                .next(2),
        );
        assert_eq!(clerk.get("/users").await.status, 200, "let pass");
        assert_eq!(clerk.get("/users/count").await.status, 200, "another endpoint");
        for _ in 0..2 {
            let answer = clerk.get("/users").await;
            assert_eq!(
                (answer.status.as_u16(), answer.retry_after.as_deref()),
                (status, Some("0"))
            );
            assert!(!answer.code().is_empty());
        }
        assert_eq!(clerk.get("/users").await.status, 200, "over");
        assert_eq!(clerk.sim.faults().rules[0].next, Some(0));
    }
    clerk
        .sim
        .set_faults(Rule::new(error(503, None, ErrorBody::Html)).next(1));
    let answer = clerk.get("/instance").await;
    assert_eq!((answer.status.as_u16(), answer.retry_after), (503, None));
    assert!(answer.bytes.starts_with(b"<!DOCTYPE html>"));
    clerk
        .sim
        .set_faults(Rule::new(error(502, None, ErrorBody::Empty)).next(1));
    assert!(clerk.get("/users").await.bytes.is_empty());
}

#[tokio::test]
async fn a_probability_strikes_sometimes() {
    let clerk = Clerk::users(1).await;
    clerk
        .sim
        .set_faults(Rule::new(error(500, None, ErrorBody::Json)).probability(0.5));
    let mut failed = 0;
    for _ in 0..100 {
        failed += u32::from(clerk.get("/users").await.status == 500);
    }
    assert!((20..80).contains(&failed), "{failed} of 100");
}

#[tokio::test]
async fn answers_break_off_stall_or_never_come() {
    let clerk = Clerk::users(20).await;
    for effect in [Effect::Truncate, Effect::DropBefore, Effect::DropDuring] {
        // Again and again, as clients try once more by themselves where a kept connection was closed.
        clerk.sim.set_faults(Rule::new(effect.clone()).on([Endpoint::List]));
        assert!(clerk.ask(Method::GET, "/users", None).await.is_err(), "{effect:?}");
        assert_eq!(clerk.get("/users/count").await.status, 200);
    }
    clerk.sim.set_faults(Rule::new(Effect::Stall).on([Endpoint::Get]));
    let id = &clerk.sim.user_ids()[0];
    let url = format!("{}/v1/users/{id}", clerk.sim.url());
    let mut response = clerk
        .client
        .get(url)
        .bearer_auth(clerk.sim.secret_key())
        .send()
        .await
        .expect("headers come");
    assert_eq!(response.status(), 200);
    assert!(
        tokio::time::timeout(Duration::from_millis(100), response.chunk())
            .await
            .is_err(),
        "nothing follows"
    );
    clerk.sim.set_faults(Rule::new(Effect::Html).next(1));
    let answer = clerk.get("/users").await;
    assert_eq!(answer.status, 200);
    assert!(answer.bytes.starts_with(b"<!DOCTYPE html>"));
}

#[tokio::test]
async fn latency_is_added_by_endpoint_and_for_all() {
    let clerk = Clerk::with(Options {
        users: 5,
        latency: Duration::from_millis(40),
        ..Options::default()
    })
    .await;
    clerk
        .sim
        .set_faults(Rule::new(Effect::LatencyMs(60)).on([Endpoint::Count]));
    let timed = async |path: &str| {
        let started = Instant::now();
        assert_eq!(clerk.get(path).await.status, 200);
        started.elapsed()
    };
    assert!(timed("/users").await >= Duration::from_millis(40));
    assert!(timed("/users/count").await >= Duration::from_millis(100));
}

#[tokio::test]
async fn parameters_are_ignored() {
    let clerk = Clerk::users(40).await;
    let ids = clerk.sim.user_ids();
    let first = clerk.list("order_by=created_at&limit=10").await;
    clerk.sim.set_faults(Quirks {
        ignore_starting_after: true,
        ..Quirks::default()
    });
    assert_eq!(
        clerk
            .list(&format!("order_by=created_at&limit=10&starting_after={}", first[9]))
            .await,
        first
    );
    clerk.sim.set_faults(Quirks {
        ignore_created_at: true,
        ..Quirks::default()
    });
    assert_eq!(
        clerk
            .list("order_by=created_at&limit=10&created_at_after=9000000000000")
            .await,
        first
    );
    assert_eq!(clerk.count("created_at_after=9000000000000").await, 40);
    clerk.sim.set_faults(Quirks {
        ignore_user_id: true,
        ..Quirks::default()
    });
    assert_eq!(clerk.list(&format!("limit=500&user_id={}", ids[0])).await.len(), 40);
    clerk.sim.set_faults(Quirks {
        ignore_offset: true,
        ..Quirks::default()
    });
    assert_eq!(clerk.list("order_by=created_at&limit=10&offset=10").await, first);
    clerk.sim.set_faults(Quirks {
        ignore_order_by: true,
        ..Quirks::default()
    });
    assert_eq!(clerk.list("order_by=created_at&limit=1").await, ids[39..]);
}

#[tokio::test]
async fn an_unknown_plus_sorts_by_the_last_change() {
    let clerk = Clerk::users(40).await;
    let ids = clerk.sim.user_ids();
    assert!(clerk.sim.update(&ids[3], |user| user["first_name"] = "Changed".into()));
    clerk.sim.set_faults(Quirks {
        unknown_plus: true,
        ..Quirks::default()
    });
    let plus = clerk.list("order_by=%2Bcreated_at&limit=500").await;
    assert_eq!(plus.last(), Some(&ids[3]));
    assert_eq!(plus, clerk.list("order_by=updated_at&limit=500").await);
    assert_eq!(clerk.list("order_by=created_at&limit=500").await, ids);
}

#[tokio::test]
async fn ties_or_whole_lists_are_shuffled() {
    let clerk = Clerk::users(60).await;
    let ids = clerk.sim.user_ids();
    let shuffle = |shuffle| {
        clerk.sim.set_faults(Quirks {
            shuffle: Some(shuffle),
            ..Quirks::default()
        });
    };
    ids[20..50].iter().for_each(|id| {
        clerk
            .sim
            .update(id, |user| user["updated_at"] = 1_900_000_000_000i64.into());
    });
    shuffle(Shuffle::Ties);
    let by_update = "order_by=-updated_at&limit=500";
    let (once, again) = (clerk.list(by_update).await, clerk.list(by_update).await);
    assert_ne!(once[..30], again[..30]);
    assert_eq!(once[30..], again[30..]);
    assert!(once[..30].iter().all(|id| ids[20..50].contains(id)));
    assert_eq!(clerk.walk("order_by=created_at", 7).await, ids, "nobody shares a time");
    shuffle(Shuffle::All);
    let by_creation = "order_by=created_at&limit=500";
    let (once, again) = (clerk.list(by_creation).await, clerk.list(by_creation).await);
    assert_ne!(once, again);
    let (mut once, mut ids) = (once, ids);
    once.sort();
    ids.sort();
    assert_eq!(once, ids);
}

#[tokio::test]
async fn a_deleted_cursor_has_four_fates() {
    let clerk = Clerk::users(40).await;
    let ids = clerk.sim.user_ids();
    assert!(clerk.sim.delete(&ids[9]));
    let path = format!("/users?order_by=created_at&limit=5&starting_after={}", ids[9]);
    assert_eq!(
        clerk.refused(&path).await,
        (404, "resource_not_found".to_owned()),
        "the default"
    );
    let fate = |deleted_cursor| {
        clerk.sim.set_faults(Quirks {
            deleted_cursor,
            ..Quirks::default()
        })
    };
    fate(DeletedCursor::Unprocessable);
    assert_eq!(clerk.refused(&path).await, (422, "form_param_value_invalid".to_owned()));
    fate(DeletedCursor::EmptyPage);
    assert!(clerk.get(&path).await.ids().is_empty());
    fate(DeletedCursor::Restart);
    assert_eq!(clerk.get(&path).await.ids(), ids[..5]);
}

#[tokio::test]
async fn pages_are_short_or_empty_and_counts_wrong() {
    let clerk = Clerk::users(60).await;
    let ids = clerk.sim.user_ids();
    clerk.sim.set_faults(Quirks {
        max_page: Some(7),
        ..Quirks::default()
    });
    assert_eq!(clerk.list("limit=50").await.len(), 7);
    clerk.sim.set_faults(Quirks {
        random_pages: true,
        ..Quirks::default()
    });
    assert_eq!(clerk.walk("order_by=created_at", 20).await, ids);
    clerk.sim.set_faults(
        Rule::new(Effect::Quirks(Box::new(Quirks {
            empty_lists: true,
            ..Quirks::default()
        })))
        .on([Endpoint::List])
        .next(1),
    );
    assert!(clerk.list("").await.is_empty());
    assert_eq!(clerk.list("").await.len(), 10, "only once");
    for (count, expected) in [
        (WrongCount::Offset(-5), 55),
        (WrongCount::Offset(-500), 0),
        (WrongCount::Fixed(3), 3),
    ] {
        clerk.sim.set_faults(Quirks {
            count: Some(count),
            ..Quirks::default()
        });
        assert_eq!(clerk.count("").await, expected);
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
        "the cursor of a user who is gone goes on as well"
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

fn replicas(lag_ms: u64, share: f64) -> Quirks {
    Quirks {
        replicas: Some(Replicas { lag_ms, share }),
        ..Quirks::default()
    }
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
    // The test's own view, writes and the instance are the primary's.
    assert_eq!(clerk.sim.document(changed).expect("a user")["first_name"], "Newer");
    assert!(clerk.sim.document(deleted).is_none());
    let body = json!({"last_name": "Newest"});
    let path = format!("/users/{new}");
    let written = clerk.ask(Method::PATCH, &path, Some(body)).await.expect("an answer");
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
    // Its time of creation is in whole milliseconds.
    assert!(
        created.elapsed() >= Duration::from_millis(498),
        "{:?}",
        created.elapsed()
    );
    clerk.sim.clear_faults();
    assert_eq!(clerk.count("").await, 5);
}

#[tokio::test]
async fn a_share_is_a_part() {
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

#[tokio::test]
async fn emulators_lack_wrap_and_shout() {
    let clerk = Clerk::users(30).await;
    clerk.sim.set_faults(Quirks {
        missing_instance: true,
        missing_count: true,
        wrapped_lists: true,
        upper_case_codes: true,
        times_in_seconds: true,
        ..Quirks::default()
    });
    assert_eq!(clerk.refused("/instance").await, (404, "RESOURCE_NOT_FOUND".to_owned()));
    assert_eq!(clerk.refused("/users/count").await.0, 404);
    let list = clerk.get("/users?limit=7").await.json();
    assert_eq!(list["total_count"], 30);
    let users = list["data"].as_array().expect("a list");
    assert_eq!(users.len(), 7);
    for user in users {
        assert!(user["created_at"].as_i64().expect("a time") < 100_000_000_000);
        let whole = clerk
            .sim
            .document(user["id"].as_str().expect("an id"))
            .expect("the user");
        assert_eq!(
            user["created_at"].as_i64(),
            whole["created_at"].as_i64().map(|time| time / 1000)
        );
        assert_eq!(user["public_metadata"], whole["public_metadata"]);
    }
    clerk.sim.set_faults(Quirks {
        html_not_found: true,
        ..Quirks::default()
    });
    let answer = clerk.get("/users/user_nobody").await;
    assert_eq!(answer.status, 404);
    assert!(answer.bytes.starts_with(b"<!DOCTYPE html>"));
    clerk.sim.set_faults(Quirks {
        unauthorized: true,
        ..Quirks::default()
    });
    assert_eq!(clerk.refused("/users").await, (401, "clerk_key_invalid".to_owned()));
}

#[tokio::test]
async fn users_hide_from_lists_or_from_reads() {
    let clerk = Clerk::users(30).await;
    let ids = clerk.sim.user_ids();
    clerk.sim.set_faults(Quirks {
        hidden_from_lists: vec![ids[3].clone()],
        not_found_by_id: vec![ids[4].clone()],
        ..Quirks::default()
    });
    let listed = clerk.list("limit=500&order_by=created_at").await;
    assert_eq!(listed.len(), 29);
    assert!(!listed.contains(&ids[3]) && listed.contains(&ids[4]));
    assert!(clerk.list(&format!("user_id={}", ids[3])).await.is_empty());
    assert_eq!(clerk.count("").await, 30);
    assert_eq!(clerk.get(&format!("/users/{}", ids[3])).await.status, 200);
    assert_eq!(
        clerk.refused(&format!("/users/{}", ids[4])).await,
        (404, "resource_not_found".to_owned())
    );
}

#[tokio::test]
async fn the_rate_limit_is_clerks_and_says_when_to_come_back() {
    let clerk = Clerk::with(Options {
        users: 3,
        rate_limit: RateLimit::Development,
        ..Options::default()
    })
    .await;
    for _ in 0..100 {
        assert_eq!(clerk.get("/users/count").await.status, 200);
    }
    let refused = clerk.get("/users").await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.code(), "too_many_requests");
    let seconds: u64 = refused
        .retry_after
        .expect("it is there")
        .parse()
        .expect("whole seconds");
    assert!((1..=10).contains(&seconds));
    let stats = clerk
        .client
        .get(format!("{}/_sim/stats", clerk.sim.url()))
        .send()
        .await
        .expect("no limit here");
    let stats: Value = stats.json().await.expect("JSON");
    assert_eq!(
        stats["by_path"],
        json!({"GET /v1/users": 1, "GET /v1/users/count": 100})
    );
    assert_eq!(stats["by_status"], json!({"200": 100, "429": 1}));
    assert_eq!((clerk.sim.requests(), clerk.sim.busiest_window()), (101, 101));
    assert_eq!(
        clerk
            .sim
            .log()
            .last()
            .map(|request| (request.status, request.path.clone())),
        Some((429, "/v1/users".to_owned()))
    );
}

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
    assert_eq!(clerk.sim.faults(), Faults::default(), "what is wrong changes nothing");
}

#[tokio::test]
async fn users_that_cannot_be_stored_are_made_on_demand() {
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
async fn life_goes_on_by_itself_and_on_demand() {
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
