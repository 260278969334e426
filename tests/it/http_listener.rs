//! Where the daemon's HTTP listener binds, and which requests it answers.

use std::{
    net::{IpAddr, TcpListener, UdpSocket},
    path::Path,
};

use rustix::process::Signal;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    fixture::{Fixture, mirrored},
    http_client::{get, send},
    monitored::{ANY, MonitoredDaemon, addresses},
    process::Process,
    summary::{Exit, changed},
    wait::{PATIENCE, eventually},
};

/// Returns an address with a port that was free a moment ago.
fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_ends_the_daemon_but_no_single_run() {
    let fixture = Fixture::new(5).await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let listen = ("CLERK2PG_HTTP__LISTEN", address.as_str());
    let ran = fixture.start_daemon(&[listen]).wait_for_exit().await;
    ran.assert_exit(Exit::Failed);
    let error = format!("error: cannot listen on http.listen = {address}: Address already in use");
    assert!(ran.stderr.contains(&error), "{ran:#?}");
    assert!(
        ran.stderr.contains("hint: another program uses that port") && ran.stderr.contains("CLERK2PG_HTTP__LISTEN")
    );
    assert_eq!(fixture.sim.requests(), 0, "it had begun already");

    fixture
        .once_with(&[listen])
        .await
        .assert(Exit::Ok, changed().created(5));
    let ran = fixture.run_with(&["status"], &[listen]).await;
    ran.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn remote_addresses_need_allow_remote() {
    let fixture = mirrored(5).await;
    let everywhere = ("CLERK2PG_HTTP__LISTEN", "0.0.0.0:0");
    let ran = fixture.start_daemon(&[everywhere]).wait_for_exit().await;
    ran.assert_exit(Exit::Usage);
    assert!(
        ran.stderr.contains("error: http.listen = 0.0.0.0:0 cannot be used"),
        "{ran:#?}"
    );
    assert!(
        ran.stderr.contains("hint: ") && ran.stderr.contains("http.allow_remote = true"),
        "{ran:#?}"
    );

    let watched = MonitoredDaemon::start(&fixture, &[everywhere, ("CLERK2PG_HTTP__ALLOW_REMOTE", "true")]).await;
    let port = watched.address.strip_prefix("0.0.0.0:").unwrap();
    let request = "GET /livez HTTP/1.1\r\nHost: clerk2pg.svc.example:80\r\n\r\n";
    let answer = send(&format!("127.0.0.1:{port}"), request).await.unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (200, "alive\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_get_requests_for_local_hosts_are_answered() {
    let fixture = mirrored(5).await;
    let watched = MonitoredDaemon::start(&fixture, &[]).await;
    let ask = async |request: &str| send(&watched.address, &format!("{request}\r\n\r\n")).await.unwrap();
    let rebound = ask("GET / HTTP/1.1\r\nHost: evil.example:9465").await;
    assert_eq!((rebound.status, rebound.body.contains("<html")), (403, false));
    assert_eq!(ask("GET /livez HTTP/1.1\r\nHost: localhost:1").await.status, 200);
    assert_eq!(ask("GET /livez HTTP/1.0").await.status, 200);
    let post = ask("POST /readyz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0").await;
    assert_eq!((post.status, post.header("allow")), (405, Some("get, head")));
    let head = ask("HEAD / HTTP/1.1\r\nHost: localhost").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(ask("GET /etc/passwd HTTP/1.1\r\nHost: localhost").await.status, 404);
    assert_eq!(ask("GET /livez?x=1 HTTP/1.1\r\nHost: localhost").await.status, 200);

    for (path, status) in [("/", 200), ("/metrics", 200), ("/livez", 200), ("/nowhere", 404)] {
        let answer = watched.get(path).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer:?}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{answer:?}");
        let policy = answer.header("content-security-policy").unwrap();
        assert!(
            policy.starts_with("default-src 'none';") && !policy.contains("unsafe"),
            "{policy}"
        );
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
    }
    // The style is allowed by a new nonce each time.
    let nonce = async || {
        let page = watched.get("/").await;
        let policy = page.header("content-security-policy").unwrap();
        let nonce = policy
            .split("'nonce-")
            .nth(1)
            .unwrap()
            .split('\'')
            .next()
            .unwrap()
            .to_owned();
        assert!(page.body.contains(&format!("<style nonce=\"{nonce}\">")));
        nonce
    };
    assert_ne!(nonce().await, nonce().await);
}

/// Returns this machine's address in its network, if it has one.
fn address_of_this_machine() -> Option<IpAddr> {
    // Nothing is sent: connecting a datagram socket only chooses the route.
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().unwrap().ip())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_loopback_address_listens() {
    let fixture = mirrored(5).await;
    let watched = MonitoredDaemon::start(&fixture, &[]).await;
    let port = watched.address.rsplit_once(':').unwrap().1;
    // Another loopback address stands for any other address of this machine.
    let others = [Some(IpAddr::from([127, 0, 0, 2])), address_of_this_machine()];
    for other in others.into_iter().flatten() {
        let address = format!("{other}:{port}");
        assert!(get(&address, "/livez").await.is_none(), "{address} answers");
    }
    assert_eq!(watched.probe("/livez").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_and_silent_requests_block_nobody() {
    let fixture = mirrored(5).await;
    let watched = MonitoredDaemon::start(&fixture, &[]).await;
    let huge = format!(
        "GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n",
        "x".repeat(1 << 20)
    );
    let many = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: x\r\n".repeat(1000));
    for request in [huge, many, "\r\n\r\nnonsense\0".to_owned()] {
        let mut stream = TcpStream::connect(&watched.address).await.unwrap();
        let mut answer = Vec::new();
        // The connection may be closed before all is sent.
        let _ = stream.write_all(request.as_bytes()).await;
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "the connection stays open");
        assert!(
            !answer.starts_with(b"HTTP/1.1 200"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
    // More connections than are served at a time, each in the middle of its request.
    let mut slow = Vec::new();
    for _ in 0..100 {
        let mut stream = TcpStream::connect(&watched.address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: loc").await.unwrap();
        slow.push(stream);
    }
    assert_eq!(watched.probe("/livez").await.0, 200);
    let mut end = Vec::new();
    slow[0].read_to_end(&mut end).await.unwrap();
    watched.daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}

/// Starts a daemon whose file alone sets the listen address.
fn on_file(fixture: &Fixture, file: &Path, listen: &str) -> Process {
    write(file, listen);
    let mut command = fixture.command(&["--config", file.to_str().unwrap()]);
    command.env_remove("CLERK2PG_HTTP__LISTEN");
    Process::spawn(command)
}

fn write(file: &Path, listen: &str) {
    let text = format!("[schedule]\nfull = \"\"\nincremental = \"\"\n[http]\nlisten = \"{listen}\"\n");
    std::fs::write(file, text).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_applies_a_new_listen_address() {
    let fixture = mirrored(5).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    let watched = MonitoredDaemon::new(on_file(&fixture, &file, ANY.1)).await;
    watched.wait_until_ready("in sync").await;
    let reload = async |listen: &str, says: &str| {
        let before = watched.daemon.count_in_log(says);
        write(&file, listen);
        watched.daemon.signal(Signal::HUP);
        eventually(says, async || watched.daemon.count_in_log(says) > before).await;
    };
    const RELOADED: &str = "configuration reloaded";
    // Unchanged: the port that the system chose stays.
    reload(ANY.1, RELOADED).await;
    assert_eq!(watched.probe("/livez").await.0, 200);
    assert_eq!(addresses(&watched.daemon).len(), 1);
    let full = "clerk2pg_syncs_total{kind=\"full\",outcome=\"in_sync\"}";
    eventually("the counts go on", async || watched.metrics().await.value(full) == 2.0).await;

    let second = free_address();
    reload(&second, RELOADED).await;
    assert_eq!(addresses(&watched.daemon), [watched.address.as_str(), &second]);
    assert_eq!(get(&second, "/livez").await.unwrap().status, 200);
    eventually("the first one is gone", async || {
        get(&watched.address, "/livez").await.is_none()
    })
    .await;

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    reload(&taken.local_addr().unwrap().to_string(), "the old one stays").await;
    assert_eq!(get(&second, "/livez").await.unwrap().status, 200);
    reload("192.0.2.1:80", "the old one stays").await;

    reload("", RELOADED).await;
    eventually("nobody listens", async || get(&second, "/livez").await.is_none()).await;
    watched.daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);
}
