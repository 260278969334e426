//! Asking a running daemon whether it is ready: the command `health`.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::Verdict;

/// How long an answer may take: orchestrators give a probe some seconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest answer that is read.
const MAX_BODY: usize = 64 << 10;

/// What the daemon that listens there says to `/readyz`. Where nobody says anything that makes sense, it is not ready either.
pub async fn ask(listens: SocketAddr) -> Verdict {
    hear(listens)
        .await
        .unwrap_or_else(|why| Verdict::bad(format!("{why}; does it run, and with the same http.listen?")))
}

/// The same, where it matters whether a daemon says it.
///
/// # Errors
/// Why nothing that makes sense was heard.
pub async fn hear(listens: SocketAddr) -> Result<Verdict, String> {
    let address = SocketAddr::new(reachable(listens.ip()), listens.port());
    let late = || Err(format!("nothing was said within {} s", PATIENCE.as_secs()));
    let answer = tokio::time::timeout(PATIENCE, readyz(address)).await;
    answer
        .unwrap_or_else(|_| late())
        .map_err(|why| format!("no daemon answers at http://{address}/readyz: {why}"))
}

/// What listens everywhere is asked here.
fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

/// By hand rather than with the client that asks Clerk: that one wants certificates, and may go through a proxy.
async fn readyz(address: SocketAddr) -> Result<Verdict, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(in_words)?;
    let request = Request::get("/readyz")
        .header(HOST, address.to_string())
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let asking = async {
        let answer = sender.send_request(request).await.map_err(in_words)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_BODY).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        let says = String::from_utf8_lossy(&body).trim().to_owned();
        match status {
            StatusCode::OK => Ok(Verdict::good(says)),
            StatusCode::SERVICE_UNAVAILABLE => Ok(Verdict::bad(says)),
            status => Err(format!("{status} is nothing that clerk2pg says")),
        }
    };
    tokio::pin!(connection, asking);
    tokio::select! {
        answer = &mut asking => answer,
        ended = &mut connection => match ended {
            // The answer may be there already.
            Ok(()) => asking.await,
            Err(error) => Err(in_words(error)),
        },
    }
}

fn in_words(error: hyper::Error) -> String {
    use std::error::Error as _;
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everywhere_is_here_too() {
        let check = |ip: &str, expected: &str| {
            assert_eq!(reachable(ip.parse().unwrap()), expected.parse::<IpAddr>().unwrap());
        };
        check("0.0.0.0", "127.0.0.1");
        check("::", "::1");
        check("192.0.2.1", "192.0.2.1");
    }
}
