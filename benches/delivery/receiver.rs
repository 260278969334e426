//! A receiver of events, as an application has it: it takes 5 ms, and answers 200.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Result;
use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    header::HeaderMap,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};

/// How long it takes to answer.
pub const WORK: Duration = Duration::from_millis(5);

/// Requests in the order of their answers.
type Log = Arc<Mutex<Vec<Received>>>;

/// A running receiver. When it is dropped, it stops, and its connections are closed.
pub struct Receiver {
    address: SocketAddr,
    log: Log,
    serving: JoinHandle<()>,
}

/// A request that was answered with 200.
pub struct Received {
    /// When its head had been read.
    pub began_at: Instant,
    /// When the answer was written.
    pub answered_at: Instant,
    /// The path of the URL.
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Receiver {
    pub async fn start(address: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let log = Log::default();
        Ok(Self {
            address,
            serving: tokio::spawn(accept(listener, log.clone())),
            log,
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The number of requests that were answered.
    pub fn count(&self) -> usize {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Stops, and returns all requests. Its address is free then.
    pub async fn stop(mut self) -> Vec<Received> {
        self.serving.abort();
        // It was cancelled.
        let _ = (&mut self.serving).await;
        std::mem::take(&mut *self.log.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// The time from the first request until as many were answered.
pub fn time_of(log: &[Received], count: usize) -> Option<Duration> {
    let first = log.iter().map(|received| received.began_at).min()?;
    let last = log.get(count.checked_sub(1)?)?.answered_at;
    Some(last.saturating_duration_since(first))
}

async fn accept(listener: TcpListener, log: Log) {
    // They end with this task.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        // As Node does.
        let _ = stream.set_nodelay(true);
        let log = log.clone();
        connections.spawn(async move {
            let service = service_fn(|request| answer(request, &log));
            // An error is a client that goes away.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(request: Request<Incoming>, log: &Log) -> Result<Response<Empty<Bytes>>, hyper::Error> {
    let began_at = Instant::now();
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    tokio::time::sleep(WORK).await;
    let received = Received {
        began_at,
        // hyper writes the answer as soon as it is returned.
        answered_at: Instant::now(),
        path: head.uri.path().to_owned(),
        headers: head.headers,
        body,
    };
    log.lock().unwrap_or_else(PoisonError::into_inner).push(received);
    Ok(Response::new(Empty::<Bytes>::new()))
}
