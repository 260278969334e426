//! A receiver of events: an HTTP server that records requests and answers as a test decides.

use std::{
    convert::Infallible,
    fmt, io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::stream;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    HeaderMap, Method, Request, Response,
    body::{Bytes, Frame, Incoming},
    header::{CONTENT_LENGTH, HeaderName, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use standardwebhooks::Webhook;
use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

use crate::support::wait::eventually;

/// A secret for endpoints in tests.
pub const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

/// A receiver, which stops when it is dropped: its port is closed, and so are its connections.
pub struct Receiver {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

type Answer = dyn Fn(&ReceivedEvent) -> Reply + Send + Sync;

struct Shared {
    keeps_log: bool,
    log: Mutex<Vec<ReceivedEvent>>,
    answer: Mutex<Arc<Answer>>,
    /// Requests that are being answered now, and the most at a time so far.
    under_way: Mutex<(usize, usize)>,
}

/// A request, completely read.
#[derive(Debug, Clone)]
pub struct ReceivedEvent {
    /// When it was read.
    pub at: Instant,
    pub method: Method,
    /// Path and query.
    pub path: String,
    pub headers: HeaderMap,
    pub body: String,
    /// The status of the answer; `None` if there is none.
    pub status: Option<u16>,
}

/// What a receiver does with a request.
#[derive(Debug, Clone)]
pub struct Reply {
    delay: Duration,
    gate: Option<CancellationToken>,
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
    way: ReplyWay,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReplyWay {
    Complete,
    /// The connection is closed before the end of the body.
    HalfBody,
    /// The connection is closed without an answer.
    Close,
    /// There is no answer, and the connection stays open.
    Hang,
}

impl Reply {
    /// Answers 200.
    pub fn ok() -> Self {
        Self::status(200)
    }

    /// Answers with a status and a short body.
    pub fn status(status: u16) -> Self {
        Self {
            delay: Duration::ZERO,
            gate: None,
            status,
            headers: Vec::new(),
            body: Bytes::from_static(b"{\"ok\":true}"),
            way: ReplyWay::Complete,
        }
    }

    /// Answers nothing, and keeps the connection open.
    pub fn hang() -> Self {
        Self {
            way: ReplyWay::Hang,
            ..Self::ok()
        }
    }

    /// Closes the connection instead of an answer.
    pub fn close() -> Self {
        Self {
            way: ReplyWay::Close,
            ..Self::ok()
        }
    }

    /// Waits before it does what it does.
    pub fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// Waits until `gate` is cancelled before it does what it does.
    #[allow(dead_code, reason = "the histories do not use it")]
    pub fn behind(self, gate: &CancellationToken) -> Self {
        Self {
            gate: Some(gate.clone()),
            ..self
        }
    }

    pub fn header(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    pub fn body(self, body: impl Into<Bytes>) -> Self {
        Self {
            body: body.into(),
            ..self
        }
    }

    /// Sends the status and half of the body, then closes the connection.
    pub fn half_body(self) -> Self {
        Self {
            way: ReplyWay::HalfBody,
            ..self
        }
    }
}

impl Receiver {
    /// Starts a receiver that answers 200.
    pub async fn start() -> Self {
        Self::answering(|_| Reply::ok()).await
    }

    /// Starts a receiver. `answer` decides what it does with each request.
    pub async fn answering(answer: impl Fn(&ReceivedEvent) -> Reply + Send + Sync + 'static) -> Self {
        Self::at(([127, 0, 0, 1], 0).into(), answer).await
    }

    /// Starts a receiver that does not keep the requests: only `answer` sees them.
    #[allow(dead_code, reason = "the histories use it")]
    pub async fn without_log(answer: impl Fn(&ReceivedEvent) -> Reply + Send + Sync + 'static) -> Self {
        Self::begin(([127, 0, 0, 1], 0).into(), false, Arc::new(answer)).await
    }

    /// Starts a receiver at an address, for example that of one that was stopped.
    pub async fn at(address: SocketAddr, answer: impl Fn(&ReceivedEvent) -> Reply + Send + Sync + 'static) -> Self {
        Self::begin(address, true, Arc::new(answer)).await
    }

    async fn begin(address: SocketAddr, keeps_log: bool, answer: Arc<Answer>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            keeps_log,
            log: Mutex::default(),
            answer: Mutex::new(answer),
            under_way: Mutex::default(),
        });
        let serving = tokio::spawn(accept(listener, shared.clone()));
        Self {
            address,
            shared,
            serving,
        }
    }

    /// Returns an address where nobody listens.
    pub async fn closed_address() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    }

    /// Changes what it does with requests from now on.
    pub fn answer(&self, answer: impl Fn(&ReceivedEvent) -> Reply + Send + Sync + 'static) {
        *lock(&self.shared.answer) = Arc::new(answer);
    }

    /// Stops, and returns the address, which is free then. What was received is lost.
    pub async fn stop(self) -> SocketAddr {
        self.serving.abort();
        eventually("the receiver is stopped", async || self.serving.is_finished()).await;
        self.address
    }

    /// The URL of the route that receives events.
    pub fn url(&self) -> String {
        format!("http://{}/api/webhooks/clerk", self.address)
    }

    /// Returns an entry of `[[endpoints]]` for this receiver, with [`SECRET`] and all defaults.
    pub fn endpoint(&self, name: &str) -> String {
        endpoint(name, &self.url())
    }

    /// Returns all requests so far, in the order in which they were read.
    pub fn requests(&self) -> Vec<ReceivedEvent> {
        lock(&self.shared.log).clone()
    }

    /// Returns the events that were answered with 2xx, in the order in which they were read.
    pub fn accepted(&self) -> Vec<ReceivedEvent> {
        let mut requests = self.requests();
        requests.retain(ReceivedEvent::is_accepted);
        requests
    }

    /// Waits until as many events were accepted.
    pub async fn wait_for_accepted(&self, count: usize) -> Vec<ReceivedEvent> {
        eventually(&format!("{count} events are accepted"), async || {
            let log = lock(&self.shared.log);
            log.iter().filter(|event| event.is_accepted()).count() >= count
        })
        .await;
        self.accepted()
    }

    /// Waits until as many requests came, whatever they got.
    pub async fn wait_for_requests(&self, count: usize) -> Vec<ReceivedEvent> {
        eventually(&format!("{count} requests came"), async || {
            lock(&self.shared.log).len() >= count
        })
        .await;
        self.requests()
    }

    /// Returns how many requests were under way at once at most.
    pub fn most_at_once(&self) -> usize {
        lock(&self.shared.under_way).1
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Returns an entry of `[[endpoints]]` with [`SECRET`] and all defaults.
pub fn endpoint(name: &str, url: &str) -> String {
    format!("[[endpoints]]\nname = {name:?}\nurl = {url:?}\nsecret = {SECRET:?}\n")
}

impl ReceivedEvent {
    pub fn is_accepted(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The message's id, `svix-id`.
    pub fn id(&self) -> &str {
        self.header("svix-id").unwrap()
    }

    /// The number of the event, with which `svix-id` ends.
    pub fn number(&self) -> i64 {
        let id = self.id();
        id[id.len() - 11..].parse().unwrap()
    }

    pub fn event(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The type, for example `user.created`.
    pub fn kind(&self) -> String {
        self.event()["type"].as_str().unwrap().to_owned()
    }

    /// The id of the object that the event is about.
    pub fn object(&self) -> String {
        self.event()["data"]["id"].as_str().unwrap().to_owned()
    }

    /// Whether the signature is that of a secret, and the time is now.
    pub fn is_signed_with(&self, secret: &str) -> bool {
        let headers = ["id", "timestamp", "signature"].map(|part| {
            let name = HeaderName::try_from(format!("webhook-{part}")).unwrap();
            (name, self.headers[&format!("svix-{part}")].clone())
        });
        let webhook = Webhook::new(secret).unwrap();
        webhook
            .verify(self.body.as_bytes(), &HeaderMap::from_iter(headers))
            .is_ok()
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // They end with this task.
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let shared = shared.clone();
        connections.spawn(async move {
            let service = service_fn(|request| serve(request, shared.clone()));
            let builder = http1::Builder::new().timer(TokioTimer::new()).to_owned();
            // Errors are those that a test asks for, and clients that go away.
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(request: Request<Incoming>, shared: Arc<Shared>) -> io::Result<Response<BoxBody<Bytes, io::Error>>> {
    let _under_way = UnderWay::begin(&shared);
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let mut event = ReceivedEvent {
        at: Instant::now(),
        method: parts.method,
        path: parts.uri.to_string(),
        headers: parts.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
        status: None,
    };
    let answer = lock(&shared.answer).clone();
    let reply = answer(&event);
    event.status = matches!(reply.way, ReplyWay::Complete | ReplyWay::HalfBody).then_some(reply.status);
    if shared.keeps_log {
        lock(&shared.log).push(event);
    }
    tokio::time::sleep(reply.delay).await;
    if let Some(gate) = &reply.gate {
        gate.cancelled().await;
    }
    match reply.way {
        ReplyWay::Hang => std::future::pending().await,
        ReplyWay::Close => Err(io::ErrorKind::ConnectionAborted.into()),
        ReplyWay::Complete => Ok(respond(&reply, Full::new(reply.body.clone()).map_err(never).boxed())),
        ReplyWay::HalfBody => {
            let half = reply.body.slice(..reply.body.len() / 2);
            let frames = [Ok(Frame::data(half)), Err(io::ErrorKind::ConnectionAborted.into())];
            Ok(respond(&reply, StreamBody::new(stream::iter(frames)).boxed()))
        }
    }
}

fn respond(reply: &Reply, body: BoxBody<Bytes, io::Error>) -> Response<BoxBody<Bytes, io::Error>> {
    let mut response = Response::builder().status(reply.status);
    for (name, value) in &reply.headers {
        response = response.header(*name, value);
    }
    let length = HeaderValue::from(reply.body.len());
    response.header(CONTENT_LENGTH, length).body(body).unwrap()
}

fn never(never: Infallible) -> io::Error {
    match never {}
}

/// Counts a request while it is under way.
struct UnderWay<'a>(&'a Shared);

impl<'a> UnderWay<'a> {
    fn begin(shared: &'a Shared) -> Self {
        let mut under_way = lock(&shared.under_way);
        under_way.0 += 1;
        under_way.1 = under_way.1.max(under_way.0);
        Self(shared)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        lock(&self.0.under_way).0 -= 1;
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
