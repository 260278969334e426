//! A TCP proxy in the test's process, which breaks the network instead of mocking it.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use chrono::{NaiveDateTime, TimeDelta};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// What the proxy does with connections.
#[derive(Clone, Debug, PartialEq)]
enum Mode {
    /// Connections reach the server.
    Open,
    /// Connections are accepted, and nothing is ever sent back.
    Silent,
    /// Both directions are held until the proxy is open again, like a network that is cut and
    /// repaired.
    Held,
    /// Connections reach the server until a client sends this text. What follows within the same
    /// message is held.
    HeldAfter(&'static str),
    /// Connections reach a Postgres server but receive no notifications, as through a pooler in
    /// transaction mode.
    NoNotifications,
    /// Connections reach the server until a client has sent this many bytes and then this text.
    /// Then all are cut.
    Cut { after: usize, at: &'static str },
}

/// A proxy before one server. It keeps its port while it refuses connections, so that no other
/// program can answer there.
pub struct Proxy {
    pub address: SocketAddr,
    upstream: SocketAddr,
    mode: Arc<watch::Sender<Mode>>,
    /// Changes when all connections are to be cut.
    cut: Arc<watch::Sender<()>>,
    /// Seconds by which the server's clock is wrong.
    clock: Arc<AtomicI64>,
    connections: Arc<AtomicU64>,
    accepting: Option<JoinHandle<()>>,
    /// Bound but not listening: the kernel refuses connections.
    refusing: Option<TcpSocket>,
}

impl Proxy {
    /// Returns a proxy that refuses every connection until it is opened.
    pub fn refusing(upstream: SocketAddr) -> Self {
        let socket = bound(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        Self {
            address: socket.local_addr().unwrap(),
            upstream,
            mode: Arc::new(watch::Sender::new(Mode::Open)),
            cut: Arc::default(),
            clock: Arc::default(),
            connections: Arc::default(),
            accepting: None,
            refusing: Some(socket),
        }
    }

    pub fn open(upstream: SocketAddr) -> Self {
        let mut proxy = Self::refusing(upstream);
        proxy.open_again();
        proxy
    }

    /// Returns a proxy before a Postgres server that drops every notification.
    pub fn without_notifications(upstream: SocketAddr) -> Self {
        let proxy = Self::open(upstream);
        proxy.mode.send_replace(Mode::NoNotifications);
        proxy
    }

    /// Lets connections through again, also those that were refused so far.
    pub fn open_again(&mut self) {
        self.mode.send_replace(Mode::Open);
        if let Some(socket) = self.refusing.take() {
            let listener = socket.listen(128).unwrap();
            let (upstream, mode, cut, clock, count) = (
                self.upstream,
                self.mode.clone(),
                self.cut.clone(),
                self.clock.clone(),
                self.connections.clone(),
            );
            self.accepting = Some(tokio::spawn(accept(listener, upstream, mode, cut, clock, count)));
        }
    }

    /// Accepts connections without an answer, and stops answering on open ones.
    pub fn go_silent(&mut self) {
        self.open_again();
        self.mode.send_replace(Mode::Silent);
    }

    /// Holds both directions; [`Self::open_again`] delivers what was sent.
    pub fn hold(&self) {
        self.mode.send_replace(Mode::Held);
    }

    /// Holds both directions from the moment when a client has sent a text, in the middle of the
    /// message.
    pub fn hold_after(&self, text: &'static str) {
        self.mode.send_replace(Mode::HeldAfter(text));
    }

    /// Whether both directions are held.
    pub fn is_holding(&self) -> bool {
        *self.mode.borrow() == Mode::Held
    }

    /// Cuts all connections when a client sends `at` after `after` bytes on one connection.
    pub fn cut_at(&self, after: usize, at: &'static str) {
        self.mode.send_replace(Mode::Cut { after, at });
    }

    /// Whether a requested cut has not happened yet.
    pub fn has_cut_pending(&self) -> bool {
        *self.mode.borrow() != Mode::Open
    }

    /// Shifts the time in HTTP responses by some seconds from now on.
    pub fn shift_clock(&self, seconds: i64) {
        self.clock.store(seconds, Ordering::Relaxed);
    }

    /// Cuts all connections and accepts new ones.
    pub fn cut(&self) {
        self.cut.send_replace(());
    }

    /// Cuts all connections and refuses new ones.
    pub async fn refuse(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            // Bind first, so that no other program can take the port.
            self.refusing = Some(bound(self.address).unwrap());
            accepting.abort();
            let _ = accepting.await;
        }
        self.cut();
    }

    /// Returns how many connections were accepted so far.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Returns a Postgres or HTTP URL that leads through the proxy.
    pub fn url(&self, url: &str) -> String {
        let host = host_of(url);
        url.replacen(&host, &self.address.to_string(), 1)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
        }
        self.cut();
    }
}

/// Returns the IP address and port of a URL.
pub fn upstream(url: &str) -> SocketAddr {
    host_of(url).parse().unwrap_or_else(|error| panic!("{url}: {error}"))
}

fn host_of(url: &str) -> String {
    let rest = url.split_once("://").unwrap().1;
    let authority = rest.split(['/', '?']).next().unwrap();
    authority.rsplit('@').next().unwrap().to_owned()
}

fn bound(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // Old connections linger in the kernel, and one socket replaces another.
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

async fn accept(
    listener: TcpListener,
    upstream: SocketAddr,
    mode: Arc<watch::Sender<Mode>>,
    cut: Arc<watch::Sender<()>>,
    clock: Arc<AtomicI64>,
    count: Arc<AtomicU64>,
) {
    loop {
        let (client, _) = listener.accept().await.unwrap();
        count.fetch_add(1, Ordering::Relaxed);
        let (mode, cut, clock) = (mode.clone(), cut.clone(), clock.clone());
        tokio::spawn(async move {
            let mut cutting = cut.subscribe();
            tokio::select! {
                // Dropping the streams closes both ends.
                _ = cutting.changed() => {}
                _ = carry(client, upstream, &mode, &cut, &clock) => {}
            }
        });
    }
}

async fn carry(
    mut client: TcpStream,
    upstream: SocketAddr,
    mode: &watch::Sender<Mode>,
    cut: &watch::Sender<()>,
    clock: &AtomicI64,
) -> io::Result<()> {
    let held = async || {
        let mut now = mode.subscribe();
        // The sender lives as long as the proxy.
        let _ = now.wait_for(|mode| *mode != Mode::Held).await;
    };
    held().await;
    let mut server = TcpStream::connect(upstream).await?;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    // The answer to the last message must not get through before the cut.
    let is_last = std::sync::atomic::AtomicBool::new(false);
    let there = async {
        let (mut buffer, mut sent) = (vec![0; 4096], 0);
        loop {
            let length = from_client.read(&mut buffer).await?;
            if length == 0 {
                return to_server.shutdown().await;
            }
            held().await;
            let bytes = &buffer[..length];
            sent += length;
            let now = mode.borrow().clone();
            if now == Mode::Silent {
                continue;
            }
            if let Mode::HeldAfter(text) = now
                && let Some(at) = bytes.windows(text.len()).position(|part| part == text.as_bytes())
            {
                let (before, after) = bytes.split_at(at + text.len());
                to_server.write_all(before).await?;
                mode.send_replace(Mode::Held);
                held().await;
                to_server.write_all(after).await?;
                continue;
            }
            let cuts =
                matches!(now, Mode::Cut { after, at } if sent >= after && String::from_utf8_lossy(bytes).contains(at));
            is_last.store(cuts, Ordering::Relaxed);
            to_server.write_all(bytes).await?;
            if cuts {
                mode.send_replace(Mode::Open);
                cut.send_replace(());
                return Ok(());
            }
        }
    };
    let back = async {
        let mut buffer = vec![0; 65_536];
        let mut pending = Vec::new();
        loop {
            let length = from_server.read(&mut buffer).await?;
            if length == 0 {
                return to_client.shutdown().await;
            }
            held().await;
            shift(&mut buffer[..length], clock.load(Ordering::Relaxed));
            let now = mode.borrow().clone();
            match now {
                _ if is_last.load(Ordering::Relaxed) => {}
                Mode::Silent => {}
                Mode::NoNotifications => {
                    pending.extend_from_slice(&buffer[..length]);
                    to_client.write_all(&without_notifications(&mut pending)).await?;
                }
                // The mode may have changed a moment ago.
                Mode::Open | Mode::Held | Mode::HeldAfter(_) | Mode::Cut { .. } => {
                    to_client.write_all(&buffer[..length]).await?
                }
            }
        }
    };
    tokio::try_join!(there, back).map(drop)
}

/// Shifts the time in the `Date` header of a response that begins with these bytes.
fn shift(answer: &mut [u8], seconds: i64) {
    const NAME: &[u8] = b"\r\ndate: ";
    const FORM: &str = "%a, %d %b %Y %H:%M:%S GMT";
    if seconds == 0 || !answer.starts_with(b"HTTP/") {
        return;
    }
    let at = answer.windows(NAME.len()).position(|bytes| bytes == NAME).unwrap() + NAME.len();
    let length = answer[at..].iter().position(|&byte| byte == b'\r').unwrap();
    let date = &mut answer[at..at + length];
    let date_time = NaiveDateTime::parse_from_str(std::str::from_utf8(date).unwrap(), FORM).unwrap();
    let shifted = date_time + TimeDelta::seconds(seconds);
    date.copy_from_slice(shifted.format(FORM).to_string().as_bytes());
}

/// Removes the complete messages of a Postgres server from `pending`, and returns them without
/// notifications.
fn without_notifications(pending: &mut Vec<u8>) -> Vec<u8> {
    let mut rest = Vec::new();
    // A message is a type byte and a length, which counts itself but not the type.
    while let Some((head, _)) = pending.split_first_chunk::<5>() {
        let length = 1 + u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if pending.len() < length {
            break;
        }
        let message: Vec<u8> = pending.drain(..length).collect();
        if message[0] != b'A' {
            rest.extend(message);
        }
    }
    rest
}
