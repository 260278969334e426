//! An endpoint that answers events with exactly the bytes that a test chooses, or with nothing.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

/// A request.
#[derive(Debug, Clone)]
pub struct RawRequest {
    /// The request line and the headers.
    pub head: String,
    pub body: String,
}

impl RawRequest {
    /// Returns the value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .filter(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .next()
    }
}

/// How a request is answered.
pub struct RawReply {
    delay: Duration,
    bytes: Vec<u8>,
    then: Then,
}

enum Then {
    NextRequest,
    Close,
    Hang,
    Flood,
}

impl RawReply {
    /// An answer without a body, after which the connection is open for the next request.
    pub fn status(status: u16) -> Self {
        Self::with_headers(status, "")
    }

    /// The same with more headers, each with its line break.
    pub fn with_headers(status: u16, headers: &str) -> Self {
        Self::bytes(&format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n{headers}\r\n"))
    }

    /// These bytes, after which the connection is open for the next request.
    pub fn bytes(bytes: &str) -> Self {
        Self {
            delay: Duration::ZERO,
            bytes: bytes.as_bytes().to_owned(),
            then: Then::NextRequest,
        }
    }

    /// The same after some time.
    pub fn delayed(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// The same, after which the connection is closed.
    pub fn and_close(self) -> Self {
        let then = Then::Close;
        Self { then, ..self }
    }

    /// The same, after which nothing happens.
    pub fn and_hang(self) -> Self {
        let then = Then::Hang;
        Self { then, ..self }
    }

    /// The same, after which spaces follow for as long as the client reads.
    pub fn and_flood(self) -> Self {
        let then = Then::Flood;
        Self { then, ..self }
    }
}

/// An endpoint. Dropping it closes its connections.
pub struct RawReceiver {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinSet<()>,
}

struct Shared {
    reply: Box<dyn Fn(&RawRequest) -> RawReply + Send + Sync>,
    received: Mutex<Vec<RawRequest>>,
    connections: AtomicUsize,
}

impl RawReceiver {
    /// Starts an endpoint at any port of 127.0.0.1.
    pub async fn start(reply: impl Fn(&RawRequest) -> RawReply + Send + Sync + 'static) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), None, reply).await
    }

    /// Starts an endpoint at an address, with TLS if there is a certificate and its key.
    pub async fn at(
        address: SocketAddr,
        identity: Option<(String, String)>,
        reply: impl Fn(&RawRequest) -> RawReply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            reply: Box::new(reply),
            received: Mutex::default(),
            connections: AtomicUsize::default(),
        });
        let tls = identity.map(|(certificate, key)| acceptor(&certificate, &key));
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, tls, shared.clone()));
        Self {
            address,
            shared,
            serving,
        }
    }

    /// Returns the requests so far.
    pub fn received(&self) -> Vec<RawRequest> {
        self.shared.received.lock().unwrap().clone()
    }

    /// Returns how many connections were made so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Closes the connections and frees the port.
    pub async fn stop(mut self) {
        self.serving.shutdown().await;
    }
}

fn acceptor(certificate: &str, key: &str) -> TlsAcceptor {
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key);
    TlsAcceptor::from(Arc::new(config.unwrap()))
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        shared.connections.fetch_add(1, Ordering::SeqCst);
        let (tls, shared) = (tls.clone(), shared.clone());
        connections.spawn(async move {
            match tls {
                None => serve(stream, &shared).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        serve(stream, &shared).await;
                    }
                }
            }
        });
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, shared: &Shared) {
    while let Some(received) = request(&mut stream).await {
        let reply = (shared.reply)(&received);
        shared.received.lock().unwrap().push(received);
        tokio::time::sleep(reply.delay).await;
        // Clients that stop reading close the connection.
        let mut open = stream.write_all(&reply.bytes).await.is_ok();
        match reply.then {
            Then::NextRequest => {}
            Then::Close => return,
            Then::Hang => std::future::pending().await,
            Then::Flood => {
                while open {
                    open = stream.write_all(&[b' '; 65_536]).await.is_ok();
                }
                return;
            }
        }
    }
}

/// Reads a request with its body.
async fn request(stream: &mut (impl AsyncRead + Unpin)) -> Option<RawRequest> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let mut received = RawRequest {
        head: String::from_utf8(head).ok()?,
        body: String::new(),
    };
    let mut body = vec![0; received.header("content-length")?.parse().ok()?];
    stream.read_exact(&mut body).await.ok()?;
    received.body = String::from_utf8(body).ok()?;
    Some(received)
}
