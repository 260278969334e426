//! What requests can do to the HTTP listener, and what texts of others can do to its page.

use clerk_sim::{Options, Sim};
use rustix::process::Signal;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    app_table::AppTable,
    database::Database,
    fixture::{Fixture, mirrored},
    http_client::send,
    monitored::{ANY, MonitoredDaemon},
    process::NEVER,
    summary::Exit,
    wait::{PATIENCE, eventually},
};

/// Returns everything that comes until the connection is closed.
async fn exchange(address: &str, bytes: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    // The server may close a connection with bytes that it has not read.
    let _ = read.expect("the connection stays open");
    String::from_utf8(answer).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_gets_one_answer() {
    let fixture = mirrored(5).await;
    let watched = MonitoredDaemon::start(&fixture, &[]).await;
    let second = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for first in [
        "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n".to_owned(),
        format!(
            "GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
            second.len()
        ),
        "GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            .to_owned(),
        "POST /livez HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        "GET /livez HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: xchunked\r\n\r\n".to_owned(),
    ] {
        let answers = exchange(&watched.address, &format!("{first}{second}")).await;
        assert!(answers.matches("HTTP/1.1 ").count() <= 1, "{first:?}: {answers}");
        assert!(!answers.contains("clerk2pg_ready"), "{first:?}: {answers}");
    }
    // Two names: the first one decides, and both must be this machine's for a browser to send them.
    let two = "GET /livez HTTP/1.1\r\nHost: evil.example\r\nHost: localhost\r\n\r\n";
    let answer = exchange(&watched.address, two).await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(watched.probe("/livez").await.0, 200);
}

const HTML: &str = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&";

#[tokio::test(flavor = "multi_thread")]
async fn texts_of_others_are_text_on_the_page() {
    let options = Options {
        users: 5,
        secret_key: "sk_live_test".to_owned(),
        instance_id: format!("ins_{HTML}"),
        ..Options::default()
    };
    let (db, sim) = tokio::join!(Database::new(), Sim::start(options));
    let fixture = Fixture { db, sim: sim.unwrap() };
    // The table is not there, which is a problem with its name in it.
    let mapping = format!("[[tables]]\nname = '''{HTML}'''\nkey = 'id'\n[tables.set]\nemail = 'u.primary_email'\n");
    let app = AppTable::with(fixture, "SELECT 1", &mapping).await;
    app.once().await;
    let quoted = HTML.replace('\'', "''");
    app.fixture
        .db
        .execute(&format!(
            "INSERT INTO clerk.standbys (holder, expires_at, ttl) VALUES ('{quoted}', now() + interval '1 hour', interval '2 hours');
             UPDATE clerk.sync_runs SET error = '{quoted}', outcome = 'failed';
             INSERT INTO clerk.rejected (resource, object_id, reason, sqlstate) VALUES ('users', 'user_{quoted}', '{quoted}', '23514')"
        ))
        .await;
    let watched = MonitoredDaemon::new(app.start_daemon(&[NEVER, ("CLERK2PG_SCHEDULE__INCREMENTAL", ""), ANY])).await;
    let mut page = String::new();
    eventually("the page shows the table", async || {
        page = watched.get("/").await.body;
        page.contains("&lt;script&gt;alert(1)&lt;/script&gt;") && page.contains("Rejected, by reason")
    })
    .await;
    let harmless = |body: &str| !body.contains("<script") && !body.contains("<img");
    assert!(harmless(&page), "{page}");
    for path in [
        "/?range=<script>",
        "/<script>alert(1)</script>",
        "/metrics?<script>",
        "/readyz?<script>",
    ] {
        let answer = send(
            &watched.address,
            &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        )
        .await
        .unwrap();
        let is_html = answer.head.contains("content-type: text/html");
        assert!(!is_html || harmless(&answer.body), "{path}: {answer:?}");
        assert_eq!(
            answer.header("x-content-type-options"),
            Some("nosniff").filter(|_| answer.status != 400),
            "{answer:?}"
        );
    }
    watched.daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}
