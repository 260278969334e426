//! The client of one endpoint: how an event is sent.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use reqwest::{
    Response, StatusCode, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    header::{CONTENT_TYPE, HeaderMap, HeaderValue},
};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::TlsConnector;

use super::{
    Attempt, AttemptOutcome, Endpoint, SigningKey,
    attempt::not_connected,
    destination::{Destination, NameLookup},
    signatures,
};
use crate::{humanize::duration, server_time::retry_after};

const USER_AGENT: &str = concat!("clerk2pg/", env!("CARGO_PKG_VERSION"));

/// The longest time to connect, with TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection is kept without a request. Node and other servers close it after 5 s; a
/// request that is sent at that moment is lost.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// Bytes of an answer that are read, so that the connection can be used again.
const MAX_ANSWER: usize = 16 << 10;

/// How long they are waited for: the status has come already.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// The longest time that `Retry-After` may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// HTTPS cannot be set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot set up HTTPS: {0}")]
pub struct HttpsUnavailable(String);

/// A client of one endpoint. Clones share the connections.
#[derive(Clone)]
pub struct EndpointClient(Arc<Shared>);

impl fmt::Debug for EndpointClient {
    /// Path and query of the address may contain a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointClient")
            .field("origin", &self.0.url.origin().ascii_serialization())
            .finish_non_exhaustive()
    }
}

struct Shared {
    url: Url,
    keys: Vec<SigningKey>,
    timeout: Duration,
    destination: Destination,
    tls: Arc<ClientConfig>,
    pool: Mutex<Option<Pool>>,
}

/// Connections to a set of addresses.
#[derive(Clone)]
struct Pool {
    addresses: Arc<[SocketAddr]>,
    http: reqwest::Client,
}

/// Gives reqwest the addresses that were checked, and nothing else.
struct Checked(Arc<[SocketAddr]>);

impl Resolve for Checked {
    fn resolve(&self, _: Name) -> Resolving {
        let addresses = self.0.to_vec();
        Box::pin(std::future::ready(Ok(Box::new(addresses.into_iter()) as Addrs)))
    }
}

impl EndpointClient {
    /// Makes a client. It does not connect yet.
    ///
    /// # Errors
    /// The URL begins with `https`, and no trusted certificates can be loaded.
    pub fn new(endpoint: &Endpoint) -> Result<Self, HttpsUnavailable> {
        let builder = ClientConfig::builder();
        let builder = match endpoint.url.scheme() {
            "https" => builder
                .with_platform_verifier()
                .map_err(|error| HttpsUnavailable(error.to_string()))?,
            // Nothing is encrypted.
            _ => builder.with_root_certificates(RootCertStore::empty()),
        };
        let tls = builder.with_no_client_auth();
        Ok(Self::with(endpoint, tls, NameLookup::System))
    }

    fn with(endpoint: &Endpoint, tls: ClientConfig, lookup: NameLookup) -> Self {
        Self(Arc::new(Shared {
            url: endpoint.url.clone(),
            keys: endpoint.keys.clone(),
            timeout: endpoint.timeout,
            destination: Destination::new(&endpoint.url, lookup),
            tls: Arc::new(tls),
            pool: Mutex::default(),
        }))
    }

    /// Sends an event. Ends within the endpoint's timeout.
    pub async fn send(&self, id: &str, body: String) -> Attempt {
        let begun = Instant::now();
        let deadline = begun + self.0.timeout;
        let (outcome, response) = match timeout_at(deadline, self.0.pool()).await {
            Err(_) => (unreachable(self.0.not_resolved()), None),
            Ok(Err(why)) => (unreachable(why), None),
            Ok(Ok(http)) => match timeout_at(deadline, self.0.post(&http, id, body)).await {
                Err(_) => {
                    let why = format!("no answer within {}", duration(self.0.timeout));
                    (AttemptOutcome::Unanswered { why }, None)
                }
                Ok(Err(error)) => (AttemptOutcome::of_error(&error), None),
                Ok(Ok(response)) => (answered(&response), Some(response)),
            },
        };
        let took = begun.elapsed();
        if let Some(response) = response {
            let until = deadline.min(Instant::now() + ANSWER_TIMEOUT);
            // The status is what counts, whatever comes after it.
            let _ = timeout_at(until, finish(response)).await;
        }
        Attempt { outcome, took }
    }

    /// Resolves the name, connects, and with `https` does the handshake. Sends nothing. Returns the
    /// address.
    ///
    /// # Errors
    /// Why the endpoint cannot be reached.
    pub async fn reach(&self) -> Result<SocketAddr, String> {
        let deadline = Instant::now() + self.0.timeout;
        let addresses = timeout_at(deadline, self.0.destination.addresses())
            .await
            .map_err(|_| self.0.not_resolved())??;
        let mut failed = None;
        for &address in addresses.iter() {
            match timeout(self.0.connect_timeout(), self.0.connect(address)).await {
                Ok(Ok(())) => return Ok(address),
                Ok(Err(error)) => failed = failed.or(Some(not_connected(&error))),
                Err(_) => failed = failed.or(Some("no connection in time".to_owned())),
            }
        }
        Err(failed.unwrap_or_default())
    }
}

impl Shared {
    /// Returns a client that connects only to addresses that were just checked. Its connections are
    /// dropped when the name resolves to other addresses.
    async fn pool(&self) -> Result<reqwest::Client, String> {
        let addresses = self.destination.addresses().await?;
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = &*pool
            && pool.is_of(&addresses)
        {
            return Ok(pool.http.clone());
        }
        let http = self
            .client(addresses.clone())
            .map_err(|_| "cannot set up HTTP".to_owned())?;
        *pool = Some(Pool {
            addresses,
            http: http.clone(),
        });
        Ok(http)
    }

    fn client(&self, addresses: Arc<[SocketAddr]>) -> reqwest::Result<reqwest::Client> {
        reqwest::Client::builder()
            .tls_backend_preconfigured(ClientConfig::clone(&self.tls))
            .user_agent(USER_AGENT)
            .default_headers(HeaderMap::from_iter([(
                CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            )]))
            .connect_timeout(self.connect_timeout())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            // A proxy would resolve the name itself.
            .no_proxy()
            .dns_resolver(Checked(addresses))
            .build()
    }

    /// Leaves time for the request, so that a connection that takes too long is told apart from an
    /// answer that does.
    fn connect_timeout(&self) -> Duration {
        CONNECT_TIMEOUT.min(self.timeout / 10 * 9)
    }

    async fn post(&self, http: &reqwest::Client, id: &str, body: String) -> reqwest::Result<Response> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let timestamp = now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or_default());
        http.post(self.url.clone())
            .header("svix-id", id)
            .header("svix-timestamp", timestamp)
            .header("svix-signature", signatures(&self.keys, id, timestamp, &body))
            .body(body)
            .send()
            .await
    }

    async fn connect(&self, address: SocketAddr) -> std::io::Result<()> {
        let stream = TcpStream::connect(address).await?;
        if self.destination.is_encrypted() {
            let name = ServerName::try_from(self.destination.name().to_owned()).map_err(std::io::Error::other)?;
            TlsConnector::from(self.tls.clone()).connect(name, stream).await?;
        }
        Ok(())
    }

    fn not_resolved(&self) -> String {
        format!("{} does not resolve in time", self.destination.name())
    }
}

impl Pool {
    /// Whether the addresses are the same ones in any order.
    fn is_of(&self, addresses: &Arc<[SocketAddr]>) -> bool {
        Arc::ptr_eq(&self.addresses, addresses)
            || self.addresses.len() == addresses.len()
                && addresses.iter().all(|address| self.addresses.contains(address))
    }
}

fn unreachable(why: String) -> AttemptOutcome {
    AttemptOutcome::Unreachable { why }
}

fn answered(response: &Response) -> AttemptOutcome {
    let status = response.status().as_u16();
    match StatusCode::is_success(&response.status()) {
        true => AttemptOutcome::Delivered { status },
        false => AttemptOutcome::Refused {
            status,
            retry_after: retry_after(response.headers()).map(|time| time.min(MAX_RETRY_AFTER)),
        },
    }
}

/// Reads the rest of an answer, if it is short.
async fn finish(mut response: Response) {
    let mut left = MAX_ANSWER;
    while let Ok(Some(chunk)) = response.chunk().await {
        left = left.saturating_sub(chunk.len());
        if left == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
