//! Accepts connections, applies faults to requests, and logs them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::api;
use super::control;
use super::reply::{Dropped, Ending, Reply, ReplyBody};
use super::request::ApiRequest;
use super::route::Route;
use crate::clock::now;
use crate::errors::{self, Failure};
use crate::faults::{Effect, ErrorBody, Injected, Quirks};
use crate::shutdown::stopped;
use crate::state::State;
use crate::stats;

/// Bytes of the body of a request.
const MAX_BODY: usize = 64 * 1024 * 1024;

/// Headers in the log.
const LOGGED: [&str; 3] = ["clerk-api-version", "accept-encoding", "user-agent"];

/// Listens on 127.0.0.1. Port 0 takes a free port.
pub(crate) async fn bind(port: u16) -> std::io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Serves until the simulator stops, then closes all connections.
pub(crate) async fn run(listener: TcpListener, state: Arc<State>, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stopped(&mut stop) => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    // Otherwise answers wait for acknowledgements. A socket that refuses this is
                    // about to fail anyway.
                    let _ = stream.set_nodelay(true);
                    let state = state.clone();
                    connections.spawn(async move {
                        let service = service_fn(move |request| serve(state.clone(), request));
                        // Errors come from the client or from a fault.
                        let _ = hyper::server::conn::http1::Builder::new()
                            .timer(TokioTimer::new())
                            .serve_connection(TokioIo::new(stream), service)
                            .await;
                    });
                }
                // Most likely no file descriptor is free: wait until other connections close.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
        }
    }
    drop(listener);
    connections.shutdown().await;
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

async fn serve(state: Arc<State>, request: Request<Incoming>) -> Result<Response<ReplyBody>, Dropped> {
    let started = Instant::now();
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let query = head.uri.query().unwrap_or_default().to_owned();
    let gzip = header(&head.headers, "accept-encoding").is_some_and(accepts_gzip);
    if path == "/_sim" || path.starts_with("/_sim/") {
        let reply = match read(body).await {
            Ok(body) => control::answer(&state, head.method.as_str(), &path, &body),
            Err(failure) => api::refuse(&state, &failure, &Quirks::default()),
        };
        return Ok(finish(reply, gzip).into_response(Ending::Whole));
    }
    let route = Route::find(head.method.as_str(), &path);
    state.stats().arrived(route.template(), started);
    let at = now();
    let answered = answer_v1(&state, &head, &path, &query, body)
        .await
        .map(|(reply, ending)| (finish(reply, gzip), ending));
    let headers = LOGGED
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), header(&head.headers, name)?.to_owned())));
    let request = stats::Request {
        method: head.method.to_string(),
        path: head.uri.path_and_query().map_or(path.clone(), ToString::to_string),
        status: answered.as_ref().map_or(0, |(reply, _)| reply.status),
        at,
        took_us: 0,
        headers: headers.collect::<BTreeMap<_, _>>(),
    };
    state.stats().answered(request, started.elapsed());
    answered.map(|(reply, ending)| reply.into_response(ending))
}

fn finish(reply: Reply, gzip: bool) -> Reply {
    if gzip { reply.gzip() } else { reply }
}

fn accepts_gzip(header: &str) -> bool {
    header.split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        is_gzip && !parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
    })
}

async fn read(body: Incoming) -> Result<Bytes, Failure> {
    let body = Limited::new(body, MAX_BODY)
        .collect()
        .await
        .map_err(Failure::not_json)?;
    Ok(body.to_bytes())
}

/// What the effect of a fault leaves of an answer.
enum Effected {
    /// The usual answer, with this ending.
    Answer(Ending),
    /// Another answer.
    Replaced(Reply),
    /// No answer.
    Dropped,
}

fn apply(effect: Option<Effect>, state: &State, quirks: &Quirks) -> Effected {
    match effect {
        Some(Effect::DropBefore) => Effected::Dropped,
        Some(Effect::Html) => Effected::Replaced(Reply {
            status: 200,
            html: true,
            body: errors::html(200).into_bytes(),
            ..Reply::default()
        }),
        Some(Effect::Error(error)) => {
            let failure = Failure::injected(error.status, error.retry_after);
            let mut reply = api::refuse(state, &failure, quirks);
            match error.body {
                ErrorBody::Json => {}
                ErrorBody::Html => (reply.html, reply.body) = (true, errors::html(error.status).into_bytes()),
                ErrorBody::Empty => reply.body.clear(),
            }
            Effected::Replaced(reply)
        }
        Some(Effect::Truncate) => Effected::Answer(Ending::Half),
        Some(Effect::DropDuring) => Effected::Answer(Ending::Start),
        Some(Effect::Stall) => Effected::Answer(Ending::Never),
        Some(Effect::LatencyMs(_) | Effect::Quirks(_)) | None => Effected::Answer(Ending::Whole),
    }
}

/// Answers a request under `/v1`, as faults leave it.
async fn answer_v1(
    state: &Arc<State>,
    head: &hyper::http::request::Parts,
    path: &str,
    query: &str,
    body: Incoming,
) -> Result<(Reply, Ending), Dropped> {
    let route = Route::find(head.method.as_str(), path);
    let whole = head.uri.path_and_query().map_or(path, |whole| whole.as_str());
    let Injected {
        quirks,
        latency_ms,
        lag_ms,
        effect,
    } = {
        let mut rng = state.request_rng();
        state.faults().inject(route.endpoint(), whole, &mut *rng)
    };
    let latency = state.options.latency + Duration::from_millis(latency_ms);
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    let ending = match apply(effect, state, &quirks) {
        Effected::Answer(ending) => ending,
        Effected::Replaced(reply) => return Ok((reply, Ending::Whole)),
        Effected::Dropped => return Err(Dropped),
    };
    let body = match read(body).await {
        Ok(body) => body,
        Err(failure) => return Ok((api::refuse(state, &failure, &quirks), Ending::Whole)),
    };
    let (state, path, query, headers) = (state.clone(), path.to_owned(), query.to_owned(), head.headers.clone());
    let method = head.method.clone();
    let work = move || {
        let request = ApiRequest {
            route: Route::find(method.as_str(), &path),
            path: &path,
            query: &query,
            authorization: header(&headers, "authorization"),
            version: header(&headers, "clerk-api-version"),
            body: &body,
            quirks: &quirks,
            lag_ms,
        };
        api::answer(&state, &request)
    };
    // Lists can take long, and must not block other connections or the tasks of the caller.
    let reply = if route.is_slow() {
        tokio::task::spawn_blocking(work).await.map_err(|_| Dropped)?
    } else {
        work()
    };
    Ok((reply, ending))
}
