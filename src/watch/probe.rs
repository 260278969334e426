//! Asks a running daemon whether it is ready: the command `health`.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::condition::ProbeResult;
use crate::humanize::duration;

/// Time limit for an answer: orchestrators give a probe some seconds.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Longest answer that is read, in bytes.
const MAX_BODY: usize = 64 << 10;

/// Asks the daemon that listens on an address for `/readyz`. Without a valid answer it is not
/// ready.
pub async fn probe(listens: SocketAddr) -> ProbeResult {
    try_probe(listens)
        .await
        .unwrap_or_else(|why| ProbeResult::failed(format!("{why}; does it run, and with the same http.listen?")))
}

/// Like [`probe`], but distinguishes a daemon that is not ready from one that does not answer.
///
/// # Errors
/// Why there is no valid answer.
pub async fn try_probe(listens: SocketAddr) -> Result<ProbeResult, String> {
    let address = SocketAddr::new(reachable(listens.ip()), listens.port());
    let late = || Err(format!("no answer within {}", duration(TIMEOUT)));
    let answer = tokio::time::timeout(TIMEOUT, readyz(address)).await;
    answer
        .unwrap_or_else(|_| late())
        .map_err(|why| format!("no daemon answers at http://{address}/readyz: {why}"))
}

/// Returns the loopback address for a daemon that listens on all addresses.
fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

/// Sends the request. Not with reqwest, which needs certificates and may go through a proxy.
async fn readyz(address: SocketAddr) -> Result<ProbeResult, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(describe)?;
    let request = Request::get("/readyz")
        .header(HOST, address.to_string())
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let asking = async {
        let answer = sender.send_request(request).await.map_err(describe)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_BODY).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        let message = String::from_utf8_lossy(&body).trim().to_owned();
        match status {
            StatusCode::OK => Ok(ProbeResult::ok(message)),
            StatusCode::SERVICE_UNAVAILABLE => Ok(ProbeResult::failed(message)),
            status => Err(format!("{status} is not an answer of clerk2pg")),
        }
    };
    tokio::pin!(connection, asking);
    tokio::select! {
        answer = &mut asking => answer,
        ended = &mut connection => match ended {
            // The answer may have arrived already.
            Ok(()) => asking.await,
            Err(error) => Err(describe(error)),
        },
    }
}

/// Returns the cause of an error, which says more than the error itself.
fn describe(error: hyper::Error) -> String {
    use std::error::Error as _;
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_addresses_are_probed_on_loopback() {
        let check = |ip: &str, expected: &str| {
            assert_eq!(reachable(ip.parse().unwrap()), expected.parse::<IpAddr>().unwrap());
        };
        check("0.0.0.0", "127.0.0.1");
        check("::", "::1");
        check("192.0.2.1", "192.0.2.1");
    }
}
