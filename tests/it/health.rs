//! `clerk2pg health`: the health check of a container, without a key or a database.

use std::{net::TcpListener, time::Instant};

use clerk_sim::Quirks;

use crate::support::{
    fixture::{Fixture, mirrored},
    monitored::{ANY, MonitoredDaemon},
    program::{ProgramOutput, command},
    summary::Exit,
};

async fn health(listen: &str, arguments: &[&str]) -> ProgramOutput {
    let mut command = command();
    command
        .arg("health")
        .args(arguments)
        .env("CLERK2PG_HTTP__LISTEN", listen);
    command.env("CLERK2PG_HTTP__ALLOW_REMOTE", "true");
    command.output().await.unwrap().into()
}

#[track_caller]
fn assert_unwell(ran: &ProgramOutput, why: &str) {
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{ran:#?}");
    assert!(
        ran.stderr.starts_with("error: not ready: ") && ran.stderr.contains(why),
        "{ran:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn it_reports_what_the_daemon_answers() {
    let fixture = mirrored(10).await;
    let watched = MonitoredDaemon::start(&fixture, &[crate::support::process::EVERY_SECOND]).await;
    watched.wait_until_ready("in sync").await;
    let port = watched.address.rsplit_once(':').unwrap().1;
    for listen in [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        format!("0.0.0.0:{port}"),
    ] {
        let ran = health(&listen, &[]).await;
        assert_eq!(
            (ran.code, ran.stdout.as_str(), ran.stderr.as_str()),
            (Some(0), "in sync\n", "")
        );
    }
    let ran = health(&watched.address, &["--format", "json"]).await;
    ran.assert_exit(Exit::Ok);
    assert_eq!(ran.json(), serde_json::json!({"ready": true, "reason": "in sync"}));

    fixture.sim.set_faults(Quirks {
        unauthorized: true,
        ..Quirks::default()
    });
    watched.wait_until_not_ready("refused").await;
    assert_unwell(&health(&watched.address, &[]).await, "Clerk refused the secret key");
    let ran = health(&watched.address, &["--format", "json"]).await;
    assert_eq!(
        (ran.code, ran.json()["ready"].as_bool()),
        (Some(1), Some(false)),
        "{ran:#?}"
    );
    assert!(
        ran.json()["reason"]
            .as_str()
            .unwrap()
            .contains("Clerk refused the secret key"),
        "{ran:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_or_foreign_listener_is_not_ready() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    // The kernel accepts the connection, and nothing answers.
    let begun = Instant::now();
    assert_unwell(&health(&address, &[]).await, "no answer within 5 s");
    assert!((5..8).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    drop(listener);
    let ran = health(&address, &[]).await;
    assert_unwell(
        &ran,
        &format!("no daemon answers at http://{address}/readyz: Connection refused"),
    );
    assert!(ran.stderr.contains("http.listen"), "{ran:#?}");

    let stranger = crate::support::http_server::Server::start(|_| {
        crate::support::http_server::answer("404 Not Found", "", b"who?")
    })
    .await;
    let address = stranger.url.strip_prefix("http://").unwrap();
    assert_unwell(
        &health(address, &[]).await,
        "404 Not Found is not an answer of clerk2pg",
    );
    assert_unwell(&health("", &[]).await, "http.listen = \"\" is not an address to ask");
    assert_unwell(&health(ANY.1, &[]).await, "is not an address to ask");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_in_the_environment_is_ignored() {
    let fixture = Fixture::new(3).await;
    let watched = MonitoredDaemon::start(&fixture, &[]).await;
    watched.wait_until_ready("in sync").await;
    let mut command = command();
    command.arg("health").env("CLERK2PG_HTTP__LISTEN", &watched.address);
    command
        .env("HTTP_PROXY", "http://127.0.0.1:1")
        .env("http_proxy", "http://127.0.0.1:1");
    let ran = ProgramOutput::from(command.output().await.unwrap());
    ran.assert_exit(Exit::Ok);
}
