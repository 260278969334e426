//! Idle HTTP connections block no others.

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    fixture::mirrored, http_client::get, monitored::MonitoredDaemon, process::EVERY_SECOND, summary::Exit,
    wait::PATIENCE,
};

/// How long a response may take on a busy machine.
const SOON: Duration = Duration::from_secs(2);

/// Opens some connections, and sends the beginning of a request on each.
async fn connect(address: &str, times: usize, begin: &[u8]) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    for _ in 0..times {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let _ = stream.write_all(begin).await;
        streams.push(stream);
    }
    streams
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_block_no_probe() {
    let fixture = mirrored(5).await;
    let watched = MonitoredDaemon::start(&fixture, &[EVERY_SECOND]).await;
    watched.wait_until_ready("in sync").await;
    let mut idle = connect(&watched.address, 600, b"").await;
    idle.extend(connect(&watched.address, 64, b"GET / HTTP/1.1\r\nHost: loc").await);
    for path in ["/livez", "/readyz", "/metrics"] {
        let began = Instant::now();
        assert_eq!(watched.get(path).await.status, 200);
        assert!(began.elapsed() < SOON, "{path} took {:?}", began.elapsed());
    }
    let began = Instant::now();
    let ran = fixture
        .run_with(&["health"], &[("CLERK2PG_HTTP__LISTEN", watched.address.as_str())])
        .await;
    ran.assert_exit(Exit::Ok);
    assert!(began.elapsed() < SOON, "health took {:?}", began.elapsed());
    // Each is dropped soon, with or without others.
    let mut rest = Vec::new();
    for stream in &mut idle {
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        assert!(read.is_ok(), "a silent connection stays open");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_drop_no_request_under_way() {
    let fixture = mirrored(5).await;
    let watched = MonitoredDaemon::start(&fixture, &[]).await;
    watched.wait_until_ready("in sync").await;
    // The page waits for a table that the test has locked.
    let mut locked = crate::support::database::connect(&fixture.db.url).await;
    let transaction = locked.transaction().await.unwrap();
    transaction.batch_execute("LOCK TABLE clerk.sync_state").await.unwrap();
    let address = watched.address.clone();
    let page = tokio::spawn(async move { get(&address, "/").await });
    // The request arrives before the idle connections.
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    crate::support::wait::eventually("the page waits", async || fixture.db.number(waits).await > 0).await;
    let _idle = connect(&watched.address, 600, b"").await;
    drop(transaction);
    assert_eq!(page.await.unwrap().expect("no answer").status, 200);
}
