//! The listener: who may ask, and what is answered.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener as Socket},
    sync::Arc,
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{
        ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderValue, REFERRER_POLICY,
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

use super::{Sources, Verdict, crowd::Crowd, metrics, page, show::Show};
use crate::failure::{Cause, Failure};

/// Requests for the page and the metrics that are answered at a time; others wait. Probes need no
/// database, and are answered at once.
const AT_A_TIME: usize = 64;

/// How long a connection may take until the head of its request is there.
const HEAD: Duration = Duration::from_secs(2);

/// How long a connection may take from its beginning to its end.
const PATIENCE: Duration = Duration::from_secs(10);

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// Answers on an address, or on none where it is turned off.
#[derive(Debug, Default)]
pub struct Listener {
    bound: Option<Bound>,
    /// Ends with the listener.
    serving: JoinSet<()>,
}

/// An address that is taken.
#[derive(Debug)]
pub struct Bound {
    asked: SocketAddr,
    socket: Socket,
}

impl Listener {
    /// Takes an address, unless it is the one where this listens already. With port 0 the system chooses one.
    ///
    /// # Errors
    /// Another process has it, or it is none of this machine's.
    pub fn bind(&self, address: Option<SocketAddr>) -> Result<Option<Bound>, Failure> {
        let Some(asked) = address else { return Ok(None) };
        let socket = match &self.bound {
            Some(bound) if bound.asked == asked => bound.socket.try_clone(),
            _ => Socket::bind(asked),
        };
        let bound = socket.and_then(|socket| {
            socket.set_nonblocking(true)?;
            Ok(Some(Bound { asked, socket }))
        });
        bound.map_err(|error| match &self.bound {
            // Two sockets on one port would get in each other's way for as long as the change takes.
            Some(own) if own.asked.port() == asked.port() => cannot_listen(asked, &error)
                .hint("this daemon has that port itself; restart it to change the rest of the address"),
            _ => cannot_listen(asked, &error),
        })
    }

    /// Answers there from now on, and nowhere else.
    ///
    /// # Errors
    /// The socket cannot be used.
    pub fn serve(&mut self, bound: Option<Bound>, sources: Sources) -> Result<(), Failure> {
        let is_new = bound.as_ref().map(|bound| bound.asked) != self.bound.as_ref().map(|bound| bound.asked);
        // Connections that are being answered go on to their end.
        self.serving = JoinSet::new();
        self.bound = bound;
        let Some(Bound { asked, socket }) = &self.bound else {
            return Ok(());
        };
        let listen = || {
            let listener = TcpListener::from_std(socket.try_clone()?)?;
            Ok::<_, io::Error>((listener.local_addr()?, listener))
        };
        let (local, listener) = listen().map_err(|error| cannot_listen(*asked, &error))?;
        if is_new {
            info!(
                address = format!("http://{local}/"),
                "listening for probes, scrapes and people"
            );
        }
        let desk = Arc::new(Desk {
            show: Show::new(sources),
            is_loopback: is_loopback(local.ip()),
            places: Semaphore::new(AT_A_TIME),
        });
        self.serving.spawn(accept(listener, desk));
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
            "another program has that port, perhaps another clerk2pg; choose another one in http.listen (CLERK2PG_HTTP__LISTEN), or \"\" for none"
        }
        _ => "choose another address in http.listen (CLERK2PG_HTTP__LISTEN), or \"\" for none",
    };
    Failure::new(
        Cause::NeedsPerson,
        format!("http.listen = {address} cannot be listened on: {error}"),
    )
    .hint(hint)
}

async fn accept(listener: TcpListener, desk: Arc<Desk>) {
    let crowd = Crowd::default();
    loop {
        match listener.accept().await {
            // Never waits: an idle connection must not block a probe.
            Ok((stream, _)) => crowd.admit(|seat| {
                let desk = desk.clone();
                async move {
                    let conversation = converse(stream, desk, || seat.has_asked());
                    if tokio::time::timeout(PATIENCE, conversation).await.is_err() {
                        debug!("a connection took too long");
                    }
                }
            }),
            Err(error) => {
                // Out of file descriptors, most likely: others may be closed meanwhile.
                debug!(%error, "a connection could not be taken");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Answers one request. `asked` is called when its head is there.
async fn converse(stream: TcpStream, desk: Arc<Desk>, asked: impl Fn()) {
    let service = service_fn(|request: Request<Incoming>| {
        asked();
        let desk = desk.clone();
        let (parts, _) = request.into_parts();
        async move { Ok::<_, std::convert::Infallible>(desk.answer(&parts).await) }
    });
    let conversation = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = conversation.await {
        debug!(%error, "a connection ended early");
    }
}

/// Where requests are answered.
struct Desk {
    show: Show,
    is_loopback: bool,
    /// Limits how many requests use the database at a time.
    places: Semaphore,
}

type Answer = Response<Full<Bytes>>;

impl Desk {
    async fn answer(&self, asked: &Parts) -> Answer {
        let host = asked.headers.get(HOST);
        if self.is_loopback && !host.is_none_or(is_of_this_machine) {
            return text(
                StatusCode::FORBIDDEN,
                "this address is for this machine, by its number or as localhost",
            );
        }
        if !matches!(asked.method, Method::GET | Method::HEAD) {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "there is only something to read here");
            answer
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        match asked.uri.path() {
            "/" => self.page().await,
            "/metrics" => self.metrics().await,
            "/livez" => verdict(&self.show.sources.watch.alive()),
            "/readyz" => verdict(&self.show.sources.watch.ready()),
            _ => text(StatusCode::NOT_FOUND, "there are /, /livez, /readyz and /metrics"),
        }
    }

    async fn metrics(&self) -> Answer {
        let Sources { watch, clerk, .. } = &self.show.sources;
        // It is never closed.
        let _place = self.places.acquire().await;
        let glance = self.show.glance().await;
        match watch.render(clerk, glance.as_ref().ok()) {
            Ok(metrics) => respond(StatusCode::OK, metrics::CONTENT_TYPE, metrics),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        }
    }

    async fn page(&self) -> Answer {
        let _place = self.places.acquire().await;
        let (glance, lately) = (self.show.glance().await, self.show.lately().await);
        // Nobody can write into the page; it is a second lock on the door.
        let nonce = format!("{:032x}", fastrand::u128(..));
        match page::render(&self.show.sources, &glance, &lately, &nonce) {
            Ok(page) => {
                let policy = format!(
                    "default-src 'none'; style-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
                );
                let mut answer = respond(StatusCode::OK, HTML, page);
                if let Ok(policy) = HeaderValue::from_str(&policy) {
                    answer.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
                }
                answer
            }
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        }
    }
}

/// Whether a name leads here whatever a name server says: else a page of anywhere could have its own name lead here, and read along.
fn is_of_this_machine(host: &HeaderValue) -> bool {
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

fn verdict(verdict: &Verdict) -> Answer {
    let status = match verdict.is_good {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    text(status, &verdict.says)
}

fn text(status: StatusCode, text: &str) -> Answer {
    respond(status, TEXT, format!("{text}\n"))
}

fn respond(status: StatusCode, content_type: &'static str, body: String) -> Answer {
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
    fn names_that_lead_here_whatever_a_name_server_says() {
        let check = |host: &'static str, expected| {
            assert_eq!(is_of_this_machine(&HeaderValue::from_static(host)), expected, "{host}");
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
