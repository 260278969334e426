//! Rules: what happens to some requests.

use std::time::{Duration, Instant};

use clerk_sim::{Effect, Endpoint, ErrorBody, Options, RateLimit, Rule};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Clerk, error};

#[tokio::test]
async fn errors_come_in_bursts_that_end() {
    let clerk = Clerk::users(20).await;
    for status in [429, 500, 502, 503, 504, 521, 522, 524] {
        clerk.sim.set_faults(
            Rule::new(error(status, Some(0), ErrorBody::Json))
                .on([Endpoint::List])
                .skip(1)
                .next(2),
        );
        assert_eq!(clerk.get("/users").await.status, 200, "passes");
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
async fn a_probability_spares_some_requests() {
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
async fn answers_are_cut_off_stalled_or_dropped() {
    let clerk = Clerk::users(20).await;
    for effect in [Effect::Truncate, Effect::DropBefore, Effect::DropDuring] {
        // The effect repeats, because clients retry by themselves if a kept connection was closed.
        clerk.sim.set_faults(Rule::new(effect.clone()).on([Endpoint::List]));
        assert!(clerk.send(Method::GET, "/users", None).await.is_err(), "{effect:?}");
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
        "no body follows"
    );
    clerk.sim.set_faults(Rule::new(Effect::Html).next(1));
    let answer = clerk.get("/users").await;
    assert_eq!(answer.status, 200);
    assert!(answer.bytes.starts_with(b"<!DOCTYPE html>"));
}

#[tokio::test]
async fn latency_is_added_per_endpoint_and_for_all() {
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
async fn the_rate_limit_is_clerks_and_sends_retry_after() {
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
        .expect("a Retry-After")
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
