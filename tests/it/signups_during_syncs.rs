//! Walks while users sign up between any two requests, and servers that would never let a walk end.

use std::sync::{Arc, Mutex};

use rustix::process::Signal;

use crate::support::{
    changes::now,
    fixture::Fixture,
    http_server::{Server, answer},
    process::{EVERY_SECOND, NEVER},
    program::ProgramOutput,
    summary::Exit,
    wait::eventually,
};

/// What happens at each request to the users (`created_at` and id, in order), by the server's
/// clock.
type Between = fn(&mut Vec<(i64, String)>, request: usize, path: &str, now: i64);

/// Starts a Clerk whose clock is `ahead_ms` ahead, with a `Date` header or without.
async fn clerk(users: usize, ahead_ms: i64, has_date: bool, between: Between) -> Server {
    let list = (0..users).map(|n| (1_600_000_000_000 + n as i64, format!("user_old{n:05}")));
    let state = Arc::new(Mutex::new((list.collect::<Vec<_>>(), 0)));
    Server::start(move |head| {
        let (users, requests) = &mut *state.lock().unwrap();
        let target = head.split(' ').nth(1).unwrap();
        let clock = now() + ahead_ms;
        between(users, *requests, target, clock);
        *requests += 1;
        users.sort();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let parameter = |name: &str| {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs
                .filter(|(key, _)| *key == name)
                .map(|(_, value)| value.to_owned())
                .next()
        };
        let number = |name: &str| parameter(name).map(|text| text.parse::<i64>().unwrap());
        let mut chosen: Vec<(i64, String)> = users.clone();
        chosen.retain(|(at, _)| {
            number("created_at_after").is_none_or(|after| *at > after)
                && number("created_at_before").is_none_or(|before| *at < before)
        });
        let body = match path {
            "/v1/instance" => r#"{"object":"instance","id":"ins_test","environment_type":"production"}"#.to_owned(),
            "/v1/users/count" => format!(r#"{{"object":"total_count","total_count":{}}}"#, chosen.len()),
            "/v1/users" => {
                if parameter("order_by").as_deref() == Some("-updated_at") {
                    chosen.reverse();
                }
                let requests: Vec<&str> = query
                    .split('&')
                    .filter_map(|pair| pair.strip_prefix("user_id="))
                    .collect();
                chosen.retain(|(_, id)| requests.is_empty() || requests.contains(&id.as_str()));
                if let Some(after) = parameter("starting_after") {
                    let last = chosen.iter().position(|(_, id)| *id == after);
                    chosen.drain(..last.map_or(0, |last| last + 1));
                }
                let page = chosen.iter().skip(number("offset").unwrap_or(0) as usize);
                let documents = page
                    .take(number("limit").unwrap_or(10) as usize)
                    .map(|(at, id)| format!(r#"{{"id":"{id}","object":"user","created_at":{at},"updated_at":{at}}}"#));
                format!("[{}]", documents.collect::<Vec<_>>().join(","))
            }
            _ => {
                return answer(
                    "404 Not Found",
                    "",
                    br#"{"errors":[{"code":"resource_not_found","message":"-"}]}"#,
                );
            }
        };
        let date = chrono::DateTime::from_timestamp_millis(clock).unwrap();
        let date = match has_date {
            true => format!("date: {}\r\n", date.format("%a, %d %b %Y %H:%M:%S GMT")),
            false => String::new(),
        };
        answer("200 OK", &date, body.as_bytes())
    })
    .await
}

fn sign_up(users: &mut Vec<(i64, String)>, count: usize, request: usize, now: i64) {
    users.extend((0..count).map(|n| (now, format!("user_new{request:04}_{n:04}"))));
}

/// Counts the requests of a walk: pages by `created_at`.
fn pages(server: &Server) -> usize {
    let requests = server.requests();
    requests
        .iter()
        .filter(|head| head.contains("order_by=created_at"))
        .count()
}

/// Runs a full sync of a server, and returns how many of the users before it are mirrored.
async fn sync(server: &Server) -> (ProgramOutput, i64, Fixture) {
    let fixture = Fixture::new(0).await;
    let ran = fixture.once_with(&[("CLERK_API_URL", &server.url)]).await;
    let old = fixture
        .db
        .number("SELECT count(*) FROM clerk.users WHERE id LIKE 'user\\_old%'")
        .await;
    (ran, old, fixture)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_ends_although_a_user_signs_up_at_each_request() {
    let server = clerk(1_300, 0, true, |users, request, _, now| sign_up(users, 1, request, now)).await;
    let (ran, old, fixture) = sync(&server).await;
    assert_eq!((ran.code, old), (Some(0), 1_300), "{ran:#?}");
    assert!(
        pages(&server) <= 8,
        "{} pages: {:#?}",
        pages(&server),
        server.requests()
    );

    // Incremental syncs mirror the users that signed up meanwhile, although more sign up.
    let daemon = fixture.start_daemon(&[NEVER, EVERY_SECOND, ("CLERK_API_URL", server.url.as_str())]);
    eventually("a full sync is over", async || {
        fixture.runs("kind = 'full' AND ended_at IS NOT NULL").await == 2
    })
    .await;
    let met = server.requests().len() as i64;
    let new = format!("SELECT count(*) FROM clerk.users WHERE id LIKE 'user\\_new%' AND id < 'user_new{met:04}'");
    eventually("they are in", async || fixture.db.number(&new).await == met).await;
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_ends_although_hundreds_are_imported_at_each_request() {
    let server = clerk(1_300, 0, true, |users, request, _, now| {
        sign_up(users, 600, request, now)
    })
    .await;
    let (ran, old, fixture) = sync(&server).await;
    assert_eq!((ran.code, old), (Some(0), 1_300), "{ran:#?}");
    assert!(pages(&server) <= 8, "{} pages", pages(&server));
    // The mirror has some of the new users, and the others do not count as missing.
    let ran = fixture.once_with(&[("CLERK_API_URL", &server.url)]).await;
    assert_eq!((ran.code, &ran.json()["deleted"]), (Some(0), &0.into()), "{ran:#?}");
    let by_id = server
        .requests()
        .iter()
        .filter(|head| head.contains("user_id="))
        .count();
    assert_eq!(by_id, 0, "a user was requested by id");
}

#[tokio::test(flavor = "multi_thread")]
async fn different_clocks_make_no_sync_incomplete() {
    // Some sign up before the walk ends, and are deleted before the second count.
    let between: Between = |users, request, path, now| match path {
        path if path.contains("order_by=created_at") => sign_up(users, 5, request, now),
        path if path.contains("/count") => users.retain(|(_, id)| !id.starts_with("user_new")),
        _ => {}
    };
    for (minutes, has_date) in [
        (-10, true),
        (10, true),
        (0, true),
        (0, false),
        (-10, false),
        (10, false),
    ] {
        let server = clerk(1_300, minutes * 60_000, has_date, between).await;
        let (ran, old, _fixture) = sync(&server).await;
        assert_eq!(
            (ran.code, old),
            (Some(0), 1_300),
            "{minutes} minutes, {has_date}: {ran:#?}"
        );
    }
}

/// Starts a Clerk whose only user is unreadable.
async fn unreadable() -> Server {
    Server::start(|head| {
        let path = head.split(' ').nth(1).unwrap();
        let is_later_page = path.contains("offset=") && !path.contains("offset=0");
        let body: &[u8] = match path.split('?').next().unwrap() {
            "/v1/instance" => br#"{"object":"instance","id":"ins_test","environment_type":"production"}"#,
            "/v1/users/count" => br#"{"object":"total_count","total_count":1}"#,
            "/v1/users" if is_later_page => b"[]",
            _ => br#"[{"id":"user_bad","created_at":1790000000001,"x":"cut"#,
        };
        answer("200 OK", "", body)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_only_user_makes_a_sync_incomplete_and_not_endless() {
    for arguments in [&["--once", "--format", "json"][..], &["--dry-run", "--format", "json"]] {
        let (server, fixture) = (unreadable().await, Fixture::new(0).await);
        let ran = fixture.run_with(arguments, &[("CLERK_API_URL", &server.url)]).await;
        assert_eq!(
            (ran.code, &ran.json()["outcome"]),
            (Some(1), &"incomplete".into()),
            "{ran:#?}"
        );
        assert!(
            server.requests().len() <= 50,
            "{arguments:?}: {} requests",
            server.requests().len()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_only_user_does_not_keep_a_daemon_busy() {
    let (server, fixture) = (unreadable().await, Fixture::new(0).await);
    let daemon = fixture.start_daemon(&[("CLERK_API_URL", &server.url)]);
    let ended = "outcome = 'incomplete' AND ended_at IS NOT NULL";
    eventually("two full syncs", async || fixture.runs(ended).await >= 2).await;
    let (requests, syncs) = (server.requests().len() as i64, fixture.runs("true").await);
    assert!(requests <= 60 * (syncs + 1), "{requests} requests in {syncs} syncs");
    daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_list_is_abandoned() {
    // Three new users on each page, for each request.
    let next = Arc::new(Mutex::new(0));
    let server = Server::start(move |head| {
        let path = head.split(' ').nth(1).unwrap();
        let mut next = next.lock().unwrap();
        let mut user = || {
            *next += 1;
            format!(
                r#"{{"id":"user_{next}","created_at":{0},"updated_at":1}}"#,
                1_600_000_000_000i64 + *next
            )
        };
        let body = match path.split('?').next().unwrap() {
            "/v1/instance" => r#"{"object":"instance","id":"ins_test","environment_type":"production"}"#.to_owned(),
            "/v1/users/count" => r#"{"object":"total_count","total_count":3}"#.to_owned(),
            _ => format!("[{},{},{}]", user(), user(), user()),
        };
        answer("200 OK", "", body.as_bytes())
    })
    .await;
    let fixture = Fixture::new(0).await;
    let ran = fixture.once_with(&[("CLERK_API_URL", &server.url)]).await;
    ran.assert_exit(Exit::Failed);
    assert!(ran.stderr.contains("does not advance"), "{ran:#?}");
    assert!(server.requests().len() <= 300, "{} requests", server.requests().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn inconclusive_batches_by_ids_are_abandoned() {
    let fixture = crate::support::fixture::mirrored(400).await;
    let gone = fixture.sim.user_ids();
    gone[..150].iter().for_each(|id| assert!(fixture.sim.delete(id)));
    let before = fixture.sim.requests();
    let quirks = clerk_sim::Quirks {
        ignore_user_id: true,
        ..clerk_sim::Quirks::default()
    };
    let ran = crate::support::faults::once_under(&fixture, quirks, &[]).await;
    assert_eq!((ran.code, &ran.json()["held"]), (Some(3), &150.into()), "{ran:#?}");
    // A few batches, and then each id alone, twice.
    let requests = fixture.sim.requests() - before;
    assert!(requests <= 2 * 150 + 20, "{requests} requests");
}
