//! The client of Clerk's API: what it sends, retries and refuses to read, and its error texts.

use std::time::{Duration, Instant};

use clerk_sim::{Effect, ErrorAnswer, ErrorBody, Options, Rule, Sim};
use clerk2pg::{
    clerk::{Client, Error},
    reconcile::{range::Range, walk::ListQuery},
    resource::{Place, USERS},
};

use crate::support::{
    client::client_with,
    http_server::{Server, answer},
};

const KEY: &str = "sk_live_of_the_client";

const FIRST_PAGE: ListQuery = ListQuery {
    after: None,
    created_after: None,
    offset: 0,
};

fn client(url: &str, timeout: Duration) -> Client {
    client_with(url, KEY, None, 1.0, timeout)
}

async fn sim(users: usize) -> Sim {
    let options = Options {
        users,
        secret_key: KEY.to_owned(),
        ..Options::default()
    };
    Sim::start(options).await.unwrap()
}

fn error(status: u16, retry_after: Option<u64>) -> Rule {
    Rule::new(Effect::Error(ErrorAnswer {
        status,
        retry_after,
        body: ErrorBody::Json,
    }))
}

const PATIENT: Duration = Duration::from_secs(30);
const IMPATIENT: Duration = Duration::from_millis(300);

#[tokio::test(flavor = "multi_thread")]
async fn every_request_carries_version_encoding_and_user_agent() {
    let sim = sim(20).await;
    let client = client(&sim.url(), PATIENT);
    client.instance().await.unwrap().unwrap();
    client.count(&USERS, Range::ALL).await.unwrap().unwrap();
    assert_eq!(client.list(&USERS, &FIRST_PAGE, 500).await.unwrap().objects().len(), 20);
    client.by_ids(&USERS, &["user_nobody"]).await.unwrap();
    client.by_id(&USERS, &Place::of(&sim.user_ids()[0])).await.unwrap();
    let log = sim.log();
    assert_eq!((log.len() as u64, client.requests()), (5, 5));
    for request in log {
        let header = |name: &str| request.headers.get(name).map_or("", String::as_str);
        assert_eq!(request.status, 200, "{request:?}");
        assert_eq!(header("clerk-api-version"), "2026-05-12", "{request:?}");
        assert!(header("accept-encoding").contains("gzip"), "{request:?}");
        assert_eq!(header("user-agent"), concat!("clerk2pg/", env!("CARGO_PKG_VERSION")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn transient_errors_are_retried() {
    let statuses = [500, 502, 503, 504, 520, 521, 522, 524].map(|status| error(status, None));
    let others = [Effect::DropBefore, Effect::DropDuring, Effect::Truncate, Effect::Html].map(Rule::new);
    for rule in statuses.into_iter().chain(others) {
        let sim = sim(20).await;
        let client = client(&sim.url(), PATIENT);
        sim.set_faults(rule.clone().next(1));
        let started = Instant::now();
        let page = client.list(&USERS, &FIRST_PAGE, 500).await;
        assert_eq!(page.unwrap().objects().len(), 20, "{rule:?}");
        assert!(sim.requests() >= 2, "{rule:?}");
        // After a short pause.
        let took = started.elapsed();
        assert!(
            (Duration::from_millis(200)..Duration::from_secs(3)).contains(&took),
            "{took:?} {rule:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_back_off() {
    let sim = sim(0).await;
    sim.set_faults(error(503, None).next(4));
    client(&sim.url(), PATIENT).count(&USERS, Range::ALL).await.unwrap();
    let times: Vec<i64> = sim.log().iter().map(|request| request.at).collect();
    let pauses: Vec<i64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(pauses.len(), 4);
    // Whatever the jitter, each pause is at least twice the minimum of the one before.
    for (pause, least) in pauses.iter().zip([250, 500, 1000, 2000]) {
        assert!((least - 10..3 * least).contains(pause), "{pauses:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn permanent_errors_are_not_retried() {
    for status in [400, 401, 403, 404, 409, 410, 422] {
        let sim = sim(0).await;
        sim.set_faults(error(status, None));
        let client = client(&sim.url(), PATIENT);
        let error = client.list(&USERS, &FIRST_PAGE, 500).await.unwrap_err();
        assert_eq!(sim.requests(), 1, "{status}");
        assert!(error.to_string().contains(&status.to_string()), "{error}");
        let as_expected = match status {
            401 => matches!(error, Error::KeyRefused(_)),
            404 => matches!(error, Error::NotFound(_)),
            _ => matches!(error, Error::Refused(_)),
        };
        assert!(as_expected, "{error:?}");
    }
}

async fn waits(status: u16, retry_after: Option<u64>, least: Duration) {
    let sim = sim(0).await;
    sim.set_faults(error(status, retry_after).next(1));
    let started = Instant::now();
    client(&sim.url(), PATIENT).count(&USERS, Range::ALL).await.unwrap();
    let took = started.elapsed();
    assert!(took >= least, "{status} {retry_after:?}: asked again after {took:?}");
    assert!(
        took < least + Duration::from_secs(2),
        "{status} {retry_after:?}: took {took:?}"
    );
    assert_eq!(sim.requests(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_respect_retry_after_and_never_follow_at_once() {
    let second = Duration::from_secs(1);
    tokio::join!(
        waits(429, Some(2), 2 * second),
        waits(429, Some(0), second),
        waits(429, None, second),
        waits(503, Some(2), 2 * second),
        waits(503, Some(0), second / 5),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rate_limiting_is_no_outage() {
    let sim = sim(0).await;
    sim.set_faults(error(429, Some(1)).next(3));
    // Three waits of more than a second, with a client whose timeout is below a second.
    client(&sim.url(), IMPATIENT).count(&USERS, Range::ALL).await.unwrap();
    assert_eq!(sim.requests(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absurd_retry_after_is_capped() {
    for value in ["18446744073709551615", "-1", "Wed, 21 Oct 2026 07:28:00 GMT", "soon"] {
        for status in ["429 Too Many Requests", "503 Service Unavailable"] {
            let header = format!("retry-after: {value}\r\n");
            let server = Server::start(move |_| answer(status, &header, b"")).await;
            let client = client(&server.url, IMPATIENT);
            let asking = tokio::spawn(async move { client.count(&USERS, Range::ALL).await });
            // It waits or returns an error. It does not panic, and it does not send at once.
            tokio::time::sleep(Duration::from_millis(150)).await;
            assert_eq!(server.requests().len(), 1, "{status} {value}");
            asking.abort();
            assert!(
                asking.await.err().is_none_or(|ended| ended.is_cancelled()),
                "{status} {value}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_longer_than_the_timeout_is_an_error_in_time() {
    let patience = Duration::from_secs(1);
    for (rule, least, said) in [
        (error(503, None), patience, "503"),
        // After a `Retry-After` of an hour, no request is sent again.
        (error(503, Some(3600)), Duration::ZERO, "503"),
        (Rule::new(Effect::Stall), patience, "no answer in time"),
        (Rule::new(Effect::LatencyMs(60_000)), patience, "no answer in time"),
        (Rule::new(Effect::DropBefore), patience, "the connection"),
        (Rule::new(Effect::Truncate), patience, "the connection"),
    ] {
        let sim = sim(20).await;
        sim.set_faults(rule.clone());
        let client = client(&sim.url(), patience);
        let started = Instant::now();
        let asked = tokio::time::timeout(10 * patience, client.list(&USERS, &FIRST_PAGE, 500)).await;
        let error = asked.unwrap_or_else(|_| panic!("no end: {rule:?}")).unwrap_err();
        let took = started.elapsed();
        // Twice the timeout of one request, and some time for a pause that had begun.
        assert!((least..3 * patience).contains(&took), "{took:?}: {rule:?}");
        assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
        assert!(error.to_string().contains(said), "{error}: {rule:?}");
        assert!(!error.to_string().contains(KEY), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_connection_is_an_error() {
    let nobody = crate::support::proxy::Proxy::refusing(([127, 0, 0, 1], 1).into());
    let url = format!("http://{}", nobody.address);
    let error = client(&url, IMPATIENT).count(&USERS, Range::ALL).await.unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("Clerk cannot be reached: cannot connect ("),
        "{error}"
    );
    assert!(error.to_string().contains(&url), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_not_json_is_described() {
    let html = b"<!DOCTYPE html><html><head><title>Just a moment...</title></head></html>";
    for (status, body, said) in [
        (
            "200 OK",
            html.as_slice(),
            "GET /v1/users gave an HTML page, \u{201c}Just a moment...\u{201d}",
        ),
        (
            "200 OK",
            b"[{\"id\": \"user_1\", \"crea",
            "23 bytes of JSON: EOF while parsing",
        ),
        ("200 OK", b"", "GET /v1/users gave an empty body"),
        ("200 OK", b"{\"data\": 7}", "GET /v1/users gave"),
        ("200 OK", b"null", "GET /v1/users gave"),
        ("502 Bad Gateway", html, "gave 502, an HTML page"),
        ("503 Service Unavailable", b"", "gave 503, an empty body"),
    ] {
        let server = Server::start(move |_| answer(status, "", body)).await;
        let error = client(&server.url, IMPATIENT)
            .list(&USERS, &FIRST_PAGE, 500)
            .await
            .unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
        assert!(server.requests().len() > 1, "not tried again: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_body_is_retried_and_reported() {
    let server = Server::start(|_| b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n[{\"id\":".to_vec()).await;
    let error = client(&server.url, IMPATIENT)
        .list(&USERS, &FIRST_PAGE, 500)
        .await
        .unwrap_err();
    let said = "Clerk cannot be reached: the connection ended in the middle of the answer (";
    assert!(error.to_string().starts_with(said), "{error}");
    assert!(server.requests().len() > 1, "not tried again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_body_is_abandoned() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n[";
    let server = Server::endless(move |_| head.as_bytes().to_vec()).await;
    let error = client(&server.url, PATIENT)
        .list(&USERS, &FIRST_PAGE, 500)
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "Clerk's answer is larger than 32 MiB");
    // Bytes in flight come on top.
    assert!(server.sent() < 64 << 20, "{} bytes were taken", server.sent());
    assert_eq!(server.requests().len(), 1, "asking again would get the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_size_limit_applies_to_the_uncompressed_body() {
    let compress = "head -c 268435456 /dev/zero | gzip";
    let bomb = std::process::Command::new("sh")
        .args(["-c", compress])
        .output()
        .unwrap()
        .stdout;
    assert!((1..1 << 20).contains(&bomb.len()), "{} bytes", bomb.len());
    let server = Server::start(move |_| answer("200 OK", "content-encoding: gzip\r\n", &bomb)).await;
    let error = client(&server.url, PATIENT)
        .list(&USERS, &FIRST_PAGE, 500)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gzip_body_of_several_members_is_read_whole() {
    let mut split_anywhere = vec![r#"[{"id":"user_a"},"#, r#"{"id":"user_b"}]"#];
    // The length at the end of the stream belongs to the last member, and here equals the first
    // one's.
    let alike = vec![r#"[{"id":"user_a"},"#, r#"{"id":"user_b"} ]"#];
    split_anywhere.push("");
    for members in [split_anywhere, alike] {
        let packed: Vec<u8> = members.iter().flat_map(|member| gzip(member)).collect();
        let server = Server::start(move |_| answer("200 OK", "content-encoding: gzip\r\n", &packed)).await;
        let page = client(&server.url, PATIENT)
            .list(&USERS, &FIRST_PAGE, 500)
            .await
            .unwrap();
        let ids: Vec<_> = page.objects().iter().map(|raw| raw.id.as_deref()).collect();
        assert_eq!(ids, [Some("user_a"), Some("user_b")], "{members:?}");
    }
}

fn gzip(text: &str) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, text.as_bytes()).unwrap();
    packed.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_recognized_in_any_encoding() {
    let gzip = "content-encoding: gzip\r\n";
    let server = Server::start(move |_| answer("401 Unauthorized", gzip, b"no gzip")).await;
    let error = client(&server.url, PATIENT)
        .list(&USERS, &FIRST_PAGE, 500)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::KeyRefused(_)), "{error:?}");
    let server = Server::start(move |_| answer("200 OK", gzip, b"no gzip")).await;
    let error = client(&server.url, PATIENT)
        .list(&USERS, &FIRST_PAGE, 500)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Garbage(_)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_not_followed() {
    let elsewhere = Server::start(|_| answer("200 OK", "", b"[]")).await;
    let header = format!("location: {}/v1/users\r\n", elsewhere.url);
    let server = Server::start(move |_| answer("301 Moved Permanently", &header, b"")).await;
    let error = client(&server.url, PATIENT)
        .list(&USERS, &FIRST_PAGE, 500)
        .await
        .unwrap_err();
    let said = format!(
        "gave 301, a redirect to {}/v1/users; is clerk.api_url right?",
        elsewhere.url
    );
    assert!(error.to_string().contains(&said), "{error}");
    assert_eq!((server.requests().len(), elsewhere.requests().len()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_url_may_end_in_a_slash() {
    let server = Server::start(|_| answer("200 OK", "", b"[]")).await;
    client(&format!("{}/", server.url), PATIENT)
        .list(&USERS, &FIRST_PAGE, 500)
        .await
        .unwrap();
    let head = &server.requests()[0];
    assert!(
        head.starts_with("GET /v1/users?order_by=created_at&limit=500 "),
        "{head}"
    );
    assert!(head.contains(&format!("authorization: Bearer {KEY}\r\n")), "{head}");
}
