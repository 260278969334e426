//! The client of an endpoint: what it sends, and how it takes everything that a receiver may do.

use std::{
    net::SocketAddr,
    time::{Duration, Instant, SystemTime},
};

use clerk2pg::deliver::{Attempt, AttemptOutcome, Endpoint, EndpointClient, SigningKey, Start, signatures};
use tokio::{io::AsyncWriteExt, net::TcpListener};

use crate::support::{
    authority::Authority,
    raw_receiver::{RawReceiver, RawReply},
    wait::eventually,
};

const BODY: &str = r#"{"data":{"id":"user_1","first_name":"Zoë"},"type":"user.created"}"#;
const PATIENT: Duration = Duration::from_secs(30);
const IMPATIENT: Duration = Duration::from_millis(300);

fn keys() -> Vec<SigningKey> {
    let keys = ["whsec_AAAA", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"];
    keys.map(|key| SigningKey::parse(key).unwrap()).to_vec()
}

fn client(url: &str, timeout: Duration) -> EndpointClient {
    let endpoint = Endpoint {
        name: "app".to_owned(),
        url: url.parse().unwrap(),
        keys: keys(),
        types: vec!["user.created".to_owned()],
        start: Start::Now,
        concurrency: 8,
        timeout,
    };
    EndpointClient::new(&endpoint).unwrap()
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}/hook")
}

async fn send(client: &EndpointClient) -> Attempt {
    client.send("msg_1", BODY.to_owned()).await
}

/// Sends an event to a receiver that answers so.
async fn outcome(timeout: Duration, reply: impl Fn() -> RawReply + Send + Sync + 'static) -> AttemptOutcome {
    let receiver = RawReceiver::start(move |_| reply()).await;
    let attempt = send(&client(&url(receiver.address), timeout)).await;
    assert_eq!(receiver.received().len(), 1, "an event is sent once");
    attempt.outcome
}

fn delivered(status: u16) -> AttemptOutcome {
    AttemptOutcome::Delivered { status }
}

fn refused(status: u16, retry_after: Option<u64>) -> AttemptOutcome {
    let retry_after = retry_after.map(Duration::from_secs);
    AttemptOutcome::Refused { status, retry_after }
}

fn unreachable(why: &str) -> AttemptOutcome {
    let why = why.to_owned();
    AttemptOutcome::Unreachable { why }
}

fn unanswered(why: &str) -> AttemptOutcome {
    let why = why.to_owned();
    AttemptOutcome::Unanswered { why }
}

fn unix_time() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    now.as_secs().try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_sent_as_svix_sends_it() {
    let receiver = RawReceiver::start(|_| RawReply::status(204)).await;
    let client = client(
        &format!("http://{}/api/webhooks/clerk?from=clerk2pg&x=%20", receiver.address),
        PATIENT,
    );
    let begun = unix_time();
    for _ in 0..3 {
        assert_eq!(send(&client).await.outcome, delivered(204));
    }
    let received = receiver.received();
    assert_eq!(received.len(), 3);
    for request in received {
        assert!(
            request
                .head
                .starts_with("POST /api/webhooks/clerk?from=clerk2pg&x=%20 HTTP/1.1\r\n"),
            "{}",
            request.head
        );
        assert_eq!(request.body, BODY);
        let header = |name| request.header(name).unwrap();
        assert_eq!(header("content-type"), "application/json");
        assert_eq!(header("user-agent"), format!("clerk2pg/{}", env!("CARGO_PKG_VERSION")));
        assert_eq!(header("host"), receiver.address.to_string());
        assert_eq!(header("svix-id"), "msg_1");
        let timestamp: i64 = header("svix-timestamp").parse().unwrap();
        assert!((begun..=unix_time()).contains(&timestamp));
        assert_eq!(header("svix-signature"), signatures(&keys(), "msg_1", timestamp, BODY));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_2xx_is_a_success() {
    for status in [200, 201, 202, 204, 299] {
        assert_eq!(
            outcome(PATIENT, move || RawReply::status(status)).await,
            delivered(status)
        );
    }
    for status in [304, 400, 401, 404, 405, 410, 413, 429, 500, 502, 503, 599] {
        assert_eq!(
            outcome(PATIENT, move || RawReply::status(status)).await,
            refused(status, None)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_not_followed() {
    let target = RawReceiver::start(|_| RawReply::status(200)).await;
    for status in [301, 302, 303, 307, 308] {
        let location = format!("location: {}\r\n", url(target.address));
        assert_eq!(
            outcome(PATIENT, move || RawReply::with_headers(status, &location)).await,
            refused(status, None)
        );
    }
    assert_eq!(target.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_is_read_in_both_forms() {
    let check = async |status: u16, headers: &'static str, expected| {
        let outcome = outcome(PATIENT, move || RawReply::with_headers(status, headers)).await;
        assert_eq!(outcome, refused(status, expected), "{headers}");
    };
    check(429, "retry-after: 120\r\n", Some(120)).await;
    check(503, "retry-after: 0\r\n", Some(0)).await;
    check(
        429,
        "date: Sun, 06 Nov 1994 08:49:37 GMT\r\nretry-after: Sun, 06 Nov 1994 08:59:37 GMT\r\n",
        Some(600),
    )
    .await;
    // A day at most.
    check(429, "retry-after: 18446744073709551615\r\n", Some(86_400)).await;
    check(429, "retry-after: Fri, 31 Dec 9999 23:59:59 GMT\r\n", Some(86_400)).await;
    check(429, "retry-after: later\r\n", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_decides_whatever_comes_after_it() {
    let begun = Instant::now();
    let check = async |reply: fn() -> RawReply| assert_eq!(outcome(PATIENT, reply).await, delivered(200));
    // 10 MB and endless.
    check(|| {
        RawReply::bytes(&format!(
            "HTTP/1.1 200 OK\r\ncontent-length: 10485760\r\n\r\n{}",
            " ".repeat(10 << 20)
        ))
    })
    .await;
    check(|| RawReply::bytes("HTTP/1.1 200 OK\r\n\r\n").and_flood()).await;
    // Half a body, and none.
    check(|| RawReply::bytes("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").and_close()).await;
    check(|| RawReply::bytes("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").and_hang()).await;
    check(|| RawReply::bytes("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n").and_hang()).await;
    // What is no body.
    check(|| RawReply::bytes("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nnot a chunk\r\n")).await;
    check(|| RawReply::bytes("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\nhalf")).await;
    check(|| RawReply::bytes("HTTP/1.0 200 OK\r\n\r\nold").and_close()).await;
    check(|| RawReply::bytes("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")).await;
    assert!(begun.elapsed() < PATIENT / 2, "a body is not waited for");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_used_again_if_the_answer_is_short() {
    let receiver = RawReceiver::start(|request| {
        let length = request.header("svix-id").unwrap()["msg_".len()..].parse().unwrap();
        RawReply::bytes(&format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{}",
            " ".repeat(length)
        ))
    })
    .await;
    let client = client(&url(receiver.address), PATIENT);
    let connections = async |length: usize| {
        let before = receiver.connections();
        for _ in 0..20 {
            let attempt = client.send(&format!("msg_{length}"), BODY.to_owned()).await;
            assert_eq!(attempt.outcome, delivered(200));
        }
        receiver.connections() - before
    };
    // The next request may be earlier than the end of the last one is noticed.
    for length in [0, 2, 10_000] {
        assert!(connections(length).await < 10, "{length}");
    }
    connections(1_000_000).await;
    assert!(connections(2).await < 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_answer_counts_within_the_timeout() {
    let delay = Duration::from_millis(200);
    let receiver = RawReceiver::start(move |_| RawReply::status(200).delayed(delay)).await;
    let attempt = send(&client(&url(receiver.address), PATIENT)).await;
    assert_eq!(attempt.outcome, delivered(200));
    assert!((delay..PATIENT).contains(&attempt.took), "{attempt:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_is_told_apart_from_a_refusal() {
    // It accepts and forgets.
    let begun = Instant::now();
    let no_answer = unanswered("no answer within 0.3 s");
    assert_eq!(outcome(IMPATIENT, || RawReply::bytes("").and_hang()).await, no_answer);
    let half = || RawReply::bytes("HTTP/1.1 200 OK\r\ncontent-").and_hang();
    assert_eq!(outcome(IMPATIENT, half).await, no_answer);
    assert!(begun.elapsed() >= IMPATIENT * 2);

    let closed = unanswered("the connection was closed without an answer");
    assert_eq!(outcome(PATIENT, || RawReply::bytes("").and_close()).await, closed);
    let half = || RawReply::bytes("HTTP/1.1 200 OK\r\ncontent-").and_close();
    assert_eq!(outcome(PATIENT, half).await, closed);

    let no_http = unanswered("the answer is not HTTP");
    assert_eq!(
        outcome(PATIENT, || RawReply::bytes("SSH-2.0-x\r\n").and_hang()).await,
        no_http
    );
    let status = || RawReply::bytes("HTTP/1.1 2000 OK\r\n\r\n").and_hang();
    assert_eq!(outcome(PATIENT, status).await, no_http);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_receiver_costs_nothing() {
    let receiver = RawReceiver::start(|_| RawReply::status(200)).await;
    let address = receiver.address;
    let client = client(&url(address), PATIENT);
    for _ in 0..3 {
        assert_eq!(send(&client).await.outcome, delivered(200));
    }
    receiver.stop().await;
    eventually("the client notices", async || !is_connected_to(address.port())).await;
    assert_eq!(send(&client).await.outcome, unreachable("connection refused"));
    let receiver = RawReceiver::at(address, None, |_| RawReply::status(201)).await;
    assert_eq!(send(&client).await.outcome, delivered(201));
    receiver.stop().await;
    let receiver = RawReceiver::at(address, None, |_| RawReply::status(202)).await;
    eventually("the client notices", async || !is_connected_to(address.port())).await;
    assert_eq!(send(&client).await.outcome, delivered(202));
    assert_eq!(receiver.received().len(), 1);
}

/// Whether a client has not closed its connection to a port yet.
fn is_connected_to(port: u16) -> bool {
    const ESTABLISHED_OR_CLOSE_WAIT: [&str; 2] = ["01", "08"];
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    table.lines().any(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        fields[2].ends_with(&format!(":{port:04X}")) && ESTABLISHED_OR_CLOSE_WAIT.contains(&fields[3])
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn several_events_are_sent_at_once() {
    let receiver = RawReceiver::start(|_| RawReply::status(200).delayed(Duration::from_millis(100))).await;
    let client = client(&url(receiver.address), PATIENT);
    let sends = (0..64).map(|n| {
        let client = client.clone();
        tokio::spawn(async move { client.send(&format!("msg_{n}"), BODY.to_owned()).await })
    });
    for attempt in sends.collect::<Vec<_>>() {
        assert_eq!(attempt.await.unwrap().outcome, delivered(200));
    }
    let mut ids: Vec<_> = receiver
        .received()
        .iter()
        .map(|request| request.header("svix-id").unwrap().to_owned())
        .collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 64);
}

/// Asserts why nothing is sent to a URL, and that `reach` says the same.
async fn check_unreachable(url: &str, why: &str) {
    let client = client(url, IMPATIENT);
    assert_eq!(send(&client).await.outcome, unreachable(why), "{url}");
    assert_eq!(client.reach().await, Err(why.to_owned()), "{url}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_cannot_be_reached_says_why() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    check_unreachable(&format!("http://{free}/"), "connection refused").await;
    check_unreachable(&format!("http://localhost:{}/", free.port()), "connection refused").await;
    check_unreachable("http://clerk2pg.invalid/", "clerk2pg.invalid does not resolve").await;
    check_unreachable("http://203.0.113.5/", "203.0.113.5 is not private: use https").await;
    for scheme in ["http", "https"] {
        check_unreachable(
            &format!("{scheme}://169.254.169.254/?token=hidden"),
            "169.254.169.254 is a link-local address",
        )
        .await;
        check_unreachable(
            &format!("{scheme}://[fd00:ec2::254]/"),
            "fd00:ec2::254 is an address of the cloud's metadata",
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_trusted_gets_nothing() {
    let identity = Authority::new("theirs").sign(&["localhost", "127.0.0.1"], "theirs");
    let receiver = RawReceiver::at("127.0.0.1:0".parse().unwrap(), Some(identity), |_| {
        RawReply::status(200)
    })
    .await;
    let port = receiver.address.port();
    let why = "the certificate is not signed by a trusted authority";
    check_unreachable(&format!("https://localhost:{port}/"), why).await;
    check_unreachable(&format!("https://127.0.0.1:{port}/"), why).await;
    assert!(receiver.received().is_empty());

    // A server that speaks first, in another protocol.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await;
        }
    });
    check_unreachable(&url, "the server does not speak TLS").await;
    serving.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn reaching_sends_nothing() {
    let receiver = RawReceiver::start(|_| RawReply::status(200)).await;
    let client = client(&format!("http://localhost:{}/", receiver.address.port()), PATIENT);
    assert_eq!(client.reach().await, Ok(receiver.address));
    assert_eq!(send(&client).await.outcome, delivered(200));
    assert_eq!((receiver.received().len(), receiver.connections()), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_is_no_header_is_not_sent() {
    let receiver = RawReceiver::start(|_| RawReply::status(200)).await;
    let client = client(&url(receiver.address), PATIENT);
    let attempt = client.send("msg_1\r\nx: y", BODY.to_owned()).await;
    assert_eq!(attempt.outcome, unreachable("the request cannot be built"));
    assert_eq!(receiver.connections(), 0);
}
