//! The HTTP server: which requests are accepted, and what they get.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener as StdListener},
    sync::Arc,
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{
        ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderValue, REFERRER_POLICY, REFRESH,
        X_CONTENT_TYPE_OPTIONS,
    },
    http::request::Parts,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};
use tracing::{debug, info};

use super::{
    cached::{CachedSources, Sources},
    condition::ProbeResult,
    connections::Connections,
    exposition, page,
    view::View,
};
use crate::{
    failure::{Cause, Failure},
    printable::printable,
};

/// Requests for the page and the metrics that are answered at a time; others wait. Probes need no
/// database, and never wait.
const MAX_CONCURRENT: usize = 64;

/// Time limit for the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(2);

/// Time limit for a connection.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Serves probes, metrics and the page on an address, or does nothing if it is turned off.
#[derive(Debug, Default)]
pub struct HttpServer {
    bound: Option<BoundAddress>,
    /// The task that accepts connections; it ends when this is dropped.
    serving: JoinSet<()>,
}

/// An address that this process listens on.
#[derive(Debug)]
pub struct BoundAddress {
    /// As configured; the port may be 0.
    configured: SocketAddr,
    socket: StdListener,
}

impl HttpServer {
    /// Binds an address, unless this server has it already. With port 0 the system chooses one.
    ///
    /// # Errors
    /// Another process has the address, or this machine does not.
    pub fn bind(&self, address: Option<SocketAddr>) -> Result<Option<BoundAddress>, Failure> {
        let Some(configured) = address else { return Ok(None) };
        let socket = match &self.bound {
            Some(bound) if bound.configured == configured => bound.socket.try_clone(),
            _ => StdListener::bind(configured),
        };
        let bound = socket.and_then(|socket| {
            socket.set_nonblocking(true)?;
            Ok(Some(BoundAddress { configured, socket }))
        });
        bound.map_err(|error| match &self.bound {
            // Two sockets on one port would conflict during the change.
            Some(own) if own.configured.port() == configured.port() => cannot_listen(configured, &error)
                .hint("this daemon itself uses that port; restart it to change the rest of the address"),
            _ => cannot_listen(configured, &error),
        })
    }

    /// Serves a bound address from now on, and no other.
    ///
    /// # Errors
    /// The socket cannot be used.
    pub fn serve(&mut self, bound: Option<BoundAddress>, sources: Sources) -> Result<(), Failure> {
        let configured = |bound: &Option<BoundAddress>| bound.as_ref().map(|bound| bound.configured);
        let is_new = configured(&bound) != configured(&self.bound);
        // Requests that are being answered are completed.
        self.serving = JoinSet::new();
        self.bound = bound;
        let Some(BoundAddress { configured, socket }) = &self.bound else {
            return Ok(());
        };
        let listen = || {
            let listener = TcpListener::from_std(socket.try_clone()?)?;
            Ok::<_, io::Error>((listener.local_addr()?, listener))
        };
        let (local, listener) = listen().map_err(|error| cannot_listen(*configured, &error))?;
        if is_new {
            info!(
                address = format!("http://{local}/"),
                "serving probes, metrics and the status page"
            );
        }
        let handler = Arc::new(Handler {
            cached: CachedSources::new(sources),
            is_loopback: is_loopback(local.ip()),
            permits: Semaphore::new(MAX_CONCURRENT),
        });
        self.serving.spawn(accept(listener, handler));
        Ok(())
    }
}

/// Whether only this machine reaches an address.
fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

fn cannot_listen(address: SocketAddr, error: &io::Error) -> Failure {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program uses that port, perhaps another clerk2pg; choose another one in http.listen (CLERK2PG_HTTP__LISTEN), or \"\" for none"
        }
        _ => "choose another address in http.listen (CLERK2PG_HTTP__LISTEN), or \"\" for none",
    };
    Failure::new(
        Cause::NeedsPerson,
        format!("cannot listen on http.listen = {address}: {error}"),
    )
    .hint(hint)
}

async fn accept(listener: TcpListener, handler: Arc<Handler>) {
    let connections = Connections::default();
    loop {
        match listener.accept().await {
            // This never waits: an idle connection must not block a probe.
            Ok((stream, _)) => connections.admit(|slot| {
                let handler = handler.clone();
                async move {
                    let serving = serve_connection(stream, handler, || slot.set_asked());
                    if tokio::time::timeout(CONNECTION_TIMEOUT, serving).await.is_err() {
                        debug!("a connection took too long");
                    }
                }
            }),
            Err(error) => {
                // Probably too many files are open; others may be closed meanwhile.
                debug!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Answers one request. `asked` is called when its head has arrived.
async fn serve_connection(stream: TcpStream, handler: Arc<Handler>, asked: impl Fn()) {
    let service = service_fn(|request: Request<Incoming>| {
        asked();
        let handler = handler.clone();
        let (parts, _) = request.into_parts();
        async move { Ok::<_, std::convert::Infallible>(handler.answer(&parts).await) }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        debug!(%error, "a connection ended early");
    }
}

/// Answers requests.
struct Handler {
    cached: CachedSources,
    /// Whether only this machine reaches the server.
    is_loopback: bool,
    /// Limits how many requests use the database at a time.
    permits: Semaphore,
}

type HttpResponse = Response<Full<Bytes>>;

impl Handler {
    async fn answer(&self, request: &Parts) -> HttpResponse {
        let host = request.headers.get(HOST);
        if self.is_loopback && !host.is_none_or(is_this_machine) {
            return text(
                StatusCode::FORBIDDEN,
                "use this address from this machine, by its IP address or as localhost",
            );
        }
        if !matches!(request.method, Method::GET | Method::HEAD) {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are supported");
            answer
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        match request.uri.path() {
            "/" => self.page(View::of_query(request.uri.query())).await,
            // Browsers ask for the second one where they show text.
            "/favicon.svg" | "/favicon.ico" => respond(StatusCode::OK, SVG, page::FAVICON.to_owned()),
            "/metrics" => self.metrics().await,
            "/livez" => probe_response(&self.cached.sources.watch.alive()),
            "/readyz" => probe_response(&self.cached.sources.watch.ready()),
            _ => text(
                StatusCode::NOT_FOUND,
                "not found; there are /, /livez, /readyz and /metrics",
            ),
        }
    }

    async fn metrics(&self) -> HttpResponse {
        let Sources { watch, clerk, .. } = &self.cached.sources;
        // The semaphore is never closed.
        let _permit = self.permits.acquire().await;
        let summary = self.cached.summary().await;
        let resources = self.cached.resources().await.unwrap_or_default();
        let tables = self.cached.tables().await.unwrap_or_default();
        let endpoints = self.cached.endpoints().await.unwrap_or_default();
        match exposition::render(watch, clerk, summary.as_ref().ok(), &resources, &tables, &endpoints) {
            Ok(metrics) => respond(StatusCode::OK, exposition::CONTENT_TYPE, metrics),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        }
    }

    async fn page(&self, view: View) -> HttpResponse {
        let _permit = self.permits.acquire().await;
        let nonce = format!("{:032x}", fastrand::u128(..));
        let page = match page::render(&self.cached.page(view).await, &nonce) {
            Ok(page) => page,
            Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        };
        let mut answer = respond(StatusCode::OK, HTML, page);
        let headers = answer.headers_mut();
        // The page escapes all text; the policy is a second protection.
        if let Ok(policy) = HeaderValue::from_str(&page::policy(&nonce)) {
            headers.insert(CONTENT_SECURITY_POLICY, policy);
        }
        // Without an address, a browser loads the same one, with its query, and does not scroll.
        if view.reloads {
            headers.insert(REFRESH, HeaderValue::from(page::RELOAD.as_secs()));
        }
        answer
    }
}

/// Whether a `Host` header names this machine without DNS. Otherwise a foreign web page could let
/// its own name point here and read the answers.
fn is_this_machine(host: &HeaderValue) -> bool {
    let Ok(host) = host.to_str() else { return false };
    if let Ok(address) = host.parse::<SocketAddr>() {
        return is_loopback(address.ip());
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return is_loopback(ip);
    }
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name.eq_ignore_ascii_case("localhost")
}

fn probe_response(result: &ProbeResult) -> HttpResponse {
    let status = match result.is_ok {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    text(status, &result.message)
}

fn text(status: StatusCode, text: &str) -> HttpResponse {
    // curl shows it in a terminal.
    respond(status, TEXT, format!("{}\n", printable(text)))
}

fn respond(status: StatusCode, content_type: &'static str, body: String) -> HttpResponse {
    let mut answer = Response::new(Full::from(body));
    *answer.status_mut() = status;
    for (name, value) in [
        (CONTENT_TYPE, content_type),
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_of_this_machine() {
        let check = |host: &'static str, expected| {
            assert_eq!(is_this_machine(&HeaderValue::from_static(host)), expected, "{host}");
        };
        for host in [
            "127.0.0.1:9465",
            "127.0.0.1",
            "127.8.9.1:1",
            "[::1]:9465",
            "[::1]",
            "localhost",
            "LocalHost:9465",
        ] {
            check(host, true);
        }
        for host in [
            "evil.example:9465",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "192.0.2.1:9465",
            "",
            ":9465",
        ] {
            check(host, false);
        }
    }
}
