//! Answers of any size stay within the memory bound of the whole process.

use std::{fs, time::Duration};

use clerk2pg::{
    clerk::MAX_BODY,
    resource::{MAX_DOCUMENT, USERS},
};

use crate::support::{
    client::client_with,
    fixture::Fixture,
    http_server::{Server, answer},
    wait::eventually,
};

/// The bound that docs/reliability.md states for the whole process.
const MOST_MEMORY: u64 = 256 << 20;

/// Returns the peak memory of a process in bytes.
fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kilobytes << 10
}

/// Runs the program against a Clerk that answers every request about users with this body, until it
/// logs or records what is expected.
async fn check_memory(name: &str, status: &'static str, headers: &'static str, body: Vec<u8>, expected: &str) {
    let size = body.len();
    let server = Server::start(move |head| match head.split(' ').nth(1) {
        Some("/v1/instance") => answer("200 OK", "", br#"{"id":"ins_hostile"}"#),
        Some(path) if path.starts_with("/v1/users/count") => answer("200 OK", "", br#"{"total_count":31}"#),
        // The first page is the last one.
        Some(path) if path.contains("_after=") => answer("200 OK", "", b"[]"),
        _ => answer(status, headers, &body),
    })
    .await;
    let fixture = Fixture::new(0).await;
    let daemon = fixture.start_daemon(&[("CLERK_API_URL", &server.url), ("RUST_LOG", "clerk2pg=debug")]);
    let on_record = format!("ended_at IS NOT NULL AND concat_ws(' ', created, rejected, error) LIKE '%{expected}%'");
    let is_reported = async || daemon.count_in_log(expected) > 0 || fixture.runs(&on_record).await > 0;
    eventually(&format!("{name}: {expected}"), is_reported).await;
    let peak = peak(daemon.pid());
    println!("{name}: {size} bytes, peak {} MiB", peak >> 20);
    assert!(peak < MOST_MEMORY, "{name}: {} MiB", peak >> 20);
    daemon.kill().await;
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, bytes).unwrap();
    packed.finish().unwrap()
}

const OK: &str = "200 OK";
const PACKED: &str = "content-encoding: gzip\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_body_beyond_the_limit_stays_within_the_memory_bound() {
    let too_large = "larger than 32 MiB";
    check_memory("a huge body", OK, "", vec![b' '; MAX_BODY + 1], too_large).await;
    let bomb = gzip(&vec![b' '; 8 * MAX_BODY]);
    check_memory("a gzip bomb", OK, PACKED, bomb, too_large).await;
    let bomb = [gzip(&vec![b' '; MAX_BODY / 2]).repeat(16), gzip(b"[]")].concat();
    check_memory("a gzip bomb in members", OK, PACKED, bomb, too_large).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_millions_of_values_stays_within_the_memory_bound() {
    let list = |user: &str, after: &str| {
        let users = vec![user; (MAX_BODY - 100) / (user.len() + 1)].join(",");
        format!("[{users}{after}]").into_bytes()
    };
    let too_many = "more than 10000 objects";
    check_memory("millions of users", OK, "", list("{}", ""), too_many).await;
    check_memory(
        "millions of users in a few bytes",
        OK,
        PACKED,
        gzip(&list("{}", "")),
        too_many,
    )
    .await;
    check_memory("millions of numbers", OK, "", list("7", ""), too_many).await;
    let wrapped = [br#"{"data":"#, &list("{}", "")[..], b"}"].concat();
    check_memory("millions in an envelope", OK, "", wrapped, too_many).await;
    let errors = [br#"{"errors":"#, &list("{}", "")[..], b"}"].concat();
    let status = "422 Unprocessable Entity";
    check_memory("millions of errors", status, "", errors, "gave 422, a body of 33,554,").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_one_string_stays_within_the_memory_bound() {
    let string = |around: [&str; 2], byte: u8| {
        [around[0].as_bytes(), &vec![byte; MAX_BODY - 100], around[1].as_bytes()].concat()
    };
    // In an error each would be shown as \u{7f}, in six bytes.
    let text = string(["\"", "\""], 0x7f);
    check_memory("a string", OK, "", text, "no list of objects").await;
    let user = [r#"[{"id":"a","created_at":1,"first_name":""#, r#""}]"#];
    check_memory("a user", OK, "", string(user, b'x'), "0 1 ").await;
    // A replacement takes three bytes.
    check_memory("a user that is no text", OK, "", string(user, 0xff), "0 1 ").await;
    let id = [r#"[{"id":""#, r#"","created_at":1}]"#];
    check_memory("an id", OK, "", string(id, b'x'), "0 1 ").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_users_stay_within_the_memory_bound() {
    let users = |rest: &str| {
        let user = |n: u32| format!(r#"{{"id":"user_{n}","created_at":{n}{rest}}}"#);
        format!("[{}]", (1..=31).map(user).collect::<Vec<_>>().join(",")).into_bytes()
    };
    let fill = |text: &str| text.repeat((MAX_DOCUMENT - 100) / text.len());
    let list = format!(r#","public_metadata":[{}0]"#, fill("0,"));
    check_memory("lists of half a million numbers", OK, "", users(&list), "31 0").await;
    let text = format!(r#","private_metadata":"{}""#, fill(r"\n"));
    check_memory("texts of a megabyte", OK, "", users(&text), "31 0").await;
    let keys: String = (0..150_000).map(|n| format!(r#","{n:x}":7"#)).collect();
    let keys = &keys[..keys[..MAX_DOCUMENT - 100].rfind(',').unwrap()];
    check_memory("a hundred thousand keys", OK, "", users(keys), "0 31").await;
}

/// Answers with counts and with the instance are small.
#[tokio::test(flavor = "multi_thread")]
async fn other_answers_are_read_up_to_a_megabyte() {
    let server = Server::start(|_| answer(OK, "", &vec![b' '; (1 << 20) + 1])).await;
    let client = client_with(&server.url, "sk_live_x", None, 1.0, Duration::from_secs(10));
    let error = client.instance().await.unwrap_err();
    assert_eq!(error.to_string(), "Clerk's answer is larger than 1 MiB");
    let server = Server::start(|_| answer(OK, "", br#"{"total_count":18446744073709551615}"#)).await;
    let client = client_with(&server.url, "sk_live_x", None, 1.0, Duration::from_secs(10));
    let error = client
        .asking_once()
        .count(&USERS, clerk2pg::reconcile::range::Range::ALL)
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("Clerk's answer cannot be read: GET /v1/users/count gave"),
        "{error}"
    );
}
